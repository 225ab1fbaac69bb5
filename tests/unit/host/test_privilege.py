from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from attachd.errors import AttachdError, Code
from attachd.host.privilege import (
    check_lock_directory,
    drop_to,
    prepare_lock_directory,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# What the daemon does at its start, with the user nobody; then ``{rest}``.
START = """
import os, signal, sys
from pathlib import Path
from oslo_config import cfg
from attachd.host import brick, privilege
locks = Path(sys.argv[1])
privilege.prepare_lock_directory(locks, user="nobody")
privilege.configure_os_brick(cfg.CONF, lock_path=locks)
helper = privilege.fork_privileged_helper()
privilege.drop_to("nobody")
"""


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that others may enter, as pytest's own may not be."""
    path = Path(tempfile.mkdtemp(prefix="attachd-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def _run(rest: str, locks: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", START + rest, str(locks)],
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


def test_a_missing_lock_directory(tmp_path: Path) -> None:
    with pytest.raises(AttachdError) as caught:
        check_lock_directory(tmp_path / "missing")
    assert caught.value.code is Code.CONFIG_INVALID
