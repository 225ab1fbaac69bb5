"""Every number is in the documentation, as it is, and none that there isn't."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attachd.model import OperationKind
from tests.unit.bench import PATIENCE, Bench
from tests.unit.metrics.scraped import Scrape

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "reference" / "numbers.md"
ROW = re.compile(r"^\| (attachd_\w+) \| (\w+) \| ([a-z_, ]*?) ?\|", re.MULTILINE)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it is meant
def test_each_number_is_documented_with_its_type_and_labels(bench: Bench, volume: str) -> None:
    # Everything happens once: a failure, an audit, an operation that is interrupted and waits.
    assert bench.attach("web", "nothing").state == "refused"
    bench.metrics.audits.measured(bench.auditor.audit)()
    bench.kill_at = "detach.begin.do.after-effect"
    bench.submit(OperationKind.DETACH, "web", volume)
    assert bench.killed.wait(PATIENCE)
    scrape = Scrape(bench.metrics.text())

    documented = {
        name: (kind, frozenset(labels.split(", ") if labels else ()))
        for name, kind, labels in ROW.findall(DOCUMENT.read_text())
    }
    there = {
        family if kind != "counter" else f"{family}_total": (kind, labels_of(scrape, family, kind))
        for family, kind in scrape.types.items()
        if family.startswith("attachd_")
    }
    assert documented == there


def labels_of(scrape: Scrape, family: str, kind: str) -> frozenset[str]:
    """Of any series of it; a histogram's buckets aside."""
    suffix = {"counter": "_total", "histogram": "_count"}.get(kind, "")
    found = {frozenset(labels) for labels in scrape.of(family + suffix)}
    assert len(found) == 1, (family, found)
    return found.pop()
