"""tools/big-journal: attachd reads what it makes as its own."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

from attachd.journal.journal import Journal
from tests.pages import PROJECT

PROGRAM = PROJECT / "tools" / "big-journal"


def made(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_so_many_operations_and_attachments_that_all_can_be_shown(tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    assert made(file, "--operations", 60, "--attachments", 50).returncode == 0
    with closing(Journal(path=file, boot_id="b")) as journal:
        rows = journal.operations()
        assert len(rows) == 61
        for row in rows:
            _, events, _, calls = journal.snapshot(row.operation_id, exchanges=True)
            assert len(events) > 10
            assert len(calls) > 10
        attachments = journal.live_attachments()
        assert len(attachments) == 50
        assert len({record.guest_id for record in attachments}) == 3
        for record in attachments:
            assert journal.operation(record.operation_id).record_id == record.record_id


def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    file.write_text("mine")
    ran = made(file)
    assert (ran.returncode, "there already" in ran.stderr) == (2, True)
    assert file.read_text() == "mine"
