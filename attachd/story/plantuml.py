"""A story as a PlantUML sequence diagram.

PlantUML reads marks of its own in every text (``**``, ``//``, ``[[``, ``<b>``), variables and
functions in every line (``$name``, ``%date()``), so that every character but the plainest goes by
its number, and so does the first one of a line where it could open a block or end one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attachd.story import rest
from attachd.story.story import Look, Message, Participant, Section, Story

_TINTS = {
    Look.PLAIN: "#F6F8FA",
    Look.FAILED: "#FFEBE9",
    Look.LOST: "#F3EAFF",
    Look.UNDO: "#FFF8C5",
}
_PLAIN = " .,:;/()[]{}?=+-_'\"&"  # some of them are marks where they stand twice
_BODY = rest.in_short(most=4_000)


def render(story: Story) -> str:
    """The diagram."""
    return "".join(f"{line}\n" for line in _lines(story))


def _lines(story: Story) -> Iterator[str]:
    yield "@startuml"
    yield f"title {_escaped(f'{story.title}, {story.state}')}"
    for each in story.participants:
        word = "actor" if each is Participant.USER else "participant"
        yield f'{word} "{each}" as {each.identifier}'
    for section in story.sections:
        yield from _section(section)
    if story.problem is not None:
        yield from _note("over attachd #FFEBE9", story.problem.lines)
    yield "@enduml"


def _section(section: Section) -> Iterator[str]:
    step = section.step
    if step is not None:
        yield f"group {_TINTS[step.look]} {_escaped(step.heading)}"
    for message in section.messages:
        yield from _message(message)
    if step is not None:
        yield "end"


def _message(message: Message) -> Iterator[str]:
    source, target = message.source.identifier, message.target.identifier
    yield f"{source} {_arrow(message)} {target} : {_escaped(message.label)}"
    if lines := rest.note_of(message, _BODY):
        yield from _note("right of cinder", lines)


def _arrow(message: Message) -> str:
    line = "--" if message.answer else "-"
    if message.outcome is not None:
        return f"-[#CF222E]{line[1:]}>"
    return f"-[#9A6700]{line[1:]}>" if message.undo else f"{line}>"


def _note(place: str, lines: Iterable[str]) -> Iterator[str]:
    yield f"note {place}"
    for line in lines:
        yield _escaped(line)
    yield "end note"


def _escaped(text: str) -> str:
    marked = "".join(map(_mark, f" {text}", text))
    if text[:1].isalnum() and not text.lower().startswith("end"):
        return marked
    return f"{_numbered(text[:1])}{marked.removeprefix(_mark(' ', text[:1]))}" if text else ""


def _mark(before: str, char: str) -> str:
    doubled = char == before and char != " "
    return char if char.isalnum() or (char in _PLAIN and not doubled) else _numbered(char)


def _numbered(char: str) -> str:
    return f"<U+{ord(char):04X}>"
