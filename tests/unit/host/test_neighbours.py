"""Nova and Cinder beside attachd: found by their processes, their locks by what these see."""

from __future__ import annotations

from pathlib import Path

import pytest

from attachd.errors import Unreachable
from attachd.host.brick import ProcessExecutionError
from attachd.host.neighbours import lock_path_in, lock_sharing, neighbours
from attachd.vitals import LockSharing, Neighbour
from tests.unit.host.as_root import RealCommands

SECRET = "hunter2"


class Proc:
    """A /proc with a root for each process: the host's own, or a container's."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "proc"
        self.host = directory / "host"
        self.host.mkdir()
        self.start(1, "/sbin/init")

    def start(self, pid: int, *argv: str, root: Path | None = None) -> None:
        process = self.path / str(pid)
        process.mkdir(parents=True)
        (process / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in argv))
        (process / "root").symlink_to(root or self.host)

    def write(self, file: str, text: str, *, root: Path | None = None) -> None:
        path = (root or self.host) / file.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def directory(self, path: str, *, root: Path | None = None) -> Path:
        made = (root or self.host) / path.lstrip("/")
        made.mkdir(parents=True)
        return made


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


@pytest.fixture
def commands() -> RealCommands:
    return RealCommands()


def sharing(proc: Proc, ours: Path, commands: RealCommands) -> LockSharing:
    def as_root(*command: str) -> str:
        return commands(*command, run_as_root=True, timeout=20.0)[0]

    (neighbour,) = neighbours(proc=proc.path)
    return lock_sharing(neighbour, ours, as_root=as_root, proc=proc.path)


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        (("/usr/bin/nova-compute",), "nova-compute"),
        (("nova-compute", "--config-file", "/etc/nova/nova-cpu.conf"), "nova-compute"),
        (("/opt/stack/venv/bin/python3.12", "/opt/stack/venv/bin/nova-compute"), "nova-compute"),
        (("/usr/bin/python3", "-s", "/usr/bin/cinder-volume"), "cinder-volume"),
        (("/usr/bin/cinder-backup",), "cinder-backup"),
        (("/usr/bin/nova-api",), None),
        (("vi", "/usr/bin/nova-compute"), None),
        (("journalctl", "-u", "nova-compute"), None),
        (("/usr/bin/python3",), None),
        (("",), None),
    ],
)
def test_who_is_a_neighbour(proc: Proc, argv: tuple[str, ...], found: str | None) -> None:
    proc.start(812, *argv)
    assert [each.program for each in neighbours(proc=proc.path)] == ([found] if found else [])


def test_a_service_of_many_processes_is_one_neighbour(proc: Proc) -> None:
    argv = ("/usr/bin/cinder-volume", "--config-file=/etc/cinder/cinder.conf")
    for pid in (813, 814, 815):
        proc.start(pid, *argv)
    assert neighbours(proc=proc.path) == (
        Neighbour(program="cinder-volume", pid=813, config_files=("/etc/cinder/cinder.conf",)),
    )


def test_a_process_that_is_gone_meanwhile_is_none(proc: Proc) -> None:
    (proc.path / "99").mkdir()
    assert neighbours(proc=proc.path) == ()


def test_hidden_processes_are_not_none(proc: Proc) -> None:
    """With hidepid=2 even the first one isn't there."""
    (proc.path / "1/cmdline").unlink()
    with pytest.raises(Unreachable, match="can't be looked at"):
        neighbours(proc=proc.path)


def test_the_same_directory_by_another_path(
    proc: Proc, commands: RealCommands, tmp_path: Path
) -> None:
    ours = proc.directory("/opt/stack/data/os_brick")
    (proc.host / "var").symlink_to("opt/stack/data")
    proc.write(
        "/etc/nova/nova-cpu.conf",
        f"[database]\nconnection = mysql://nova:{SECRET}@db\n"
        "[oslo_concurrency]\nlock_path = /opt/stack/data/nova\n"
        "[os_brick]\nlock_path = /var/os_brick\n",
    )
    proc.start(812, "/usr/bin/nova-compute", "--config-file", "/etc/nova/nova-cpu.conf")
    found = sharing(proc, ours, commands)
    assert (found.lock_path, found.shared) == ("/var/os_brick", True)


