from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from attachd.errors import AttachdError, Code, Refused, Unreachable, World
from attachd.host import iscsi
from attachd.host.brick import ExecutionTimeout, ProcessExecutionError
from attachd.host.commands import LOGIN_REFUSED, LOGIN_SECONDS, NO_ISCSID
from attachd.host.iscsi import brick_properties
from attachd.model import Chap
from tests.unit.host.bench import VOLUME, Bench
from tests.unit.host.tree import GIB, IQN, OTHER_WWN, WWN, connection, target

CHAP = Chap(username="user", password="sesame-open")


@pytest.fixture
def hold() -> Iterator[threading.Event]:
    """Holds os-brick; at the test's end it is let go, and its thread ends."""
    event = threading.Event()
    yield event
    event.set()
    for thread in threading.enumerate():
        if thread.name.startswith("os-brick-"):
            thread.join(60)
            assert not thread.is_alive()


# --- connect ---------------------------------------------------------------------------------


def test_connect_and_disconnect(bench: Bench) -> None:
    assert bench.connect() == "/dev/sda"
    assert bench.volumes.present(bench.connection())
    bench.disconnect()
    assert bench.left == []
    assert not bench.volumes.present(bench.connection())


def test_os_brick_gets_the_plural_properties_and_the_credentials(bench: Bench) -> None:
    bench.volumes.connect(VOLUME, replace(bench.connection(1), chap=CHAP))
    ((_, properties),) = bench.calls
    assert properties["target_portals"] == [bench.portal]
    assert properties["target_iqns"] == [IQN]
    assert properties["target_luns"] == [1]
    assert not {"target_portal", "target_iqn", "target_lun"} & set(properties)
    assert properties["auth_password"] == CHAP.password


def test_discovery_credentials_are_passed_on() -> None:
    properties = brick_properties(replace(connection(), discovery_chap=CHAP))
    assert properties["discovery_auth_username"] == CHAP.username
    assert "auth_username" not in properties


def test_a_device_that_is_there_is_left_alone(bench: Bench) -> None:
    bench.connect()
    bench.calls.clear()
    assert bench.connect() == "/dev/sda"
    assert bench.calls == []


def test_another_protocol_is_refused(bench: Bench) -> None:
    with pytest.raises(Refused) as caught:
        bench.volumes.connect(VOLUME, replace(bench.connection(), protocol="rbd"))
    assert caught.value.code is Code.PROTOCOL_UNSUPPORTED


