#!/bin/sh
# A guest of the lab, whole: load drivers, then answer requests on the virtio ports lab.exec.*,
# an agent a port, so that a command that hangs on a lost disk doesn't take the guest with it.
# A port without a host behind it reads as ended, and looking again and again would cost an idle
# guest a share of the emulated CPU. So the agents sleep until a line on the second serial port,
# a read that blocks, names the one that is wanted.
# A request is a line: NONCE ARG..., each argument in base64 ("-" when empty). Without arguments
# it asks for a sign of life. An answer is lines: NONCE KIND TEXT, KIND one of ack, out, err, exit.
/bin/busybox mkdir -p /proc /sys /dev /tmp /mnt /run
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /tmp
while read -r module; do insmod "/modules/$module"; done </modules/order
hostname guest

answer() { # NONCE KIND: each line of stdin becomes a line of the answer
    while read -r text; do echo "$1 $2 $text"; done
}

run() { # NONCE WORK ARG...
    nonce=$1 work=$2
    shift 2
    count=$#
    while [ "$count" -gt 0 ]; do
        arg=
        # The x keeps trailing newlines, which $() would cut.
        [ "$1" = - ] || arg=$(echo "$1" | base64 -d; echo x)
        shift
        set -- "$@" "${arg%x}"
        count=$((count - 1))
    done
    ("$@") >"$work.out" 2>"$work.err" </dev/null 3>&-
    status=$?
    base64 "$work.out" | answer "$nonce" out
    base64 "$work.err" | answer "$nonce" err
    echo "$nonce exit $status"
}

serve() { # NUMBER: until the host hangs up
    for port in /sys/class/virtio-ports/*; do
        [ "$(cat "$port/name")" = "lab.exec.$1" ] && break
    done
    exec 3<>"/dev/${port##*/}" || exit # in use: this agent hangs in a command of old
    while IFS=' ' read -r nonce args <&3; do
        if [ -z "$args" ]; then
            echo "$nonce ack" >&3
        else
            # shellcheck disable=SC2086 # one word an argument, base64 has no blanks
            run "$nonce" "/run/$1" $args >&3
        fi
    done
}

power_button() {
    for event in /dev/input/event*; do
        dd if="$event" of=/dev/null bs=24 count=1 2>/dev/null && poweroff -f &
    done
}

mount -t tmpfs tmpfs /run
power_button
grep -oqE 'svm|vmx' /proc/cpuinfo && echo "lab-trial: nested virtualisation"
echo "lab-guest: up"
stty -F /dev/ttyS1 -echo
exec 4</dev/ttyS1
while :; do
    read -r number <&4 || sleep 1
    [ -z "$number" ] || serve "$number" 4<&- &
    number=
done
