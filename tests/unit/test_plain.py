"""Text that is made plain: printable, measured, wrapped."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from attachd.plain import printable, width, wrapped


def test_nothing_that_a_terminal_obeys_is_left() -> None:
    assert printable("a\x1b[2Jb\nc\u202ed\udcff") == "a\\x1b[2Jb\\nc\\u202ed\\udcff"
    assert printable("a\nb", keep="\n") == "a\nb"


def test_wide_and_combining_characters_are_measured() -> None:
    assert (width("abc"), width("客機"), width("e\u0301")) == (3, 4, 1)


def test_words_are_kept_whole_where_they_fit() -> None:
    assert wrapped("the guest keeps the disk", 10) == ["the guest", "keeps the", "disk"]
    assert wrapped("", 10) == [""]
    assert wrapped("PUT /attachments/1234/action", 20) == ["PUT", "/attachments/1234/", "action"]
    assert wrapped("abcdefghij", 4) == ["abcd", "efgh", "ij"]
    assert wrapped("a/bcdefghij", 5) == ["a/bcd", "efghi", "j"]
    assert wrapped("客機客機", 5) == ["客機", "客機"]


@given(text=st.text(), room=st.integers(min_value=2, max_value=40))
def test_no_line_is_too_long_and_nothing_is_lost(text: str, room: int) -> None:
    lines = wrapped(text, room)
    assert all(width(line) <= room for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
