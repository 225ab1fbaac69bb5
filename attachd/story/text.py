"""A story as plain text, for 80 columns: an overview of the steps with their times, then all of it.

At the left of each line stands what is to be seen at a glance: ``x`` failed, ``<`` is an undo,
``?`` has no outcome.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attachd.plain import wrapped
from attachd.story import rest
from attachd.story.story import Look, Message, Participant, Section, Step, Story

_MARKS = {Look.PLAIN: " ", Look.FAILED: "x", Look.LOST: "?", Look.UNDO: "<"}
_FILLS = {**_MARKS, Look.PLAIN: "="}

_COLUMNS = 80
_BAR = 34
_TITLE = 20
_VERDICT = 10
_TIME = 9
_WAY = 16
_INDENT = " " * (_TIME + 2)
_TEXT_INDENT = " " * (_TIME + 2 + _WAY + 1)


def render(story: Story) -> str:
    """The whole story."""
    return "".join(f"{line.rstrip()}\n" for line in _lines(story))


def _lines(story: Story) -> Iterator[str]:
    yield from wrapped(f"{story.title}: {story.state}", _COLUMNS)
    yield ""
    label_room = max(len(label) for label, _ in story.facts)
    for label, value in story.facts:
        yield from _hanging(f"  {label:<{label_room}}  ", value)
    yield from _overview(story)
    for section in story.sections:
        yield ""
        yield from _section(section)
    if story.problem is not None:
        yield ""
        for line in story.problem.lines:
            yield from wrapped(line, _COLUMNS)


def _hanging(head: str, text: str, *, indent: str | None = None) -> Iterator[str]:
    """``text`` behind ``head``, wrapped into the room that is left there."""
    room = _COLUMNS - len(head)
    before = head
    for line in wrapped(text, room):
        yield before + line
        before = " " * len(head) if indent is None else indent


# --- the overview -------------------------------------------------------------------------------


def _overview(story: Story) -> Iterator[str]:
    if not story.steps:
        return
    yield ""
    for step in story.steps:
        yield _row(step, _bar(step, story.seconds))
    total = _row_of(" ", "", "in all", _clock(story.seconds))
    yield f"{total} 0{_clock(story.seconds) + ' s':>{_BAR}}"


def _row(step: Step, bar: str) -> str:
    seconds = "" if step.seconds is None else _clock(step.seconds)
    return f"{_row_of(_MARKS[step.look], step.title, step.verdict, seconds)} |{bar}|"


def _row_of(mark: str, title: str, verdict: str, seconds: str) -> str:
    return f"{mark} {title:<{_TITLE}} {verdict:<{_VERDICT}} {seconds:>{_TIME}}"


def _bar(step: Step, whole: float) -> str:
    """Where in the whole the step was under way; however short, it has its place."""
    if step.at is None or whole <= 0:
        return " " * _BAR
    seconds = 0.0 if step.seconds is None else step.seconds
    begin = min(int(step.at / whole * _BAR), _BAR - 1)
    end = min(max(round((step.at + seconds) / whole * _BAR), begin + 1), _BAR)
    return f"{' ' * begin}{_FILLS[step.look] * (end - begin)}".ljust(_BAR)


def _clock(seconds: float) -> str:
    return f"{seconds:.3f}"


# --- the messages -------------------------------------------------------------------------------


def _section(section: Section) -> Iterator[str]:
    if section.step is not None:
        step = section.step
        title = f"{step.title}: {step.aim}" if step.aim else step.title
        yield f"{_MARKS[step.look]} {title}".ljust(_COLUMNS - _VERDICT - 1) + f" {step.verdict}"
    for message in section.messages:
        if not _is_told_by_its_call(message):
            yield from _message(message)


def _is_told_by_its_call(message: Message) -> bool:
    """A call's line says how it ended, and after how long."""
    return message.answer and message.seconds is not None


def _message(message: Message) -> Iterator[str]:
    at = "" if message.at is None else _clock(message.at)
    yield from _hanging(f"{at:>{_TIME}}  {_way(message):<{_WAY}} ", _words(message))
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
