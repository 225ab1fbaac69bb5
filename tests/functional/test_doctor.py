"""The doctor: the lab's healthy host is fit, and each check fails once where the real thing breaks.

Many things are broken for one look, since a look costs the emulated CPU some seconds. Each test
says what is not well beside what the healthy lab has, neither more nor less; so a fault that hides
another one, or shows as a second one, is seen.

Not broken here, as it can't be had in the lab: an old libvirt or QEMU (they are what the image
has), a LVM with a devices file, a full disk under the journal. The unit tests have them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.functional import faults
from tests.functional.lab import Cloud, Guest, Host, Result

KEYSTONE_PORT = 5000
CONFIG = "/etc/attachd/attachd.conf"
HOOK = "/etc/libvirt/hooks/qemu.d/attachd"
INITIATOR_NAME = "/etc/iscsi/initiatorname.iscsi"
JOURNAL = "/var/lib/attachd/journal.db"
LOCKS = "/var/lib/attachd/locks"
LVM_FILTER = "/etc/lvm/lvmlocal.conf"
SOCKET = "/run/attachd/attachd.sock"
MULTIPATHD = ("multipathd.socket", "multipathd.service")

OLD_CINDER = {
    "method": "GET",
    "times": 999,
    "rewrite": [r'("version": ?)"3\.\d+"', r'\1"3.40"'],
    "ahead": 3600,
}
"""It speaks 3.40, and its clock is an hour ahead."""

Troubles = dict[str, str]
"""The code of each finding that isn't ok, and its severity."""


def troubles_of(ran: Result) -> Troubles:
    """What isn't well; a status of 5 where that is more than warnings."""
    assert "Traceback" not in ran.out + ran.err
    troubles = {each["code"]: each["severity"] for each in ran.json if each["severity"] != "ok"}
    fit = set(troubles.values()) <= {"warning"}
    assert ran.status == (0 if fit else 5), ran.out
    for finding in ran.json:
        assert finding["found"], finding
        assert bool(finding["remedy"]) is (finding["severity"] != "ok"), finding
    return troubles


@pytest.fixture(scope="module")
def healthy(host: Host) -> Troubles:
    """The warnings of a healthy lab."""
    ran = host.attachctl("doctor", "-f", "json")
    assert ran.status == 0, ran.out
    return troubles_of(ran)


@pytest.fixture
def examine(host: Host, healthy: Troubles) -> Callable[[], Troubles]:
    """What isn't well, beside what the healthy lab has."""

    def look() -> Troubles:
        ran = host.attachctl("doctor", "-f", "json")
        found = troubles_of(ran)
        return {code: severity for code, severity in found.items() if code not in healthy}

    return look


def test_a_healthy_host_is_fit(host: Host, healthy: Troubles) -> None:
    assert set(healthy.values()) <= {"warning"}
    # Its Cinder is on the same host, with a lock path of its own.
    assert "locks-not-shared-with-cinder" in healthy
    ran = host.attachctl("doctor")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.splitlines()[-1].startswith("This host is fit")


def test_many_things_are_broken_at_once(
    host: Host,
    cloud: Cloud,
    examine: Callable[[], Troubles],
    new_guest: Callable[..., Guest],
) -> None:
    new_guest("--ports", "0")
    with ExitStack() as broken:
        for fault in (
            faults.moved_away(host, "/dev/kvm", to="/dev/kvm.kept"),
            # Away before the name is another and until it is the old one: it reads it as it starts.
            host.stopped(*faults.ISCSID, masked=True),
            faults.moved_away(host, LVM_FILTER, to="/root/lvmlocal.conf.kept"),
            faults.moved_away(host, HOOK, to="/root/hook.kept"),
            faults.changed(
                host,
                INITIATOR_NAME,
                "echo InitiatorName=iqn.2001-04.com.example:storage.disk2 > $FILE",
            ),
            faults.owned(host, LOCKS, owner="root:root", mode="700"),
            faults.owned(host, SOCKET, owner="root:root", mode="660"),
            faults.nova_compute(host, lock_path="/var/lock/nova"),
            cloud.without_role("attachd", "service", "service"),
        ):
            broken.enter_context(fault)
        assert examine() == {
            "no-free-slot": "warning",
            "kvm-missing": "warning",
            "lvm-scans-volumes": "failure",
            "hook-missing": "failure",
            "initiator-name-default": "failure",
            "lock-path-unusable": "failure",
            "os-brick-lock-path-unusable": "failure",
            "socket-not-for-group": "failure",
            "nova-on-host": "warning",
            "locks-not-shared-with-nova": "failure",
            "iscsid-unavailable": "failure",
            "service-role-missing": "failure",
            # Nor does Cinder listen to a service without it: service_token_roles_required.
            "cinder-unavailable": "failure",
            "cinder-microversion": "unknown",
        }


