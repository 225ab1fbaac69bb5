from __future__ import annotations

import pytest

from attachd.trace import Library, call, collecting


def test_a_call_that_went_well() -> None:
    with collecting() as calls, call(Library.LIBVIRT, "lookup"):
        pass
    (noted,) = calls
    assert (noted.library, noted.name, noted.outcome) == (Library.LIBVIRT, "lookup", None)
    assert noted.started <= noted.ended


def test_a_call_that_raised() -> None:
    with collecting() as calls, pytest.raises(KeyError), call(Library.OS_BRICK, "connect"):
        raise KeyError
    assert [noted.outcome for noted in calls] == ["KeyError"]


def test_a_room_may_know_it_better() -> None:
    with (
        collecting() as calls,
        pytest.raises(KeyError),
        call(Library.OS_BRICK, "iscsiadm") as note,
    ):
        note.outcome = "exit 21"
        raise KeyError
    assert [noted.outcome for noted in calls] == ["exit 21"]


def test_where_nobody_collects_nothing_is_kept() -> None:
    with call(Library.CINDER, "GET /volumes") as note:
        assert not note.collected
    with collecting(), call(Library.CINDER, "GET /volumes") as note:
        assert note.collected
