"""One suite for FakeHost and, in the lab's host and as root, for the real room before a real LIO.

python -m pytest tests/contract/test_host.py -m lab
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from attachd.errors import AttachdError, Code
from attachd.model import Chap, Connection, DevicesSeen, HostSession, Multipath, Target
from attachd.operations.ports import Host
from tests.contract import lio
from tests.contract.host_benches import SIZE, FakeBench, HostBench, LabBench
from tests.contract.lio import PORTAL, PREFIX, Lio

CHAP = Chap(username="attachd", password="a-secret-of-the-test")
OTHER_WWN = "36001405ffffffffffffffffffffffff"
ISCSID_CONF = Path("/etc/iscsi/iscsid.conf")
# Seconds: more than a look takes in a slow lab, less than iscsid may try to log in.
AT_ONCE = 30
START = """
import sys
from pathlib import Path
from oslo_config import cfg
from attachd.host import privilege
from attachd.host.host import IscsiHost
from attachd.model import Connection, Multipath, Target
locks = Path(sys.argv[1])
privilege.prepare_lock_directory(locks, user="nobody")
privilege.configure_os_brick(cfg.CONF, lock_path=locks)
helper = privilege.fork_privileged_helper()
privilege.drop_to("nobody")
privilege.check_lock_directory(locks)
host = IscsiHost(
    helper=helper, my_ip=None, portal_timeout=30, connect_timeout=300, disconnect_timeout=300,
    grace=120, release_timeout=5, udev_timeout=60, guard_timeout=60, scan_attempts=1,
    multipath=Multipath.OFF,
)
portal, iqn, size = sys.argv[2], sys.argv[3], int(sys.argv[4])
connection = Connection(protocol="iscsi", targets=(Target(portal=portal, iqn=iqn, lun=0),))
host.check()
assert host.connector()["initiator"].startswith("iqn.")
path = host.connect("volume", connection)
device = host.identify(path, connection, size_bytes=size, expected_wwn=None)
host.disconnect("volume", connection, expected_wwn=device.wwn)
print(device.wwn)
"""


class MakeHost(Protocol):
    """Makes a real room, with its deadline for connects."""

    def __call__(self, *, connect_timeout: float = ..., multipath: Multipath = ...) -> Host:
        """The room."""


@pytest.fixture(scope="session")
def make_lab_host() -> Iterator[MakeHost]:
    """Makes the real room; its helper is forked from this process, which stays root."""
    if not lio.available():
        pytest.skip("needs root and the lab's host")
    from oslo_config import cfg

    from attachd.host import privilege
    from attachd.host.host import IscsiHost

    with tempfile.TemporaryDirectory(prefix="attachd-locks-") as locks:
        privilege.configure_os_brick(cfg.CONF, lock_path=Path(locks))
        helper = privilege.fork_privileged_helper()

        def make(*, connect_timeout: float = 300, multipath: Multipath = Multipath.OFF) -> Host:
            return IscsiHost(
                helper=helper,
                my_ip=None,
                portal_timeout=30,
                connect_timeout=connect_timeout,
                disconnect_timeout=300,
                grace=120,
                release_timeout=5,
                udev_timeout=60,
                guard_timeout=60,
                scan_attempts=1,
                multipath=multipath,
            )

        yield make


@pytest.fixture
def lab(make_lab_host: MakeHost) -> Iterator[LabBench]:
    with Lio() as storage:
        yield LabBench(make_lab_host(), storage)


@pytest.fixture(params=["fake", pytest.param("lab", marks=pytest.mark.lab)])
def bench(request: pytest.FixtureRequest) -> Iterator[HostBench]:
    """Whatever a test left is taken away, and the host must be clean then."""
    made: HostBench = FakeBench() if request.param == "fake" else request.getfixturevalue("lab")
    yield made
    assert made.leftovers() == []


@pytest.fixture
def volume_id() -> str:
    return str(uuid.uuid4())


def identified_wwn(bench: HostBench, path: str, connection: Connection) -> str:
    device = bench.host.identify(path, connection, size_bytes=SIZE, expected_wwn=None)
    assert device.path.startswith("/dev/disk/by-id/")
    return device.wwn


def test_connect_identify_disconnect(bench: HostBench, volume_id: str) -> None:
    connection = bench.export()
    bench.host.check()
    assert not bench.host.present(connection)
    assert bench.host.paths(connection) == ()
    path = bench.host.connect(volume_id, connection)
    assert bench.host.present(connection)
    assert bench.host.paths(connection) == (path,)
    assert not bench.host.silent(connection)
    device = bench.host.identify(path, connection, size_bytes=SIZE, expected_wwn=None)
    assert device.size_bytes == SIZE
    named = [device.path, path, "/dev/null", "/dev/none-such"]
    assert bench.host.leading_to(device, named) == {device.path, path}
    again = bench.host.identify(
        path, connection.without_secrets(), size_bytes=SIZE, expected_wwn=device.wwn
    )
    assert again == device
    bench.host.disconnect(volume_id, connection.without_secrets(), expected_wwn=device.wwn)
    assert not bench.host.present(connection)
    assert not bench.host.silent(connection)


def test_with_credentials(bench: HostBench, volume_id: str) -> None:
    connection = bench.export(chap=CHAP)
    path = bench.host.connect(volume_id, connection)
    wwn = identified_wwn(bench, path, connection)
    bench.host.disconnect(volume_id, connection.without_secrets(), expected_wwn=wwn)


def test_wrong_credentials(bench: HostBench, volume_id: str) -> None:
    connection = bench.export(chap=CHAP)
    wrong = replace(connection, chap=replace(CHAP, password="another-secret"))
    with pytest.raises(AttachdError) as caught:
        bench.host.connect(volume_id, wrong)
    assert caught.value.code is Code.CONNECT_FAILED
    assert "secret" not in repr(caught.value.problem)
    assert bench.leftovers() == []


def test_a_portal_that_refuses(bench: HostBench, volume_id: str) -> None:
    connection = bench.export()
    bench.close_portal(connection)
    with pytest.raises(AttachdError) as caught:
        bench.host.connect(volume_id, connection)
    assert caught.value.code is Code.CONNECT_FAILED
    assert not caught.value.touched


def test_a_lun_that_is_not_there(bench: HostBench, volume_id: str) -> None:
    connection = bench.export()
    with pytest.raises(AttachdError) as caught:
        bench.host.connect(volume_id, bench.no_such_lun(connection))
    assert caught.value.code is Code.CONNECT_FAILED
    assert bench.leftovers() == []


def test_smaller_than_the_volume(bench: HostBench, volume_id: str) -> None:
    connection = bench.export()
    path = bench.host.connect(volume_id, connection)
    with pytest.raises(AttachdError) as caught:
        bench.host.identify(path, connection, size_bytes=SIZE + 1, expected_wwn=None)
    assert caught.value.code is Code.WRONG_DEVICE
    assert not caught.value.touched
    bench.host.disconnect(volume_id, connection, expected_wwn=None)


def test_another_lun_behind_the_same_number(bench: HostBench, volume_id: str) -> None:
    connection = bench.export()
    path = bench.host.connect(volume_id, connection)
    wwn = identified_wwn(bench, path, connection)
    bench.replace_lun(connection)
    with pytest.raises(AttachdError) as caught:
        bench.host.identify(path, connection, size_bytes=SIZE, expected_wwn=wwn)
    assert caught.value.code is Code.WRONG_DEVICE
    with pytest.raises(AttachdError) as caught:
        bench.host.disconnect(volume_id, connection, expected_wwn=wwn)
    assert caught.value.code is Code.WRONG_DEVICE
    assert not caught.value.touched
    assert bench.host.present(connection)
    bench.host.disconnect(volume_id, connection, expected_wwn=None)


def test_not_the_recorded_device(bench: HostBench, volume_id: str) -> None:
    connection = bench.export()
    path = bench.host.connect(volume_id, connection)
    with pytest.raises(AttachdError) as caught:
        bench.host.identify(path, connection, size_bytes=SIZE, expected_wwn=OTHER_WWN)
    assert caught.value.code is Code.WRONG_DEVICE
    bench.host.disconnect(volume_id, connection, expected_wwn=None)


def test_twice_is_once(bench: HostBench, volume_id: str) -> None:
    connection = bench.export()
    path = bench.host.connect(volume_id, connection)
    assert bench.host.connect(volume_id, connection) == path
    wwn = identified_wwn(bench, path, connection)
    bench.host.disconnect(volume_id, connection, expected_wwn=wwn)
    bench.host.disconnect(volume_id, connection, expected_wwn=wwn)
    assert bench.leftovers() == []


def test_two_luns_of_one_target(bench: HostBench, volume_id: str) -> None:
    first = bench.export()
    second = bench.export_beside(first)
    first_path = bench.host.connect(volume_id, first)
    second_path = bench.host.connect(str(uuid.uuid4()), second)
    assert first_path != second_path
    first_wwn = identified_wwn(bench, first_path, first)
    second_wwn = identified_wwn(bench, second_path, second)
    bench.host.disconnect(volume_id, first, expected_wwn=first_wwn)
    assert not bench.host.present(first)
    assert identified_wwn(bench, second_path, second) == second_wwn
    bench.host.disconnect(volume_id, second, expected_wwn=second_wwn)


def test_the_device_of_one_is_not_the_others(bench: HostBench, volume_id: str) -> None:
    first, second = bench.export(), bench.export()
    path = bench.host.connect(volume_id, first)
    with pytest.raises(AttachdError) as caught:
        bench.host.identify(path, second, size_bytes=SIZE, expected_wwn=None)
    assert caught.value.code is Code.WRONG_DEVICE
    bench.host.disconnect(volume_id, first, expected_wwn=None)


def test_a_device_in_use_is_not_severed(bench: HostBench, volume_id: str) -> None:
    connection = bench.export()
    path = bench.host.connect(volume_id, connection)
    wwn = identified_wwn(bench, path, connection)
    with bench.hold(path):
        with pytest.raises(AttachdError) as caught:
            bench.host.disconnect(volume_id, connection, expected_wwn=wwn)
        assert caught.value.code is Code.STILL_IN_USE
        assert not caught.value.touched
        assert identified_wwn(bench, path, connection) == wwn
    bench.host.disconnect(volume_id, connection, expected_wwn=wwn)


# --- a volume that grows ------------------------------------------------------------------------


def test_a_device_has_its_old_size_until_it_is_rescanned(bench: HostBench, volume_id: str) -> None:
    connection = bench.export(chap=CHAP)
    bench.host.check_extend()
    path = bench.host.connect(volume_id, connection)
    wwn = identified_wwn(bench, path, connection)
    bench.grow(connection, 2 * SIZE)
    assert bench.host.sizes(connection) == (SIZE,)
    plain = connection.without_secrets()
    for _ in range(2):
        grown = bench.host.extend(volume_id, plain, expected_wwn=wwn, size_bytes=2 * SIZE)
        assert grown == 2 * SIZE
        assert bench.host.sizes(connection) == (2 * SIZE,)
    with pytest.raises(AttachdError) as caught:
        bench.host.extend(volume_id, plain, expected_wwn=wwn, size_bytes=3 * SIZE)
    assert caught.value.code is Code.EXTEND_FAILED
    device = bench.host.identify(path, connection, size_bytes=2 * SIZE, expected_wwn=wwn)
    assert device.size_bytes == 2 * SIZE
    bench.host.disconnect(volume_id, connection, expected_wwn=wwn)
    assert bench.host.sizes(connection) == ()
    assert bench.host.extend(volume_id, plain, expected_wwn=wwn, size_bytes=2 * SIZE) is None


def test_another_volumes_device_is_not_rescanned(bench: HostBench, volume_id: str) -> None:
    connection = bench.export()
    path = bench.host.connect(volume_id, connection)
    wwn = identified_wwn(bench, path, connection)
    bench.grow(connection, 2 * SIZE)
    with pytest.raises(AttachdError) as caught:
        bench.host.extend(volume_id, connection, expected_wwn=OTHER_WWN, size_bytes=2 * SIZE)
    assert caught.value.code is Code.WRONG_DEVICE
    assert not caught.value.touched
    assert bench.host.sizes(connection) == (SIZE,)
    bench.host.disconnect(volume_id, connection, expected_wwn=wwn)


# --- wwns and sessions, as an audit asks for them -----------------------------------------------


def test_wwns_are_the_devices_own(bench: HostBench, volume_id: str) -> None:
    connection = bench.export()
    beside = bench.export_beside(connection)
    assert bench.host.wwns(connection) == ()
    path = bench.host.connect(volume_id, connection)
    other = str(uuid.uuid4())
    other_path = bench.host.connect(other, beside)
    wwn = identified_wwn(bench, path, connection)
    assert bench.host.wwns(connection.without_secrets()) == (wwn,)
    other_wwn = identified_wwn(bench, other_path, beside)
    assert bench.host.wwns(beside) == (other_wwn,)
    assert other_wwn != wwn
    bench.host.disconnect(volume_id, connection, expected_wwn=wwn)
    assert bench.host.wwns(connection) == ()
    bench.host.disconnect(other, beside, expected_wwn=other_wwn)


def test_a_wwn_is_asked_for_anew(bench: HostBench, volume_id: str) -> None:
    connection = bench.export()
    path = bench.host.connect(volume_id, connection)
    wwn = identified_wwn(bench, path, connection)
    bench.replace_lun(connection)
    (fresh,) = bench.host.wwns(connection)
    assert fresh
    assert fresh != wwn
    bench.host.disconnect(volume_id, connection, expected_wwn=None)


def test_one_look_at_many_sees_what_single_looks_do(bench: HostBench, volume_id: str) -> None:
    first = bench.export()
    beside = bench.export_beside(first)
    second = bench.export()
    every = [first, beside, second]
    assert bench.host.look_at([]) == ()
    assert bench.host.look_at(every) == (DevicesSeen(wwns=()),) * 3
    volumes = [volume_id, str(uuid.uuid4()), str(uuid.uuid4())]
    for volume, connection in zip(volumes, every, strict=True):
        bench.host.connect(volume, connection)

    def singly() -> tuple[DevicesSeen, ...]:
        return tuple(
            DevicesSeen(wwns=bench.host.wwns(each), sizes=bench.host.sizes(each)) for each in every
        )

    before = singly()
    assert {seen.sizes for seen in before} == {(SIZE,)}
    assert len({seen.wwns for seen in before}) == 3
    assert bench.host.look_at([each.without_secrets() for each in every]) == before
    bench.replace_lun(second)
    assert singly()[:2] == before[:2]
    assert singly()[2] != before[2]
    assert bench.host.look_at(every) == singly()
    for volume, connection in zip(volumes, every, strict=True):
        bench.host.disconnect(volume, connection, expected_wwn=None)
    assert bench.host.look_at(every) == (DevicesSeen(wwns=()),) * 3


def test_a_session_tells_where_it_leads_to(bench: HostBench, volume_id: str) -> None:
    first = bench.export()
    second = bench.export_beside(first)
    assert sessions_to(bench, first) == []
    bench.host.connect(volume_id, first)
    (session,) = sessions_to(bench, first)
    assert session.leads_to(first.targets[0])
    other = str(uuid.uuid4())
    bench.host.connect(other, second)
    (session,) = sessions_to(bench, first)
    assert session.luns == {first.targets[0].lun, second.targets[0].lun}
    bench.host.disconnect(volume_id, first, expected_wwn=None)
    (session,) = sessions_to(bench, first)
    assert session.leads_to(second.targets[0])
    assert not session.leads_to(first.targets[0])
    bench.host.disconnect(other, second, expected_wwn=None)
    assert sessions_to(bench, first) == []


def sessions_to(bench: HostBench, connection: Connection) -> list[HostSession]:
    """The sessions with a connection's target: a real host may have others, too."""
    iqns = {target.iqn for target in connection.targets}
    return [session for session in bench.host.sessions() if session.iqn in iqns]


