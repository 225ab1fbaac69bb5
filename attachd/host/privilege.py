"""Root's helper, and the way down from root (law 10).

The daemon starts as root, prepares os-brick's lock directory, forks os-brick's privileged helper
while it has a single thread, and becomes its own user for good. The helper is forked once: when it
dies, oslo.privsep would start another through sudo, so its command for that is one that fails, and
the daemon watches :class:`PrivilegedHelper` and exits non-zero; systemd starts both again.
"""

from __future__ import annotations

import gc
import logging
import os
import pwd
import stat
import threading
from pathlib import Path
from typing import Protocol

from oslo_privsep.priv_context import Method

from attachd.errors import AttachdError, Code
from attachd.host import brick

LOG = logging.getLogger(__name__)

# Each thread of the helper runs one command: a stuck flush must not keep the others waiting.
HELPER_THREADS = 16
NO_SECOND_HELPER = "/bin/false"
LOCK_FILES = "os-brick-*"
_SHARING_UMASK = 0o007


class Channel(Protocol):
    """oslo.privsep's channel to its helper."""

    running: bool
    reader_thread: threading.Thread


class GlobalConf(Protocol):
    """oslo.config's ``CONF``, as far as it is used here."""

    def __call__(
        self,
        args: list[str],
        *,
        project: str,
        default_config_files: list[str],
        default_config_dirs: list[str],
    ) -> None:
        """Parse these arguments and files."""

    def set_default(self, name: str, default: object, *, group: str) -> None:
        """Set an option's default."""


