"""Every check both ways: nothing is wrong with a healthy host, and each fault shows as itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from attachd.doctor.catalogue import CATALOGUE, Check, Fault, Severity
from attachd.doctor.findings import is_fit
from attachd.errors import AttachdError, Code, World
from attachd.model import AttachFlow, GuestState, Multipath
from attachd.vitals import FileStatus, JournalHealth, LockSharing, LvmScan, Neighbour
from tests.fakes.doctor import GROUP_ID, LOCKS, SOCKET, a_guest, no_answer
from tests.unit.doctor.practice import Practice

LONE = {Check.DAEMON, Check.CONFIGURATION}
"""What is looked at only where no daemon answers."""
LONE_FAULTS = {Fault.DAEMON_DOWN, Fault.CONFIG_INVALID}
COMPUTE = Neighbour(program="nova-compute", pid=812, config_files=())
VOLUME = Neighbour(program="cinder-volume", pid=813, config_files=())
HOOK = "/etc/libvirt/hooks/qemu.d/attachd"

Break = Callable[[Practice], object]


def of(**changes: object) -> Break:
    """Sets these attributes: ``host__helper`` is the host's ``helper``."""

    def change(practice: Practice) -> None:
        for name, value in changes.items():
            world, _, attribute = name.rpartition("__")
            setattr(getattr(practice, world) if world else practice, attribute, value)

    return change


def named(name: str | None) -> Break:
    """The host's iSCSI name."""

    def change(practice: Practice) -> None:
        assert practice.host.name is not None
        practice.host.name = replace(practice.host.name, name=name)

    return change


def older_than_the_machine_id(practice: Practice) -> None:
    assert practice.host.name is not None
    practice.host.name = replace(practice.host.name, written_at=1.8e9)


def newer_than_iscsid(practice: Practice) -> None:
    assert practice.host.name is not None
    name = practice.host.name
    practice.host.name = replace(name, iscsid_since=name.written_at - 60)


def sharing(neighbour: Neighbour, *, lock_path: str | None, shared: bool) -> Break:
    return of(host__sharing=(LockSharing(neighbour=neighbour, lock_path=lock_path, shared=shared),))


def a_file(path: str, status: FileStatus | None) -> Break:
    def change(practice: Practice) -> None:
        practice.host.files.pop(path)
        if status:
            practice.host.files[path] = status

    return change


def scanning(*global_filter: str, devices_file: bool = False) -> Break:
    return of(
        host__lvm=LvmScan(
            global_filter=global_filter, devices_file=devices_file, local_disks=frozenset({"sda"})
        )
    )


FOREIGN_GROUP = AttachdError(
    Code.CONFIG_INVALID, "New files get another group.", resolution="chmod g+s", touched=False
)
GONE = no_answer(World.CINDER, Code.CINDER_UNAVAILABLE)

