"""A story in blockdiag's language for sequence diagrams, seqdiag."""

from __future__ import annotations

from collections.abc import Iterator

from attachd.story import rest
from attachd.story.story import Message, Story

_BODY = rest.in_short(most=4_000)

# seqdiag has no way to write a backslash at the end of a text, and takes quotes off where it finds
# them at both ends or by threes. These only look like them.
_BACKSLASH = "\N{SET MINUS}"
_APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"
_QUOTE = "\N{RIGHT DOUBLE QUOTATION MARK}"


def render(story: Story) -> str:
    """The diagram."""
    return "".join(f"{line}\n" for line in _lines(story))


def _lines(story: Story) -> Iterator[str]:
    yield "seqdiag {"
    yield f"  {' '.join(f'{each};' for each in story.participants)}"
    yield "  edge_length = 300;"
    yield "  span_height = 16;"
    yield "  activation = none;"
    yield "  default_note_color = white;"
    yield _divider(f"{story.title}, {story.state}")
    for number, section in enumerate(story.sections):
        if number > 0:
            yield _divider(section.step.heading if section.step else "outside of the steps")
        yield from map(_edge, section.messages)
    if story.problem is not None:
        yield from map(_divider, story.problem.lines)
    yield "}"


def _divider(text: str) -> str:
    words = _plain(text).replace('"', _QUOTE)
    return f"  === {words} ==="


def _edge(message: Message) -> str:
    attributes = [f"label = {_quoted([message.label])}"]
    if note := rest.note_of(message, _BODY):
        attributes.append(f"note = {_quoted(note)}")
    if message.outcome is not None:
        attributes += ["color = red", "textcolor = red"]
    return f"  {_ends(message)} [{', '.join(attributes)}];"


def _ends(message: Message) -> str:
    """An answer is written from right to left, behind its question."""
    if message.answer:
        return f"{message.target} <-- {message.source}"
    return f"{message.source} -> {message.target}"


def _plain(text: str) -> str:
    return text.replace("\\", _BACKSLASH).replace("'", _APOSTROPHE)


def _quoted(lines: list[str]) -> str:
    text = "\\n".join(map(_plain, lines))
    return '"' + text.replace('"', '\\"') + '"'