def test_the_same_things_broken_otherwise(host: Host, examine: Callable[[], Troubles]) -> None:
    with ExitStack() as broken:
        for fault in (
            faults.owned(host, HOOK, owner="root:root", mode="644"),
            faults.changed(host, INITIATOR_NAME, "touch -d 2020-01-01 $FILE"),
            faults.owned(host, SOCKET, owner="root:attachd", mode="666"),
            faults.nova_compute(host, lock_path=LOCKS),  # which is attachd's
        ):
            broken.enter_context(fault)
        assert examine() == {
            "hook-not-executable": "failure",
            "initiator-name-cloned": "warning",
            "socket-not-for-group": "failure",
            "nova-on-host": "warning",
        }


def test_a_name_that_iscsid_has_not_read(host: Host, examine: Callable[[], Troubles]) -> None:
    host.script(f"touch {INITIATOR_NAME}\n")
    try:
        assert examine() == {"initiator-name-unread": "warning"}
    finally:
        host.script("systemctl restart iscsid.service\n")
    assert examine() == {}


def test_keystone_and_libvirt_are_away(host: Host, examine: Callable[[], Troubles]) -> None:
    with faults.packets(host, KEYSTONE_PORT, "reject"), host.stopped(*faults.LIBVIRT):
        assert examine() == {
            "keystone-login-failed": "failure",
            **dict.fromkeys(
                ("service-role", "cinder-api", "cinder-microversion", "clock"), "unknown"
            ),
            "libvirt-unavailable": "failure",
            **dict.fromkeys(("qemu", "free-slots", "nova"), "unknown"),
        }


def test_cinder_is_away(host: Host, examine: Callable[[], Troubles]) -> None:
    with faults.packets(host, faults.CINDER_PORT, "reject"):
        assert examine() == {"cinder-unavailable": "failure", "cinder-microversion": "unknown"}


def test_cinder_is_old_and_its_clock_is_wrong(host: Host, examine: Callable[[], Troubles]) -> None:
    with faults.cinder_that_fails(host, OLD_CINDER):
        assert examine() == {"cinder-old-style": "warning", "clock-skewed": "failure"}


def test_what_is_configured_cannot_be_had(host: Host, examine: Callable[[], Troubles]) -> None:
    settings = (
        ("api", "group", "no-such-group"),
        ("brick", "multipath", "require"),
        ("cinder", "attach_flow", "attachments"),
    )
    with (
        host.stopped(*MULTIPATHD, masked=True),
        host.options(*settings),
        faults.cinder_that_fails(host, {**OLD_CINDER, "ahead": 0}),
    ):
        assert examine() == {
            "socket-group-missing": "failure",
            "multipathd-required": "failure",
            "cinder-too-old": "failure",
        }


def test_the_privileged_helper_hangs(host: Host, examine: Callable[[], Troubles]) -> None:
    """One that dies takes the daemon with it, and systemd starts both: nothing to be found."""
    daemon = host.do("systemctl", "show", "-P", "MainPID", "attachd.service").strip()
    helper = host.do("pgrep", "-P", daemon).split()[0]
    host.do("kill", "-STOP", helper)
    try:
        assert examine() == {
            "helper-broken": "failure",
            **dict.fromkeys(("shared-locks", "libvirt-hook", "initiator-name"), "unknown"),
        }
    finally:
        host.do("kill", "-CONT", helper)


def test_no_daemon_and_a_damaged_journal(host: Host, examine: Callable[[], Troubles]) -> None:
    """A daemon wouldn't start with it: attachctl looks by itself."""
    damage = "dd if=/dev/urandom of=$FILE bs=4096 seek=1 count=2 conv=notrunc status=none"
    with host.stopped("attachd.service"):
        try:
            with faults.changed(host, JOURNAL, damage):
                assert examine() == {
                    "daemon-down": "failure",
                    "journal-damaged": "failure",
                    "socket-group": "unknown",  # systemd takes the socket away with the service
                }
        finally:
            host.do("rm", "-f", f"{JOURNAL}-wal", f"{JOURNAL}-shm")  # of the damaged one
        with faults.changed(host, CONFIG, "crudini --set $FILE guest unplug_timeout soon"):
            ran = host.attachctl("doctor", "-f", "json")
        assert ran.status == 5
        down, invalid, *others = json.loads(ran.out)
        assert (down["code"], invalid["code"]) == ("daemon-down", "config-invalid")
        assert "unplug_timeout" in invalid["found"]
        assert {each["severity"] for each in others} == {"unknown"}


def test_everything_was_put_right(examine: Callable[[], Troubles]) -> None:
    assert examine() == {}