BROKEN: list[tuple[Fault, Break]] = [
    (Fault.SOCKET_GROUP_MISSING, of(group="nobodys")),
    (
        Fault.SOCKET_NOT_FOR_GROUP,
        a_file(str(SOCKET), FileStatus(owner=0, group=GROUP_ID, mode=0o666)),
    ),
    (Fault.SOCKET_NOT_FOR_GROUP, a_file(str(SOCKET), FileStatus(owner=0, group=0, mode=0o660))),
    (
        Fault.SOCKET_NOT_FOR_GROUP,
        a_file(str(SOCKET), FileStatus(owner=999, group=GROUP_ID, mode=0o660)),
    ),
    (Fault.HELPER_BROKEN, of(host__helper="999")),
    (Fault.JOURNAL_MISSING, of(journal__health=JournalHealth(there=False))),
    (Fault.JOURNAL_DAMAGED, of(journal__health=JournalHealth(there=True, problem="is damaged"))),
    (
        Fault.JOURNAL_NO_ROOM,
        of(journal__health=JournalHealth(there=True, reserved=False, room=False)),
    ),
    (Fault.LOCK_PATH_UNUSABLE, of(host__unwritable=LOCKS)),
    (Fault.OS_BRICK_LOCK_PATH_UNUSABLE, of(host__brick_problem=LOCKS / "os-brick-a")),
    (Fault.OS_BRICK_LOCK_PATH_UNUSABLE, of(host__brick_problem=FOREIGN_GROUP)),
    (
        Fault.LOCKS_NOT_SHARED_WITH_NOVA,
        sharing(COMPUTE, lock_path="/var/lock/nova", shared=False),
    ),
    (
        Fault.LOCKS_NOT_SHARED_WITH_CINDER,
        sharing(VOLUME, lock_path="/var/lock/cinder", shared=False),
    ),
    (Fault.LIBVIRT_TOO_OLD, of(libvirt__libvirt=(6, 4, 9))),
    (Fault.QEMU_UNPLUG_FIX_MISSING, of(libvirt__qemu=(7, 2, 2))),
    (Fault.NO_FREE_SLOT, of(libvirt__guests=(a_guest(virtio=0),))),
    (Fault.HOOK_MISSING, a_file(HOOK, None)),
    (Fault.HOOK_NOT_EXECUTABLE, a_file(HOOK, FileStatus(owner=0, group=0, mode=0o644))),
    (Fault.KVM_MISSING, of(host__has_kvm=False)),
    (Fault.NOVA_ON_HOST, of(host__others=(COMPUTE,))),
    (Fault.NOVA_ON_HOST, of(libvirt__guests=(a_guest(nova_owned=True),))),
    (Fault.ISCSID_UNAVAILABLE, of(host__hindrance="iscsid.service is masked.")),
    (Fault.INITIATOR_NAME_MISSING, of(host__name=None)),
    (Fault.INITIATOR_NAME_MISSING, named(None)),
    (Fault.INITIATOR_NAME_INVALID, named("compute-1")),
    (Fault.INITIATOR_NAME_DEFAULT, named("iqn.2001-04.com.example:storage.disk2.sys1.xyz")),
    (Fault.INITIATOR_NAME_CLONED, older_than_the_machine_id),
    (Fault.INITIATOR_NAME_UNREAD, newer_than_iscsid),
    (Fault.MULTIPATHD_REQUIRED, of(multipath=Multipath.REQUIRE)),
    (Fault.MULTIPATHD_NOT_RUNNING, of(multipath=Multipath.ON)),
    (Fault.LVM_SCANS_VOLUMES, scanning("a|.*|")),
    (Fault.KEYSTONE_LOGIN_FAILED, of(cinder__login_fails=GONE)),
    (Fault.SERVICE_ROLE_MISSING, of(cinder__roles=frozenset({"admin"}))),
    (Fault.ADMIN_ROLE_MISSING, of(cinder__roles=frozenset({"service"}))),
    (Fault.CINDER_UNAVAILABLE, of(cinder__cinder_fails=GONE)),
    (
        Fault.CINDER_TOO_OLD,
        of(cinder__new_style=False, attach_flow=AttachFlow.ATTACHMENTS),
    ),
    (Fault.CINDER_OLD_STYLE, of(cinder__new_style=False)),
    (Fault.CLOCK_SKEWED, of(cinder__keystones_skew=31.0)),
    (Fault.CLOCK_SKEWED, of(cinder__cinders_skew=-31.0)),
    (Fault.LIBVIRT_UNAVAILABLE, of(libvirt__raises=no_answer(World.GUEST))),
]


def test_a_healthy_host_is_fit_and_every_check_says_so() -> None:
    found = Practice().examine()
    assert {(finding.severity, finding.remedy) for finding in found} == {(Severity.OK, "")}
    assert [finding.check for finding in found] == [c for c in Check if c not in LONE]
    assert all(finding.code == finding.check for finding in found)
    assert is_fit(found)


def test_every_fault_is_tried() -> None:
    assert {fault for fault, _ in BROKEN} | LONE_FAULTS == set(Fault) == set(CATALOGUE)


@pytest.mark.parametrize(("fault", "break_it"), BROKEN, ids=[str(fault) for fault, _ in BROKEN])
def test_each_fault_shows_as_itself(fault: Fault, break_it: Break) -> None:
    practice = Practice()
    break_it(practice)
    found = practice.examine()
    (shown,) = [finding for finding in found if finding.code == fault]
    entry = CATALOGUE[fault]
    assert (shown.check, shown.severity) == (entry.check, entry.severity)
    assert shown.found
    assert shown.remedy
    others = [f for f in found if f.severity is not Severity.OK and f is not shown]
    assert all(fault in finding.found or "doesn't answer" in finding.found for finding in others)
    assert is_fit(found) is (entry.severity is Severity.WARNING)
    assert {finding.check for finding in found} == set(Check) - LONE


