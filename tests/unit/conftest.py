from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from attachd.model import AttachFlow
from tests.unit.bench import PATIENCE, Bench


@pytest.fixture
def flow() -> AttachFlow:
    """The style in which the bench attaches; ``in_both_styles`` tries each."""
    return AttachFlow.ATTACHMENTS


@pytest.fixture
def bench(tmp_path: Path, flow: AttachFlow) -> Iterator[Bench]:
    """A started engine between fakes; it must stop without leaving a thread."""
    before = set(threading.enumerate())
    bench = Bench(directory=tmp_path, flow=flow)
    bench.start()
    yield bench
    bench.stop()
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)  # one that told its end may not quite be through
    assert set(threading.enumerate()) <= before


@pytest.fixture
def guest(bench: Bench) -> str:
    """A running guest, web."""
    return bench.guests.add("web")


@pytest.fixture
def volume(bench: Bench, guest: str) -> str:
    """A volume, data, that is attached to it."""
    volume_id = bench.cinder.add_volume(name="data")
    bench.attach("web", "data")
    return volume_id
