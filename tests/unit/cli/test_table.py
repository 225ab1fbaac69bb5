"""Tables, and what becomes of them where there is less room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attachd.cli.table import records, table
from attachd.plain import width

NAMES = ("name", "at", "why")
LINES = [["one", "2026-03-01", "because it is so"], ["two", "2026-03-02", ""]]
WHOLE = """\
+------+------------+------------------+
| name | at         | why              |
+------+------------+------------------+
| one  | 2026-03-01 | because it is so |
| two  | 2026-03-02 |                  |
+------+------------+------------------+
"""
SPARED = """\
+------+------------------+
| name | why              |
+------+------------------+
| one  | because it is so |
| two  |                  |
+------+------------------+
"""


@pytest.mark.parametrize("room", [None, 40, 200])
def test_a_table_that_fits_is_whole(room: int | None) -> None:
    assert table(NAMES, LINES, room=room, spare=("at",)) == WHOLE


def test_spare_columns_are_left_out_first() -> None:
    assert table(NAMES, LINES, room=39, spare=("at",)) == SPARED


def test_the_last_column_is_wrapped_between_its_words() -> None:
    drawn = table(NAMES, [["one", "now", "a sentence of quite some length, or more"]], room=40)
    assert (
        drawn
        == """\
+------+-----+----------------------+
| name | at  | why                  |
+------+-----+----------------------+
| one  | now | a sentence of quite  |
|      |     | some length, or more |
+------+-----+----------------------+
"""
    )


def test_what_has_no_room_for_sentences_becomes_records() -> None:
    assert (
        table(NAMES, LINES, room=22)
        == """\
name  one
at    2026-03-01
why   because it is so

name  two
at    2026-03-02
why   \n"""
    )


def test_a_word_is_never_broken() -> None:
    identity = "30256bec-9f8d-4bd1-ae80-934c52b6c5e1"
    assert records(("attachment_id",), [[identity]], room=40) == f"attachment_id\n  {identity}\n"
    assert identity in table(("a", "b"), [[identity, f"of {identity}"]], room=45)


_CELL = st.text(alphabet="ab \u5ba2", max_size=60)


@given(
    lines=st.lists(st.tuples(_CELL, _CELL, _CELL), max_size=4),
    room=st.integers(min_value=1, max_value=120),
)
def test_nothing_is_lost(lines: list[tuple[str, str, str]], room: int) -> None:
    """Whatever the room, every letter of every cell is there, and a table fits it."""
    drawn = table(NAMES, lines, room=room)
    for letter in "b\u5ba2":
        assert drawn.count(letter) >= sum(cell.count(letter) for line in lines for cell in line)
    if drawn.startswith("+"):
        assert all(width(line) <= room for line in drawn.splitlines())
