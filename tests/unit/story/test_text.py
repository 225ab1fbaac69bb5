"""The story as text: in 80 columns, with all of it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given

from attachd.plain import printable, width
from attachd.story import text
from attachd.story.telling import tell
from tests.unit.story.odd import Words, odd_words, oddly_told, patiently
from tests.unit.story.stories import STORIES, Told, deaths_are_meant

pytestmark = deaths_are_meant


def overview(drawn: str) -> dict[str, str]:
    """Each row of the overview by its step's title, without its times."""
    rows = [line for line in drawn.splitlines() if line.endswith("|")]
    return {row[2:22].strip(): row[0] + row[23:33].strip() for row in rows}


def test_a_roll_back_at_a_glance(told: Mapping[str, Told]) -> None:
    drawn = text.render(told["rolled back"].story())

    assert drawn.splitlines()[0] == "attach of volume data, guest web: undone"
    rows = overview(drawn)
    assert list(rows)[6:] == [
        *("plug", "complete", "undo plug", "undo connect", "undo create", "undo reserve"),
    ]
    assert (rows["plug"], rows["complete"], rows["undo plug"]) == (" done", "xFAILED", "<done")
    assert "x complete: have Cinder say in-use" in drawn
    assert "attachd          !! cinder-refused: Cinder refused the request.\n" in drawn
    assert "\n< undo plug: have the guest let go of its disk" in drawn
    assert "guest -> libvirt has let go of the disk\n" in drawn
    assert "-> user          !! it failed, and everything was undone (exit 1)\n" in drawn
    assert drawn.endswith(
        "\ncinder-refused: Cinder refused the request.\n"
        "HTTP 409: it is no longer attaching; it is in error\n"
        "See Cinder's log.\n"
    )


def test_bars_are_scaled_to_the_whole(told: Mapping[str, Told]) -> None:
    drawn = text.render(told["rolled back"].story())
    bars = [line.split("|")[1] for line in drawn.splitlines() if line.endswith("|")]
    assert {len(bar) for bar in bars} == {34}
    begins = [len(bar) - len(bar.lstrip()) for bar in bars]
    assert begins == sorted(begins)
    assert all(bar.strip() for bar in bars)
    assert set(bars[7].strip()) == {"x"}
    assert set(bars[-1].strip()) == {"<"}
    ends = [len(bar.rstrip()) for bar in bars]
    assert ends[-1] >= 30


def test_a_kill_and_what_followed(told: Mapping[str, Told]) -> None:
    drawn = text.render(told["recovered"].story())
    assert overview(drawn)["connect"] == "?NO OUTCOME"
    _, _, behind = drawn.partition("was stopped here")
    looked, resumed, undone = map(
        behind.index, ("-> libvirt       read", "resumed: it goes", "\n\n< undo")
    )
    assert looked < resumed < undone


def test_a_call_tells_how_it_ended(told: Mapping[str, Told]) -> None:
    calls = told["attached"].operation["calls"]
    broken = [{**each, "outcome": "timeout"} if each["name"] == "list" else each for each in calls]
    (line,) = (
        line
        for line in text.render(told["attached"].but(calls=broken).story()).splitlines()
        if " list " in line
    )
    assert line.partition("-> libvirt       ")[2].startswith("list (0.0")
    assert line.endswith(" s) !! timeout")


def test_requests_in_full(told: Mapping[str, Told]) -> None:
    drawn = text.render(told["attached"].story_with_requests())
    assert "\n           > POST http://192.0.2.1:8776/v3/attachments\n           > {\n" in drawn
    assert '\n           >   "connector": {\n           >     "host": "compute"\n' in drawn
    assert "\n           < HTTP 202, req-5e1c4a4a-0000-4000-8000-000000000001\n" in drawn
    assert '"auth_password": "***"' in drawn
    assert "> GET" not in text.render(told["attached"].story())


def test_a_request_without_an_answer(told: Mapping[str, Told]) -> None:
    calls = [
        {
            **each,
            "outcome": "timeout",
            "request": {
                **dict.fromkeys(("status", "request_id", "body", "answer")),
                "method": "GET",
                "url": "http://192.0.2.1/",
            },
        }
        for each in told["attached"].operation["calls"]
    ]
    operation = told["attached"].but(calls=calls).operation
    drawn = text.render(tell(operation, requests=True))
    assert "           > GET http://192.0.2.1/\n           < no answer\n" in drawn


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
@pytest.mark.parametrize("name", STORIES)
def test_it_fits_the_terminal(told: Mapping[str, Told], name: str, columns: int) -> None:
    drawn = text.render(told[name].story(), columns=columns)
    assert all(width(line) <= columns for line in drawn.splitlines())
    assert ("|" in drawn) == (columns >= 60)


def test_bars_are_as_long_as_the_terminal_allows(told: Mapping[str, Told]) -> None:
    def longest(**room: int) -> int:
        return max(map(width, text.render(told["attached"].story(), **room).splitlines()))

    assert longest() == 80
    assert longest(columns=100) == 100
    assert longest(columns=10**6) == 120


@patiently
@given(words=odd_words)
def test_odd_texts_stay_on_their_lines(told: Mapping[str, Told], words: Words) -> None:
    drawn = text.render(oddly_told(told["rolled back"], words))
    assert printable(drawn, keep="\n") == drawn
    in_full = (line.lstrip().startswith((">", "<")) for line in drawn.split("\n"))
    for line, whole in zip(drawn.split("\n"), in_full, strict=True):
        assert whole or width(line) <= 80
