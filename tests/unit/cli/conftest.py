"""attachctl against the real API, around an engine that remembers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from attachd.cli import follow
from attachd.cli.main import main
from tests.fakes.engine import FakeEngine
from tests.unit.serving import serving


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where attachctl looks for the daemon; nobody is there."""
    monkeypatch.setenv("ATTACHD_SOCKET", str(tmp_path / "attachd.sock"))
    return tmp_path / "attachd.sock"


@pytest.fixture
def daemon(engine: FakeEngine, path: Path) -> Iterator[FakeEngine]:
    with serving(engine, path):
        yield engine


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that is gone midway is given up at once."""
    monkeypatch.setattr(follow, "PATIENCE", 0.5)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*argv: str) -> Ran:
        capsys.readouterr()
        status = main(argv)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Ran(status, captured.out, captured.err)

    return run
