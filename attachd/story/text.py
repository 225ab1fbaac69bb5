"""A story as plain text: an overview of the steps with their times, then all of it.

It is for 80 columns, unless there is more room, or less: the bars are as long as it allows.

At the left of each line stands what is to be seen at a glance: ``x`` failed, ``<`` is an undo,
``?`` has no outcome.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attachd.plain import width, wrapped
from attachd.story import rest
from attachd.story.story import Look, Message, Participant, Section, Step, Story

_MARKS = {Look.PLAIN: " ", Look.FAILED: "x", Look.LOST: "?", Look.UNDO: "<"}
_FILLS = {**_MARKS, Look.PLAIN: "="}

USUAL_COLUMNS = 80
_COLUMNS = range(40, 121)
_TITLE = 20
_VERDICT = 10
_TIME = 9
_WAY = 16
_REST_OF_ROW = 2 + 1 + _VERDICT + 1 + _TIME  # of the overview, beside a title and its bar
_LEAST_BAR = 10
_INDENT = " " * (_TIME + 2)


def render(story: Story, *, columns: int = USUAL_COLUMNS) -> str:
    """The whole story. Lines that shall be copied whole may be longer than ``columns``."""
    room = min(max(columns, _COLUMNS[0]), _COLUMNS[-1])
    return "".join(f"{line.rstrip()}\n" for line in _lines(story, room))


def _lines(story: Story, room: int) -> Iterator[str]:
    yield from wrapped(f"{story.title}: {story.state}", room)
    yield ""
    label_room = max(len(label) for label, _ in story.facts)
    for label, value in story.facts:
        yield from _hanging(f"  {label:<{label_room}}  ", value, room)
    yield from _overview(story, room)
    for section in story.sections:
        yield ""
        yield from _section(section, room)
    if story.problem is not None:
        yield ""
        for line in story.problem.lines:
            yield from wrapped(line, room)


def _hanging(head: str, text: str, room: int) -> Iterator[str]:
    """``text`` behind ``head``, wrapped into the room that is left there, or else below it."""
    before = head
    if room - len(head) < max(map(width, text.split(" "))):
        yield head
        before = "    "
    for line in wrapped(text, room - len(before)):
        yield before + line
        before = " " * len(before)


# --- the overview -------------------------------------------------------------------------------


def _overview(story: Story, room: int) -> Iterator[str]:
    """Each step beside its bar; without bars where they would be too short to tell anything."""
    if not story.steps:
        return
    yield ""
    names = min(_TITLE, room - _REST_OF_ROW)
    length = room - _REST_OF_ROW - names - len(" ||")
    for step in story.steps:
        bar = f" |{_bar(step, story.seconds, length)}|" if length >= _LEAST_BAR else ""
        seconds = "" if step.seconds is None else _clock(step.seconds)
        title = f"{_MARKS[step.look]} {step.title:<{names}}"
        yield f"{title} {step.verdict:<{_VERDICT}} {seconds:>{_TIME}}{bar}"
    scale = f" 0{_clock(story.seconds) + ' s':>{length}}" if length >= _LEAST_BAR else ""
    yield f"{'':{names + 2}} {'in all':<{_VERDICT}} {_clock(story.seconds):>{_TIME}}{scale}"


def _bar(step: Step, whole: float, length: int) -> str:
    """Where in the whole the step was under way; however short, it has its place."""
    if step.at is None or whole <= 0:
        return " " * length
    seconds = 0.0 if step.seconds is None else step.seconds
    begin = min(int(step.at / whole * length), length - 1)
    end = min(max(round((step.at + seconds) / whole * length), begin + 1), length)
    return f"{' ' * begin}{_FILLS[step.look] * (end - begin)}".ljust(length)


def _clock(seconds: float) -> str:
    return f"{seconds:.3f}"


# --- the messages -------------------------------------------------------------------------------


def _section(section: Section, room: int) -> Iterator[str]:
    if section.step is not None:
        step = section.step
        title = f"{step.title}: {step.aim}" if step.aim else step.title
        behind = room - _VERDICT - 1
        first, *others = wrapped(title, behind - 2)
        yield f"{_MARKS[step.look]} {first}".ljust(behind) + f" {step.verdict}"
        yield from (f"  {line}" for line in others)
    for message in section.messages:
        if not _is_told_by_its_call(message):
            yield from _message(message, room)


def _is_told_by_its_call(message: Message) -> bool:
    """A call's line says how it ended, and after how long."""
    return message.answer and message.seconds is not None


def _message(message: Message, room: int) -> Iterator[str]:
    at = "" if message.at is None else _clock(message.at)
    yield from _hanging(f"{at:>{_TIME}}  {_way(message):<{_WAY}} ", _words(message), room)
    if message.request is not None:
        yield from _marked(">", rest.asked(message.request, rest.in_full))
        yield from _marked("<", rest.answered(message.request, rest.in_full))


def _words(message: Message) -> str:
    words = message.text
    if message.seconds is not None:
        words += f" ({_clock(message.seconds)} s)"
        if message.outcome is not None:
            words += f" !! {message.outcome}"
    elif message.outcome is not None:
        words = f"!! {words}"
    return words


def _way(message: Message) -> str:
    """From whom to whom; attachd, which has a part in nearly all, is left out."""
    source, target = message.source, message.target
    if source is target:
        return source.value
    if source is Participant.ATTACHD:
        return f"-> {target}"
    if target is Participant.ATTACHD:
        return f"<- {source}"
    return f"{source} -> {target}"


def _marked(mark: str, lines: Iterable[str]) -> Iterator[str]:
    """Whole lines: what is copied from them shall be what was sent."""
    for line in lines:
        yield f"{_INDENT}{mark} {line}"
