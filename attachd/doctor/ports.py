"""What the doctor asks of the worlds. Each question raises AttachdError where it isn't answered."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from attachd.model import Guest
from attachd.vitals import (
    CinderAnswer,
    FileStatus,
    InitiatorName,
    JournalHealth,
    LibvirtVersions,
    LockSharing,
    Login,
    LvmScan,
    Neighbour,
)


class Host(Protocol):
    """This host, as the daemon's user and its privileged helper see it."""

    def helper_uid(self) -> str:
        """Who the privileged helper is, by its own word."""

    def kvm(self) -> bool:
        """Is there /dev/kvm?"""

    def iscsid_hindrance(self) -> str | None:
        """What keeps iscsid away for good; None: nothing does."""

    def initiator_name(self) -> InitiatorName | None:
        """None: there is no file for it."""

    def multipathd_runs(self) -> bool:
        """Where systemd listens for it, it is started by this."""

    def lvm_scan(self) -> LvmScan | None:
        """None: there is no LVM on this host."""

    def neighbours(self) -> tuple[Neighbour, ...]:
        """Other services here that work with os-brick."""

    def lock_sharing(self, lock_path: Path) -> tuple[LockSharing, ...]:
        """Where each neighbour's os-brick has its locks; ``lock_path``: where attachd's are."""

    def unwritable_lock(self, directory: Path, *files: str) -> Path | None:
        """The directory, or the first of these files in it, that attachd's user can't write."""

    def unusable_brick_lock(self, directory: Path) -> Path | None:
        """The same of os-brick's locks. Raises config-invalid where new ones can't be shared."""

    def group_id(self, name: str) -> int | None:
        """None: there is no such group."""

    def status(self, path: Path) -> FileStatus | None:
        """A file's, by the daemon's own eyes; None: there is none."""

    def status_as_root(self, path: str) -> FileStatus | None:
        """The same by root's eyes."""


class Guests(Protocol):
    """libvirt and its guests."""

    def versions(self) -> LibvirtVersions:
        """libvirt's and QEMU's."""

    def all(self) -> tuple[Guest, ...]:
        """Every domain, defined or running."""


class Cinder(Protocol):
    """Keystone and Cinder, asked anew."""

    def login(self) -> Login:
        """Log in to Keystone."""

    def ask(self) -> CinderAnswer:
        """Ask Cinder something."""


class Journal(Protocol):
    """journal.db, read only."""

    def __call__(self) -> JournalHealth:
        """How it is."""
