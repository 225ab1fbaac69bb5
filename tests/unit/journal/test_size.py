"""What the journal does for one operation doesn't grow with all that it remembers.

Counted in SQLite's own instructions, which are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from attachd.journal.journal import Journal
from attachd.model import AttachmentState, OperationKind, OperationState, Request
from attachd.saga.history import Entry, Happening
from tests.unit.records import CONNECTION, a_record

FEW, MANY = 500, 5000
"""More than keep what they said to Cinder."""
INTENT = Entry(happening=Happening.DO_INTENT, step="reserve")

FILL = """
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :many)
INSERT INTO {table} SELECT {columns} FROM {table}, numbers WHERE {table}.{key} = 'template'
"""


def filled(path: Path, many: int) -> Journal:
    """A journal with so many operations that are over, each with an attachment that is, too."""
    journal = Journal(path=path, boot_id="boot")
    journal.accept(
        "template",
        Request(kind=OperationKind.ATTACH, guest="g", volume="v", request_id="template"),
    )
    journal.append("template", INTENT, reason="next")
    record = a_record(record_id="template", operation_id="template", connection=CONNECTION)
    journal.reserve(replace(record, state=AttachmentState.DETACHED))
    journal.rest("template", OperationState.DONE)
    db = journal._db
    for table, key in (
        ("attachments", "record_id"),
        ("operations", "operation_id"),
        ("events", "operation_id"),
    ):
        names = [row["name"] for row in db.execute(f"PRAGMA table_info({table})")]
        own = {"operation_id", "record_id", "request_id", "volume_id", "volume"}
        columns = ", ".join(f"{table}.{n} || '-' || n" if n in own else n for n in names)
        db.execute(FILL.format(table=table, columns=columns, key=key), {"many": many})
    return journal


WORK: dict[str, Callable[[Journal], object]] = {
    "accept": lambda j: j.accept(
        "new", Request(kind=OperationKind.ATTACH, guest="g", volume="v", request_id="new")
    ),
    "claim": lambda j: j.claim(
        "template-7", guest_id="g", guest_name="g", volume_id="x", volume_name="x"
    ),
    "start": lambda j: j.start("template-7"),
    "append": lambda j: j.append("template-7", INTENT, reason="next"),
    "reserve": lambda j: j.reserve(a_record(record_id="new", operation_id="template-7")),
    "rest": lambda j: j.rest("template-7", OperationState.DONE),
    "open operations": lambda j: j.operations(open_only=True),
    "a page of operations": lambda j: j.operations(limit=20),
    "a page from the middle": lambda j: j.operations(limit=20, before="template-30"),
    "an operation": lambda j: j.snapshot("template-7", exchanges=True),
    "what is attached": lambda j: j.live_attachments(),
    "an attachment": lambda j: j.attachment("template"),
}


def instructions(journal: Journal, work: Callable[[Journal], object]) -> int:
    counted = [0]

    def count() -> int:
        counted[0] += 1
        return 0

    journal._db.set_progress_handler(count, 1)
    work(journal)
    journal._db.set_progress_handler(None, 1)
    return counted[0]


@pytest.mark.parametrize("name", WORK)
def test_one_operation_costs_the_same_among_many(tmp_path: Path, name: str) -> None:
    costs = []
    for many in (FEW, MANY):
        journal = filled(tmp_path / f"{many}.db", many)
        costs.append(instructions(journal, WORK[name]))
        journal.close()
    few, many_ = costs
    assert few > 0
    assert many_ < 2 * few + 200, costs


def test_few_pages_of_the_file_are_kept_in_memory(tmp_path: Path) -> None:
    """SQLite's own 2 MiB fill up behind some hundred operations."""
    journal = filled(tmp_path / "journal.db", FEW)
    (kib,) = journal._db.execute("PRAGMA cache_size").fetchone()
    journal.close()
    assert -512 <= kib < 0  # below 0: KiB, whatever a page's size