# --- a login whose caller is dead ---------------------------------------------------------------


def settle_at_once(bench: HostBench, volume_id: str, connection: Connection, *, age: float) -> None:
    began = time.monotonic()
    bench.host.settle(volume_id, connection.without_secrets(), age=age)
    assert time.monotonic() - began < AT_ONCE


def test_where_no_login_is_under_way_nothing_is_waited_for(
    bench: HostBench, volume_id: str
) -> None:
    connection = bench.export()
    settle_at_once(bench, volume_id, connection, age=0)
    assert not bench.host.present(connection)
    path = bench.host.connect(volume_id, connection)
    wwn = identified_wwn(bench, path, connection)
    settle_at_once(bench, volume_id, connection, age=0)
    assert identified_wwn(bench, path, connection) == wwn
    bench.host.disconnect(volume_id, connection, expected_wwn=wwn)
    settle_at_once(bench, volume_id, connection, age=0)
    assert bench.leftovers() == []


def test_an_orphaned_login_is_waited_for(bench: HostBench, volume_id: str) -> None:
    connection = bench.export()
    with bench.orphan_login(volume_id, connection):
        settle_at_once(bench, volume_id, connection, age=3600)  # it would have come long since
        bench.host.settle(volume_id, connection.without_secrets(), age=0)
        assert bench.host.present(connection)
    path = bench.host.connect(volume_id, connection)
    wwn = identified_wwn(bench, path, connection)
    bench.host.disconnect(volume_id, connection, expected_wwn=wwn)


