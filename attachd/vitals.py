"""What each world tells the doctor of itself. No I/O, and no judgement: that is the doctor's."""

from __future__ import annotations

from dataclasses import dataclass

NOVA_COMPUTE = "nova-compute"

Version = tuple[int, int, int]
"""Major, minor, release."""


def spelled_version(version: Version) -> str:
    """As people write it."""
    return ".".join(map(str, version))


@dataclass(frozen=True, kw_only=True)
class LibvirtVersions:
    """The daemon's own, and its hypervisor's; None: libvirt found no QEMU to ask."""

    libvirt: Version
    qemu: Version | None


@dataclass(frozen=True, kw_only=True)
class InitiatorName:
    """The host's iSCSI name; None: its file names none.

    Times are seconds of the wall clock: when the file was written, and when the host got the
    machine id that it has (None: it has none); ``iscsid_since``: when the iscsid that runs was
    started (None: none runs).
    """

    name: str | None
    written_at: float
    machine_id_at: float | None
    iscsid_since: float | None = None


@dataclass(frozen=True, kw_only=True)
class LvmScan:
    """What the host's LVM looks at. ``global_filter``: its patterns, in their order.

    ``devices_file``: it looks only at the devices in a file of its own, and at no filter.
    ``local_disks``: the kernel's names of the SCSI disks here that no iSCSI session brought.
    """

    global_filter: tuple[str, ...]
    devices_file: bool
    local_disks: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class FileStatus:
    """Whose a file is (uid, gid), and its permission bits."""

    owner: int
    group: int
    mode: int


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """Another service on this host that works with os-brick; ``config_files`` in their order."""

    program: str
    pid: int
    config_files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LockSharing:
    """Where a neighbour's os-brick has its locks, and whether that is where attachd's has them.

    ``lock_path`` is None where its configuration doesn't tell.
    """

    neighbour: Neighbour
    lock_path: str | None
    shared: bool


@dataclass(frozen=True, kw_only=True)
class Login:
    """What Keystone said to attachd's credentials. None of it where there is no Keystone.

    ``skew``: seconds by which Keystone's clock is ahead of this host's.
    """

    roles: frozenset[str] | None
    skew: float | None


@dataclass(frozen=True, kw_only=True)
class CinderAnswer:
    """The highest microversion that Cinder and attachd speak, and how far Cinder's clock is ahead.

    ``new_style``: that has attachments with ids of their own. ``skew``: seconds; None where its
    answer has no date.
    """

    microversion: str
    new_style: bool
    skew: float | None


@dataclass(frozen=True, kw_only=True)
class JournalHealth:
    """How journal.db is. ``problem``: what keeps attachd from trusting it.

    ``reserved``: the room for the rows of what is under way is allocated; ``room``: it could be.
    """

    there: bool
    problem: str | None = None
    reserved: bool = True
    room: bool = True
