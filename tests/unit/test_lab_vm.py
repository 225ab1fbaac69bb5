"""The lab's machine: its ports are told to be taken by others, and given up when it is killed."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def vm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PROJECT / "tools"))
    from labkit import vm

    return vm


@pytest.fixture
def short_path() -> Iterator[Path]:
    """As a socket's path wants it."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def test_a_taken_port_is_refused(vm: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from labkit.progress import LabError

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setattr(vm, "FORWARDED", (port,))
        with pytest.raises(LabError, match=f"port {port} of 127.0.0.1 is taken"):
            vm.require_free_ports(patience=0.2)
    vm.require_free_ports()


def test_a_machine_that_was_killed_has_let_go_of_its_ports(
    vm: ModuleType, short_path: Path
) -> None:
    """Its memory goes first, which takes a while, and only then its sockets."""
    from labkit.state import LabDir

    program = (
        "import socket, sys, time; server = socket.create_server(('127.0.0.1', 0)); "
        "memory = bytearray(512 << 20); memory[::4096] = bytes(len(memory[::4096])); "
        "print(server.getsockname()[1], flush=True); time.sleep(600)"
    )
    argv = [sys.executable, "-c", program, f"unix:{short_path / 'qmp.sock'},server"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as machine:
        assert machine.stdout is not None
        port = int(machine.stdout.readline())
        vm.kill(LabDir(short_path))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
