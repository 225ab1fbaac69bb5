"""Text that may be shown, and values that are read by their path."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attachd.cinder.faults import LONGEST_TEXT, safe_text
from attachd.cinder.wire import Answer
from attachd.errors import AttachdError, Code


@pytest.mark.parametrize(
    "text",
    [
        "auth_password=hunter2",
        "{'auth_password': 'hunter2', 'lun': 1}",
        '{"auth_password": "hunter2"}',
        "Command: rtstool create --password hunter2 --size 1",
        "X-Auth-Token: hunter2",
        "secret = hunter2",
        "PASSWORD:hunter2",
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str) -> None:
    assert "hunter2" not in safe_text(text)
    assert "***" in safe_text(text)


def test_ordinary_words_stay() -> None:
    text = "Invalid volume: the password is wrong, the token expired."
    assert safe_text(text) == text


@settings(deadline=None)
@given(st.text(max_size=2000))
def test_text_is_one_bounded_printable_line(text: str) -> None:
    shown = safe_text(text)
    assert shown.isprintable()
    assert len(shown) <= LONGEST_TEXT


def answer(value: object) -> Answer:
    return Answer(value=value, path="volume", touched=False)


@pytest.mark.parametrize(
    ("read", "problem"),
    [
        (lambda: answer({}).at("size"), "volume.size is missing"),
        (lambda: answer({"size": None}).at("size"), "volume.size is missing"),
        (lambda: answer([]).at("size"), "volume is not an object"),
        (lambda: answer({"size": "1"}).at("size").integer(), "volume.size is not an integer"),
        (lambda: answer({"size": True}).at("size").integer(), "volume.size is not an integer"),
        (lambda: answer({"id": 1}).at("id").text(), "volume.id is not a string"),
        (lambda: answer({"x": 1}).at("x").flag(), "volume.x is not a boolean"),
        (lambda: answer({"x": {}}).at("x").items(), "volume.x is not a list"),
        (answer([1]).items()[0].text, r"volume\[0\] is not a string"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(read: Callable[[], object], problem: str) -> None:
    with pytest.raises(AttachdError, match=problem) as caught:
        read()
    assert caught.value.code == Code.CINDER_REFUSED
    assert caught.value.touched is False


def test_a_value_is_never_shown() -> None:
    assert "hunter2" not in repr(answer({"auth_password": "hunter2"}))
