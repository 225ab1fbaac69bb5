"""A volume on several paths: what is proven of its map, and what a disconnect leaves."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from os_brick import executor

from attachd.errors import AttachdError, Code, Unreachable, World
from attachd.host.brick import ExecutionTimeout, ProcessExecutionError, multipath_running
from attachd.host.commands import Commands, Deadline, DeadlinePassedError
from attachd.host.identity import Identity
from attachd.host.iscsi import IscsiVolumes
from attachd.host.multipath import Maps
from attachd.host.sysfs import Sysfs
from attachd.model import MAP_PREFIX, Connection, HostDevice, Multipath
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
    maps = Maps(mode=Multipath.REQUIRE, running=lambda: False, timeout=0)
    refused(Code.ISCSI_UNAVAILABLE, maps.check)


@pytest.mark.parametrize("mode", Multipath)
def test_multipathd_is_asked_once(mode: Multipath) -> None:
    asked: list[bool] = []

    def running() -> bool:
        asked.append(True)
        return True

    maps = Maps(mode=mode, running=running, timeout=1)
    assert maps.to_make(mapped=None) is (mode is not Multipath.OFF)
    assert len(asked) == (mode is not Multipath.OFF)


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
    dev = connected.tree.dev
    names = {device.path, str(link), *(str(dev / each) for each in ("dm-0", "sda", "sdb"))}
    assert identity.leading_to(device, {*names, str(dev / "sdc")}) == names


def test_a_path_that_is_another_volume(connected: Paths) -> None:
    connected.bench.fresh["/dev/sdb"] = OTHER_WWN
    error = refused(Code.WRONG_DEVICE, connected.identify, "/dev/dm-0")
    assert "sdb" in error.problem.brief


def test_a_path_that_is_none_of_its_targets(connected: Paths) -> None:
    connected.tree.session(9, "iqn.other")
    connected.tree.lun(9, 0, "sdc")
    connected.bench.fresh["/dev/sdc"] = WWN
    (connected.tree.sys / "block/dm-0/slaves/sdc").symlink_to(connected.tree.sys / "block/sdc")
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


def test_a_path_that_was_just_lost_does_not_answer(connected: Paths) -> None:
    """Its session counts as logged in for some seconds still."""

    def inquire(path: str) -> str:
        if path == "/dev/sda":
            raise Unreachable(Code.ISCSI_UNAVAILABLE, "No answer.", world=World.HOST, touched=False)
        return WWN

    identity = Identity(
        sysfs=Sysfs(root=connected.tree.sys),
        inquire=inquire,
        udev_timeout=1,
        dev=connected.tree.dev,
    )
    device = identity.identify("/dev/dm-0", connected.connection, size_bytes=GIB, expected_wwn=WWN)
    assert device.wwn == WWN


def test_where_no_path_answers_nobody_knows(connected: Paths) -> None:
    connected.tree.down(1)
    connected.tree.down(2)
    refused(Code.ISCSI_UNAVAILABLE, connected.identify, "/dev/dm-0")


# --- disconnect ------------------------------------------------------------------------------


def test_no_map_and_no_path_is_left(connected: Paths) -> None:
    connected.disconnect()
    assert connected.bench.left == []
    assert connected.commands()[-1] == f"multipath -w {WWN}"
    told = dict(connected.bench.calls)["disconnect"]
    assert told["path"] == "/dev/dm-0"
    flushed = {c for c in connected.commands() if c.startswith("blockdev")}
    assert flushed == {f"blockdev --flushbufs /dev/{name}" for name in ("dm-0", "sda", "sdb")}


def test_also_with_a_path_that_is_down(connected: Paths) -> None:
    connected.tree.down(1)
    del connected.bench.fresh["/dev/sda"]
    connected.disconnect()
    assert connected.bench.left == []


def test_who_uses_the_map_keeps_it(connected: Paths) -> None:
    connected.bench.iscsi.openers = {"/dev/dm-0": ["10 (qemu-system-x86)"]}
    error = refused(Code.STILL_IN_USE, connected.disconnect)
    assert "dm-0" in error.problem.brief
    assert not error.touched
    assert connected.bench.calls[-1][0] == "connect"


@pytest.mark.parametrize("given_up", [True, False])
def test_who_uses_a_path_below_the_map_keeps_it(connected: Paths, given_up: bool) -> None:
    """Attached by a single path, and multipathd made a map of it since."""
    connected.bench.iscsi.openers = {"/dev/sda": ["10 (qemu-system-x86)"]}
    if given_up:
        for sid in (1, 2):
            connected.tree.down(sid)
    with pytest.raises(AttachdError) as caught:
        connected.volumes.disconnect(
            VOLUME, connected.connection, expected_wwn=WWN, given_up=given_up
        )
    assert caught.value.code is Code.STILL_IN_USE
    assert not any(command.startswith("multipath -f") for command in connected.commands())
    assert len(connected.bench.iscsi.sessions) == 2


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
    assert not any(command.startswith("multipath -f") for command in paths.commands())


def test_another_volume_behind_one_path_is_not_flushed_away(connected: Paths) -> None:
    connected.bench.fresh["/dev/sdb"] = OTHER_WWN
    refused(Code.WRONG_DEVICE, connected.disconnect)
    assert not any(command.startswith("multipath -f") for command in connected.commands())


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


def test_a_map_that_multipathd_removes_itself_is_gone(paths: Paths) -> None:
    paths.tree.map("dm-5", title="mpathz")
    paths.bench.iscsi.busy_maps = 1
    running = paths.bench.iscsi

    def faster(*command: str, **options: object) -> tuple[str, str]:
        if command[:2] == ("multipath", "-f"):
            paths.tree.unmap("mpathz")
        return running(*command, **options)

    volumes = paths.volumes
    volumes._execute = faster
    volumes.disconnect(VOLUME, paths.connection, expected_wwn=WWN)
    assert paths.bench.left == []


def change_under_the_lock(paths: Paths, change: Callable[[], object]) -> AttachdError:
    """os-brick waits for its lock, and the world changes meanwhile."""
    lock = threading.Event()
    paths.bench.behaviour = {"hold": lock, "wait_at": "lock"}

    def change_and_go_on() -> None:
        while paths.bench.calls[-1][0] != "disconnect":
            time.sleep(0.01)
        change()
        lock.set()

    thread = threading.Thread(target=change_and_go_on)
    thread.start()
    with pytest.raises(AttachdError) as caught:
        paths.disconnect()
    thread.join()
    assert not any(command.startswith("multipath -f") for command in paths.commands()[-1:])
    return caught.value


def test_where_no_path_answers_any_more_nothing_is_flushed(connected: Paths) -> None:
    def both_down() -> None:
        connected.tree.down(1)
        connected.tree.down(2)

    connected.bench.iscsi.ran.clear()
    error = change_under_the_lock(connected, both_down)
    assert error.code is Code.ISCSI_UNAVAILABLE
    assert not any(c.startswith("multipath -f") for c in connected.commands())
    assert (connected.tree.sys / "block/dm-0").exists()


def test_a_map_that_came_meanwhile_is_judged_too(paths: Paths) -> None:
    paths.bench.behaviour = {"maps": False}
    paths.connect()
    paths.bench.iscsi.ran.clear()
    paths.bench.multipath = Multipath.ON

    def another_volumes_map() -> None:
        paths.tree.map("dm-0", "sda", "sdb", title="guestvg-root", uuid="LVM-abc")

    paths.tree.map("dm-9", "sda", "sdb", title="ours")  # os-brick flushes what it finds
    error = change_under_the_lock(paths, another_volumes_map)
    assert error.code is Code.STILL_IN_USE
    assert (paths.tree.sys / "block/dm-0").exists()


def test_a_connect_takes_nothing_away_under_a_volume_group(paths: Paths) -> None:
    """The host activated what it found in the volume; os-brick takes it for the map."""
    paths.bench.behaviour = {"map_uuid": "LVM-abc"}
    error = refused(Code.STILL_IN_USE, paths.connect)
    assert "dm-0" in error.problem.details
    assert not any(c.startswith(("multipath", "tee")) for c in paths.commands())
    assert len(paths.bench.iscsi.sessions) == 2


# --- as before, whatever the configuration says now --------------------------------------------


def test_what_was_on_a_map_gets_its_map_again(paths: Paths) -> None:
    paths.bench.multipath = Multipath.OFF
    assert paths.volumes.connect(VOLUME, paths.connection, mapped=True) == "/dev/dm-0"


def test_what_was_on_one_path_stays_so(paths: Paths) -> None:
    assert paths.volumes.connect(VOLUME, paths.connection, mapped=False) == "/dev/sda"
    assert len(paths.bench.iscsi.sessions) == 1


def test_what_was_on_a_map_waits_for_multipathd(paths: Paths) -> None:
    paths.bench.multipathd = False
    with pytest.raises(Unreachable) as caught:
        paths.volumes.connect(VOLUME, paths.connection, mapped=True)
    assert caught.value.code is Code.ISCSI_UNAVAILABLE
    assert paths.bench.left == []


@pytest.mark.parametrize(("mode", "mapped"), [(Multipath.REQUIRE, None), (Multipath.OFF, True)])
def test_paths_that_are_there_without_a_map(
    paths: Paths, mode: Multipath, mapped: bool | None
) -> None:
    """They aren't ours to take away; but the guest doesn't get one of them."""
    paths.bench.behaviour = {"maps": False}
    paths.connect()
    paths.bench.multipath = mode
    with pytest.raises(AttachdError) as caught:
        paths.volumes.connect(VOLUME, paths.connection, mapped=mapped)
    assert caught.value.code is Code.CONNECT_FAILED
    assert len(paths.bench.iscsi.sessions) == 2
    paths.tree.map("dm-0", "sda", "sdb")
    assert paths.volumes.connect(VOLUME, paths.connection, mapped=mapped) == "/dev/sda"


def test_a_record_says_how_it_was_attached(connected: Paths) -> None:
    device = connected.identify("/dev/dm-0")
    assert MAP_PREFIX in device.path


# --- is multipathd there? ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "running"),
    [
        (("path checker states:\nup 2\n", ""), True),
        (("error receiving packet\n", ""), False),
        (ProcessExecutionError(exit_code=1, stderr="connection refused"), False),
    ],
)
def test_whether_multipathd_runs(
    answer: tuple[str, str] | ProcessExecutionError, running: bool
) -> None:
    def execute(*_: str, **__: object) -> tuple[str, str]:
        if isinstance(answer, ProcessExecutionError):
            raise answer
        return answer

    assert multipath_running(execute=execute) is running


@pytest.mark.parametrize(
    "failure",
    [ExecutionTimeout(), ProcessExecutionError(exit_code=1, stdout="timeout receiving packet")],
)
def test_what_could_not_be_asked_is_no_no(failure: ProcessExecutionError) -> None:
    def execute(*_: str, **__: object) -> tuple[str, str]:
        raise failure

    with pytest.raises(ProcessExecutionError):
        multipath_running(execute=execute)


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


def test_only_what_udev_may_be_in_the_way_of_is_tried_again() -> None:
    asked: list[dict[str, object]] = []

    def execute(*_: str, **options: object) -> tuple[str, str]:
        asked.append(options)
        return "", ""

    commands = Commands(execute=execute, deadline=Deadline(60), helper_alive=lambda: True)
    commands("multipath", "-C", "dm-0", attempts=4, interval=1)
    commands("multipath", "-f", "mpatha", timeout=300, attempts=3, interval=10)
    commands("blockdev", "--flushbufs", "/dev/sda", attempts=3)
    assert [options.get("attempts") for options in asked] == [4, 3, None]
    assert all(isinstance(o["timeout"], float) and o["timeout"] <= 20 for o in asked[:2])


def test_a_login_of_another_path_is_waited_for() -> None:
    """os-brick doesn't wait for its threads where one of its commands raises."""
    login = threading.Event()

    def execute(*command: str, **_: object) -> tuple[str, str]:
        if "--login" in command:
            assert login.wait(30)
        return "", ""

    commands = Commands(execute=execute, deadline=Deadline(60), helper_alive=lambda: True)
    assert commands.logins_ended(0)
    thread = threading.Thread(target=commands, args=("iscsiadm", "--login"))
    thread.start()
    while commands.logins_ended(0):
        time.sleep(0.01)
    login.set()
    assert commands.logins_ended(30)
    thread.join()


def test_a_tree_that_is_gone_has_no_maps(tmp_path: Path) -> None:
    sysfs = Sysfs(root=tmp_path)
    assert sysfs.map("dm-0") is None
    assert sysfs.maps_of(WWN) == ()
