"""What attachd takes while nothing is asked of it, and whether it grows with what was."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from statistics import linear_regression

from benchkit.figures import Document, say
from benchkit.rounds import VERBS, memory, operate
from tests.functional.lab import Guest, Host

IDLE_SECONDS = 600
"""Several audits: the pauses between them grow with what is attached."""
BETWEEN_LOOKS = 10
_AUDITS = 3


def idle(host: Host, attachments: int) -> Document:
    """The part of one processor that the daemon and its helper take, with so much attached."""
    say(f"idle for {IDLE_SECONDS} s with {attachments} attached")
    began, before = time.monotonic(), _cpu_seconds(host)
    time.sleep(IDLE_SECONDS)
    used = _cpu_seconds(host) - before
    return {"attachments": attachments, "cpu": round(used / (time.monotonic() - began), 4)}


def cpu_of_an_audit(host: Host) -> float:
    """Seconds of a processor that the daemon and its helper take for it; it must find nothing."""
    before = _cpu_seconds(host)
    for _ in range(_AUDITS):
        found = json.loads(host.do("attachctl", "audit", "-f", "json"))
        if found:
            raise RuntimeError(f"the audit found {found}")
    return round((_cpu_seconds(host) - before) / _AUDITS, 4)


def _cpu_seconds(host: Host) -> float:
    return int(host.do("systemctl", "show", "-P", "CPUUsageNSec", "attachd.service")) / 1e9


def growth(host: Host, guest: Guest, volume_id: str, operations: int) -> Document:
    """PSS in KiB behind so many operations, and by how much each of the later half added to it."""
    looks = list(_looks(host, guest, volume_id, operations))
    later = looks[len(looks) // 2 :]
    slope = linear_regression([n for n, _ in later], [kib for _, kib in later]).slope
    return {
        "operations": operations,
        "pss_kib": looks[-1][1],
        "slope_kib": round(slope, 2),
        "looks": looks,
    }


def _looks(host: Host, guest: Guest, volume_id: str, operations: int) -> Iterator[tuple[int, int]]:
    """How many operations there were, and the PSS of both processes behind them."""
    for number in range(1, operations + 1):
        operate(host, VERBS[(number - 1) % len(VERBS)], guest, volume_id)
        if number % BETWEEN_LOOKS == 0:
            kib = sum(memory(host).values())
            say(f"{number} operations: {kib} KiB")
            yield number, kib
