"""The API, served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.engine import FakeEngine
from tests.unit.serving import serving


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "attachd.sock"


@pytest.fixture
def served(engine: FakeEngine, path: Path) -> Iterator[Path]:
    with serving(engine, path):
        yield path
