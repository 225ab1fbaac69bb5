"""attachctl doctor: what the daemon found; where none answers, what attachctl finds by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from attachd.cli.parser import DIAGNOSIS_COLUMNS
from attachd.doctor.catalogue import CATALOGUE, Check, Fault
from attachd.doctor.findings import fine, unseen, wrong
from attachd.errors import Code, Refused
from tests.fakes.engine import FakeEngine
from tests.unit.cli.conftest import Run

KVM = fine(Check.KVM, "/dev/kvm is there.")
NOVA = wrong(Fault.NOVA_ON_HOST, "nova-compute runs.")
ISCSID = wrong(Fault.ISCSID_UNAVAILABLE, "iscsid.service is masked.")
CLOCK = unseen(Check.CLOCK, "No answer.", remedy="Ask again.")


def test_a_fit_host_is_0_warnings_or_not(daemon: FakeEngine, run: Run) -> None:
    daemon.diagnosis = (KVM,)
    ran = run("doctor")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == "ok       kvm: /dev/kvm is there.\nThis host is fit.\n"

    daemon.diagnosis = (KVM, NOVA)
    ran = run("doctor")
    assert ran.status == 0
    assert ran.out == (
        "ok       kvm: /dev/kvm is there.\n"
        "warning  nova-on-host: nova-compute runs.\n"
        f"         -> {CATALOGUE[Fault.NOVA_ON_HOST].remedy}\n"
        "This host is fit (1 warning).\n"
    )


@pytest.mark.parametrize("trouble", [ISCSID, CLOCK])
def test_a_failure_and_what_is_unknown_are_5(daemon: FakeEngine, run: Run, trouble: Any) -> None:
    daemon.diagnosis = (KVM, NOVA, NOVA, trouble)
    ran = run("doctor")
    assert ran.status == 5
    assert ran.out.endswith(f"This host is not fit (1 {trouble.severity}, 2 warnings).\n")


def test_every_form(daemon: FakeEngine, run: Run) -> None:
    daemon.diagnosis = (KVM, ISCSID)
    found = run("doctor", "-f", "json")
    assert found.status == 5
    assert [tuple(each) for each in found.document] == [DIAGNOSIS_COLUMNS] * 2
    assert yaml.safe_load(run("doctor", "-f", "yaml").out) == found.document
    assert run("doctor", "-f", "value", "-c", "severity", "-c", "code").out == (
        "ok kvm\nfailure iscsid-unavailable\n"
    )
    assert run("doctor", "-f", "value").out.splitlines()[0] == "ok kvm /dev/kvm is there."
    table = run("doctor", "-c", "code", "-c", "found").out.splitlines()
    assert [cell.strip() for cell in table[1].strip("|").split("|")] == ["code", "found"]
    assert table[3].startswith("| kvm ")


def test_what_a_terminal_would_obey_is_told_in_letters(daemon: FakeEngine, run: Run) -> None:
    daemon.diagnosis = (fine(Check.INITIATOR_NAME, "iqn.\x1b[2J"),)
    assert "iqn.\\x1b[2J" in run("doctor").out


def test_a_daemon_that_refuses_is_no_reason_to_look_elsewhere(
    daemon: FakeEngine, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("attachd.cli.alone.examine_alone")
    daemon.raises = Refused(Code.SHUTTING_DOWN, "attachd is stopping.")
    ran = run("doctor")
    assert (ran.status, ran.err.split(":")[0]) == (4, "shutting-down")


# --- no daemon --------------------------------------------------------------------------------


def by_itself(monkeypatch: pytest.MonkeyPatch, directory: Path, script: str) -> Path:
    """``script`` is run in the place of Python; it finds its arguments in a file."""
    program = directory / "python"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {directory}/argv\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return directory / "argv"


def test_without_a_daemon_attachctl_looks_by_itself(
    path: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = [{"severity": "failure", "check": "daemon", "code": "daemon-down"}]
    findings[0] |= {"found": "Nobody listens.", "remedy": "Start it."}
    (tmp_path / "said").write_text(json.dumps({"fit": False, "findings": findings}))
    argv = by_itself(monkeypatch, tmp_path, f"cat {tmp_path}/said; echo noise >&2")

    ran = run("doctor", "-f", "json")

    assert (ran.status, ran.document, ran.err) == (5, findings, "")
    words = argv.read_text().splitlines()
    assert words[:3] == ["-I", "-m", "attachd.lone_doctor"]
    assert words[3] == f"{path}: No such file or directory."


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'ModuleNotFoundError: no flask' >&2; exit 1", "ModuleNotFoundError: no flask"),
        ("echo nonsense", "Expecting value"),
        ("echo []", "no diagnosis"),
        ("exec sleep 60", "longer than"),
        (None, "No such file"),
    ],
)
def test_where_it_cannot_look_either_it_says_why(
    path: Path,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str | None,
    why: str,
) -> None:
    by_itself(monkeypatch, tmp_path, script or "")
    if script is None:
        monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    monkeypatch.setattr("attachd.cli.alone._SECONDS", 2.0)
    ran = run("doctor")
    assert (ran.status, ran.out) == (6, "")
    assert ran.err.startswith("daemon-unreachable: ")
    assert why in ran.err


def test_the_process_of_its_own_is_real(path: Path) -> None:
    """Whatever this machine is like: it has no daemon, and so isn't fit."""
    environment = {**os.environ, "ATTACHD_SOCKET": str(path)}
    ran = subprocess.run(
        [sys.executable, "-m", "attachd.cli.main", "doctor", "-f", "json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (5, "")
    first = json.loads(ran.stdout)[0]
    assert first["code"] == "daemon-down"
    assert str(path) in first["found"]
