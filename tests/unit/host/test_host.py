from __future__ import annotations

from collections.abc import Callable

import pytest

from attachd.errors import Code, Unreachable, World
from attachd.host import brick
from attachd.host.commands import DeadlinePassedError
from attachd.host.host import IscsiHost
from attachd.model import Multipath
from attachd.operations.ports import Host
from tests.unit.host.tree import connection


class Helper:
    """A privileged helper that is dead or alive."""

    def __init__(self, *, alive: bool) -> None:
        self._alive = alive

    def alive(self) -> bool:
        return self._alive


def host(*, alive: bool, multipath: Multipath = Multipath.OFF) -> Host:
    return IscsiHost(
        helper=Helper(alive=alive),
        my_ip="192.0.2.7",
        portal_timeout=1,
        connect_timeout=1,
        disconnect_timeout=1,
        grace=1,
        release_timeout=1,
        udev_timeout=1,
        guard_timeout=1,
        scan_attempts=1,
        multipath=multipath,
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda host: host.check(),
        lambda host: host.connector(),
        lambda host: host.connect("volume", connection()),
        lambda host: host.identify("/dev/sda", connection(), size_bytes=1, expected_wwn=None),
        lambda host: host.disconnect("volume", connection(), expected_wwn=None),
        lambda host: host.check_extend(),
        lambda host: host.look_at([connection()]),
        lambda host: host.extend("volume", connection(), expected_wwn="w", size_bytes=1),
    ],
    ids=[
        "check",
        "connector",
        "connect",
        "identify",
        "disconnect",
        "check-extend",
        "look-at",
        "extend",
    ],
)
def test_without_the_helper_nothing_is_touched(call: Callable[[Host], object]) -> None:
    with pytest.raises(Unreachable) as caught:
        call(host(alive=False))
    assert caught.value.code is Code.ISCSI_UNAVAILABLE
    assert caught.value.world is World.HOST
    assert not caught.value.touched


def test_properties_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(**_: object) -> dict[str, object]:
        raise DeadlinePassedError

    monkeypatch.setattr(brick, "connector_properties", endless)
    with pytest.raises(Unreachable) as caught:
        host(alive=True).connector()
    assert caught.value.code is Code.ISCSI_UNAVAILABLE
    assert not caught.value.touched
