"""seqdiag: what is drawn, and that every line keeps to a small grammar."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from hypothesis import given

from attachd.story import seqdiag
from tests.unit.story.odd import Words, odd_words, oddly_told, patiently
from tests.unit.story.stories import STORIES, Told, deaths_are_meant

pytestmark = deaths_are_meant

_NODE = "(?:user|attachd|cinder-api|os-brick|libvirt|guest)"
_STRING = r'"(?:[^"\'\\\n]|\\"|\\n)*"'
_RED = ", color = red, textcolor = red"
_HEAD = (
    rf"  {_NODE};(?: {_NODE};)*",
    "  edge_length = 300;",
    "  span_height = 16;",
    "  activation = none;",
    "  default_note_color = white;",
)
_DIVIDER = re.compile(r"  === [^\\\n\"']+ ===")
_EDGE = re.compile(
    rf"  {_NODE} (?:->|<--) {_NODE} \[label = {_STRING}(?:, note = {_STRING})?(?:{_RED})?\];"
)


def check(drawn: str) -> list[str]:
    """Every line keeps to the grammar; those of the story."""
    first, *lines, last = drawn.removesuffix("\n").split("\n")
    assert (first, last) == ("seqdiag {", "}")
    for line, pattern in zip(lines, _HEAD, strict=False):
        assert re.fullmatch(pattern, line), line
    story = lines[len(_HEAD) :]
    for line in story:
        assert _DIVIDER.fullmatch(line) or _EDGE.fullmatch(line), line
    return story


@pytest.mark.parametrize("name", STORIES)
def test_its_lines(told: Mapping[str, Told], name: str) -> None:
    story = told[name].story()
    lines = check(seqdiag.render(story))
    assert sum(not line.startswith("  ===") for line in lines) == len(story.messages)
    check(seqdiag.render(told[name].story_with_requests()))


def test_a_roll_back(told: Mapping[str, Told]) -> None:
    drawn = seqdiag.render(told["rolled back"].story())
    assert "  user; attachd; cinder-api; os-brick; libvirt; guest;\n" in drawn
    assert "  === attach of volume data, guest web, undone ===\n  user -> attachd [" in drawn
    assert "  === complete (have Cinder say in-use), FAILED, 0." in drawn
    assert (
        '  attachd -> attachd [label = "cinder-refused: Cinder refused the request.", '
        "color = red, textcolor = red];\n" in drawn
    )
    assert '  libvirt <-- guest [label = "has let go of the disk"];\n' in drawn
    assert (
        '  === outside of the steps ===\n  user <-- attachd [label = "it failed, and everything '
        'was undone (exit 1)", color = red, textcolor = red];\n' in drawn
    )
    assert drawn.endswith("  === See Cinder\u2019s log. ===\n}\n")


def test_requests_are_notes(told: Mapping[str, Told]) -> None:
    drawn = seqdiag.render(told["attached"].story_with_requests())
    assert (
        '  attachd -> cinder-api [label = "POST /attachments", '
        r'note = "POST http://192.0.2.1:8776/v3/attachments\n'
        r'{\"connector\": {\"host\": \"compute\"}}"];' in drawn
    )


@patiently
@given(words=odd_words)
def test_odd_texts_break_no_line(told: Mapping[str, Told], words: Words) -> None:
    check(seqdiag.render(oddly_told(told["rolled back"], words)))
