"""What is over, and when it is forgotten: else the file would grow for ever."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass

BATCH = 200
"""Operations that are forgotten in one transaction: nobody waits long for it."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Which operations that are over are forgotten.

    All that ended before the time ``ended_before`` (ISO 8601, UTC), but for the newest ``kept``:
    the clock may be wrong. And the oldest, where there are more than ``most``.
    """

    ended_before: str
    kept: int
    most: int


_FORGETTABLE = """
WITH newest AS (
    SELECT coalesce((SELECT rowid FROM operations ORDER BY rowid DESC LIMIT 1 OFFSET :kept), 0)
        AS beyond_kept,
    coalesce((SELECT rowid FROM operations ORDER BY rowid DESC LIMIT 1 OFFSET :most), 0)
        AS beyond_most)
SELECT operation_id, record_id FROM operations AS old, newest
WHERE old.rowid <= beyond_kept AND (finished_at < :ended_before OR old.rowid <= beyond_most)
AND state NOT IN ('accepted', 'running', 'needs-attention')
AND NOT EXISTS (SELECT 1 FROM open_operations AS open WHERE
    open.volume IN (old.volume, old.volume_id) OR open.volume_id IN (old.volume, old.volume_id))
AND operation_id NOT IN (SELECT operation_id FROM attachments
    WHERE state NOT IN ('detached', 'released'))
AND NOT EXISTS (SELECT 1 FROM json_each(:spared) WHERE value IN (old.volume, old.volume_id))
ORDER BY old.rowid LIMIT :batch
"""

# In this order: the later ones are referred to by the earlier ones. What was released is told from
# somebody else's disk by its record, which stays.
_FORGET = (
    "DELETE FROM events WHERE operation_id IN (SELECT value FROM json_each(:doomed))",
    "DELETE FROM calls WHERE operation_id IN (SELECT value FROM json_each(:doomed))",
    "DELETE FROM operations WHERE operation_id IN (SELECT value FROM json_each(:doomed))",
    """DELETE FROM attachments AS old WHERE state = 'detached'
    AND (operation_id IN (SELECT value FROM json_each(:doomed))
        OR record_id IN (SELECT value FROM json_each(:records)))
    AND NOT EXISTS (SELECT 1 FROM operations WHERE operations.record_id = old.record_id)
    AND NOT EXISTS (SELECT 1 FROM operations WHERE operations.operation_id = old.operation_id)""",
)


def forget(db: sqlite3.Connection, terms: Terms, spared: Collection[str]) -> list[str]:
    """Forget a batch, in the transaction that is under way; the operations' ids."""
    found = db.execute(
        _FORGETTABLE, {**vars(terms), "spared": json.dumps(sorted(spared)), "batch": BATCH}
    ).fetchall()
    doomed = [row["operation_id"] for row in found]
    values = {
        "doomed": json.dumps(doomed),
        "records": json.dumps([row["record_id"] for row in found if row["record_id"]]),
    }
    for statement in _FORGET if doomed else ():
        db.execute(statement, values)
    return doomed
