"""The drawing: a standalone SVG whose text fits it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given

from attachd.story import svg
from attachd.story.canvas import SIZE, breadth
from attachd.story.story import Participant
from tests.unit.story.odd import Words, odd_words, oddly_told, patiently
from tests.unit.story.stories import STORIES, Told, deaths_are_meant

pytestmark = deaths_are_meant

_SVG = "{http://www.w3.org/2000/svg}"
_RED = "#cf222e"


def parsed(drawn: str) -> ET.Element:
    """The root, once its texts were found to fit."""
    root = ET.fromstring(drawn)  # noqa: S314 - our own
    assert root.tag == f"{_SVG}svg"
    width, height = (float(root.get(side, "0")) for side in ("width", "height"))
    assert root.get("viewBox") == f"0 0 {width:.0f} {height:.0f}"
    for left, right, low in boxes(root):
        assert left >= 0, drawn
        assert right <= width, drawn
        assert 0 <= low <= height
    return root


def boxes(root: ET.Element) -> Iterator[tuple[float, float, float]]:
    """From where to where each text reaches, and its baseline."""
    for element in root.iter(f"{_SVG}text"):
        x, y = float(element.get("x", "0")), float(element.get("y", "0"))
        wide = breadth(element.text or "", size=float(element.get("font-size", SIZE)))
        before = {"start": 0.0, "middle": 0.5, "end": 1.0}[element.get("text-anchor", "start")]
        yield x - before * wide, x + (1 - before) * wide, y


def texts(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{_SVG}text")]


@pytest.mark.parametrize("name", STORIES)
def test_it_is_a_drawing_of_all_messages(told: Mapping[str, Told], name: str) -> None:
    story = told[name].story()
    root = parsed(svg.render(story))
    assert root.findtext(f"{_SVG}title") == f"{story.title}: {story.state}"
    assert sum(1 for _ in root.iter(f"{_SVG}polygon")) == len(story.messages)
    for participant in story.participants:
        assert texts(root).count(participant.value) == 2
    parsed(svg.render(told[name].story_with_requests()))


def test_it_stands_alone(told: Mapping[str, Told]) -> None:
    root = parsed(svg.render(told["rolled back"].story()))
    assert {element.tag.removeprefix(_SVG) for element in root.iter()} == {
        *("svg", "title", "g", "rect", "path", "polygon", "text"),
    }
    assert not any("href" in name for element in root.iter() for name in element.attrib)
    ground = next(root.iter(f"{_SVG}rect"))
    assert ground.get("fill") == "#ffffff"  # of its own: a dark page doesn't shine through
    assert float(ground.get("width", "0")) == float(root.get("width", "0")) - 1


def test_what_failed_is_red_and_undoing_is_dashed(told: Mapping[str, Told]) -> None:
    story = told["rolled back"].story()
    root = parsed(svg.render(story))
    heads = [element.get("fill") for element in root.iter(f"{_SVG}polygon")]
    assert heads.count(_RED) == sum(message.outcome is not None for message in story.messages) == 4
    dashed = [path for path in root.iter(f"{_SVG}path") if path.get("stroke-dasharray") == "7 4"]
    undoing = [
        message
        for message in story.messages
        if message.undo and not message.answer and message.source is not message.target
    ]
    assert len(dashed) == len(undoing) == 4
    red = [e.text for e in root.iter(f"{_SVG}text") if e.get("fill") == _RED]
    assert "complete: have Cinder say in-use" in red
    well = parsed(svg.render(told["attached"].story()))
    assert _RED not in {element.get("fill") for element in well.iter()}


def test_labels_fit_between_their_lifelines(told: Mapping[str, Told]) -> None:
    """No label of an arrow reaches beyond its arrow."""
    story = told["attached"].story()
    root = parsed(svg.render(story))
    names = {participant.value for participant in Participant}
    x = {
        element.text: float(element.get("x", "0"))
        for element in root.iter(f"{_SVG}text")
        if element.text in names and element.get("text-anchor") == "middle"
    }
    labels = {
        element.text: float(element.get("x", "0"))
        for element in root.iter(f"{_SVG}text")
        if element.get("text-anchor") == "middle" and element.text not in names
    }
    for message in story.messages:
        middle = labels.get(message.label)
        if middle is not None and not message.answer:
            left, right = sorted((x[message.source], x[message.target]))
            half = breadth(message.label) / 2
            assert left < middle - half
            assert middle + half < right


def test_requests_are_notes(told: Mapping[str, Told]) -> None:
    found = texts(parsed(svg.render(told["attached"].story_with_requests())))
    for line in (
        "POST http://192.0.2.1:8776/v3/attachments",
        '{"connector": {"host": "compute"}}',
        "HTTP 202, req-5e1c4a4a-0000-4000-8000-000000000001",
    ):
        assert line in found


def test_a_step_has_its_bar_where_it_was_under_way(told: Mapping[str, Told]) -> None:
    story = told["attached"].story()
    root = parsed(svg.render(story))
    bars = [
        (float(bar.get("x", "0")), float(bar.get("width", "0")))
        for bar in root.iter(f"{_SVG}rect")
        if bar.get("fill") == "#2f6fd6"
    ]
    assert len(bars) == len(story.steps)
    assert [x for x, _ in bars] == sorted(x for x, _ in bars)
    assert all(width >= 2 for _, width in bars)


@patiently
@given(words=odd_words)
def test_odd_texts_are_drawn(told: Mapping[str, Told], words: Words) -> None:
    parsed(svg.render(oddly_told(told["rolled back"], words)))