class PrivilegedHelper:
    """The forked helper, seen from the daemon."""

    def __init__(self, *, channel: Channel, pid: int | None = None) -> None:
        self._channel = channel
        self._pid = pid

    def alive(self) -> bool:
        """Would a privileged call reach it?

        oslo.privsep notices an orderly end only: where the helper dies with a request unread, its
        reader ends in ECONNRESET, and the channel goes on to claim that it runs.
        """
        return self._channel.running and self._channel.reader_thread.is_alive()

    def cpu_seconds(self) -> float:
        """What it and the commands that it ran have taken of a processor; 0: nobody can tell."""
        try:
            stat = Path(f"/proc/{self._pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return 0.0
        # Its name may hold anything; utime, stime, cutime and cstime: proc_pid_stat(5).
        fields = stat.rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def wait_until_dead(self, timeout: float | None = None) -> bool:
        """Wait until it died, at most ``timeout`` seconds; True if it is dead."""
        reader = self._channel.reader_thread
        reader.join(timeout)
        return not reader.is_alive()


def configure_os_brick(conf: GlobalConf, *, lock_path: Path) -> None:
    """Tell os-brick where its lock files lie; ``conf`` is oslo.config's process-wide ``CONF``.

    os-brick and oslo.privsep read no other, and it reads no file here: attachd's own options stay
    in attachd's own ConfigOpts.
    """
    conf([], project="attachd", default_config_files=[], default_config_dirs=[])
    conf.set_default("lock_path", str(lock_path), group="oslo_concurrency")
    conf.set_default("thread_pool_size", HELPER_THREADS, group="privsep_osbrick")
    conf.set_default("helper_command", NO_SECOND_HELPER, group="privsep_osbrick")
    brick.set_up(conf)


def start_helper(conf: GlobalConf, *, lock_path: Path, user: str) -> PrivilegedHelper:
    """Root's first part of the daemon's start: os-brick's locks, and the helper.

    As early as can be: the helper carries whatever was imported before. ``conf`` is oslo.config's
    process-wide ``CONF``. Raises config-invalid.
    """
    configure_os_brick(conf, lock_path=lock_path)
    prepare_lock_directory(lock_path, user=user)
    return fork_privileged_helper()


def prepare_lock_directory(path: Path, *, user: str) -> None:
    """Create the lock directory for ``user`` where it is missing. Root only.

    A directory that exists may be shared with Nova and Cinder: it stays as it is.
    """
    if path.exists():
        return
    account = _account(user)
    path.mkdir(mode=0o770, parents=True)
    os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def check_lock_directory(path: Path) -> None:
    """Raise config-invalid where this process can't write the locks that lie there.

    To be asked after :func:`drop_to`: a file that another user made with umask 022 (root, above
    all) fails only in the midst of a connect otherwise.
    """
    if unwritable := unwritable_lock(path, LOCK_FILES):
        raise _unusable(unwritable)


def unwritable_lock(directory: Path, *files: str) -> Path | None:
    """The first thing there that this process can't write: the directory, or one of these files.

    ``files``: patterns of their names.
    """
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        return directory
    locks = sorted(lock for pattern in files for lock in directory.glob(pattern))
    return next((lock for lock in locks if not os.access(lock, os.W_OK)), None)


def check_new_locks_group(path: Path) -> None:
    """Raise config-invalid where the directory is a group's, and new files in it would not be."""
    status = path.stat()
    if not status.st_mode & stat.S_IWGRP:
        return
    theirs = status.st_gid != os.getegid() and not status.st_mode & (stat.S_ISGID | stat.S_IWOTH)
    if theirs:
        raise AttachdError(
            Code.CONFIG_INVALID,
            f"os-brick's locks can't be shared: new files in {path} get another group.",
            details=f"The directory's group is {status.st_gid}, this process's {os.getegid()}.",
            resolution=f"chmod g+s {path}",
            touched=False,
        )


def keep_locks_shared(path: Path) -> None:
    """See that the locks made here can be taken by whoever shares their directory.

    One that its group may write is shared, with Nova and Cinder: a lock file that this process
    made there for itself alone would keep them from connecting anything. To be asked after
    :func:`drop_to`. Raises config-invalid where new files would belong to another group.
    """
    check_new_locks_group(path)
    if not path.stat().st_mode & stat.S_IWGRP:
        return
    os.umask(_SHARING_UMASK)
    for lock in path.glob(LOCK_FILES):
        if lock.stat().st_uid == os.geteuid():
            lock.chmod(0o660)


def fork_privileged_helper() -> PrivilegedHelper:
    """Fork the helper. As root, after :func:`configure_os_brick`, before any thread starts."""
    if threading.active_count() != 1:
        raise RuntimeError("The privileged helper must be forked before any thread starts.")
    gc.collect()
    gc.freeze()  # else either collector writes into every object, and no page stays shared
    context = brick.privileged.default
    before = _children()
    context.start(Method.FORK)
    return PrivilegedHelper(channel=context.channel, pid=max(_children() - before, default=None))


def _children() -> set[int]:
    """This process's own; none where the kernel doesn't list them."""
    try:
        listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    except OSError:
        return set()
    return set(map(int, listed.split()))


def drop_to(user: str) -> None:
    """Become ``user`` with its groups, and make sure that there is no way back to root."""
    account = _account(user)
    os.initgroups(account.pw_name, account.pw_gid)
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    if os.getresuid() != (account.pw_uid,) * 3 or os.getresgid() != (account.pw_gid,) * 3:
        raise RuntimeError(f"The process did not become {user}.")
    if account.pw_uid != 0:
        _prove_no_way_back()
    LOG.info("Running as %s", user)


def _prove_no_way_back() -> None:
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise RuntimeError("The process could become root again.")


def _account(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError as exc:
        raise AttachdError(
            Code.CONFIG_INVALID,
            f"There is no user {user}.",
            details="[DEFAULT] user in attachd.conf",
            resolution="Create it (systemd-sysusers), or name another there.",
            touched=False,
        ) from exc


def _unusable(path: Path) -> AttachdError:
    return AttachdError(
        Code.CONFIG_INVALID,
        f"os-brick's locks can't be used: {path} is not writable.",
        details=f"The daemon runs as uid {os.getuid()}.",
        resolution="Give the directory and its os-brick-* files to the daemon's user, or to a "
        "group that it shares with the services that use them too (their umask: 002).",
        touched=False,
    )
