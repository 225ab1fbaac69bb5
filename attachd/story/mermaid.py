"""A story as a Mermaid sequence diagram: drawn as it is by what shows Mermaid files.

Mermaid reads much into a text (``;`` ends it, ``#`` opens an entity or a comment, the word ``end``
ends a block), so that every character but the plainest goes as an entity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from attachd.story import rest
from attachd.story.story import Look, Message, Participant, Section, Story

# Thin enough for a white ground and for a dark one.
_TINTS = {
    Look.PLAIN: "rgba(128, 128, 128, 0.12)",
    Look.FAILED: "rgba(220, 40, 40, 0.25)",
    Look.LOST: "rgba(150, 80, 220, 0.25)",
    Look.UNDO: "rgba(220, 150, 0, 0.2)",
}
_PLAIN = " .,/()=+-_'"

# Mermaid draws no more than 50,000 characters, unless it is configured to.
_MOST = 50_000
_BODIES = (4_000, 1_000, 200, 0)


def render(story: Story) -> str:
    """The diagram; bodies of requests are cut until Mermaid takes it."""
    for most in _BODIES:
        body = rest.in_short(most=most)
        drawn = "".join(f"{line}\n" for line in _lines(story, body))
        if len(drawn) <= _MOST:
            break
    return drawn


def _lines(story: Story, body: rest.Body) -> Iterator[str]:
    yield "sequenceDiagram"
    yield f"    title {_escaped(f'{story.title}, {story.state}')}"
    for each in story.participants:
        word = "actor" if each is Participant.USER else "participant"
        yield f"    {word} {each.identifier} as {each}"
    for section in story.sections:
        yield from _section(section, _span(story), body)
    if story.problem is not None:
        yield _note("over attachd", list(story.problem.lines))


def _span(story: Story) -> str:
    """Notes of a step go over all but the user."""
    last = story.participants[-1]
    return "over attachd" if last is Participant.ATTACHD else f"over attachd,{last.identifier}"


def _section(section: Section, span: str, body: rest.Body) -> Iterator[str]:
    step = section.step
    if step is not None:
        yield f"    rect {_TINTS[step.look]}"
        yield _note(span, [step.heading])
    for message in section.messages:
        yield from _message(message, body)
    if step is not None:
        yield "    end"


def _message(message: Message, body: rest.Body) -> Iterator[str]:
    source, target = message.source.identifier, message.target.identifier
    yield f"    {source}{_arrow(message)}{target}: {_escaped(message.label)}"
    if lines := rest.note_of(message, body):
        yield _note(f"over {Participant.CINDER.identifier}", lines)


def _arrow(message: Message) -> str:
    line = "--" if message.answer else "-"
    failed = message.outcome is not None and (message.answer or message.seconds is None)
    return f"{line}x" if failed else f"{line}>>"


def _note(place: str, lines: list[str]) -> str:
    return f"    Note {place}: {'<br/>'.join(map(_escaped, lines))}"


def _escaped(text: str) -> str:
    plain = "".join(char if char.isalnum() or char in _PLAIN else f"#{ord(char)};" for char in text)
    return re.sub(
        r"\bend\b", lambda found: f"#{ord(found[0][0])};{found[0][1:]}", plain, flags=re.I
    )
