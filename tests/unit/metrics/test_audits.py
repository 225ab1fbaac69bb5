"""What an audit's numbers say, and what they don't."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from attachd.audit.findings import Finding, FindingCode
from attachd.errors import AttachdError, Code, World
from attachd.metrics.exposition import Metrics
from tests.unit.bench import Bench
from tests.unit.metrics.scraped import Scrape

FINDINGS = "attachd_audit_findings"
AWAY = "attachd_audit_world_out_of_reach"


def finding(code: FindingCode, *worlds: World, volume_id: str | None = None) -> Finding:
    return Finding(code=code, brief="", says=dict.fromkeys(worlds, ""), volume_id=volume_id)


@pytest.fixture
def metrics(bench: Bench) -> Metrics:
    return bench.metrics


def audited(metrics: Metrics, *findings: Finding) -> Scrape:
    audit = metrics.audits.measured(lambda: findings)
    assert audit() == findings
    return Scrape(metrics.text())


def test_before_the_first_audit_nothing_is_said_to_be_fine(metrics: Metrics) -> None:
    scrape = Scrape(metrics.text())
    assert scrape.of(FINDINGS) == scrape.of(AWAY) == []
    assert scrape.value("attachd_audit_timestamp_seconds") == 0


def test_findings_are_counted_by_code_and_go_again(metrics: Metrics) -> None:
    gone = finding(FindingCode.DEVICE_GONE, World.HOST, volume_id="v")
    scrape = audited(metrics, gone, gone, finding(FindingCode.SESSION_LEFT, World.HOST))
    assert scrape.value(FINDINGS, code="device-gone") == 2
    assert scrape.value(FINDINGS, code="session-left") == 1
    assert len(scrape.of(FINDINGS)) == len(FindingCode)
    assert audited(metrics).nonzero(FINDINGS) == []
    assert Scrape(metrics.text()).value("attachd_audit_timestamp_seconds") == pytest.approx(
        time.time(), abs=60
    )


def test_a_world_is_out_of_reach_only_as_a_whole(metrics: Metrics) -> None:
    unreachable = FindingCode.WORLD_UNREACHABLE
    one_device = finding(unreachable, World.HOST, volume_id="v")
    scrape = audited(metrics, finding(unreachable, World.CINDER), one_device)
    assert scrape.nonzero(AWAY) == [({"world": "cinder"}, 1)]
    assert audited(metrics).nonzero(AWAY) == []


def test_an_audit_that_fails_leaves_the_latest_numbers_and_is_counted(metrics: Metrics) -> None:
    before = audited(metrics, finding(FindingCode.DEVICE_GONE, World.HOST))

    def fails() -> Sequence[Finding]:
        raise AttachdError(Code.JOURNAL_UNAVAILABLE, "No.")

    with pytest.raises(AttachdError):
        metrics.audits.measured(fails)()
    after = Scrape(metrics.text())
    assert after.value("attachd_audit_failures_total") == 1
    for name in (FINDINGS, "attachd_audit_timestamp_seconds"):
        assert after.nonzero(name) == before.nonzero(name)
