"""The doctor where no daemon answers: with root's eyes, with anybody's, without a configuration."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attachd import lone_doctor
from attachd.doctor.catalogue import Check, Fault
from attachd.host.units import Unit

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
as_anybody = pytest.mark.skipif(os.geteuid() == 0, reason="root sees everything")

EXAMINE = """
import json, os, sys
from pathlib import Path
from attachd.api.documents import diagnosis
from attachd.lone_doctor import examine
found = examine("Nobody is there.", files=[Path(sys.argv[1])])
print(json.dumps({**diagnosis(found), "uid": os.getuid()}), flush=True)
os._exit(0)
"""
CONFIGURATION = """
[DEFAULT]
user = {user}
state_path = {state}
[guest]
uri = test:///default
[cinder]
auth_type = password
auth_url = http://127.0.0.1:1/v3
username = attachd
password = hunter2
project_name = service
user_domain_name = Default
project_domain_name = Default
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the user nobody may enter, as pytest's own may not be."""
    path = Path(tempfile.mkdtemp(prefix="attachd-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def configured(place: Path, *, user: str = "nobody", more: str = "") -> Path:
    file = place / "attachd.conf"
    file.write_text(CONFIGURATION.format(user=user, state=place / "state") + more)
    return file


def examined(file: Path, *, within: tuple[str, ...] = ()) -> dict[str, Any]:
    ran = subprocess.run(
        [*within, sys.executable, "-W", "ignore", "-c", EXAMINE, str(file)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "hunter2" not in ran.stdout + ran.stderr
    document: dict[str, Any] = json.loads(ran.stdout)
    return document


def severities(document: dict[str, Any]) -> dict[str, str]:
    return {finding["check"]: finding["severity"] for finding in document["findings"]}


@as_root
def test_as_root_it_sees_what_the_daemon_would(place: Path) -> None:
    locks = place / "state/locks"
    locks.mkdir(parents=True)
    shutil.chown(locks, "nobody")
    document = examined(configured(place))

    found = severities(document)
    assert list(found) == [check for check in Check if check is not Check.CONFIGURATION]
    assert document["uid"] != 0
    assert found["daemon"] == "failure"
    for check in ("privileged-helper", "journal", "lock-path", "libvirt", "os-brick-lock-path"):
        assert found[check] == "ok", document
    assert document["fit"] is False


@as_root
def test_it_makes_nothing_that_is_missing(place: Path) -> None:
    document = examined(configured(place))
    assert severities(document)["lock-path"] == "failure"
    assert sorted(file.name for file in place.iterdir()) == ["attachd.conf"]


@as_root
def test_as_somebody_else_it_knows_what_it_cannot_see(place: Path) -> None:
    within = ("setpriv", "--reuid", "1", "--regid", "1", "--clear-groups")
    _only_what_anybody_sees(examined(configured(place), within=within))


@as_anybody
def test_not_as_root_it_knows_what_it_cannot_see(place: Path) -> None:
    _only_what_anybody_sees(examined(configured(place)))


def _only_what_anybody_sees(document: dict[str, Any]) -> None:
    hidden = {f["check"]: f for f in document["findings"] if "Only root" in f["found"]}
    assert set(hidden) == {*Check} - lone_doctor.ANYBODYS - {Check.DAEMON, Check.CONFIGURATION}
    assert {f["severity"] for f in hidden.values()} == {"unknown"}
    assert {f["remedy"] for f in hidden.values()} == {"Run it as root."}
    assert severities(document)["keystone-login"] == "failure"


@pytest.mark.parametrize(
    ("user", "more", "said"),
    [
        ("nobody", "[guest]\nunplug_timeout = soon\n", "unplug_timeout"),
        pytest.param("no-such-user", "", "no-such-user", marks=as_root),
    ],
)
def test_a_configuration_that_cannot_be_used(place: Path, user: str, more: str, said: str) -> None:
    file = configured(place, user=user, more="")
    if more:
        file.write_text(file.read_text().replace("[guest]\n", more))
    document = examined(file)
    down, invalid, *rest = document["findings"]
    assert (down["code"], invalid["code"]) == (Fault.DAEMON_DOWN, Fault.CONFIG_INVALID)
    assert said in invalid["found"]
    assert {finding["severity"] for finding in rest} == {"unknown"}
    assert {finding["check"] for finding in rest} == {*Check} - {
        Check.DAEMON,
        Check.CONFIGURATION,
    }


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        (Unit("not-found"), "To systemd attachd.service is not-found."),
        (Unit("masked"), "To systemd attachd.service is masked."),
        (Unit("loaded", "inactive", "success"), "To systemd attachd.service is inactive."),
        (Unit("loaded", "failed", "exit-code"), "attachd.service is failed (exit-code)."),
    ],
)
def test_what_systemd_says_of_the_daemon(
    unit: Unit, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attachd.lone_doctor.ask_systemd", lambda _units: [unit])
    found = lone_doctor.daemon_down("/run/attachd.sock: No such file or directory.").found
    assert found.startswith("/run/attachd.sock: No such file or directory. ")
    assert found.endswith(said)


def test_a_systemd_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(_units: object) -> list[Unit]:
        raise TimeoutError("systemctl does not answer.")

    monkeypatch.setattr("attachd.lone_doctor.ask_systemd", hangs)
    assert lone_doctor.daemon_down("Why.").found == "Why. systemctl does not answer."
