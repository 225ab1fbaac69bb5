"""PlantUML: what is drawn, and that every line keeps to a small grammar."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from hypothesis import given

from attachd.story import plantuml
from tests.unit.story.odd import Words, odd_words, oddly_told, patiently
from tests.unit.story.stories import STORIES, Told, deaths_are_meant

pytestmark = deaths_are_meant

_ID = "(?:user|attachd|cinder|brick|libvirt|guest)"
# What means something where it stands twice stands once.
_TEXT = r"(?:[^\W_]| |([.,:;/()\[\]{}?=+\-_'\"&])(?!\1)|<U\+[0-9A-F]{4,6}>)*"
_ARROW = r"-(?:\[#[0-9A-F]{6}\])?-?>"
_LINE = re.compile(
    "|".join(
        line.replace("TEXT", _TEXT.replace("\\1", f"\\{group}"))
        for group, line in enumerate(
            (
                r"title TEXT",
                rf"{_ID} {_ARROW} {_ID} : TEXT",
                r"group #[0-9A-F]{6} TEXT",
                rf'(?:actor|participant)() "[a-z-]+" as {_ID}',
                r"(end)",
            ),
            start=1,
        )
    )
)
_NOTE = re.compile(r"note (?:over attachd #[0-9A-F]{6}|right of cinder)")
_NOTED = re.compile(rf"(?!(?i:end))(?:[^\W_]|<U\+[0-9A-F]{{4,6}}>){_TEXT}|")


def check(drawn: str) -> list[str]:
    """Every line keeps to the grammar, and each block that opens is closed; the lines."""
    first, *lines, last = drawn.removesuffix("\n").split("\n")
    assert (first, last) == ("@startuml", "@enduml")
    noting, depth = False, 0
    for line in lines:
        if noting:
            noting = line != "end note"
            assert not noting or _NOTED.fullmatch(line), line
        elif _NOTE.fullmatch(line):
            noting = True
        else:
            assert _LINE.fullmatch(line), line
            depth += line.startswith("group ") - (line == "end")
            assert depth in (0, 1)
    assert (noting, depth) == (False, 0)
    return lines


def plain(drawn: str) -> str:
    """As a reader sees it."""
    return re.sub(r"<U\+([0-9A-F]+)>", lambda found: chr(int(found[1], 16)), drawn)


@pytest.mark.parametrize("name", STORIES)
def test_its_lines(told: Mapping[str, Told], name: str) -> None:
    story = told[name].story()
    lines = check(plantuml.render(story))
    assert sum(re.match(rf"{_ID} -", line) is not None for line in lines) == len(story.messages)
    assert sum(line.startswith("group ") for line in lines) == len(story.steps)
    check(plantuml.render(told[name].story_with_requests()))


def test_a_roll_back(told: Mapping[str, Told]) -> None:
    drawn = plain(plantuml.render(told["rolled back"].story()))
    assert 'title attach of volume data, guest web, undone\nactor "user" as user\n' in drawn
    assert 'participant "cinder-api" as cinder\n' in drawn
    assert "group #FFEBE9 complete (have Cinder say in-use), FAILED, 0." in drawn
    assert "attachd -[#CF222E]> attachd : cinder-refused: Cinder refused the request.\n" in drawn
    assert "libvirt -[#9A6700]> guest : let go of the disk\n" in drawn
    assert "guest -[#9A6700]-> libvirt : has let go of the disk\n" in drawn
    assert "attachd -[#CF222E]-> user : it failed, and everything was undone (exit 1)\n" in drawn
    assert drawn.endswith("it is in error\nSee Cinder's log.\nend note\n@enduml\n")


def test_requests_are_notes(told: Mapping[str, Told]) -> None:
    drawn = plain(plantuml.render(told["attached"].story_with_requests()))
    assert (
        "attachd -> cinder : POST /attachments\nnote right of cinder\n"
        'POST http://192.0.2.1:8776/v3/attachments\n{"connector": {"host": "compute"}}\nend note\n'
        in drawn
    )


@patiently
@given(words=odd_words)
def test_odd_texts_break_no_line(told: Mapping[str, Told], words: Words) -> None:
    check(plantuml.render(oddly_told(told["rolled back"], words)))
