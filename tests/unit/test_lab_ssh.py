"""The lab's shared SSH connection, where its holder was killed."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


def test_a_killed_connections_socket_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(PROJECT / "tools"))
    from labkit.image import Image
    from labkit.ssh import Ssh
    from labkit.state import LabDir

    lab = LabDir(tmp_path)
    lab.create()
    with socket.socket(socket.AF_UNIX) as holder:
        holder.bind(str(tmp_path / "ssh.sock"))
    assert (tmp_path / "ssh.sock").exists()
    Ssh(lab, Image("key", tmp_path), 1).disconnect()
    assert not (tmp_path / "ssh.sock").exists()