def test_a_dead_portal_is_found_out_before_os_brick_is_called(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        bench.portal = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(AttachdError) as caught:
        bench.connect()
    assert caught.value.code is Code.CONNECT_FAILED
    assert not caught.value.touched
    assert bench.calls == []


def test_os_brick_is_told_of_living_portals_only(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        dead = f"127.0.0.1:{server.getsockname()[1]}"
    both = connection(target(portal=dead), target(portal=bench.portal))
    assert bench.volumes.connect(VOLUME, both) == "/dev/sda"
    assert bench.calls[0][1]["target_portals"] == [bench.portal]


def test_refused_credentials(bench: Bench) -> None:
    bench.iscsi.login_failures = [ProcessExecutionError(exit_code=LOGIN_REFUSED)]
    with pytest.raises(AttachdError) as caught:
        bench.volumes.connect(VOLUME, replace(bench.connection(), chap=CHAP))
    assert caught.value.code is Code.CONNECT_FAILED
    assert "refused the login" in caught.value.problem.brief
    assert CHAP.password not in repr(caught.value.problem)
    assert bench.left == []


def test_what_a_failed_connect_left_is_removed(bench: Bench) -> None:
    bench.behaviour = {"failure": ValueError("os-brick has its ways")}
    bench.calls.clear()
    with pytest.raises(AttachdError) as caught:
        bench.connect()
    assert caught.value.code is Code.CONNECT_FAILED
    assert caught.value.touched
    bench.behaviour = {}
    bench.disconnect(expected_wwn=None)
    assert bench.left == []


def test_iscsid_went_away(bench: Bench) -> None:
    bench.iscsi.login_failures = [ProcessExecutionError(exit_code=NO_ISCSID)]
    with pytest.raises(Unreachable) as caught:
        bench.connect()
    assert caught.value.code is Code.ISCSI_UNAVAILABLE
    assert caught.value.world is World.HOST
    assert bench.left == []


def test_the_helper_dies_in_the_midst(bench: Bench, hold: threading.Event) -> None:
    bench.behaviour = {"hold": hold, "wait_at": "login"}
    threading.Timer(0.3, lambda: setattr(bench, "alive", False)).start()
    with pytest.raises(Unreachable) as caught:
        bench.connect()
    assert caught.value.code is Code.ISCSI_UNAVAILABLE
    assert caught.value.touched


# --- deadlines (law 7) -----------------------------------------------------------------------


def test_an_endless_connect_is_stopped_and_undone(bench: Bench, hold: threading.Event) -> None:
    bench.behaviour = {"hold": hold, "wait_at": "login"}
    volumes = bench.with_timeouts(connect=0.5)
    with pytest.raises(AttachdError) as caught:
        volumes.connect(VOLUME, bench.connection())
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    assert caught.value.touched
    assert bench.left == []


def test_a_connect_that_ends_within_its_grace_has_succeeded(
    bench: Bench, hold: threading.Event
) -> None:
    bench.behaviour = {"hold": hold, "wait_at": "end"}
    threading.Timer(1, hold.set).start()
    assert bench.with_timeouts(connect=0.2).connect(VOLUME, bench.connection()) == "/dev/sda"


def test_a_disconnect_waits_for_a_connect_that_outlived_its_grace(
    bench: Bench, hold: threading.Event
) -> None:
    bench.behaviour = {"hold": hold, "wait_at": "end"}
    hurried = bench.with_timeouts(connect=0.2, grace=3)
    with pytest.raises(Unreachable) as caught:
        hurried.connect(VOLUME, bench.connection())
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    assert caught.value.touched
    with pytest.raises(Unreachable) as caught:
        hurried.disconnect(VOLUME, bench.connection(), expected_wwn=None)
    assert not caught.value.touched
    threading.Timer(0.3, hold.set).start()
    hurried.disconnect(VOLUME, bench.connection(), expected_wwn=None)
    assert bench.left == []


def test_a_connect_that_got_no_lock_never_begins(bench: Bench, hold: threading.Event) -> None:
    bench.behaviour = {"hold": hold, "wait_at": "lock"}
    with pytest.raises(Unreachable) as caught:
        bench.with_timeouts(connect=0.2).connect(VOLUME, bench.connection())
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    assert not caught.value.touched
    hold.set()
    for thread in threading.enumerate():
        if thread.name == f"os-brick-{VOLUME}":
            thread.join(60)
    assert bench.iscsi.ran == []


def test_an_abandoned_login_may_still_come(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iscsi, "LOGIN_SECONDS", 1)
    bench.iscsi.login_failures = [ExecutionTimeout()]
    with pytest.raises(Unreachable) as caught:
        bench.connect()
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    iscsid = threading.Timer(0.3, lambda: bench.iscsi.log_in((bench.portal, IQN)))
    iscsid.start()
    bench.disconnect()
    iscsid.join()
    assert bench.left == []


# --- extend ----------------------------------------------------------------------------------


@pytest.fixture
def lsscsi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")


def extend(bench: Bench, size_bytes: int = 2 * GIB) -> int | None:
    connection = replace(bench.connection(), chap=CHAP)
    return bench.volumes.extend(VOLUME, connection, expected_wwn=WWN, size_bytes=size_bytes)


@pytest.mark.usefixtures("lsscsi")
def test_a_volume_that_grew_is_rescanned(bench: Bench) -> None:
    bench.connect()
    bench.behaviour = {"grown": 2 * GIB}
    bench.calls.clear()
    assert extend(bench) == 2 * GIB
    ((verb, properties),) = bench.calls
    assert verb == "extend"
    assert properties["target_portals"] == [bench.portal]
    assert "auth_password" not in properties
    assert extend(bench) == 2 * GIB
    assert len(bench.calls) == 1  # so large already


@pytest.mark.usefixtures("lsscsi")
def test_a_larger_device_than_cinders_volume_is_told_as_it_is(bench: Bench) -> None:
    bench.connect()
    bench.behaviour = {"grown": 3 * GIB}
    assert extend(bench) == 3 * GIB


def test_without_a_device_there_is_nothing_to_extend(bench: Bench) -> None:
    assert extend(bench) is None
    assert bench.calls == []


@pytest.mark.usefixtures("lsscsi")
def test_another_volumes_device_is_not_extended(bench: Bench) -> None:
    bench.connect()
    bench.calls.clear()
    bench.fresh["/dev/sda"] = OTHER_WWN
    with pytest.raises(AttachdError) as caught:
        extend(bench)
    assert caught.value.code is Code.WRONG_DEVICE
    assert not caught.value.touched
    assert bench.calls == []


def test_without_lsscsi_nothing_is_begun(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    bench.connect()
    bench.calls.clear()
    with pytest.raises(Unreachable) as caught:
        extend(bench)
    assert caught.value.code is Code.ISCSI_UNAVAILABLE
    assert "lsscsi" in caught.value.problem.brief
    assert not caught.value.touched
    assert bench.calls == []
    assert extend(bench, GIB) == GIB  # nothing to rescan


@pytest.mark.usefixtures("lsscsi")
@pytest.mark.parametrize("failure", [None, ValueError("os-brick has its ways")])
def test_a_device_that_stays_small(bench: Bench, failure: Exception | None) -> None:
    bench.connect()
    bench.behaviour = {"failure": failure}
    with pytest.raises(AttachdError) as caught:
        extend(bench)
    assert caught.value.code is Code.EXTEND_FAILED
    assert caught.value.touched
    assert bench.tree.sys.joinpath("block/sda").exists()


@pytest.mark.usefixtures("lsscsi")
def test_an_extend_without_an_end_is_stopped(bench: Bench, hold: threading.Event) -> None:
    bench.connect()
    bench.behaviour = {"hold": hold, "wait_at": "lock"}
    hurried = bench.with_timeouts(connect=0.3, grace=0.3)
    with pytest.raises(Unreachable) as caught:
        hurried.extend(VOLUME, bench.connection(), expected_wwn=WWN, size_bytes=2 * GIB)
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    assert not caught.value.touched  # it had run nothing yet, and never will


# --- a login whose caller is dead -------------------------------------------------------------


def test_without_a_node_record_no_login_is_waited_for(bench: Bench) -> None:
    bench.volumes.settle(VOLUME, bench.connection(), age=0)
    assert bench.iscsi.ran == [("iscsiadm", "-m", "node")]


def test_a_login_under_way_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    place = (bench.portal, IQN)
    bench.iscsi.records.add(place)

    def log_in() -> None:
        while len(bench.iscsi.ran) < 2:  # it was looked for in vain
            time.sleep(0.01)
        bench.iscsi.log_in(place)

    iscsid = threading.Thread(target=log_in)
    iscsid.start()
    bench.volumes.settle(VOLUME, bench.connection(), age=0)
    iscsid.join()
    assert place in bench.iscsi.sessions
    bench.disconnect(expected_wwn=None)
    assert bench.left == []


def test_a_login_that_iscsid_gave_up_is_waited_for_no_longer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iscsi, "LOGIN_SECONDS", 0.1)
    bench.iscsi.records.add((bench.portal, IQN))
    bench.volumes.settle(VOLUME, bench.connection(), age=0)
    assert bench.iscsi.sessions == {}


def test_a_login_whose_time_has_passed_is_not_waited_for(bench: Bench) -> None:
    bench.iscsi.records.add((bench.portal, IQN))
    bench.volumes.settle(VOLUME, bench.connection(), age=LOGIN_SECONDS)
    assert bench.iscsi.ran == []


@pytest.mark.parametrize("alive", [True, False])
def test_a_login_that_cant_be_looked_for_is_not_gone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, alive: bool
) -> None:
    def fails(*_command: str, **_options: object) -> tuple[str, str]:
        raise ProcessExecutionError(exit_code=6)

    bench.alive = alive
    bench.volumes = bench.with_timeouts()
    monkeypatch.setattr(bench.volumes, "_execute", fails)
    with pytest.raises(Unreachable):
        bench.volumes.settle(VOLUME, bench.connection(), age=0)


# --- disconnect ------------------------------------------------------------------------------


def test_gone_already(bench: Bench) -> None:
    bench.disconnect()
    assert bench.left == []


def test_the_device_is_flushed_under_the_name_that_it_has_now(bench: Bench) -> None:
    bench.connect()
    bench.tree.remove_lun("sda")
    bench.tree.lun(1, 0, "sdb")
    bench.fresh["/dev/sdb"] = WWN
    bench.disconnect()
    assert ("blockdev", "--flushbufs", "/dev/sdb") in bench.iscsi.ran
    assert bench.left == []


def test_every_device_of_the_lun_is_flushed(bench: Bench) -> None:
    bench.connect()
    bench.tree.session(9, portal="127.0.0.9:3260")
    bench.tree.lun(9, 0, "sdz")
    bench.fresh["/dev/sdz"] = WWN
    both = connection(target(portal=bench.portal), target(portal="127.0.0.9:3260"))
    with pytest.raises(AttachdError):  # this os-brick removes one only
        bench.volumes.disconnect(VOLUME, both, expected_wwn=WWN)
    flushed = [command[2] for command in bench.iscsi.ran if command[0] == "blockdev"]
    assert sorted(flushed) == ["/dev/sda", "/dev/sdz"]


def test_another_lun_keeps_the_session(bench: Bench) -> None:
    bench.connect(0)
    bench.connect(1)
    bench.disconnect(0)
    assert sorted(bench.left) == sorted(["sdb", IQN, IQN])
    assert not bench.volumes.present(bench.connection(0))
    assert bench.volumes.present(bench.connection(1))
    bench.disconnect(1, expected_wwn=OTHER_WWN)
    assert bench.left == []


def held_open(bench: Bench) -> None:
    bench.iscsi.opened_by = ["4711 (qemu-system-x86)"]


def mounted(bench: Bench) -> None:
    bench.iscsi.claimed = True


def mapped(bench: Bench) -> None:
    (bench.tree.sys / "block/sda/holders/dm-0").mkdir()


@pytest.mark.parametrize(
    ("use", "named"), [(held_open, "4711 (qemu"), (mounted, "mount"), (mapped, "/dev/dm-0")]
)
def test_a_device_in_use_is_not_severed(
    bench: Bench, use: Callable[[Bench], None], named: str
) -> None:
    bench.connect()
    use(bench)
    bench.calls.clear()
    with pytest.raises(AttachdError) as caught:
        bench.disconnect()
    assert caught.value.code is Code.STILL_IN_USE
    assert not caught.value.touched
    assert named in caught.value.problem.details
    assert bench.calls == []


def test_an_iscsid_that_was_just_restarted_gets_some_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.connect()
    bench.iscsi.starting = 2
    bench.disconnect()
    assert bench.left == []

    monkeypatch.setattr(iscsi, "_ISCSID_STARTS", 0.05)
    bench.connect()
    bench.iscsi.starting = 10**6
    with pytest.raises(Unreachable) as caught:
        bench.disconnect()
    assert (caught.value.code, caught.value.touched) == (Code.ISCSI_UNAVAILABLE, True)


def another_volumes(bench: Bench) -> None:
    bench.fresh["/dev/sda"] = OTHER_WWN


@pytest.mark.parametrize(
    ("change", "code"),
    [(held_open, Code.STILL_IN_USE), (another_volumes, Code.WRONG_DEVICE)],
)
def test_a_device_is_looked_at_again_under_os_bricks_lock(
    bench: Bench, change: Callable[[Bench], None], code: Code
) -> None:
    """os-brick waits for a connect of another volume; the guest starts meanwhile."""
    bench.connect()
    before = bench.left
    hold = threading.Event()
    bench.behaviour = {"hold": hold, "wait_at": "lock"}
    bench.calls.clear()
    errors: list[AttachdError] = []

    def disconnect() -> None:
        try:
            bench.disconnect()
        except AttachdError as exc:
            errors.append(exc)

    thread = threading.Thread(target=disconnect)
    thread.start()
    while not bench.calls:
        thread.join(0.01)
    change(bench)
    hold.set()
    thread.join(60)
    assert [error.code for error in errors] == [code]
    assert bench.left == before


def test_another_volumes_device_is_not_touched(bench: Bench) -> None:
    bench.connect()
    bench.fresh["/dev/sda"] = OTHER_WWN
    before = bench.left
    with pytest.raises(AttachdError) as caught:
        bench.disconnect()
    assert caught.value.code is Code.WRONG_DEVICE
    assert not caught.value.touched
    assert bench.left == before


def test_a_session_that_outlived_its_lun(bench: Bench) -> None:
    bench.connect()
    bench.tree.remove_lun("sda")
    bench.behaviour = {"removes": False}
    assert bench.volumes.present(bench.connection())
    bench.disconnect()
    assert bench.left == []


def test_an_orphan_node_record(bench: Bench) -> None:
    bench.iscsi.records.add((bench.portal, IQN))
    bench.behaviour = {"removes": False}
    bench.disconnect()
    assert bench.left == []


def test_other_targets_are_left_alone(bench: Bench) -> None:
    bench.iscsi.records.add((bench.portal, "iqn.other"))
    bench.iscsi.log_in((bench.portal, "iqn.other"))
    bench.connect()
    bench.disconnect()
    assert bench.left == ["iqn.other", "iqn.other"]


def test_what_is_left_is_named(bench: Bench) -> None:
    bench.connect()
    bench.behaviour = {"removes": False}
    with pytest.raises(AttachdError) as caught:
        bench.disconnect()
    assert caught.value.code is Code.DISCONNECT_FAILED
    assert caught.value.touched
    assert "/dev/sda" in caught.value.problem.details


def test_a_logout_without_effect_is_no_success(bench: Bench) -> None:
    bench.iscsi.log_in((bench.portal, IQN))
    bench.iscsi.deaf = True
    with pytest.raises(AttachdError) as caught:
        bench.disconnect()
    assert caught.value.code is Code.DISCONNECT_FAILED
    assert IQN in caught.value.problem.details


def test_a_flush_that_failed_is_no_success(bench: Bench) -> None:
    bench.connect()
    bench.behaviour = {"failure": ProcessExecutionError(cmd="blockdev", exit_code=5)}
    with pytest.raises(AttachdError) as caught:
        bench.disconnect()
    assert caught.value.code is Code.DISCONNECT_FAILED
    assert "sda" in bench.left


# --- a target that went with its attachment ----------------------------------------------------


def die(bench: Bench) -> None:
    """The target ends the session: the kernel keeps the device, and blocks what is sent to it."""
    for session in (bench.tree.sys / "class/iscsi_session").iterdir():
        (session / "state").write_text("FAILED\n")
    bench.fresh.clear()  # an INQUIRY would be a KeyError


def test_a_device_that_can_not_answer_is_not_asked(bench: Bench) -> None:
    bench.connect()
    die(bench)
    with pytest.raises(Unreachable) as caught:
        bench.disconnect()
    assert caught.value.code is Code.ISCSI_UNAVAILABLE
    assert bench.left != []


def test_what_cinder_gave_up_needs_not_to_answer(bench: Bench) -> None:
    bench.connect()
    die(bench)
    bench.volumes.disconnect(VOLUME, bench.connection(), expected_wwn=WWN, given_up=True)
    assert bench.left == []


@pytest.mark.parametrize("why", ["another's", "another LUN's, too", "it answers"])
def test_a_session_is_not_ended_for_what_it_may_not_be(bench: Bench, why: str) -> None:
    bench.connect()
    if why == "another LUN's, too":
        bench.connect(1)
    if why != "it answers":
        die(bench)
    else:
        bench.fresh["/dev/sda"] = OTHER_WWN
    expected = OTHER_WWN if why == "another's" else WWN
    with pytest.raises(AttachdError) as caught:
        bench.volumes.disconnect(VOLUME, bench.connection(), expected_wwn=expected, given_up=True)
    assert caught.value.code in (Code.ISCSI_UNAVAILABLE, Code.WRONG_DEVICE)
    assert bench.left != []
