"""The attachments that hold something, kept parsed: every operation asks for all of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from attachd.journal.rows import attachment_from
from attachd.model import AttachmentRecord

_LIVE = "state NOT IN ('detached', 'released')"
_ALL = f"SELECT * FROM attachments WHERE {_LIVE}"  # noqa: S608 - own words
_ONE = f"{_ALL} AND record_id = ?"


def place(record: AttachmentRecord) -> tuple[str, str, str]:
    """Where it stands among others, for good: by guest and device."""
    return (record.guest_name, record.device, record.record_id)


class LiveAttachments:
    """As the journal's file has them; who uses it holds the journal's lock.

    ``select`` reads rows. What was written is named to ``changed``, in whichever transaction, and
    read anew when it is asked for next: a transaction that is rolled back needs nothing more.
    """

    def __init__(self, *, select: Callable[..., Sequence[sqlite3.Row]]) -> None:
        self._select = select
        self._records: dict[str, AttachmentRecord] | None = None
        self._changed: set[str] = set()
        self._in_order: tuple[AttachmentRecord, ...] | None = None

    def changed(self, record_id: str) -> None:
        """A record's row is written, or may be."""
        self._changed.add(record_id)
        self._in_order = None

    def all(self) -> tuple[AttachmentRecord, ...]:
        """Every record that is neither detached nor released, by guest and device.

        Raises journal-unavailable where a row is damaged.
        """
        if self._in_order is None:
            records = self._up_to_date().values()
            self._in_order = tuple(sorted(records, key=place))
        return self._in_order

    def _up_to_date(self) -> dict[str, AttachmentRecord]:
        if self._records is None:
            self._records = {r.record_id: r for r in map(attachment_from, self._select(_ALL))}
            self._changed.clear()
        for record_id in tuple(self._changed):
            rows = self._select(_ONE, record_id)
            self._records.pop(record_id, None)
            for row in rows:
                self._records[record_id] = attachment_from(row)
            self._changed.discard(record_id)
        return self._records
