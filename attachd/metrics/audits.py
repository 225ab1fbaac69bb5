"""What the latest audit found, and when. Before the first one there is nothing: not even zeros."""

from __future__ import annotations

import time
from collections import Counter as Count
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge

from attachd.audit.findings import Finding, FindingCode
from attachd.errors import World
from attachd.trace import now

Audit = Callable[[], Sequence[Finding]]

_ASKED = (World.CINDER, World.HOST, World.GUEST)


class Audits:
    """Measures audits; see :meth:`measured`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._findings = Gauge(
            "attachd_audit_findings",
            "Findings of the latest audit.",
            ("code",),
            registry=registry,
        )
        self._out_of_reach = Gauge(
            "attachd_audit_world_out_of_reach",
            "1: the latest audit could not ask this world. "
            "0: it answered, or nothing was to be asked of it.",
            ("world",),
            registry=registry,
        )
        self._seconds = Gauge(
            "attachd_audit_duration_seconds",
            "How long the latest audit took.",
            registry=registry,
        )
        self._last = Gauge(
            "attachd_audit_timestamp_seconds",
            "When the latest audit ended, in Unix time; 0: there was none yet.",
            registry=registry,
        )
        self._failures = Counter(
            "attachd_audit_failures_total",
            "Audits that came to no end: the journal can't be read, another one is under way.",
            registry=registry,
        )

    def measured(self, audit: Audit) -> Audit:
        """The same audit; what it finds is shown from then on."""

        def measured() -> Sequence[Finding]:
            began = now()
            with self._failures.count_exceptions():
                findings = audit()
            self._seconds.set(now() - began)
            self._show(findings)
            return findings

        return measured

    def _show(self, findings: Sequence[Finding]) -> None:
        count = Count(finding.code for finding in findings)
        for code in FindingCode:
            self._findings.labels(code.value).set(count[code])
        away = _out_of_reach(findings)
        for world in _ASKED:
            self._out_of_reach.labels(world.value).set(world in away)
        self._last.set(time.time())


def _out_of_reach(findings: Sequence[Finding]) -> frozenset[World]:
    """As a whole: one that didn't answer about a single attachment is a finding, and no more."""
    return frozenset(
        world
        for finding in findings
        if finding.code is FindingCode.WORLD_UNREACHABLE and finding.volume_id is None
        for world in finding.says
    )
