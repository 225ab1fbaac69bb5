#!/bin/bash
#
# devstack/plugin.sh
# What DevStack does of attachd, and when: stack.sh, unstack.sh and clean.sh source this file with a
# mode and, of stack.sh, a phase. What is done is in devstack/lib/attachd.

# shellcheck source=devstack/lib/attachd
source "$ATTACHD_DIR/devstack/lib/attachd"

if is_service_enabled attachd; then
    case "$1/${2:-}" in
        stack/pre-install)
            # An earlier stack.sh's, while the Cinder that it knows is there.
            if ! detach_attachd_volumes; then
                die $LINENO "what attachd has attached does not come off; unstack.sh goes on without"
            fi
            stop_attachd
            ;;
        stack/install)
            echo_summary "Installing attachd"
            install_attachd
            ;;
        stack/post-config)
            echo_summary "Configuring attachd"
            configure_attachd
            if is_service_enabled key; then
                create_attachd_accounts
            fi
            ;;
        stack/extra)
            echo_summary "Starting attachd"
            init_attachd
            start_attachd
            ;;
        unstack/*)
            if ! detach_attachd_volumes; then
                warn $LINENO "attachd has volumes in guests still, and their Cinder goes"
            fi
            stop_attachd
            ;;
        clean/*)
            cleanup_attachd
            ;;
    esac
fi
