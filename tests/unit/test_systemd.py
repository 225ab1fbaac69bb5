"""sd_notify, against a real datagram socket; and what the unit must and mustn't say."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from attachd.systemd import Notifier

UNIT = Path(__file__).resolve().parents[2] / "systemd" / "attachd.service"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        yield manager


def test_each_sign_is_one_datagram(manager: socket.socket) -> None:
    notifier = Notifier(environment={"NOTIFY_SOCKET": manager.getsockname()})
    notifier.ready()
    notifier.alive()
    notifier.stopping()
    assert [manager.recv(64) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]


def test_the_abstract_namespace() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"attachd-test-{os.getpid()}"
        manager.bind("\0" + name)
        manager.settimeout(10)
        Notifier(environment={"NOTIFY_SOCKET": "@" + name}).ready()
        assert manager.recv(64) == b"READY=1"


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "120000000"}, 60.0),
        ({"WATCHDOG_USEC": "120000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
        ({"WATCHDOG_USEC": "120000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_the_watchdog_wants_a_sign_twice_in_its_time(
    environment: dict[str, str], interval: float | None
) -> None:
    assert Notifier(environment=environment).watchdog_interval == interval


def test_without_a_service_manager_nothing_happens() -> None:
    Notifier(environment={}).ready()


def test_the_unit_leaves_the_helper_what_it_needs() -> None:
    """How open the service is to the host is counted in the lab; each of these would break it."""
    lines = UNIT.read_text().splitlines()
    said = [line.partition("=")[::2] for line in lines if "=" in line and not line.startswith("#")]
    assert {("LimitCORE", "0"), ("UMask", "0077"), ("DeviceAllow", "block-* rw")} <= set(said)
    names = {name for name, _ in said}
    assert not names & {
        *("User", "DynamicUser", "PrivateUsers", "NoNewPrivileges", "PrivateDevices"),
        *("PrivateNetwork", "ProtectKernelTunables", "ProtectProc", "ProcSubset"),
    }
    assert ("ProtectSystem", "strict") not in said
