from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.unit.story.stories import Told, all_told, note_calls


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Told]:
    """The documents of an operation of each kind of fate, by the names in STORIES."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        note_calls(monkeypatch)
        return all_told(tmp_path_factory.mktemp("stories"))
