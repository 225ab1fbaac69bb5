from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.host.bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield Bench(tmp_path, f"127.0.0.1:{server.getsockname()[1]}")
