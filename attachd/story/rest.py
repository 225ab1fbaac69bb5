"""A REST request and its answer, as lines of text."""

from __future__ import annotations

import json
from collections.abc import Callable

from attachd.plain import printable, wrapped
from attachd.story.story import Exchange, Message

_NOTE = 76  # columns of a note in a drawing

Body = Callable[[object], list[str]]
"""How a body is written down."""


def in_full(body: object) -> list[str]:
    """Indented, nothing left out."""
    lines = json.dumps(body, indent=2, ensure_ascii=False).split("\n")
    return [printable(line) for line in lines]


def in_short(*, most: int) -> Body:
    """At most ``most`` characters of it."""

    def write(body: object) -> list[str]:
        text = printable(json.dumps(body, ensure_ascii=False))
        if len(text) > most:
            text = f"{text[:most]} ... {len(text) - most} characters more (--format text)"
        return [text]

    return write


def asked(exchange: Exchange, body: Body) -> list[str]:
    """The request."""
    lines = [f"{exchange.method} {exchange.url}"]
    return lines if exchange.body is None else [*lines, *body(exchange.body)]


def answered(exchange: Exchange, body: Body) -> list[str]:
    """The answer."""
    status = "no answer" if exchange.status is None else f"HTTP {exchange.status}"
    lines = [f"{status}, {exchange.request_id}" if exchange.request_id else status]
    return lines if exchange.answer is None else [*lines, *body(exchange.answer)]


def note_of(message: Message, body: Body) -> list[str]:
    """What a drawing notes beside an arrow: the request at the call, the answer at its answer."""
    if message.request is None:
        return []
    lines = (answered if message.answer else asked)(message.request, body)
    return [piece for line in lines for piece in wrapped(line, _NOTE)]
