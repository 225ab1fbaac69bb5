"""Mermaid: what is drawn, and that every line keeps to a small grammar."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from hypothesis import given

from attachd.story import mermaid
from attachd.story.telling import tell
from tests.unit.story.odd import Words, odd_words, oddly_told, patiently
from tests.unit.story.stories import STORIES, Told, deaths_are_meant

pytestmark = deaths_are_meant

_ID = "(?:user|attachd|cinder|brick|libvirt|guest)"
_TEXT = r"(?:[^\W_]|[ .,/()=+\-_']|#\d+;)*"
_LINES = [
    re.compile(line)
    for line in (
        rf"    title {_TEXT}",
        rf"    (?:actor|participant) {_ID} as [a-z-]+",
        rf"    {_ID}(?:->>|-->>|-x|--x){_ID}: {_TEXT}",
        rf"    Note over {_ID}(?:,{_ID})?: {_TEXT}(?:<br/>{_TEXT})*",
        r"    rect rgba\(\d+, \d+, \d+, 0\.\d+\)",
        r"    end",
    )
]


def check(drawn: str) -> list[str]:
    """Every line keeps to the grammar, and each block that opens is closed; the lines."""
    head, *lines = drawn.removesuffix("\n").split("\n")
    assert head == "sequenceDiagram"
    depth = 0
    for line in lines:
        assert any(known.fullmatch(line) for known in _LINES), line
        depth += line.startswith("    rect ") - (line == "    end")
        assert depth in (0, 1)
        assert line == "    end" or not re.search(r"\bend\b", line, re.I)
    assert depth == 0
    return lines


def plain(drawn: str) -> str:
    """As a reader sees it."""
    return re.sub(r"#(\d+);", lambda found: chr(int(found[1])), drawn)


@pytest.mark.parametrize("name", STORIES)
def test_its_lines(told: Mapping[str, Told], name: str) -> None:
    story = told[name].story()
    lines = check(mermaid.render(story))
    arrows = [line for line in lines if re.match(rf"    {_ID}-", line)]
    assert len(arrows) == len(story.messages)
    assert sum(line.startswith("    rect ") for line in lines) == len(story.steps)
    check(mermaid.render(told[name].story_with_requests()))


def test_a_roll_back(told: Mapping[str, Told]) -> None:
    drawn = plain(mermaid.render(told["rolled back"].story()))
    assert "    actor user as user\n    participant attachd as attachd\n" in drawn
    assert "    user->>attachd: attach volume data, guest web\n" in drawn
    assert "    libvirt->>guest: let go of the disk\n" in drawn
    assert "    guest-->>libvirt: has let go of the disk\n" in drawn
    assert re.search(
        r"    rect rgba\(220, 40, 40, 0.25\)\n"
        r"    Note over attachd,guest: complete \(have Cinder say in-use\), FAILED, 0.\d+ s\n",
        drawn,
    )
    assert "attachd-xattachd: cinder-refused: Cinder refused the request.\n" in drawn
    assert "    attachd--xuser: it failed, and everything was undone (exit 1)\n" in drawn
    assert "it is no longer attaching; it is in error<br/>See Cinder's log.\n" in drawn


def test_requests_are_notes(told: Mapping[str, Told]) -> None:
    drawn = plain(mermaid.render(told["attached"].story_with_requests()))
    assert (
        "    attachd->>cinder: POST /attachments\n"
        "    Note over cinder: POST http://192.0.2.1:8776/v3/attachments<br/>"
        '{"connector": {"host": "compute"}}\n' in drawn
    )
    assert "Note over cinder: HTTP 202, req-5e1c4a4a-0000-4000-8000-000000000001<br/>" in drawn


def test_a_participant_alone_has_its_note(told: Mapping[str, Told]) -> None:
    nobody = told["attached"].but(calls=[])
    assert "Note over attachd: precheck " in mermaid.render(nobody.story())


def test_long_bodies_are_cut_until_mermaid_draws_them(told: Mapping[str, Told]) -> None:
    long = told["attached"].story_with_requests
    calls = told["attached"].operation["calls"]
    assert "characters more" not in mermaid.render(long())
    answer = {"volumes": ["x" * 40] * 2_000}
    fat = [
        {
            **each,
            "request": {
                **dict.fromkeys(("request_id", "body")),
                "method": "GET",
                "url": "http://192.0.2.1/",
                "status": 200,
                "answer": answer,
            },
        }
        for each in calls
    ]
    drawn = mermaid.render(tell(told["attached"].but(calls=fat).operation, requests=True))
    check(drawn)
    assert len(drawn) <= 50_000
    assert "characters more (--format text)" in drawn


@patiently
@given(words=odd_words)
def test_odd_texts_break_no_line(told: Mapping[str, Told], words: Words) -> None:
    check(mermaid.render(oddly_told(told["rolled back"], words)))
