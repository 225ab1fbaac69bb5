"""What the lines of the log are about that a thread logs just now.

A name becomes a field of journald's: ``volume`` is ATTACHD_VOLUME. A thread begins without any; one
that is started in a copy of another's context goes on with that one's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

from attachd.model import AttachmentRecord

Fields = Mapping[str, str | None]
"""None: it isn't known, or not any more."""

_NOTHING: Mapping[str, str] = MappingProxyType({})
_subject: ContextVar[Mapping[str, str]] = ContextVar("attachd-subject", default=_NOTHING)


@contextmanager
def about(**fields: str | None) -> Iterator[None]:
    """Bind these until the end, beside what is bound already."""
    token = _subject.set(_with(fields))
    try:
        yield
    finally:
        _subject.reset(token)


def note(**fields: str | None) -> None:
    """Bind what became known, until the innermost ``about`` ends."""
    _subject.set(_with(fields))


def current() -> Mapping[str, str]:
    """What is bound now."""
    return _subject.get()


def of_attachment(record: AttachmentRecord) -> dict[str, str | None]:
    """What an attachment's record says of itself."""
    return {
        "attachment": record.attachment_id,
        "volume": record.volume_id,
        "volume_name": record.volume_name,
        "guest": record.guest_id,
        "guest_name": record.guest_name,
    }


def _with(fields: Fields) -> Mapping[str, str]:
    together = {**_subject.get(), **fields}
    return {name: value for name, value in together.items() if value}
