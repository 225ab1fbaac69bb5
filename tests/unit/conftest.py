from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A started engine between fakes; it must stop without leaving a thread."""
    before = set(threading.enumerate())
    bench = Bench(directory=tmp_path)
    bench.start()
    yield bench
    bench.stop()
    assert set(threading.enumerate()) <= before
