"""The host's answers to the doctor: a fresh look each, and root's eyes where others see nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from attachd.doctor.ports import Host
from attachd.errors import AttachdError, Code, Unreachable
from attachd.host.lvm import LvmConfig
from attachd.host.survey import HostSurvey
from attachd.vitals import FileStatus, InitiatorName, LockSharing, Neighbour
from tests.unit.host.as_root import Helper, RealCommands

NAME = "iqn.1993-08.org.debian:01:a6a4d4f7356f"


@pytest.fixture
def commands() -> RealCommands:
    return RealCommands()


@pytest.fixture
def helper() -> Helper:
    return Helper()


@pytest.fixture
def host(helper: Helper, commands: RealCommands) -> Host:
    return HostSurvey(helper=helper, execute=commands)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The initiator's name, written a day behind the machine id."""
    for name, constant, written_at in (
        ("initiatorname.iscsi", "INITIATOR_NAME", 200_000),
        ("machine-id", "_MACHINE_ID", 100_000),
    ):
        path = tmp_path / name
        path.write_text(f"## DO NOT EDIT OR REMOVE THIS FILE!\nInitiatorName={NAME} \n")
        os.utime(path, (written_at, written_at))
        monkeypatch.setattr(f"attachd.host.survey.{constant}", path)
    monkeypatch.setattr("attachd.host.survey.iscsid_since", lambda: 300_000.0)
    return tmp_path


def test_the_helper_is_who_it_says(host: Host, commands: RealCommands) -> None:
    assert host.helper_uid() == str(os.getuid())
    assert commands.ran == [("id", "-u")]


def test_the_initiators_name_and_times(host: Host, files: Path) -> None:
    assert host.initiator_name() == InitiatorName(
        name=NAME, written_at=200_000, machine_id_at=100_000, iscsid_since=300_000
    )
    (files / "machine-id").unlink()
    (files / "initiatorname.iscsi").write_text("GenerateName=yes\n")
    found = host.initiator_name()
    assert found is not None
    assert (found.name, found.machine_id_at) == (None, None)
    (files / "initiatorname.iscsi").unlink()
    assert host.initiator_name() is None


def test_whose_a_file_is(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert (host.status(path), host.status_as_root(str(path))) == (None, None)
    path.touch()
    path.chmod(0o640)
    expected = FileStatus(owner=os.getuid(), group=os.getgid(), mode=0o640)
    assert (host.status(path), host.status_as_root(str(path))) == (expected, expected)


def test_what_root_cannot_see_is_not_gone(
    host: Host, commands: RealCommands, tmp_path: Path
) -> None:
    commands.denied.add(str(tmp_path))
    with pytest.raises(Unreachable):
        host.status_as_root(str(tmp_path))


def test_groups(host: Host) -> None:
    assert host.group_id("root") == 0
    assert host.group_id("no-such-group") is None


def test_locks_that_can_be_written(host: Host, tmp_path: Path) -> None:
    (tmp_path / "os-brick-connect_volume").touch()
    assert host.unwritable_lock(tmp_path, "guest-*") is None
    assert host.unusable_brick_lock(tmp_path) is None
    missing = tmp_path / "missing"
    assert host.unwritable_lock(missing, "guest-*") == missing
    assert host.unusable_brick_lock(missing) == missing


def test_new_locks_that_would_be_another_groups(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getegid", lambda: os.getgid() + 1)
    tmp_path.chmod(0o770)
    with pytest.raises(AttachdError) as caught:
        host.unusable_brick_lock(tmp_path)
    assert caught.value.code is Code.CONFIG_INVALID


QUESTIONS: list[Callable[[Host], object]] = [
    lambda host: host.helper_uid(),
    lambda host: host.initiator_name(),
    lambda host: host.multipathd_runs(),
    lambda host: host.status_as_root("/etc/hosts"),
]


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("question", QUESTIONS)
def test_without_its_helper_the_host_answers_nothing(
    host: Host, helper: Helper, commands: RealCommands, question: Callable[[Host], object]
) -> None:
    helper.living = False
    with pytest.raises(Unreachable):
        question(host)
    assert commands.ran == []


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_helper_that_dies_meanwhile_is_no_answer(
    helper: Helper, question: Callable[[Host], object]
) -> None:
    """oslo.privsep has a bare OSError for it."""

    def execute(*_: str, **__: object) -> tuple[str, str]:
        raise OSError("Premature eof waiting for privileged process")

    with pytest.raises(Unreachable):
        question(HostSurvey(helper=helper, execute=execute))


def test_kvm_is_a_device(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("attachd.host.survey._KVM", Path("/dev/null"))
    assert host.kvm()
    for path in (tmp_path / "missing", tmp_path):
        monkeypatch.setattr("attachd.host.survey._KVM", path)
        assert not host.kvm()


@pytest.mark.parametrize(
    ("script", "runs"), [("echo path checker states:", True), ("exit 1", False), (None, False)]
)
def test_multipathd(
    host: Host,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str | None,
    runs: bool,
) -> None:
    if script:
        (tmp_path / "multipathd").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "multipathd").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host.multipathd_runs() is runs


def test_the_devices_file_counts_only_where_it_is(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = LvmConfig(global_filter=("r|.*|",), use_devicesfile=True, devicesfile="file")
    monkeypatch.setattr("attachd.host.survey.lvm_config", lambda: config)
    monkeypatch.setattr("attachd.host.survey.DEVICES_FILES", str(tmp_path))
    for there in (False, True):
        scan = host.lvm_scan()
        assert scan is not None
        assert (scan.global_filter, scan.devices_file) == (("r|.*|",), there)
        (tmp_path / "file").touch()
    monkeypatch.setattr("attachd.host.survey.lvm_config", lambda: None)
    assert host.lvm_scan() is None


def test_neighbours_and_their_locks(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    neighbour = Neighbour(program="nova-compute", pid=os.getpid(), config_files=(f"{tmp_path}/c",))
    monkeypatch.setattr("attachd.host.survey.neighbours", lambda: (neighbour,))
    (tmp_path / "c").write_text(f"[oslo_concurrency]\nlock_path = {tmp_path}\n")
    assert host.neighbours() == (neighbour,)
    expected = LockSharing(neighbour=neighbour, lock_path=str(tmp_path), shared=True)
    assert host.lock_sharing(tmp_path) == (expected,)
