"""The soak's story is its seed's, and what must not happen in it is told as a finding."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.functional.lab import Result

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "soak"


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; nothing of it runs, and nothing is written beside it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = list(sys.path)
    spec = spec_from_loader("soak", SourceFileLoader("soak", str(SCRIPT)))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "soak", module)  # dataclasses look there
    spec.loader.exec_module(module)
    assert sys.path == path
    return module


class FakeHost:
    """What attachd says when something was found."""

    def attachctl(self, *argv: str) -> Result:
        assert argv == ("audit",)
        return Result(5, "device-gone: The host has no device.\n", "")

    def open_operations(self) -> list[dict[str, Any]]:
        return [{"operation_id": "o"}]

    def operation(self, operation_id: str) -> dict[str, Any]:
        return {"operation_id": operation_id, "state": "needs-attention"}


class SilentHost(FakeHost):
    """attachd says nothing at all."""

    def attachctl(self, *argv: str) -> Result:
        raise subprocess.TimeoutExpired(argv, 600)

    def open_operations(self) -> list[dict[str, Any]]:
        raise AssertionError("no answer")


# --- the story ------------------------------------------------------------------------------


def test_the_same_seed_tells_the_same_story(soak: ModuleType) -> None:
    first, again, other = (list(islice(soak.story(seed), 200)) for seed in (7, 7, 8))
    assert first == again
    assert first != other
    assert {act.disturbance for act in first} == set(soak.DISTURBANCES)
    assert {act.calm for act in first} == {True, False}
    for act in first:
        volumes = [volume for volume, _ in act.toggles]
        assert len(set(volumes)) == len(volumes) > 0, "a volume has one command at a time"


# --- how a round's commands may end -----------------------------------------------------------


@pytest.mark.parametrize(
    ("disturbance", "power", "allowed"),
    [
        ("nothing", None, {0}),
        ("nothing", 0, {0, 1, 4, 5, 6}),
        ("attachd killed", None, {0, 1, 4, 5, 6}),
        ("iscsid restarted", 3, {0, 1, 4, 5, 6}),
    ],
)
def test_exit_statuses(
    soak: ModuleType, disturbance: str, power: int | None, allowed: set[int]
) -> None:
    act = soak.Round(((0, 0),), disturbance, 1.0, power)
    every = [soak.Ended(("attach", "web", "v"), status, "") for status in range(-15, 256)]
    right = {end.status for end in every if not soak.wrong_ends(act, [end])}
    assert right == allowed


@pytest.mark.parametrize("disturbance", ["nothing", "attachd killed"])
def test_a_traceback_is_never_right(soak: ModuleType, disturbance: str) -> None:
    act = soak.Round(((0, 0),), disturbance, 1.0, None)
    ended = [
        soak.Ended(("attach", "web", "v"), 0, "attached"),
        soak.Ended(("detach", "web", "w"), 0, "Traceback (most recent call last):\n  ...\n"),
    ]
    (wrong,) = soak.wrong_ends(act, ended)
    assert wrong.startswith("attachctl detach web w: exit 0\nTraceback")


# --- findings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AssertionError("the worlds differ"), "the worlds differ"),
        (AssertionError(), "test_soak.py"),  # a bare assert has no words: its line tells
        (subprocess.TimeoutExpired(["attachctl"], 1800), "TimeoutExpired"),
        (json.JSONDecodeError("Expecting value", "", 0), "JSONDecodeError: Expecting value"),
        (KeyError("guest_name"), "KeyError: 'guest_name'"),
    ],
)
def test_whatever_goes_wrong_is_a_finding(soak: ModuleType, error: Exception, words: str) -> None:
    report = soak.Report(seed=7, minutes=1.0, host=FakeHost(), rounds=3)
    act = soak.Round(((0, 0),), "attachd killed", 2.5, None)
    with report.noting(act):
        raise error
    (found,) = json.loads(report.summary())["findings"]
    assert words in found["brief"]
    assert (found["seed"], found["round"]) == (7, 3)
    assert (found["act"]["disturbance"], found["act"]["delay"]) == ("attachd killed", 2.5)
    assert "device-gone" in found["audit"]
    assert found["open_operations"] == [{"operation_id": "o", "state": "needs-attention"}]
    assert str(report.findings[0]).startswith("seed 7, round 3 (attachd killed): ")


def test_a_finding_is_told_where_attachd_says_nothing(soak: ModuleType) -> None:
    report = soak.Report(seed=7, minutes=1.0, host=SilentHost())
    with report.noting():
        raise AssertionError("the lab is gone")
    (found,) = json.loads(report.summary())["findings"]
    assert (found["round"], found["act"]) == (None, None)
    assert found["brief"].startswith("the lab is gone")
    assert found["audit"].startswith("unknown: TimeoutExpired")
    assert found["open_operations"].startswith("unknown: no answer")


def test_only_the_first_finding_asks_attachd(soak: ModuleType) -> None:
    report = soak.Report(seed=7, minutes=1.0, host=FakeHost())
    for words in ("the worlds differ", "the volume can't be deleted"):
        with report.noting():
            raise AssertionError(words)
    first, second = json.loads(report.summary())["findings"]
    assert (first["audit"] != "", len(first["open_operations"])) == (True, 1)
    assert (second["audit"], second["open_operations"]) == ("", [])
    assert second["brief"].startswith("the volume can't be deleted")


def test_what_holds_is_no_finding(soak: ModuleType) -> None:
    report = soak.Report(seed=7, minutes=1.0, host=SilentHost())
    with report.noting():
        pass
    assert report.findings == []
