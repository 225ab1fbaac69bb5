"""What the doctor asks of this host. It changes nothing, and judges nothing.

The daemon's own eyes see most of it; what only root may see is asked of the privileged helper.
Each question raises Unreachable iscsi-unavailable where it can't be answered.
"""

from __future__ import annotations

import grp
from pathlib import Path

from attachd.host import brick
from attachd.host.brick import Execute
from attachd.host.commands import Commands, Deadline
from attachd.host.failures import asking
from attachd.host.host import Helper
from attachd.host.initiator import INITIATOR_NAME, initiator_name_in, iscsid_hindrance, iscsid_since
from attachd.host.lvm import DEVICES_FILES, lvm_config
from attachd.host.neighbours import lock_sharing, look, neighbours
from attachd.host.privilege import LOCK_FILES, check_new_locks_group, unwritable_lock
from attachd.host.sysfs import Sysfs
from attachd.vitals import FileStatus, InitiatorName, LockSharing, LvmScan, Neighbour

_SECONDS = 20
_KVM = Path("/dev/kvm")
_MACHINE_ID = Path("/etc/machine-id")


class HostSurvey:
    """Answers from a fresh look each. Thread-safe."""

    def __init__(self, *, helper: Helper, execute: Execute = brick.execute) -> None:
        self._helper = helper
        self._execute = execute
        self._sysfs = Sysfs()

    def helper_uid(self) -> str:
        """Who the privileged helper is, by its own word."""
        with asking("The privileged helper runs no commands."):
            return self._as_root("id", "-u").strip()

    def kvm(self) -> bool:
        """Is there /dev/kvm?"""
        return _KVM.is_char_device()

    def iscsid_hindrance(self) -> str | None:
        """What keeps iscsid away for good; None: it runs, or comes when it is asked for."""
        return iscsid_hindrance()

    def initiator_name(self) -> InitiatorName | None:
        """None: there is no file for it."""
        written_at = _written_at(INITIATOR_NAME)
        if written_at is None:
            return None
        with asking("The iSCSI initiator's name can't be read."):
            text = self._as_root("cat", str(INITIATOR_NAME))
        return InitiatorName(
            name=initiator_name_in(text),
            written_at=written_at,
            machine_id_at=_written_at(_MACHINE_ID),
            iscsid_since=iscsid_since(),
        )

    def multipathd_runs(self) -> bool:
        """Where systemd listens for it, it is started by this."""
        with asking("multipathd can't be asked."):
            return brick.multipath_running(execute=self._commands())

    def lvm_scan(self) -> LvmScan | None:
        """None: there is no LVM on this host."""
        config = lvm_config()
        if config is None:
            return None
        file = f"{DEVICES_FILES}/{config.devicesfile}"
        return LvmScan(
            global_filter=config.global_filter,
            devices_file=config.use_devicesfile and self.status_as_root(file) is not None,
            local_disks=self._sysfs.local_disks(),
        )

    def neighbours(self) -> tuple[Neighbour, ...]:
        """Other services here that work with os-brick."""
        return neighbours()

    def lock_sharing(self, lock_path: Path) -> tuple[LockSharing, ...]:
        """Where each neighbour's os-brick has its locks; ``lock_path``: where attachd's are."""
        with asking("Where other services have os-brick's locks can't be told."):
            return tuple(
                lock_sharing(neighbour, lock_path, as_root=self._as_root)
                for neighbour in neighbours()
            )

    def unwritable_lock(self, directory: Path, *files: str) -> Path | None:
        """The first thing there that attachd's user can't write; see privilege."""
        return unwritable_lock(directory, *files)

    def unusable_brick_lock(self, directory: Path) -> Path | None:
        """The same of os-brick's locks. Raises config-invalid where new ones can't be shared."""
        if unwritable := unwritable_lock(directory, LOCK_FILES):
            return unwritable
        check_new_locks_group(directory)
        return None

    def group_id(self, name: str) -> int | None:
        """None: there is no such group."""
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            return None

    def status(self, path: Path) -> FileStatus | None:
        """A file's, by the daemon's own eyes; None: there is none."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        return FileStatus(owner=status.st_uid, group=status.st_gid, mode=status.st_mode & 0o7777)

    def status_as_root(self, path: str) -> FileStatus | None:
        """The same by root's eyes."""
        with asking(f"{path} can't be looked at."):
            shown = look(self._as_root, "stat", "-L", "-c", "%u %g %a", path)
        if shown is None:
            return None
        owner, group, mode = shown.split()
        return FileStatus(owner=int(owner), group=int(group), mode=int(mode, 8))

    def _as_root(self, *command: str) -> str:
        return self._commands().as_root(*command)

    def _commands(self) -> Commands:
        return Commands(
            execute=self._execute,
            deadline=Deadline(_SECONDS),
            helper_alive=self._helper.alive,
        )


def _written_at(path: Path) -> float | None:
    """None: there is no such file."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None
