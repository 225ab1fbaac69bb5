"""The daemon's own checks: its socket, helper, journal and locks."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from attachd.doctor.catalogue import Check, Fault
from attachd.doctor.examination import Examination, single
from attachd.doctor.findings import Finding, failed, fine, unseen, wrong
from attachd.doctor.ports import Host, Journal
from attachd.errors import AttachdError, Code
from attachd.vitals import NOVA_COMPUTE, FileStatus, JournalHealth, LockSharing

_ROOT = 0
_SOCKET_MODE = 0o660
_OWN_LOCKS = ("guest-*", "volume-*")


def examinations(
    host: Host,
    journal: Journal,
    *,
    socket: Path,
    group: str,
    lock_path: Path,
    brick_lock_path: Path,
    running: bool,
) -> tuple[Examination, ...]:
    """All of them. ``running``: it is the daemon itself that looks."""
    return (
        single(
            Check.SOCKET_GROUP,
            lambda: socket_group(
                socket, host.status(socket), group=group, group_id=host.group_id(group)
            ),
        ),
        Examination(
            checks=(Check.PRIVILEGED_HELPER,),
            look=lambda: (privileged_helper(host.helper_uid()),),
            silence=Fault.HELPER_BROKEN,
        ),
        single(Check.JOURNAL, lambda: journal_health(journal(), running=running)),
        single(
            Check.LOCK_PATH,
            lambda: own_locks(lock_path, host.unwritable_lock(lock_path, *_OWN_LOCKS)),
        ),
        single(Check.OS_BRICK_LOCK_PATH, partial(_look_at_brick_locks, host, brick_lock_path)),
        Examination(
            checks=(Check.SHARED_LOCKS,),
            look=lambda: shared_locks(host.lock_sharing(brick_lock_path)),
        ),
    )


def socket_group(
    path: Path, status: FileStatus | None, *, group: str, group_id: int | None
) -> Finding:
    """root:GROUP 0660: the kernel keeps others out before the API is asked."""
    if group_id is None:
        return wrong(Fault.SOCKET_GROUP_MISSING, f"There is no group {group}.")
    if status is None:
        return unseen(
            Check.SOCKET_GROUP, f"{path} isn't there.", remedy="systemctl start attachd.socket"
        )
    if status != FileStatus(owner=_ROOT, group=group_id, mode=_SOCKET_MODE):
        return wrong(
            Fault.SOCKET_NOT_FOR_GROUP,
            f"{path} has mode {status.mode:04o}, uid {status.owner}, gid {status.group}; "
            f"the group {group} is {group_id}.",
        )
    return fine(Check.SOCKET_GROUP, f"{path} is for root and the group {group}.")


def privileged_helper(uid: str) -> Finding:
    """It must be root, or os-brick's commands fail midway."""
    if uid != str(_ROOT):
        return wrong(Fault.HELPER_BROKEN, f"The helper runs as uid {uid}.")
    return fine(Check.PRIVILEGED_HELPER, "The privileged helper runs commands as root.")


def journal_health(health: JournalHealth, *, running: bool) -> Finding:
    """Before its first start a daemon has no journal."""
    if not health.there:
        if running:
            return wrong(Fault.JOURNAL_MISSING, "journal.db isn't there.")
        return fine(Check.JOURNAL, "There is no journal.db yet: attachd makes one at its start.")
    if health.problem is not None:
        return wrong(Fault.JOURNAL_DAMAGED, health.problem)
    if not (health.reserved or health.room):
        return wrong(Fault.JOURNAL_NO_ROOM, "The room for what is under way can't be allocated.")
    return fine(Check.JOURNAL, "journal.db is whole, and there is room.")


def own_locks(lock_path: Path, unwritable: Path | None) -> Finding:
    """attachd's own: of guests and of volumes."""
    if unwritable is not None:
        return wrong(Fault.LOCK_PATH_UNUSABLE, f"attachd's user can't write {unwritable}.")
    return fine(Check.LOCK_PATH, f"attachd's locks are in {lock_path}.")


def _look_at_brick_locks(host: Host, lock_path: Path) -> Finding:
    try:
        return brick_locks(lock_path, host.unusable_brick_lock(lock_path))
    except AttachdError as exc:
        if exc.code is not Code.CONFIG_INVALID:
            raise
        return failed(Fault.OS_BRICK_LOCK_PATH_UNUSABLE, exc)


def brick_locks(lock_path: Path, unwritable: Path | None) -> Finding:
    """os-brick's, which may be shared with others."""
    if unwritable is not None:
        return wrong(Fault.OS_BRICK_LOCK_PATH_UNUSABLE, f"attachd's user can't write {unwritable}.")
    return fine(Check.OS_BRICK_LOCK_PATH, f"os-brick's locks are in {lock_path}.")


def shared_locks(sharing: Iterable[LockSharing]) -> list[Finding]:
    """One finding for each neighbour that works with os-brick."""
    found = [_of_neighbour(each) for each in sharing]
    return found or [
        fine(Check.SHARED_LOCKS, "Nobody else on this host works with os-brick's locks.")
    ]


def _of_neighbour(sharing: LockSharing) -> Finding:
    neighbour = sharing.neighbour
    who = f"{neighbour.program} (process {neighbour.pid})"
    if sharing.lock_path is None:
        return unseen(
            Check.SHARED_LOCKS,
            f"The configuration of {who} doesn't say where os-brick's locks are.",
            remedy="Set [oslo_concurrency] lock_path there, to the directory of [host] lock_path.",
        )
    if sharing.shared:
        return fine(Check.SHARED_LOCKS, f"{who} has the same {sharing.lock_path}.")
    nova = neighbour.program == NOVA_COMPUTE
    return wrong(
        Fault.LOCKS_NOT_SHARED_WITH_NOVA if nova else Fault.LOCKS_NOT_SHARED_WITH_CINDER,
        f"{who} has os-brick's locks in {sharing.lock_path}.",
    )
