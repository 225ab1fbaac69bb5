from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from attachd.errors import AttachdError, Code
from attachd.host.privilege import (
    PrivilegedHelper,
    check_lock_directory,
    drop_to,
    keep_locks_shared,
    prepare_lock_directory,
)

UNIT = Path(__file__).resolve().parents[3] / "systemd" / "attachd.service"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# What the daemon does at its start, with the user nobody; then ``{rest}``.
START = """
import os, signal, sys
from pathlib import Path
from oslo_config import cfg
from attachd.host import brick, privilege
locks = Path(sys.argv[1])
helper = privilege.start_helper(cfg.CONF, lock_path=locks, user="nobody")
privilege.drop_to("nobody")
"""


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that others may enter, as pytest's own may not be."""
    path = Path(tempfile.mkdtemp(prefix="attachd-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def _run(rest: str, locks: Path, *, within: tuple[str, ...] = ()) -> str:
    done = subprocess.run(
        [*within, sys.executable, "-W", "ignore", "-c", START + rest, str(locks)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@as_root
def test_the_daemon_has_dropped_and_its_helper_has_not(open_path: Path) -> None:
    said = _run(
        """
print(os.getresuid(), brick.execute("id", "-u", run_as_root=True)[0].strip(), helper.alive())
privilege.check_lock_directory(locks)
try:
    os.seteuid(0)
except PermissionError:
    print("for good")
""",
        open_path / "locks",
    )
    assert said.split("\n")[:2] == ["(65534, 65534, 65534) 0 True", "for good"]


def _the_units_capabilities() -> str:
    """CapabilityBoundingSet= of the unit, as setpriv takes it."""
    lines = UNIT.read_text().splitlines()
    sets = [line.split("=", 1)[1] for line in lines if line.startswith("CapabilityBoundingSet=")]
    names = [name.removeprefix("CAP_").lower() for each in sets for name in each.split()]
    assert names
    return ",".join(("-all", *(f"+{name}" for name in names)))


@as_root
def test_the_units_capabilities_are_enough(open_path: Path) -> None:
    """For the way down, and for a command that looks into processes of other users."""
    stranger = subprocess.Popen(
        ["setpriv", "--reuid", "1", "--regid", "1", "--clear-groups", "sleep", "300"],
        stdin=subprocess.DEVNULL,
    )
    try:
        said = _run(
            f"""
look = "ls /proc/{stranger.pid}/fd; grep CapBnd /proc/self/status"
print(os.getresuid(), *brick.execute("sh", "-c", look, run_as_root=True)[0].split())
""",
            open_path / "locks",
            within=("setpriv", "--bounding-set", _the_units_capabilities()),
        )
    finally:
        stranger.kill()
        stranger.wait()
    # CHOWN 0, DAC_OVERRIDE 1, DAC_READ_SEARCH 2, SETGID 6, SETUID 7, SYS_PTRACE 19, SYS_ADMIN 21
    assert said == "(65534, 65534, 65534) 0 1 2 CapBnd: 00000000002800c7\n"


@as_root
def test_what_the_helper_and_its_commands_have_worked_is_known(open_path: Path) -> None:
    said = _run(
        """
before = helper.cpu_seconds()
brick.execute("sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done", run_as_root=True)
print(helper.cpu_seconds() > before >= 0)
""",
        open_path / "locks",
    )
    assert said == "True\n"


@as_root
def test_a_dead_helper_is_noticed_and_has_no_successor(open_path: Path) -> None:
    said = _run(
        """
pid = int(brick.execute("sh", "-c", "echo $PPID", run_as_root=True)[0])
children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
assert str(pid) in children, (pid, children)
try:
    brick.execute("kill", "-9", str(pid), run_as_root=True)
except Exception:
    pass
print(helper.wait_until_dead(60), helper.alive())
try:
    print(brick.execute("id", "-u", run_as_root=True))
except Exception as exc:
    print(type(exc).__name__)
""",
        open_path / "locks",
    )
    assert said.split("\n")[:2] == ["True False", "FailedToDropPrivileges"]


@as_root
def test_a_helper_that_dies_with_a_request_unread_is_noticed(open_path: Path) -> None:
    said = _run(
        """
import threading, time
pid = int(brick.execute("sh", "-c", "echo $PPID", run_as_root=True)[0])
murder = f"sleep 1; kill -STOP {pid}; touch {locks}/stopped; sleep 2; kill -KILL {pid}"
brick.execute("sh", "-c", f"setsid sh -c '{murder}' >/dev/null 2>&1 &", run_as_root=True)
while not (locks / "stopped").exists():
    time.sleep(0.05)
threading.Thread(target=brick.execute, args=("id",), kwargs={"run_as_root": True},
                 daemon=True).start()
print(helper.wait_until_dead(60), helper.alive(), flush=True)
os._exit(0)
""",
        open_path / "locks",
    )
    assert said.split("\n")[0] == "True False"


@as_root
def test_an_unknown_user() -> None:
    with pytest.raises(AttachdError) as caught:
        drop_to("no-such-user-here")
    assert caught.value.code is Code.CONFIG_INVALID


def test_a_helper_that_nobody_can_see_has_worked_nothing() -> None:
    assert PrivilegedHelper(channel=None, pid=None).cpu_seconds() == 0  # type: ignore[arg-type]


def test_the_helper_is_forked_before_the_daemons_libraries_are_there(tmp_path: Path) -> None:
    """It would carry them for good."""
    program = """
import sys
from attachd import __main__
from attachd.errors import AttachdError, Code
from attachd.host import privilege

def start_helper(*_, **__):
    print(sorted({"flask", "libvirt", "openstack", "sqlite3"} & set(sys.modules)), flush=True)
    raise AttachdError(Code.CONFIG_INVALID, "It goes no further.")

privilege.start_helper = start_helper
sys.argv[0] = "attachd"
__main__.main()
"""
    conf = tmp_path / "attachd.conf"
    conf.write_text("[cinder]\n")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, "--config-file", str(conf)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "[]\n", done.stderr
    assert "It goes no further." in done.stderr


def test_the_helper_is_not_forked_beside_threads() -> None:
    program = """
import threading
from attachd.host.privilege import fork_privileged_helper
done = threading.Event()
threading.Thread(target=done.wait).start()
try:
    fork_privileged_helper()
except RuntimeError:
    print("refused")
finally:
    done.set()
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout == "refused\n"


@as_root
def test_a_shared_lock_directory_stays_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    prepare_lock_directory(tmp_path, user="nobody")
    assert tmp_path.stat().st_uid == 0
    prepare_lock_directory(tmp_path / "own", user="nobody")
    assert (tmp_path / "own").owner() == "nobody"


@as_root
def test_locks_of_another_user_are_named(open_path: Path) -> None:
    open_path.chmod(0o777)
    (open_path / "os-brick-connect_volume").touch(mode=0o644)
    said = _run(
        """
try:
    privilege.check_lock_directory(locks)
except Exception as exc:
    print(exc.problem)
""",
        open_path,
    )
    assert "config-invalid" in said
    assert "os-brick-connect_volume" in said


@as_root
def test_a_lock_in_a_shared_directory_is_for_all_of_its_group(open_path: Path) -> None:
    """The unit's umask is 0077; os-brick's own lock is taken, and one made before is opened."""
    os.chown(open_path, 0, 1)
    open_path.chmod(0o2777)
    before = open_path / "os-brick-before"
    before.touch(mode=0o600)
    os.chown(before, 65534, 1)
    _run(
        """
os.umask(0o077)
privilege.keep_locks_shared(locks)
brick.exclusively(lambda: None)
""",
        open_path,
    )
    locks = [file.stat() for file in open_path.iterdir()]
    assert [(oct(lock.st_mode), lock.st_uid, lock.st_gid) for lock in locks] == [
        ("0o100660", 65534, 1)
    ] * 2


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.parametrize(
    ("mode", "same_group", "sharing"),
    [
        (0o700, True, False),
        (0o700, False, False),
        (0o750, False, False),
        (0o770, True, True),
        (0o2770, True, True),
        (0o2770, False, True),
    ],
)
def test_which_lock_directories_are_shared(
    tmp_path: Path,
    umask: None,
    monkeypatch: pytest.MonkeyPatch,
    mode: int,
    same_group: bool,
    sharing: bool,
) -> None:
    tmp_path.chmod(mode)
    gid = tmp_path.stat().st_gid
    monkeypatch.setattr(os, "getegid", lambda: gid if same_group else gid + 1)
    keep_locks_shared(tmp_path)
    (tmp_path / "made").touch()
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == (0o660 if sharing else 0o600)


def test_a_shared_directory_whose_files_get_another_group(
    tmp_path: Path, umask: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o770)
    gid = tmp_path.stat().st_gid
    monkeypatch.setattr(os, "getegid", lambda: gid + 1)
    with pytest.raises(AttachdError) as caught:
        keep_locks_shared(tmp_path)
    assert caught.value.code is Code.CONFIG_INVALID
    assert "chmod g+s" in caught.value.problem.resolution


def test_a_missing_lock_directory(tmp_path: Path) -> None:
    with pytest.raises(AttachdError) as caught:
        check_lock_directory(tmp_path / "missing")
    assert caught.value.code is Code.CONFIG_INVALID
