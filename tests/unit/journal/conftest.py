from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from attachd.journal.journal import Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    """An open one, empty."""
    journal = Journal(path=path, boot_id="boot-1")
    yield journal
    journal.close()