def test_another_directory(proc: Proc, commands: RealCommands, tmp_path: Path) -> None:
    proc.directory("/var/lock/cinder")
    proc.write("/etc/cinder/cinder.conf", "[oslo_concurrency]\nlock_path=/var/lock/cinder\n")
    proc.start(813, "/usr/bin/cinder-volume")
    found = sharing(proc, proc.directory("/ours"), commands)
    assert (found.lock_path, found.shared) == ("/var/lock/cinder", False)


def test_a_container_with_the_same_path_and_another_directory(
    proc: Proc, commands: RealCommands, tmp_path: Path
) -> None:
    container = tmp_path / "container"
    proc.directory("/var/lib/locks", root=container)
    config = "[oslo_concurrency]\nlock_path = /var/lib/locks\n"
    proc.write("/etc/nova/nova.conf", config, root=container)
    proc.start(812, "/usr/bin/nova-compute", root=container)
    assert sharing(proc, proc.directory("/var/lib/locks"), commands).shared is False


def test_a_directory_that_is_not_there_yet(proc: Proc, commands: RealCommands) -> None:
    proc.write("/etc/nova/nova.conf", "[oslo_concurrency]\nlock_path = /nowhere\n")
    proc.start(812, "/usr/bin/nova-compute")
    found = sharing(proc, proc.directory("/ours"), commands)
    assert (found.lock_path, found.shared) == ("/nowhere", False)


def test_a_configuration_that_does_not_say(proc: Proc, commands: RealCommands) -> None:
    proc.start(812, "/usr/bin/nova-compute")
    assert sharing(proc, proc.directory("/ours"), commands).lock_path is None


def test_nothing_secret_is_read(proc: Proc, commands: RealCommands) -> None:
    proc.write(
        "/etc/nova/nova.conf",
        f"[DEFAULT]\ntransport_url = rabbit://x:{SECRET}@y\nstate_path = /s\n[oslo_concurrency]\n"
        "# lock_path = /comment\n lock_path = $state_path/locks\n",
    )
    proc.start(812, "/usr/bin/nova-compute")
    said: list[str] = []

    def as_root(*command: str) -> str:
        said.append(commands(*command, run_as_root=True, timeout=20.0)[0])
        return said[-1]

    (neighbour,) = neighbours(proc=proc.path)
    ours = proc.directory("/s/locks")
    found = lock_sharing(neighbour, ours, as_root=as_root, proc=proc.path)
    assert (found.lock_path, found.shared) == ("/s/locks", True)
    assert SECRET not in "".join(said)
    assert "/comment" not in "".join(said)


def test_what_root_may_not_see_is_not_gone(proc: Proc, commands: RealCommands) -> None:
    proc.write("/etc/nova/nova.conf", "[oslo_concurrency]\nlock_path = /locks\n")
    proc.start(812, "/usr/bin/nova-compute")
    ours = proc.directory("/locks")
    commands.denied.add(f"{proc.path}/812/root/locks")
    with pytest.raises(ProcessExecutionError):
        sharing(proc, ours, commands)


@pytest.mark.parametrize(
    ("texts", "path"),
    [
        ([], None),
        (["[oslo_concurrency]\nlock_path = /a\n"], "/a"),
        (["[oslo_concurrency]\nlock_path: /a\n"], "/a"),
        (["[oslo_concurrency]\nlock_path = /a\n", "[oslo_concurrency]\nlock_path = /b\n"], "/b"),
        (["[os_brick]\nlock_path = /a\n", "[oslo_concurrency]\nlock_path = /b\n"], "/a"),
        (["[database]\nlock_path = /a\n"], None),
        (["state_path = /s\n[oslo_concurrency]\nlock_path = ${state_path}/l\n"], "/s/l"),
        (["[oslo_concurrency]\nlock_path = $pybasedir/l\n"], None),
        (["[oslo_concurrency]\nlock_path = $state_path/l\n"], None),
        (["[oslo_concurrency]\nlock_path = relative\n"], None),
        (["[oslo_concurrency]\nlock_path =\n"], None),
    ],
)
def test_the_lock_path_by_oslo_configs_rules(texts: list[str], path: str | None) -> None:
    assert lock_path_in(texts) == path