@pytest.mark.parametrize(
    "change",
    [
        of(multipath=Multipath.ON, host__multipathd=True),
        of(multipath=Multipath.REQUIRE, host__multipathd=True),
        of(cinder__new_style=False, attach_flow=AttachFlow.VOLUME_ACTIONS),
        of(cinder__roles=None, cinder__keystones_skew=None),
        of(cinder__keystones_skew=29.0, cinder__cinders_skew=-29.0),
        of(libvirt__guests=(a_guest(virtio=0, state=GuestState.SHUTOFF),)),
        of(libvirt__guests=(a_guest(virtio=None),)),
        of(libvirt__libvirt=(6, 5, 0)),
        of(host__lvm=None),
        of(journal__health=JournalHealth(there=True, reserved=False, room=True)),
        of(journal__health=JournalHealth(there=False), running=False),
        of(host__others=(VOLUME,)),
        sharing(COMPUTE, lock_path=str(LOCKS), shared=True),
        scanning("a|.*|", devices_file=True),
        scanning("a|/dev/sda[0-9]*$|", "r|.*|"),
        named("eui.02004567A425678D"),
        named("naa.62004567BA64678D0123456789ABCDEF"),
    ],
)
def test_what_is_well_all_the_same(change: Break) -> None:
    practice = Practice()
    change(practice)
    assert practice.troubles() == {}


@pytest.mark.parametrize(
    ("change", "unknown"),
    [
        (
            of(host__helper=None),
            {
                *(Check.PRIVILEGED_HELPER, Check.SHARED_LOCKS, Check.LIBVIRT_HOOK),
                Check.INITIATOR_NAME,
            },
        ),
        (of(host__helper=None, multipath=Multipath.ON), {Check.MULTIPATHD}),
        (of(libvirt__qemu=None), {Check.QEMU}),
        (of(libvirt__raises=GONE), {Check.QEMU, Check.FREE_SLOTS, Check.NOVA}),
        (
            of(cinder__login_fails=GONE),
            {Check.SERVICE_ROLE, Check.CINDER_API, Check.CINDER_MICROVERSION, Check.CLOCK},
        ),
        (of(cinder__cinder_fails=GONE), {Check.CINDER_MICROVERSION}),
        (a_file(str(SOCKET), None), {Check.SOCKET_GROUP}),
        (sharing(COMPUTE, lock_path=None, shared=False), {Check.SHARED_LOCKS}),
        (scanning("a|[|"), {Check.LVM_FILTER}),
        (of(host__brick_problem=no_answer(World.HOST)), {Check.OS_BRICK_LOCK_PATH}),
    ],
)
def test_what_could_not_be_seen_is_unknown_and_no_fitness(
    change: Break, unknown: set[Check]
) -> None:
    practice = Practice()
    change(practice)
    found = practice.examine()
    unseen = [finding for finding in found if finding.severity is Severity.UNKNOWN]
    assert unknown <= {finding.check for finding in unseen}
    assert all(finding.code == finding.check for finding in unseen)
    assert all(finding.found and finding.remedy for finding in unseen)
    assert not is_fit(found)


def test_nova_is_found_by_its_process_though_libvirt_is_away() -> None:
    practice = Practice()
    of(libvirt__raises=no_answer(World.GUEST), host__others=(COMPUTE,))(practice)
    (found,) = practice.of(Check.NOVA)
    assert (found.code, "812" in found.found) == (Fault.NOVA_ON_HOST, True)


def test_each_running_guest_has_its_slots_told() -> None:
    practice = Practice()
    practice.libvirt.guests = (
        a_guest("web", virtio=6),
        a_guest("db", virtio=0, state=GuestState.PAUSED),
        a_guest("off", virtio=0, state=GuestState.SHUTOFF),
    )
    web, db = practice.of(Check.FREE_SLOTS)
    assert (web.code, web.found) == (
        Check.FREE_SLOTS,
        "Guest web can take more volumes: 6 on virtio, 256 on scsi.",
    )
    assert (db.code, db.severity) == (Fault.NO_FREE_SLOT, Severity.WARNING)
    assert "Guest db" in db.found


