"""One attach and one detach after another, as a user asks for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import median

from benchkit.figures import Document, Round, of_rounds, say
from benchkit.floor import Floor
from tests.functional.lab import Guest, Host

VERBS = ("attach", "detach")


def operate(host: Host, verb: str, guest: Guest, volume_id: str) -> Round:
    """As a user would; what the daemon journalled of it."""
    host.do("attachctl", verb, guest.name, volume_id, "-f", "json")
    newest = json.loads(host.do("attachctl", "operation", "list", "-f", "json", "--limit", "1"))
    return shown(host, newest[0]["operation_id"])


def shown(host: Host, operation_id: str) -> Round:
    """An operation with its calls."""
    return Round(json.loads(host.do("attachctl", "operation", "show", operation_id, "-f", "json")))


def one_by_one(
    host: Host, guest: Guest, volume_id: str, rounds: int, floor: Floor | None
) -> Document:
    """A cold round, then ``rounds`` counted ones, each in turn with the plain process's."""
    host.restart_attachd()
    say("cold round")
    cold = [operate(host, verb, guest, volume_id).wall for verb in VERBS]
    counted: dict[str, list[Round]] = {verb: [] for verb in VERBS}
    plain: dict[str, list[float]] = {verb: [] for verb in VERBS}
    for number in range(1, rounds + 1):
        say(f"round {number} of {rounds}")
        for verb in VERBS:
            counted[verb].append(operate(host, verb, guest, volume_id))
        if floor is not None:
            for verb in VERBS:
                plain[verb].append(floor.own_time(verb, guest.name, volume_id))
    return {
        **{verb: of_rounds(counted[verb], plain[verb]) for verb in VERBS},
        "cold": dict(zip(VERBS, cold, strict=True)),
    }


def memory(host: Host) -> Document:
    """What the daemon and its helper take, in KiB (PSS)."""
    script = (
        "main=$(systemctl show -P MainPID attachd); "
        "for pid in $(cat /sys/fs/cgroup/system.slice/attachd.service/cgroup.procs); do "
        "[ $pid = $main ] && who=daemon || who=helper; "
        'echo $who $(awk "/^Pss:/ {print \\$2}" /proc/$pid/smaps_rollup); done'
    )
    found = dict.fromkeys(("daemon_pss_kib", "helper_pss_kib"), 0)
    for line in host.script(script).splitlines():
        who, kib = line.split()
        found[f"{who}_pss_kib"] += int(kib)
    return dict(found)


def client(host: Host, rounds: int) -> Document:
    """What a command takes until it ends."""
    commands = {
        "list": "attachctl list",
        "list_json": "attachctl list -f json",
        "help": "attachctl --help",
        "openstack_version": "openstack --version",
        "virsh_list": "virsh list",
    }
    return {name: _timed(host, command.split(), rounds) for name, command in commands.items()}


def _timed(host: Host, command: Sequence[str], rounds: int) -> float:
    script = (
        "import subprocess, sys, time\n"
        f"for _ in range({rounds} + 1):\n"
        "    start = time.monotonic()\n"
        f"    subprocess.run({list(command)!r}, stdout=subprocess.DEVNULL, check=True)\n"
        "    print(time.monotonic() - start)\n"
    )
    seconds = [float(line) for line in host.do("python3", "-c", script).split()]
    return round(median(seconds[1:]), 4)
