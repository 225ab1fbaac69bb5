"""A story as a drawing for itself: an SVG that needs no browser, no font and no network.

It has a ground of its own, so that it is read on a white page and on a dark one. A step is a band
with a bar that shows when it was under way. What failed is red, undoing is dashed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import ceil
from xml.etree import ElementTree as ET

from attachd.plain import wrapped
from attachd.story import rest
from attachd.story.canvas import FONT, LINE, SIZE, Layer, breadth
from attachd.story.columns import Need, columns
from attachd.story.story import Look, Message, Section, Step, Story

_GROUND = "#ffffff"
_INK = "#1f2328"
_FAINT = "#57606a"
_RULE = "#afb8c1"
_RED = "#cf222e"
_OCHRE = "#8a5a00"

_BANDS = {
    Look.PLAIN: "#f3f5f8",
    Look.FAILED: "#ffe5e3",
    Look.LOST: "#efe5ff",
    Look.UNDO: "#fff4c2",
}
_BARS = {Look.PLAIN: "#2f6fd6", Look.FAILED: _RED, Look.LOST: "#8250df", Look.UNDO: _OCHRE}

_MARGIN = 16.0
_TIMES = 64.0  # the column at the left with the times
_LABEL = 50  # characters on a line: the path of an attachment is one word
_AROUND_LABEL = 28.0
_LOOP = 26.0
_HEAD_HEIGHT = 24.0
_SMALL = 11.0
_TITLE = 15.0
_WIDEST = 110  # characters on a line of what isn't an arrow's
_BODY = rest.in_short(most=4_000)


def render(story: Story) -> str:
    """The drawing."""
    drawing = _Drawing(story)
    drawing.draw()
    return drawing.written()


class _Drawing:
    """One story on its way onto the paper, from top to bottom; ``_y`` is how far it is."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._x = columns(
            story.participants,
            first=_TIMES + _MARGIN + _head_width(story.participants[0]) / 2,
            heads={each: _head_width(each) for each in story.participants},
            needs=_needs(story.messages),
        )
        self._width = ceil(max(self._extents()))
        self._root = ET.Element("svg", xmlns="http://www.w3.org/2000/svg", role="img")
        ET.SubElement(self._root, "title").text = f"{story.title}: {story.state}"
        self._ground = Layer(self._root)
        self._bands = Layer(self._root)
        self._lifelines = Layer(self._root)
        self._front = Layer(self._root)
        self._y = _MARGIN

    def draw(self) -> None:
        """All of it; what depends on its height comes last."""
        self._title()
        top = self._y
        self._heads()
        for section in self._story.sections:
            self._section(section)
        self._y += _MARGIN / 2
        for x in self._x.values():
            self._lifelines.line(x, top + _HEAD_HEIGHT, x, self._y, colour=_RULE, dashes="3 3")
        self._heads()
        self._problem()
        self._ground.rect(
            0.5,
            0.5,
            width=self._width - 1,
            height=self._y + _MARGIN - 1,
            fill=_GROUND,
            stroke=_RULE,
            radius=6,
        )

    def written(self) -> str:
        """The document."""
        height = ceil(self._y + _MARGIN)
        self._root.set("width", f"{self._width}")
        self._root.set("height", f"{height}")
        self._root.set("viewBox", f"0 0 {self._width} {height}")
        self._root.set("font-family", FONT)
        self._root.set("font-size", f"{SIZE:.0f}")
        ET.indent(self._root)
        return ET.tostring(self._root, encoding="unicode") + "\n"

    # --- how wide it must be ------------------------------------------------------------------

    def _extents(self) -> Iterator[float]:
        """How far to the right each thing reaches, with a margin."""
        for each, x in self._x.items():
            yield x + _head_width(each) / 2 + 2 * _MARGIN
        for line in _title_lines(self._story):
            yield breadth(line, size=_TITLE) + 2 * _MARGIN
        for line in _fact_lines(self._story):
            yield breadth(line, size=_SMALL) + 2 * _MARGIN
        for step in self._story.steps:
            yield breadth(f"{_headline(step)}    {_verdict(step)}") + 4 * _MARGIN
        for message in self._story.messages:
            yield from self._extents_of(message)
        for line in _problem_lines(self._story):
            yield breadth(line) + 4 * _MARGIN

    def _extents_of(self, message: Message) -> Iterator[float]:
        if message.source is message.target:
            for line in _label_lines(message):
                yield self._x[message.source] + _LOOP + breadth(line) + 3 * _MARGIN
        for line in rest.note_of(message, _BODY):
            yield self._note_x(message) + breadth(line, size=_SMALL) + 3 * _MARGIN

    def _note_x(self, message: Message) -> float:
        return max(self._x[message.source], self._x[message.target]) + _MARGIN / 2

    # --- above and below ----------------------------------------------------------------------

    def _title(self) -> None:
        colour = _INK if self._story.problem is None else _RED
        for line in _title_lines(self._story):
            self._y += _TITLE
            self._front.text(_MARGIN, self._y, line, colour=colour, size=_TITLE, bold=True)
        for line in _fact_lines(self._story):
            self._y += LINE
            self._front.text(_MARGIN, self._y, line, colour=_FAINT, size=_SMALL)
        self._y += _MARGIN

    def _heads(self) -> None:
        for each, x in self._x.items():
            width = _head_width(each)
            self._front.rect(
                x - width / 2,
                self._y,
                width=width,
                height=_HEAD_HEIGHT,
                fill=_GROUND,
                stroke=_INK,
                radius=4,
            )
            self._front.text(x, self._y + 16, each.value, colour=_INK, anchor="middle", bold=True)
        self._y += _HEAD_HEIGHT

    def _problem(self) -> None:
        lines = _problem_lines(self._story)
        if not lines:
            return
        self._y += _MARGIN
        self._bands.rect(
            _MARGIN,
            self._y,
            width=self._width - 2 * _MARGIN,
            height=len(lines) * LINE + _MARGIN,
            fill=_BANDS[Look.FAILED],
            radius=4,
        )
        self._y += _MARGIN / 2
        for line in lines:
            self._y += LINE
            self._front.text(2 * _MARGIN, self._y - 4, line, colour=_INK)
        self._y += _MARGIN / 2

    # --- steps --------------------------------------------------------------------------------

    def _section(self, section: Section) -> None:
        self._y += 8
        top, step = self._y, section.step
        ground = _GROUND if step is None else _BANDS[step.look]
        if step is not None:
            self._step(step)
        for message in section.messages:
            self._message(message, ground)
        self._y += 6
        if step is not None:
            self._bands.rect(
                _MARGIN / 2,
                top,
                width=self._width - _MARGIN,
                height=self._y - top,
                fill=ground,
                radius=4,
            )

    def _step(self, step: Step) -> None:
        """Its head: name, aim, how it ended, and when it was under way."""
        colour = _BARS[step.look] if step.look is not Look.PLAIN else _INK
        right = self._width - _MARGIN
        self._y += LINE
        self._front.rect(
            _MARGIN / 2,
            self._y - LINE,
            width=self._width - _MARGIN,
            height=LINE + 5,
            fill=_BANDS[step.look],
            radius=4,
        )
        self._front.text(_MARGIN, self._y, _headline(step), colour=colour, bold=True)
        self._front.text(right, self._y, _verdict(step), colour=colour, anchor="end", bold=True)
        self._y += 5
        self._bar(step, right - _MARGIN)
        self._y += 4

    def _bar(self, step: Step, width: float) -> None:
        self._front.rect(_MARGIN, self._y, width=width, height=3, fill="#dde1e6")
        whole = self._story.seconds
        if step.at is None or whole <= 0:
            return
        seconds = 0.0 if step.seconds is None else step.seconds
        begin = min(step.at / whole * width, width - 2)
        long = max(2.0, min(seconds / whole * width, width - begin))
        self._front.rect(_MARGIN + begin, self._y, width=long, height=3, fill=_BARS[step.look])

    # --- messages -----------------------------------------------------------------------------

    def _message(self, message: Message, ground: str) -> None:
        if message.source is message.target:
            self._to_itself(message, ground)
        else:
            self._to_another(message, ground)
        self._note(message)

    def _to_another(self, message: Message, ground: str) -> None:
        source, target = self._x[message.source], self._x[message.target]
        colour = _colour(message)
        for line in _label_lines(message):
            self._y += LINE
            self._label((source + target) / 2, line, colour, ground, anchor="middle")
        self._y += 4
        self._time(message)
        leftwards = target < source
        dashes = "2 3" if message.answer else "7 4" if message.undo else ""
        stop = target + 6 if leftwards else target - 6
        self._front.line(source, self._y, stop, self._y, colour=colour, dashes=dashes)
        self._front.head(target, self._y, leftwards=leftwards, colour=colour)
        self._y += 4

    def _to_itself(self, message: Message, ground: str) -> None:
        x, colour = self._x[message.source], _colour(message)
        lines = _label_lines(message)
        self._y += 10
        self._time(message)
        self._front.loop(x, self._y, out=_LOOP - 8, down=LINE - 3, colour=colour)
        self._y -= 3
        for line in lines:
            self._y += LINE
            self._label(x + _LOOP, line, colour, ground, anchor="start")
        self._y += 6

    def _label(self, x: float, line: str, colour: str, ground: str, *, anchor: str) -> None:
        """Text on its own ground, so that no lifeline runs through it."""
        width = breadth(line)
        left = x - width / 2 if anchor == "middle" else x
        self._front.rect(left - 2, self._y - 11, width=width + 4, height=14, fill=ground)
        self._front.text(x, self._y, line, colour=colour, anchor=anchor)

    def _time(self, message: Message) -> None:
        if message.at is not None and not (message.answer and message.seconds is not None):
            text = f"{message.at:.3f}"
            self._front.text(_TIMES, self._y + 4, text, colour=_FAINT, anchor="end", size=_SMALL)

    def _note(self, message: Message) -> None:
        lines = rest.note_of(message, _BODY)
        if not lines:
            return
        x, top = self._note_x(message), self._y + 2
        self._front.rect(
            x,
            top,
            width=max(breadth(line, size=_SMALL) for line in lines) + _MARGIN,
            height=len(lines) * 13 + 8,
            fill=_GROUND,
            stroke=_RULE,
        )
        self._y = top + 2
        for line in lines:
            self._y += 13
            self._front.text(x + _MARGIN / 2, self._y, line, colour=_INK, size=_SMALL)
        self._y += 10


