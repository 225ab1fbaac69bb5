"""``python -m attachd.journal``: what is attached by the journal, a line each; nothing if nothing.

For the Debian package, which isn't removed while volumes are attached: the daemon need not run, and
the journal may be of an older schema. It is only read.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from attachd import conf
from attachd.errors import AttachdError
from attachd.journal.database import BUSY_TIMEOUT, translated
from attachd.model import AttachmentState

_ATTACHMENTS = "SELECT guest_name, volume_id, state FROM attachments ORDER BY created_at"


def attached(path: Path) -> list[str]:
    """``GUEST VOLUME STATE`` of each attachment that isn't over.

    Raises journal-unavailable: a journal that can't be read is no journal without attachments.
    """
    with translated("look into the journal"):
        if not path.exists():
            return []
        address = f"file:{quote(str(path))}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT)) as connection:
            rows = connection.execute(_ATTACHMENTS).fetchall()
    over = {state.value for state in AttachmentState if not state.live}
    return [" ".join(row) for row in rows if row[-1] not in over]


def main() -> int:
    """Print them; exit 1 where that can't be seen."""
    try:
        state_path = Path(conf.load([]).state_path)
        print("\n".join(attached(state_path / "journal.db")))  # noqa: T201
    except AttachdError as exc:
        print(f"{exc.problem}\n{exc.problem.details}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