def test_both_roles_are_missed() -> None:
    practice = Practice()
    practice.cinder.roles = frozenset({"member"})
    codes = [finding.code for finding in practice.of(Check.SERVICE_ROLE)]
    assert codes == [Fault.ADMIN_ROLE_MISSING, Fault.SERVICE_ROLE_MISSING]


def test_a_clock_that_is_off_is_told_though_cinder_is_away() -> None:
    practice = Practice()
    of(cinder__cinder_fails=GONE, cinder__keystones_skew=-3600.0)(practice)
    (found,) = practice.of(Check.CLOCK)
    assert found.found == "Keystone's clock is 3600 s behind this host's."


def test_an_errors_own_remedy_goes_before_the_catalogues() -> None:
    practice = Practice()
    practice.host.brick_problem = FOREIGN_GROUP
    (found,) = practice.of(Check.OS_BRICK_LOCK_PATH)
    assert found.remedy == "chmod g+s"


@pytest.mark.parametrize(
    ("version", "repeats"),
    [
        ((4, 2, 1), True),
        ((5, 0, 0), False),
        ((6, 2, 0), False),
        ((7, 2, 2), False),
        ((7, 2, 3), True),
        ((8, 0, 0), False),
        ((8, 0, 1), True),
        ((10, 0, 0), True),
    ],
)
def test_which_qemu_takes_a_second_unplug(version: tuple[int, int, int], repeats: bool) -> None:
    practice = Practice()
    practice.libvirt.qemu = version
    assert (Fault.QEMU_UNPLUG_FIX_MISSING not in practice.troubles()) is repeats


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("iqn.1993-08.org.debian:01:a6a4d4f7356f", Check.INITIATOR_NAME),
        ("iqn.1994-05.com.redhat:1220933cde3c", Check.INITIATOR_NAME),
        ("iqn.2005-03.org.open-iscsi:b35b34784dd", Check.INITIATOR_NAME),
        ("iqn.2024-01.net.corp:12", Check.INITIATOR_NAME),
        ("iqn.2024-01.net.corp.host17", Check.INITIATOR_NAME),
        ("iqn.2024-01.com.examples:12", Check.INITIATOR_NAME),
        ("iqn.2001-04.com.example:host12", Fault.INITIATOR_NAME_DEFAULT),
        ("iqn.2023-10.com.example.srv01.initiator01", Fault.INITIATOR_NAME_DEFAULT),
        ("iqn.1993-08.org.debian:01", Fault.INITIATOR_NAME_DEFAULT),
        ("iqn.1994-05.com.redhat:", Fault.INITIATOR_NAME_INVALID),
        ("iqn.1994-05.com.redhat", Fault.INITIATOR_NAME_DEFAULT),
        ("iqn.1993-08.org.debian:01:localhost", Fault.INITIATOR_NAME_DEFAULT),
        ("iqn.2024-01.net.corp:client", Fault.INITIATOR_NAME_DEFAULT),
        ("iqn.2004-10.com.ubuntu:01:52c55542e014", Fault.INITIATOR_NAME_DEFAULT),
        ("iqn.19-05.com.redhat:abc", Fault.INITIATOR_NAME_INVALID),
        ("eui.0200", Fault.INITIATOR_NAME_INVALID),
    ],
)
def test_whose_name_it_is(name: str, code: str) -> None:
    practice = Practice()
    named(name)(practice)
    (found,) = practice.of(Check.INITIATOR_NAME)
    assert found.code == code


def test_a_name_that_was_written_as_iscsid_started_was_read() -> None:
    practice = Practice()
    assert practice.host.name is not None
    name = practice.host.name
    practice.host.name = replace(name, iscsid_since=name.written_at - 1)
    assert practice.troubles() == {}


def test_a_name_of_the_images_last_minutes_is_no_clones() -> None:
    practice = Practice()
    assert practice.host.name is not None
    practice.host.name = replace(practice.host.name, written_at=1.9e9 - 3600)
    assert practice.troubles() == {}


def test_what_keeps_the_own_locks_from_being_taken_is_named() -> None:
    practice = Practice()
    practice.host.unwritable = Path("/var/lib/attachd/locks/guest-1")
    (found,) = practice.of(Check.LOCK_PATH)
    assert found.found == "attachd's user can't write /var/lib/attachd/locks/guest-1."