# --- what only a real host can show ------------------------------------------------------------


@pytest.mark.lab
def test_the_wwn_is_lios_and_udevs(lab: LabBench, volume_id: str) -> None:
    connection = lab.export()
    path = lab.host.connect(volume_id, connection)
    device = lab.host.identify(path, connection, size_bytes=SIZE, expected_wwn=None)
    assert device.wwn == lab.target(connection).luns[0].wwn
    assert Path(device.path).resolve() == Path(path)
    lab.host.disconnect(volume_id, connection, expected_wwn=device.wwn)
    assert lab.leftovers() == []


@pytest.mark.lab
def test_what_was_written_is_flushed(lab: LabBench, volume_id: str) -> None:
    connection = lab.export()
    path = lab.host.connect(volume_id, connection)
    written = os.urandom(1024**2)
    with Path(path).open("r+b") as device:
        device.write(written)
    lab.host.disconnect(volume_id, connection, expected_wwn=None)
    backing = lab.target(connection).luns[0].file
    assert backing.read_bytes()[: len(written)] == written
    assert lab.leftovers() == []


@pytest.mark.lab
def test_a_session_that_somebody_opened_before(lab: LabBench, volume_id: str) -> None:
    connection = lab.export()
    node = ["iscsiadm", "-m", "node", "-T", connection.targets[0].iqn, "-p", PORTAL]
    for verb in (["--op", "new"], ["--login"]):
        subprocess.run([*node, *verb], check=True, timeout=120, capture_output=True)
    path = lab.host.connect(volume_id, connection)
    assert identified_wwn(lab, path, connection) == lab.target(connection).luns[0].wwn
    lab.host.disconnect(volume_id, connection, expected_wwn=None)
    assert lab.leftovers() == []


