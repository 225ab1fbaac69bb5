"""The plain process in the lab's host, asked from here."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.functional.lab import Host
from tests.functional.shells import LabShell

PLACE = "/root/bench"
PROGRAM = "tools/benchkit/plain.py"
PYTHON = "/opt/attachd/bin/python"


class Floor:
    """What the same calls cost where nothing is around them; see benchkit/plain.py."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def own_time(self, verb: str, guest: str, volume: str) -> float:
        """Attach or detach; what was left beside Cinder's changes and os-brick."""
        return float(self._ask({"do": verb, "guest": guest, "volume": volume})["own"])

    def cinder_alone(self, pairs: Sequence[tuple[str, str]]) -> float:
        """What Cinder needs to attach all these volumes at once; they are free again after it."""
        return float(self._ask({"do": "cinder", "pairs": pairs})["wall"])

    def _ask(self, request: dict[str, object]) -> dict[str, Any]:
        if self._process.stdin is None:
            raise AssertionError("it was started with a pipe")
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next answer. Raises RuntimeError where the process ended instead."""
        if self._process.stdout is None:
            raise AssertionError("it was started with a pipe")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the plain process ended: see what it wrote above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def plain_process(host: Host) -> Iterator[Floor]:
    """The process, ready, for a while."""
    host.do("mkdir", "-p", PLACE)
    host.carry(PLACE, [PROGRAM])
    process = subprocess.Popen(
        LabShell().words([PYTHON, f"{PLACE}/{PROGRAM}"]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        floor = Floor(process)
        floor.answer()
        yield floor
    finally:
        process.communicate(timeout=60)
        host.do("rm", "-rf", PLACE)