def _needs(messages: Iterable[Message]) -> Iterator[Need]:
    for message in messages:
        if message.source is not message.target:
            room = max(breadth(line) for line in _label_lines(message)) + _AROUND_LABEL
            yield Need(source=message.source, target=message.target, room=room)


def _head_width(name: str) -> float:
    return breadth(name) + _MARGIN


def _title_lines(story: Story) -> list[str]:
    return wrapped(f"{story.title}: {story.state}", _WIDEST)


def _fact_lines(story: Story) -> list[str]:
    facts = (f"{label} {value}" for label, value in story.facts)
    return [piece for fact in facts for piece in wrapped(fact, _WIDEST)]


def _label_lines(message: Message) -> list[str]:
    return wrapped(message.label, _LABEL)


def _problem_lines(story: Story) -> list[str]:
    lines = story.problem.lines if story.problem else ()
    return [piece for line in lines for piece in wrapped(line, _WIDEST)]


def _headline(step: Step) -> str:
    return f"{step.title}: {step.aim}" if step.aim else step.title


def _verdict(step: Step) -> str:
    return step.verdict if step.seconds is None else f"{step.verdict}  {step.seconds:.3f} s"


def _colour(message: Message) -> str:
    if message.outcome is not None:
        return _RED
    if message.undo:
        return _OCHRE
    return _FAINT if message.answer else _INK
