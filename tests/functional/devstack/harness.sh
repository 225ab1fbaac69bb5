#!/bin/bash
#
# Runs attachd's plugin as DevStack does, on a host whose Keystone, Cinder and libvirt run already:
# test_devstack_plugin.py has it in the lab's host.
#
# usage: harness.sh stack|unstack|clean      as the user who stacks; $DEST/attachd is the checkout
#
# The functions and variables below are DevStack's, with its meaning; what the plugin uses beyond
# them (DevStack's own, or mistyped) fails the run by its name. The phases come in DevStack's order;
# as there, an error ends stack.sh at once, and the two others go on.

# shellcheck disable=SC1091  # some of what is sourced is on that host only
# shellcheck disable=SC2034  # the plugin uses the variables
mode=$1
TOP_DIR=$(cd "$(dirname "$0")" && pwd)

set -o nounset
umask 022

unknown=$(mktemp)
trap 'rm -f "$unknown"' EXIT
# bash runs it in a process of its own: all it can do is to write the name down.
function command_not_found_handle {
    echo "$1" >>"$unknown"
    return 127
}


# What DevStack is told (local.conf), and where it has things
# -----------------------------------------------------------

# Sets SERVICE_PASSWORD, and HARNESS_PYTHON: a Python with openstacksdk, whose other packages are
# attachd's dependencies. $TOP_DIR/clouds.yaml has the administrator.
source "$TOP_DIR/localrc"

DEST=/opt/stack
DATA_DIR=$DEST/data
ENABLED_SERVICES=key,c-api,c-sch,c-vol,mysql,rabbit
ENABLE_DEBUG_LOG_LEVEL=True
HOST_IP=127.0.0.1
KEYSTONE_SERVICE_URI=http://127.0.0.1:5000
LIBVIRT_GROUP=libvirt
OFFLINE=False
REGION_NAME=RegionOne
SERVICE_DOMAIN_NAME=Default
SERVICE_IP_VERSION=4
SERVICE_PROJECT_NAME=service
SSL_BUNDLE_FILE=$DATA_DIR/ca-bundle.pem
STACK_USER=$(whoami)
VIRTUALENV_CMD=venv_with_what_is_here

# There is no network: pip builds and installs attachd with the setuptools of Debian's venv.
export PIP_NO_INDEX=1 PIP_FIND_LINKS=/usr/share/python-wheels PIP_DISABLE_PIP_VERSION_CHECK=1


# DevStack's functions
# --------------------

function define_plugin {
    : "$1"
}

function enable_service {
    local service
    for service in "$@"; do
        is_service_enabled "$service" || ENABLED_SERVICES+=",$service"
    done
}

function is_service_enabled {
    local service
    for service in "$@"; do
        if [[ ",$ENABLED_SERVICES," == *",$service,"* ]]; then
            return 0
        fi
    done
    return 1
}

function echo_summary {
    echo "=== $*"
}

function warn {
    echo "[WARNING] line $1: $2"
}

function die {
    echo "[ERROR] line $1: $2" >&2
    exit 1
}

function is_ubuntu {
    command -v dpkg >/dev/null
}

function exit_distro_not_supported {
    die $LINENO "no support for $1"
}

function iniset {
    crudini --set "$1" "$2" "$3" "$4"
}

function add_user_to_group {
    sudo usermod --append --groups "$2" "$1"
}

function get_or_create_user {
    keystone user "$1" "$2" "$3"
}

function get_or_add_user_project_role {
    keystone role "$1" "$2" "$3" "$4" "$5"
}

function create_service_user {
    local domain=$SERVICE_DOMAIN_NAME
    local role
    get_or_create_user "$1" "$SERVICE_PASSWORD" "$domain"
    for role in service ${2:+"$2"}; do
        get_or_add_user_project_role "$role" "$1" "$SERVICE_PROJECT_NAME" "$domain" "$domain"
    done
}


# What stands for the rest of DevStack
# ------------------------------------

function keystone {
    OS_CLIENT_CONFIG_FILE=$TOP_DIR/clouds.yaml "$HARNESS_PYTHON" "$TOP_DIR/keystone.py" "$@"
}

# python -m venv, whose packages are there without a network: all of HARNESS_PYTHON's but attachd
function venv_with_what_is_here {
    local here="$1/from-here"
    local place
    python3 -m venv "$1"
    mkdir -p "$here"
    place=$("$HARNESS_PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    ln -sfn -t "$here" "$place"/*
    rm -rf "$here"/attachd "$here"/attachd-* "$here"/pip "$here"/pip-* "$here"/*.pth
    place=$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$here" >"$place/from-here.pth"
}

# install_prereqs.sh has installed these before any plugin runs
function check_packages {
    local package
    local missing=0
    while read -r package _; do
        # Only to build libvirt-python, which is Debian's here.
        [[ "$package" != libvirt-dev ]] || continue
        if ! dpkg-query --show --showformat '${db:Status-Status}' "$package" | grep -qx installed
        then
            echo "$package isn't installed" >&2
            missing=1
        fi
    done <"$DEST/attachd/devstack/files/debs/attachd"
    return $missing
}

function run_phase {
    echo "--- $*"
    source "$DEST/attachd/devstack/plugin.sh" "$@"
}

[[ "$(id -u)" != 0 ]] || die $LINENO "DevStack isn't run as root"

case $mode in
    stack)
        set -o errexit
        mkdir -p "$DATA_DIR"
        check_packages
        source "$DEST/attachd/devstack/settings"
        for phase in pre-install install post-config extra test-config; do
            run_phase stack $phase
        done
        set +o errexit
        ;;
    unstack)
        source "$DEST/attachd/devstack/settings"
        run_phase unstack
        ;;
    clean)
        # clean.sh calls unstack.sh by itself first
        bash "$0" unstack || die $LINENO "unstack failed"
        source "$DEST/attachd/devstack/settings"
        run_phase clean
        ;;
    *)
        die $LINENO "usage: $0 stack|unstack|clean"
        ;;
esac

if [[ -s "$unknown" ]]; then
    die $LINENO "not DevStack's, or not known here: $(sort -u "$unknown" | tr '\n' ' ')"
fi
