#!/bin/sh
# rootwrap starts two Python programs a command, seconds each on an emulated CPU, and is not
# under test. With /etc/lab/real-rootwrap there, the real one runs.
[ -e /etc/lab/real-rootwrap ] && exec /usr/bin/cinder-rootwrap.real "$@"
shift; exec "$@"
