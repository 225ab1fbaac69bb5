"""What the journal says at the moment of a scrape; nobody else is asked."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from attachd.errors import AttachdError, Code
from attachd.metrics.exposition import Metrics
from attachd.model import OperationKind
from tests.unit.bench import PATIENCE, Bench
from tests.unit.metrics.scraped import Scrape, once

INFO = "attachd_attachment_info"
OPEN = "attachd_operations_open"
WAITING = "attachd_operations_waiting"


def test_an_empty_journal_is_all_zeros(bench: Bench) -> None:
    scrape = Scrape(bench.metrics.text())
    assert scrape.value("attachd_journal_readable") == 1
    for name in (OPEN, WAITING, "attachd_attachments"):
        assert scrape.of(name)
        assert scrape.nonzero(name) == []
    assert scrape.value("attachd_attachments_unplug_pending") == 0
    assert scrape.of(INFO) == []


def test_an_attachment_can_be_joined_by_domain_and_volume(
    bench: Bench, guest: str, volume: str
) -> None:
    scrape = Scrape(bench.metrics.text())
    (record,) = bench.journal.live_attachments()
    assert scrape.nonzero(INFO) == [
        (
            {
                "attachment_id": record.attachment_id,
                "volume_id": volume,
                "guest_id": guest,
                "domain": "web",
                "device": "vda",
                "bus": "virtio",
                "mode": "rw",
                "state": "attached",
            },
            1,
        )
    ]
    assert scrape.nonzero("attachd_attachments") == [({"state": "attached"}, 1)]


@pytest.mark.usefixtures("guest", "volume")
def test_a_restart_loses_nothing_of_it(bench: Bench) -> None:
    before = Scrape(bench.metrics.text()).nonzero(INFO)
    bench.recover()
    assert Scrape(bench.metrics.text()).nonzero(INFO) == before


@pytest.mark.usefixtures("guest")
def test_what_waits_for_a_world_is_open_and_says_for_which(bench: Bench) -> None:
    bench.cinder.add_volume(name="data")
    bench.at["attach.connect.do.before-intent"] = bench.cinder.stop
    bench.guests.fail_next("plug", AttachdError(Code.GUEST_REFUSED, "No.", touched=False))
    asked = time.time()
    bench.attach("web", "data")
    attention = {"kind": "attach", "state": "needs-attention"}
    scrape = once(bench.metrics.text, lambda s: s.value(OPEN, **attention) == 1)
    assert scrape.nonzero(WAITING) == [({"world": "cinder"}, 1)]
    (labels,) = scrape.of("attachd_operations_open_oldest_timestamp_seconds")
    assert labels == {"state": "needs-attention"}
    oldest = scrape.value("attachd_operations_open_oldest_timestamp_seconds", **labels)
    assert oldest == pytest.approx(asked, abs=PATIENCE)
    bench.cinder.start()
    bench.until_closed()
    assert Scrape(bench.metrics.text()).nonzero(OPEN) == []


def test_a_guest_that_may_let_go_late_is_counted(bench: Bench, guest: str, volume: str) -> None:
    bench.guests.make_deaf(guest)
    assert bench.detach("web", volume).state == "undone"
    assert Scrape(bench.metrics.text()).value("attachd_attachments_unplug_pending") == 1


def test_a_scrape_waits_for_no_world(bench: Bench, guest: str, volume: str) -> None:
    """Cinder doesn't answer, and an operation hangs in its request."""
    asked, answers = threading.Event(), threading.Event()

    def hang() -> None:
        asked.set()
        assert answers.wait(PATIENCE)

    bench.cinder.before_next("begin_detaching", hang)
    operation = bench.submit(OperationKind.DETACH, guest, volume)
    try:
        assert asked.wait(PATIENCE), bench.engine.operation(operation)
        asked_before = list(bench.cinder.calls)
        scrape = Scrape(bench.metrics.text())
        assert bench.cinder.calls == asked_before
    finally:
        answers.set()
    assert scrape.value(OPEN, kind="detach", state="running") == 1
    bench.rested(operation)


def test_a_journal_that_cannot_be_read_is_a_number_not_a_failure(tmp_path: Path) -> None:
    class Unreadable:
        def operations(self, *, open_only: bool) -> tuple[()]:
            raise AttachdError(Code.JOURNAL_UNAVAILABLE, "No.")

        def live_attachments(self) -> tuple[()]:
            return ()

    scrape = Scrape(Metrics(journal=Unreadable()).text())
    assert scrape.value("attachd_journal_readable") == 0
    assert scrape.of(OPEN) == scrape.of("attachd_attachments") == []
    assert scrape.of("attachd_operations_total")
