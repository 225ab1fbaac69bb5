"""The lab's machine: a port that someone else listens on is told before anything is thrown away."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


def test_a_taken_port_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROJECT / "tools"))
    from labkit import vm
    from labkit.progress import LabError

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setattr(vm, "FORWARDED", (port,))
        with pytest.raises(LabError, match=f"port {port} of 127.0.0.1 is taken"):
            vm.require_free_ports()
    vm.require_free_ports()
