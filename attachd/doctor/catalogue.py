"""What the doctor looks at and what it can find. Names are permanent, as errors' codes are.

``python -m attachd.doctor.catalogue`` writes the tables of docs/reference/doctor.md.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"  # the host is fit all the same
    FAILURE = "failure"
    UNKNOWN = "unknown"  # it couldn't be looked at


class Check(StrEnum):
    """What is looked at, in the order of its being told.

    Also the code of a finding that says that all is well, or that nothing could be seen.
    """

    DAEMON = "daemon"
    CONFIGURATION = "configuration"
    SOCKET_GROUP = "socket-group"
    PRIVILEGED_HELPER = "privileged-helper"
    JOURNAL = "journal"
    LOCK_PATH = "lock-path"
    OS_BRICK_LOCK_PATH = "os-brick-lock-path"
    SHARED_LOCKS = "shared-locks"
    LIBVIRT = "libvirt"
    QEMU = "qemu"
    FREE_SLOTS = "free-slots"
    LIBVIRT_HOOK = "libvirt-hook"
    KVM = "kvm"
    NOVA = "nova"
    ISCSID = "iscsid"
    INITIATOR_NAME = "initiator-name"
    MULTIPATHD = "multipathd"
    LVM_FILTER = "lvm-filter"
    KEYSTONE_LOGIN = "keystone-login"
    SERVICE_ROLE = "service-role"
    CINDER_API = "cinder-api"
    CINDER_MICROVERSION = "cinder-microversion"
    CLOCK = "clock"


LOOKED_AT: Mapping[Check, str] = {
    Check.DAEMON: "does attachd answer; if not, what does systemd say of its unit?",
    Check.CONFIGURATION: "can attachd.conf be used? (Only where no daemon answers.)",
    Check.SOCKET_GROUP: "is the API's socket open to root and `[api] group`, and to nobody else?",
    Check.PRIVILEGED_HELPER: "does root's helper run commands?",
    Check.JOURNAL: "is journal.db whole, and is there room for what is under way?",
    Check.LOCK_PATH: "can attachd's user take attachd's own locks (`[DEFAULT] state_path`/locks)?",
    Check.OS_BRICK_LOCK_PATH: "can attachd's user take os-brick's locks (`[host] lock_path`)?",
    Check.SHARED_LOCKS: "do nova-compute, cinder-volume and cinder-backup on this host have "
    "os-brick's locks in the same directory?",
    Check.LIBVIRT: "does libvirt answer, and is it new enough?",
    Check.QEMU: "does QEMU take a second request to unplug where the first one was lost?",
    Check.FREE_SLOTS: "how many more volumes can each running guest take?",
    Check.LIBVIRT_HOOK: "is attachd's hook where libvirt looks for it?",
    Check.KVM: "is there /dev/kvm?",
    Check.NOVA: "is this host Nova's, too?",
    Check.ISCSID: "does iscsid run, or come when it is asked for?",
    Check.INITIATOR_NAME: "has this host an iSCSI name of its own?",
    Check.MULTIPATHD: "does multipathd run where `[brick] multipath` wants it?",
    Check.LVM_FILTER: "does the host's LVM keep its hands off the guests' volumes?",
    Check.KEYSTONE_LOGIN: "does Keystone take the credentials in `[cinder]`, asked anew?",
    Check.SERVICE_ROLE: "have they the roles admin and service?",
    Check.CINDER_API: "does Cinder answer attachd's user?",
    Check.CINDER_MICROVERSION: "does Cinder speak what `[cinder] attach_flow` needs?",
    Check.CLOCK: "do this host's clock, Keystone's and Cinder's agree?",
}


class Fault(StrEnum):
    """What can be wrong."""

    DAEMON_DOWN = "daemon-down"
    CONFIG_INVALID = "config-invalid"
    SOCKET_GROUP_MISSING = "socket-group-missing"
    SOCKET_NOT_FOR_GROUP = "socket-not-for-group"
    HELPER_BROKEN = "helper-broken"
    JOURNAL_MISSING = "journal-missing"
    JOURNAL_DAMAGED = "journal-damaged"
    JOURNAL_NO_ROOM = "journal-no-room"
    LOCK_PATH_UNUSABLE = "lock-path-unusable"
    OS_BRICK_LOCK_PATH_UNUSABLE = "os-brick-lock-path-unusable"
    LOCKS_NOT_SHARED_WITH_NOVA = "locks-not-shared-with-nova"
    LOCKS_NOT_SHARED_WITH_CINDER = "locks-not-shared-with-cinder"
    LIBVIRT_UNAVAILABLE = "libvirt-unavailable"
    LIBVIRT_TOO_OLD = "libvirt-too-old"
    QEMU_UNPLUG_FIX_MISSING = "qemu-unplug-fix-missing"
    NO_FREE_SLOT = "no-free-slot"
    HOOK_MISSING = "hook-missing"
    HOOK_NOT_EXECUTABLE = "hook-not-executable"
    KVM_MISSING = "kvm-missing"
    NOVA_ON_HOST = "nova-on-host"
    ISCSID_UNAVAILABLE = "iscsid-unavailable"
    INITIATOR_NAME_MISSING = "initiator-name-missing"
    INITIATOR_NAME_INVALID = "initiator-name-invalid"
    INITIATOR_NAME_DEFAULT = "initiator-name-default"
    INITIATOR_NAME_CLONED = "initiator-name-cloned"
    INITIATOR_NAME_UNREAD = "initiator-name-unread"
    MULTIPATHD_REQUIRED = "multipathd-required"
    MULTIPATHD_NOT_RUNNING = "multipathd-not-running"
    LVM_SCANS_VOLUMES = "lvm-scans-volumes"
    KEYSTONE_LOGIN_FAILED = "keystone-login-failed"
    SERVICE_ROLE_MISSING = "service-role-missing"
    ADMIN_ROLE_MISSING = "admin-role-missing"
    CINDER_UNAVAILABLE = "cinder-unavailable"
    CINDER_TOO_OLD = "cinder-too-old"
    CINDER_OLD_STYLE = "cinder-old-style"
    CLOCK_SKEWED = "clock-skewed"


@dataclass(frozen=True)
class Entry:
    """What there is to say of a fault, wherever it is found."""

    check: Check
    severity: Severity
    meaning: str
    remedy: str


_NEW_NAME = (
    "Give the host a name of its own while no volume is connected: "
    "echo InitiatorName=$(iscsi-iname) > /etc/iscsi/initiatorname.iscsi; systemctl restart iscsid"
)
_SHARE_LOCKS = (
    "Set [oslo_concurrency] lock_path (or [os_brick] lock_path) there and [host] lock_path in "
    "attachd.conf to one directory that a group of all their users may write (chmod 2770; umask "
    "002), and restart them."
)

CATALOGUE: Mapping[Fault, Entry] = {
    Fault.DAEMON_DOWN: Entry(
        Check.DAEMON,
        Severity.FAILURE,
        "attachd doesn't answer on its socket. All else was looked at by a process of attachctl's.",
        "journalctl -u attachd says why; systemctl start attachd.service",
    ),
    Fault.CONFIG_INVALID: Entry(
        Check.CONFIGURATION,
        Severity.FAILURE,
        "attachd can't start with its configuration; nothing else was looked at.",
        "Mend /etc/attachd/attachd.conf.",
    ),
    Fault.SOCKET_GROUP_MISSING: Entry(
        Check.SOCKET_GROUP,
        Severity.FAILURE,
        "There is no group of the name in `[api] group`: only root can use attachctl.",
        "systemd-sysusers, or groupadd --system; then systemctl restart attachd.socket attachd",
    ),
    Fault.SOCKET_NOT_FOR_GROUP: Entry(
        Check.SOCKET_GROUP,
        Severity.FAILURE,
        "The socket isn't root's and its group's with mode 0660: the group is kept out, or others "
        "get as far as the API's own check.",
        "Make SocketUser=, SocketGroup= and SocketMode= of attachd.socket root, [api] group and "
        "0660; systemctl restart attachd.socket attachd",
    ),
    Fault.HELPER_BROKEN: Entry(
        Check.PRIVILEGED_HELPER,
        Severity.FAILURE,
        "Root's helper lives, but runs no commands, or not as root: no volume can be connected or "
        "disconnected.",
        "systemctl restart attachd; what is under way goes on.",
    ),
    Fault.JOURNAL_MISSING: Entry(
        Check.JOURNAL,
        Severity.FAILURE,
        "journal.db is gone from under the running daemon: at its next start attachd would know "
        "nothing.",
        "Don't restart attachd. Put the file back from a copy, or compare attachctl list with "
        "Cinder, the host's sessions and the guests' disks by hand first.",
    ),
    Fault.JOURNAL_DAMAGED: Entry(
        Check.JOURNAL,
        Severity.FAILURE,
        "journal.db isn't whole, or is no journal that this attachd can read; it won't start with "
        "it.",
        "Put the file back from a copy. Move a damaged one aside, together with its -wal and -shm, "
        "only after Cinder, the host's sessions and the guests' disks were compared by hand.",
    ),
    Fault.JOURNAL_NO_ROOM: Entry(
        Check.JOURNAL,
        Severity.FAILURE,
        "The journal's disk is full: no new operation is accepted.",
        "Free room on the file system of [DEFAULT] state_path.",
    ),
    Fault.LOCK_PATH_UNUSABLE: Entry(
        Check.LOCK_PATH,
        Severity.FAILURE,
        "attachd's user can't make its lock files: every operation ends in journal-unavailable.",
        "systemd-tmpfiles --create, or give the directory and what is in it to attachd's user.",
    ),
    Fault.OS_BRICK_LOCK_PATH_UNUSABLE: Entry(
        Check.OS_BRICK_LOCK_PATH,
        Severity.FAILURE,
        "attachd's user can't take os-brick's locks, or makes them such that who shares the "
        "directory can't: a connect fails midway.",
        "Give the directory and its os-brick-* files to attachd's user, or to a group that it "
        "shares with the others (chmod 2770, their umask 002).",
    ),
    Fault.LOCKS_NOT_SHARED_WITH_NOVA: Entry(
        Check.SHARED_LOCKS,
        Severity.FAILURE,
        "nova-compute connects volumes here, and its os-brick and attachd's don't wait for each "
        "other.",
        _SHARE_LOCKS,
    ),
    Fault.LOCKS_NOT_SHARED_WITH_CINDER: Entry(
        Check.SHARED_LOCKS,
        Severity.WARNING,
        "cinder-volume or cinder-backup here connects volumes at times (copies to and from images, "
        "migrations, backups), and its os-brick and attachd's don't wait for each other.",
        _SHARE_LOCKS,
    ),
    Fault.LIBVIRT_UNAVAILABLE: Entry(
        Check.LIBVIRT,
        Severity.FAILURE,
        "libvirt doesn't answer attachd's user: no volume can be plugged or unplugged.",
        "systemctl status libvirtd virtqemud; attachd's user must be in libvirt's group.",
    ),
    Fault.LIBVIRT_TOO_OLD: Entry(
        Check.LIBVIRT,
        Severity.FAILURE,
        "libvirt before 6.5 doesn't look into /etc/libvirt/hooks/qemu.d: a guest that starts "
        "doesn't get its volumes connected.",
        "Upgrade libvirt.",
    ),
    Fault.QEMU_UNPLUG_FIX_MISSING: Entry(
        Check.QEMU,
        Severity.WARNING,
        "QEMU 5.0 to 7.2.2, and 8.0.0: a guest that boots loses an unplug by ACPI, and QEMU "
        "refuses every later one (`already in the process of unplug`), so the detach ends in "
        "unplug-timeout until the guest is stopped. A distribution may have the fix under an older "
        "number.",
        "Upgrade QEMU to 7.2.3, 8.0.1 or newer; detach from no guest that boots.",
    ),
    Fault.NO_FREE_SLOT: Entry(
        Check.FREE_SLOTS,
        Severity.WARNING,
        "A running guest can take no further virtio disk: an attach ends in no-free-slot.",
        "Add <controller type='pci' model='pcie-root-port'/> to the guest's persistent XML and "
        "stop and start it, or attach with --bus scsi.",
    ),
    Fault.HOOK_MISSING: Entry(
        Check.LIBVIRT_HOOK,
        Severity.FAILURE,
        "A guest that starts, after a reboot of the host above all, doesn't get its volumes "
        "connected, and may get another volume's device.",
        "install -D -m 0755 etc/libvirt/hooks/qemu.d/attachd /etc/libvirt/hooks/qemu.d/attachd; "
        "then restart libvirt once, which looks for hooks when it starts (guests stay).",
    ),
    Fault.HOOK_NOT_EXECUTABLE: Entry(
        Check.LIBVIRT_HOOK,
        Severity.FAILURE,
        "As hook-missing: libvirt passes over a hook that it may not run.",
        "chmod 0755 /etc/libvirt/hooks/qemu.d/attachd",
    ),
    Fault.KVM_MISSING: Entry(
        Check.KVM,
        Severity.WARNING,
        "Guests are emulated: everything works, slowly.",
        "Enable virtualisation in the machine's firmware, or nested virtualisation one level up; "
        "modprobe kvm_intel or kvm_amd.",
    ),
    Fault.NOVA_ON_HOST: Entry(
        Check.NOVA,
        Severity.WARNING,
        "Nova works on this host. Its guests are refused (nova-owned), and are best left to it.",
        "Attach volumes to Nova's guests by Nova: openstack server add volume.",
    ),
    Fault.ISCSID_UNAVAILABLE: Entry(
        Check.ISCSID,
        Severity.FAILURE,
        "iscsid doesn't run, and wouldn't come: no volume can be connected.",
        "Install open-iscsi; systemctl unmask iscsid.service iscsid.socket; systemctl start "
        "iscsid.service",
    ),
    Fault.INITIATOR_NAME_MISSING: Entry(
        Check.INITIATOR_NAME,
        Severity.FAILURE,
        "/etc/iscsi/initiatorname.iscsi isn't there or names nothing: nobody can export to this "
        "host.",
        "Install open-iscsi and start iscsid once, or write one: "
        "echo InitiatorName=$(iscsi-iname) > /etc/iscsi/initiatorname.iscsi",
    ),
    Fault.INITIATOR_NAME_INVALID: Entry(
        Check.INITIATOR_NAME,
        Severity.FAILURE,
        "The iSCSI name has none of the forms that RFC 7143 knows (iqn., eui., naa.): targets "
        "refuse it.",
        _NEW_NAME,
    ),
    Fault.INITIATOR_NAME_DEFAULT: Entry(
        Check.INITIATOR_NAME,
        Severity.FAILURE,
        "The iSCSI name is one of a documentation's or of a ready-made image's: other hosts have "
        "it, too. Each of them is let in to the others' volumes, and they throw each other out.",
        _NEW_NAME,
    ),
    Fault.INITIATOR_NAME_CLONED: Entry(
        Check.INITIATOR_NAME,
        Severity.WARNING,
        "The iSCSI name is older than this host's machine id, as on a machine that was cloned from "
        "another: that one, and its other clones, may have the same name.",
        "See that no other host has it. If one may: "
        + _NEW_NAME
        + ". If none does: touch /etc/iscsi/initiatorname.iscsi",
    ),
    Fault.INITIATOR_NAME_UNREAD: Entry(
        Check.INITIATOR_NAME,
        Severity.WARNING,
        "The iSCSI name's file was written behind iscsid's start, which reads it only then. If the "
        "name in it is a new one, Cinder lets that one in, and iscsid logs in by the old one: "
        "attaches end in `connect-failed`.",
        "systemctl restart iscsid.service; sessions stay as they are.",
    ),
    Fault.MULTIPATHD_REQUIRED: Entry(
        Check.MULTIPATHD,
        Severity.FAILURE,
        "`[brick] multipath = require`, and multipathd doesn't run: every attach is refused.",
        "systemctl enable --now multipathd.service",
    ),
    Fault.MULTIPATHD_NOT_RUNNING: Entry(
        Check.MULTIPATHD,
        Severity.WARNING,
        "`[brick] multipath = on`, and multipathd doesn't run: volumes get a single path.",
        "systemctl enable --now multipathd.service; what is attached already stays as it is.",
    ),
    Fault.LVM_SCANS_VOLUMES: Entry(
        Check.LVM_FILTER,
        Severity.FAILURE,
        "The host's LVM looks into the volumes of guests: it may activate what a guest keeps "
        "there, which then holds the device, and both write.",
        "In /etc/lvm/lvm.conf accept the host's own disks only, such as devices { global_filter = "
        '[ "a#^/dev/vda#", "r#.*#" ] }, or use a devices file (man lvmdevices).',
    ),
    Fault.KEYSTONE_LOGIN_FAILED: Entry(
        Check.KEYSTONE_LOGIN,
        Severity.FAILURE,
        "Keystone doesn't answer, or refuses the credentials. A daemon that runs still has a "
        "token, until that one ends.",
        "Check that Keystone is up, and auth_url, username, password, project_name and the domains "
        "in [cinder] of attachd.conf.",
    ),
    Fault.SERVICE_ROLE_MISSING: Entry(
        Check.SERVICE_ROLE,
        Severity.FAILURE,
        "Without the role service Cinder refuses to delete an attachment in use "
        "(CVE-2023-2088): no volume can be detached.",
        "openstack role add --user attachd --project service service",
    ),
    Fault.ADMIN_ROLE_MISSING: Entry(
        Check.SERVICE_ROLE,
        Severity.FAILURE,
        "Without the role admin Cinder hides from attachd what belongs to other projects.",
        "openstack role add --user attachd --project service admin",
    ),
    Fault.CINDER_UNAVAILABLE: Entry(
        Check.CINDER_API,
        Severity.FAILURE,
        "Cinder doesn't answer attachd, or refuses it.",
        "Check that Cinder's API is up, and region_name and interface in [cinder] of attachd.conf.",
    ),
    Fault.CINDER_TOO_OLD: Entry(
        Check.CINDER_MICROVERSION,
        Severity.FAILURE,
        "`[cinder] attach_flow = attachments` needs microversion 3.44, and Cinder speaks less.",
        "Upgrade Cinder, or set [cinder] attach_flow = auto.",
    ),
    Fault.CINDER_OLD_STYLE: Entry(
        Check.CINDER_MICROVERSION,
        Severity.WARNING,
        "Cinder speaks less than 3.44: volumes are attached in the old style.",
        "Upgrade Cinder, or set [cinder] attach_flow = volume-actions, if that is what you want.",
    ),
    Fault.CLOCK_SKEWED: Entry(
        Check.CLOCK,
        Severity.FAILURE,
        "This host's clock and another's differ by more than 30 s: tokens are taken for fresh when "
        "they have ended, or thrown away while they are good, and logs can't be compared.",
        "timedatectl; run an NTP client on every host (chrony, systemd-timesyncd).",
    ),
}


def tables() -> str:
    """Every check and every fault, as docs/reference/doctor.md has them."""
    checks = [f"| `{check}` | {LOOKED_AT[check]} |" for check in Check]
    faults = [
        f"| `{fault}` | `{entry.check}` | {entry.severity} | {entry.meaning} | {entry.remedy} |"
        for fault, entry in CATALOGUE.items()
    ]
    lines = (
        "| check | the question |",
        "|---|---|",
        *checks,
        "",
        "| code | check | severity | what it means | remedy |",
        "|---|---|---|---|---|",
        *faults,
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(tables())
