"""A volume on several paths: what is proven of its map, and what a disconnect leaves."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from os_brick import executor

from attachd.errors import AttachdError, Code, Unreachable, World
from attachd.host.brick import ProcessExecutionError
from attachd.host.commands import Commands, Deadline, DeadlinePassedError
from attachd.host.identity import Identity
from attachd.host.iscsi import IscsiVolumes
from attachd.host.multipath import Maps
from attachd.host.sysfs import Sysfs
from attachd.model import Connection, HostDevice, Multipath
from tests.unit.host.bench import VOLUME, Bench
from tests.unit.host.tree import GIB, OTHER_WWN, WWN, connection, target


@pytest.fixture
def other_portal() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


class Paths:
    """A volume with two portals on a host with multipathd."""

    def __init__(self, bench: Bench, other_portal: str) -> None:
        self.bench = bench
        bench.multipath = Multipath.ON
        bench.fresh = {"/dev/sda": WWN, "/dev/sdb": WWN}
        self.tree = bench.tree
        self.connection = connection(target(portal=bench.portal), target(portal=other_portal))

    @property
    def volumes(self) -> IscsiVolumes:
        return self.bench.with_timeouts()

    def connect(self) -> str:
        return self.volumes.connect(VOLUME, self.connection)

    def disconnect(self) -> None:
        self.volumes.disconnect(VOLUME, self.connection, expected_wwn=WWN)

    def identify(self, path: str, *, to: Connection | None = None) -> HostDevice:
        identity = Identity(
            sysfs=Sysfs(root=self.tree.sys),
            inquire=self.bench.fresh.__getitem__,
            udev_timeout=0.3,
            dev=self.tree.dev,
        )
        return identity.identify(path, to or self.connection, size_bytes=GIB, expected_wwn=None)

    def commands(self) -> list[str]:
        return [" ".join(map(str, command)) for command in self.bench.iscsi.ran]


@pytest.fixture
def paths(bench: Bench, other_portal: str) -> Paths:
    return Paths(bench, other_portal)


def refused(code: Code, call: object, *arguments: object) -> AttachdError:
    assert callable(call)
    with pytest.raises(AttachdError) as caught:
        call(*arguments)
    assert caught.value.code is code
    return caught.value


# --- connect ---------------------------------------------------------------------------------


def test_every_path_and_their_map(paths: Paths) -> None:
    assert paths.connect() == "/dev/dm-0"
    assert len(paths.bench.iscsi.sessions) == 2


@pytest.mark.parametrize(("mode", "running"), [(Multipath.OFF, True), (Multipath.ON, False)])
def test_one_path_where_there_shall_be_no_map(paths: Paths, mode: Multipath, running: bool) -> None:
    paths.bench.multipath, paths.bench.multipathd = mode, running
    assert paths.connect() == "/dev/sda"
    assert len(paths.bench.iscsi.sessions) == 1


def test_required_and_no_multipathd(paths: Paths) -> None:
    paths.bench.multipath, paths.bench.multipathd = Multipath.REQUIRE, False
    error = refused(Code.ISCSI_UNAVAILABLE, paths.connect)
    assert isinstance(error, Unreachable)
    assert (error.world, error.touched) == (World.HOST, False)
    assert paths.bench.left == []
    maps = Maps(mode=Multipath.REQUIRE, running=lambda: False)
    refused(Code.ISCSI_UNAVAILABLE, maps.check)


def test_required_and_no_map_came_about(paths: Paths) -> None:
    paths.bench.multipath = Multipath.REQUIRE
    paths.bench.behaviour = {"maps": False}
    refused(Code.CONNECT_FAILED, paths.connect)
    assert "disconnect" in [verb for verb, _ in paths.bench.calls]


def test_a_portal_that_is_down_is_left_out(paths: Paths) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        dead = f"127.0.0.1:{gone.getsockname()[1]}"
    paths.connection = connection(target(portal=dead), target(portal=paths.bench.portal))
    assert paths.connect() == "/dev/dm-0"
    assert [place[0] for place in paths.bench.iscsi.sessions] == [paths.bench.portal]


# --- identity --------------------------------------------------------------------------------


@pytest.fixture
def connected(paths: Paths) -> Paths:
    paths.connect()
    paths.tree.link("dm-0", prefix="dm-uuid-mpath-")
    return paths


@pytest.mark.parametrize("path", ["/dev/dm-0", "/dev/sda"])
def test_the_map_stands_for_its_paths(connected: Paths, path: str) -> None:
    """Also where multipathd took the disk by itself."""
    device = connected.identify(path)
    assert device.path.endswith(f"/dm-uuid-mpath-{WWN}")
    assert device.wwn == WWN


def test_all_names_of_a_map(connected: Paths) -> None:
    link = connected.tree.link("sda")
    identity = Identity(
        sysfs=Sysfs(root=connected.tree.sys),
        inquire=str,
        udev_timeout=0,
        dev=connected.tree.dev,
    )
    device = connected.identify("/dev/dm-0")
    names = identity.names_of(device)
    assert {device.path, str(link), str(connected.tree.dev / "dm-0")} <= names


def test_a_path_that_is_another_volume(connected: Paths) -> None:
    connected.bench.fresh["/dev/sdb"] = OTHER_WWN
    error = refused(Code.WRONG_DEVICE, connected.identify, "/dev/dm-0")
    assert "sdb" in error.problem.brief


def test_a_path_that_is_none_of_its_targets(connected: Paths) -> None:
    connected.tree.session(9, "iqn.other")
    connected.tree.lun(9, 0, "sdc")
    connected.bench.fresh["/dev/sdc"] = WWN
    (connected.tree.sys / "block/dm-0/slaves/sdc").mkdir()
    refused(Code.WRONG_DEVICE, connected.identify, "/dev/dm-0")


def test_a_map_of_another_name(paths: Paths) -> None:
    paths.bench.behaviour = {"maps": False}
    paths.connect()
    paths.tree.map("dm-0", "sda", uuid=f"mpath-{OTHER_WWN}")
    error = refused(Code.WRONG_DEVICE, paths.identify, "/dev/sda")
    assert OTHER_WWN in error.problem.details


def test_a_path_that_is_down_is_judged_by_the_kernel(connected: Paths) -> None:
    connected.tree.down(1)
    del connected.bench.fresh["/dev/sda"]
    assert connected.identify("/dev/dm-0").wwn == WWN


def test_where_no_path_answers_nobody_knows(connected: Paths) -> None:
    connected.tree.down(1)
    connected.tree.down(2)
    refused(Code.ISCSI_UNAVAILABLE, connected.identify, "/dev/dm-0")


# --- disconnect ------------------------------------------------------------------------------


def test_no_map_and_no_path_is_left(connected: Paths) -> None:
    connected.disconnect()
    assert connected.bench.left == []
    told = dict(connected.bench.calls)["disconnect"]
    assert told["path"] == "/dev/dm-0"
    assert "blockdev --flushbufs /dev/dm-0" in connected.commands()


def test_also_with_a_path_that_is_down(connected: Paths) -> None:
    connected.tree.down(1)
    del connected.bench.fresh["/dev/sda"]
    connected.disconnect()
    assert connected.bench.left == []


def test_who_uses_the_map_keeps_it(connected: Paths) -> None:
    connected.bench.iscsi.opened_by = ["10 (qemu-system-x86)"]
    error = refused(Code.STILL_IN_USE, connected.disconnect)
    assert "dm-0" in error.problem.brief
    assert not error.touched
    assert connected.bench.calls[-1][0] == "connect"


def test_a_partition_of_the_map_that_is_mounted_keeps_it(connected: Paths) -> None:
    connected.tree.map("dm-1", title="mpatha-part1", uuid=f"part1-mpath-{WWN}")
    connected.tree.map("dm-2", title="guest-root", uuid="LVM-abc")
    for lower, upper in (("dm-0", "dm-1"), ("dm-1", "dm-2")):
        (connected.tree.sys / "block" / lower / "holders" / upper).mkdir()
    error = refused(Code.STILL_IN_USE, connected.disconnect)
    assert "dm-2" in error.problem.details


def test_a_guests_volume_group_is_not_a_map(paths: Paths) -> None:
    paths.bench.multipath = Multipath.OFF
    paths.connect()
    paths.tree.map("dm-0", "sda", title="guestvg-root", uuid="LVM-abc")
    error = refused(Code.STILL_IN_USE, paths.disconnect)
    assert "dm-0" in error.problem.details
    assert not any(command.startswith("multipath") for command in paths.commands())


def test_another_volume_behind_one_path_is_not_flushed_away(connected: Paths) -> None:
    connected.bench.fresh["/dev/sdb"] = OTHER_WWN
    refused(Code.WRONG_DEVICE, connected.disconnect)
    assert not any(command.startswith("multipath") for command in connected.commands())


def test_a_map_without_paths_goes_too(paths: Paths) -> None:
    """A session that its target ended took its disks along; nobody told multipathd."""
    paths.tree.map("dm-5", title="mpathz")
    paths.disconnect()
    assert "multipath -f mpathz" in paths.commands()
    assert paths.bench.left == []


def test_a_map_without_paths_that_somebody_holds_stays(paths: Paths) -> None:
    paths.tree.map("dm-5", title="mpathz")
    paths.bench.iscsi.opened_by = ["10 (dd)"]
    refused(Code.STILL_IN_USE, paths.disconnect)
    assert paths.bench.left == ["dm-5"]


# --- os-brick's own threads ------------------------------------------------------------------


def test_in_its_own_threads_os_brick_meets_only_exceptions() -> None:
    """It waits for each of them for ever; only an Exception has it count one as ended."""
    commands = Commands(
        execute=lambda *_, **__: ("", ""), deadline=Deadline(0), helper_alive=lambda: True
    )
    met: list[BaseException] = []

    def ask() -> None:
        try:
            commands("true")
        except BaseException as exc:  # noqa: BLE001 - it is what the test looks at
            met.append(exc)

    for kind in (executor.Thread, threading.Thread):
        thread = kind(target=ask)
        thread.start()
        thread.join(30)
    assert [type(each) for each in met] == [ProcessExecutionError, DeadlinePassedError]


def test_only_whether_a_map_is_ready_is_asked_again() -> None:
    asked: list[dict[str, object]] = []

    def execute(*_: str, **options: object) -> tuple[str, str]:
        asked.append(options)
        return "", ""

    commands = Commands(execute=execute, deadline=Deadline(60), helper_alive=lambda: True)
    commands("multipath", "-C", "dm-0", attempts=4, interval=1)
    commands("multipath", "-f", "mpatha", attempts=3, interval=10)
    assert [options.get("attempts") for options in asked] == [4, None]


def test_a_tree_that_is_gone_has_no_maps(tmp_path: Path) -> None:
    sysfs = Sysfs(root=tmp_path)
    assert sysfs.map("dm-0") is None
    assert sysfs.maps_of(WWN) == ()