@pytest.mark.lab
def test_a_session_whose_lun_is_gone(lab: LabBench, volume_id: str) -> None:
    connection = lab.export()
    path = lab.host.connect(volume_id, connection)
    Path("/sys/block", Path(path).name, "device/delete").write_text("1")
    while Path(path).exists():
        time.sleep(0.1)
    assert lab.host.present(connection)
    lab.host.disconnect(volume_id, connection, expected_wwn=OTHER_WWN)
    assert lab.leftovers() == []


@pytest.mark.lab
def test_an_orphan_node_record(lab: LabBench, volume_id: str) -> None:
    connection = lab.export()
    node = ["iscsiadm", "-m", "node", "-T", connection.targets[0].iqn, "-p", PORTAL]
    subprocess.run([*node, "--op", "new"], check=True, timeout=120, capture_output=True)
    assert lab.leftovers() != []
    lab.host.disconnect(volume_id, connection, expected_wwn=None)
    assert lab.leftovers() == []


@pytest.mark.lab
def test_a_target_that_takes_the_connection_and_says_nothing(
    lab: LabBench, make_lab_host: MakeHost, volume_id: str
) -> None:
    host = make_lab_host(connect_timeout=5)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as mute:
        portal = f"127.0.0.1:{mute.getsockname()[1]}"
        target = Target(portal=portal, iqn=f"{PREFIX}:mute", lun=0)
        connection = Connection(protocol="iscsi", targets=(target,))
        with pytest.raises(AttachdError) as caught:
            host.connect(volume_id, connection)
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        assert not host.present(connection)
        host.disconnect(volume_id, connection, expected_wwn=None)
    assert lab.leftovers() == []


