from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from attachd.errors import Code, Unreachable, World
from attachd.host import brick
from attachd.host.commands import DeadlinePassedError
from attachd.host.host import IscsiHost
from attachd.host.sysfs import Sysfs
from attachd.model import Connection, DevicesSeen, Multipath
from attachd.operations.ports import Host
from tests.unit.host.tree import GIB, OTHER_WWN, WWN, Tree, connection, target


class Helper:
    """A privileged helper that is dead or alive."""

    def __init__(self, *, alive: bool) -> None:
        self._alive = alive

    def alive(self) -> bool:
        return self._alive


def host(*, alive: bool, multipath: Multipath = Multipath.OFF) -> IscsiHost:
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


class ManyDisks:
    """A host whose disks answer, together, with ``fresh``; ``asked``: what was asked for."""

    def __init__(self, root: Path) -> None:
        self.tree = Tree(root)
        self.fresh: dict[str, str] = {}
        self.asked: list[tuple[str, ...]] = []
        self._host = host(alive=True)
        self._host._sysfs = Sysfs(root=self.tree.sys)
        self._host._inquire_all = self._inquire

    def _inquire(self, paths: Sequence[str]) -> dict[str, str]:
        self.asked.append(tuple(paths))
        return {path: self.fresh[path] for path in paths if path in self.fresh}

    def lun(self, sid: int, name: str, wwn: str | None, *, size: int = GIB) -> Connection:
        """A session with one LUN; its WWN is what it answers, None: nothing."""
        self.tree.session(sid, iqn=f"iqn.{sid}")
        self.tree.lun(sid, 0, name, size=size)
        if wwn is not None:
            self.fresh[f"/dev/{name}"] = wwn
        return connection(target(iqn=f"iqn.{sid}"))

    def look_at(self, *connections: Connection) -> tuple[DevicesSeen | None, ...]:
        return self._host.look_at(connections)


@pytest.fixture
def many(tmp_path: Path) -> ManyDisks:
    return ManyDisks(tmp_path)


def test_many_are_looked_at_together(many: ManyDisks) -> None:
    first, second = many.lun(1, "sda", WWN), many.lun(2, "sdb", OTHER_WWN, size=2 * GIB)
    absent = connection(target(iqn="iqn.none"))
    assert many.look_at(first, absent, second) == (
        DevicesSeen(wwns=(WWN,), sizes=(GIB,)),
        DevicesSeen(wwns=()),
        DevicesSeen(wwns=(OTHER_WWN,), sizes=(2 * GIB,)),
    )
    assert many.asked == [("/dev/sda", "/dev/sdb")]


def test_one_whose_session_is_down_is_not_asked_for_together(many: ManyDisks) -> None:
    """The kernel would keep whoever asks for minutes."""
    down, well = many.lun(1, "sda", WWN), many.lun(2, "sdb", OTHER_WWN)
    many.tree.down(1)
    assert many.look_at(down, well) == (None, DevicesSeen(wwns=(OTHER_WWN,), sizes=(GIB,)))
    assert many.asked == [("/dev/sdb",)]


def test_what_gives_no_answer_together_is_to_be_asked_by_itself(many: ManyDisks) -> None:
    many.lun(1, "sda", WWN)
    many.lun(2, "sdb", None)
    half = connection(target(iqn="iqn.1"), target(iqn="iqn.2"))
    assert many.look_at(half) == (None,)


def test_a_disk_of_two_guests_is_asked_for_once(many: ManyDisks) -> None:
    shared = many.lun(1, "sda", WWN)
    assert many.look_at(shared, shared) == (DevicesSeen(wwns=(WWN,), sizes=(GIB,)),) * 2
    assert many.asked == [("/dev/sda",)]


def test_properties_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(**_: object) -> dict[str, object]:
        raise DeadlinePassedError

    monkeypatch.setattr(brick, "connector_properties", endless)
    with pytest.raises(Unreachable) as caught:
        host(alive=True).connector()
    assert caught.value.code is Code.ISCSI_UNAVAILABLE
    assert not caught.value.touched