# --- portals and credentials that Cinder's LVM driver doesn't have --------------------------------


@pytest.mark.lab
def test_a_portal_on_ipv6(lab: LabBench, volume_id: str) -> None:
    connection = lab.export(portals=["[::1]:3270"], chap=CHAP)
    path = lab.host.connect(volume_id, connection)
    assert identified_wwn(lab, path, connection) == lab.target(connection).luns[0].wwn
    (session,) = [s for s in lab.host.sessions() if s.iqn == connection.targets[0].iqn]
    assert session.portals == {"[::1]:3270"}
    lab.host.disconnect(volume_id, connection, expected_wwn=None)
    assert lab.leftovers() == []


@pytest.fixture
def asking_initiator() -> Iterator[Chap]:
    """This host wants each target to prove itself; os-brick knows no credentials for that."""
    wanted = Chap(username="the-target", password="a-secret-of-the-target")
    settings = (
        f"node.session.auth.username_in = {wanted.username}\n"
        f"node.session.auth.password_in = {wanted.password}\n"
    )
    before = ISCSID_CONF.read_text()
    ISCSID_CONF.write_text(f"{before}\n{settings}")
    yield wanted
    ISCSID_CONF.write_text(before)


@pytest.mark.lab
def test_mutual_chap(lab: LabBench, volume_id: str, asking_initiator: Chap) -> None:
    connection = lab.export(chap=CHAP, mutual=asking_initiator)
    path = lab.host.connect(volume_id, connection)
    assert identified_wwn(lab, path, connection) == lab.target(connection).luns[0].wwn
    lab.host.disconnect(volume_id, connection, expected_wwn=None)
    assert lab.leftovers() == []


@pytest.mark.lab
def test_a_target_that_can_not_prove_itself(
    lab: LabBench, volume_id: str, asking_initiator: Chap
) -> None:
    connection = lab.export(chap=CHAP, mutual=replace(asking_initiator, password="another-secret"))
    with pytest.raises(AttachdError) as caught:
        lab.host.connect(volume_id, connection)
    assert caught.value.code is Code.CONNECT_FAILED
    lab.host.disconnect(volume_id, connection, expected_wwn=None)
    assert lab.leftovers() == []


@pytest.mark.lab
def test_as_the_daemon_does_it(lab: LabBench) -> None:
    """From root down: the helper is forked, the process becomes nobody, and it still works."""
    connection = lab.export()
    locks = Path(tempfile.mkdtemp(prefix="attachd-locks-"))
    locks.chmod(0o755)
    place = connection.targets[0]
    done = subprocess.run(
        [sys.executable, "-c", START, str(locks / "own"), place.portal, place.iqn, str(SIZE)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == lab.target(connection).luns[0].wwn
    assert lab.leftovers() == []
