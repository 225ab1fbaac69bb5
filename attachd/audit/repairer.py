"""Does what is safe about an audit's findings: each repair is an operation like any other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from attachd.audit.findings import Finding, Repair
from attachd.engine.patience import Patience
from attachd.engine.views import OperationView
from attachd.model import OperationKind

_FENCE_PAUSE = 60.0
"""Seconds."""


class Engine(Protocol):
    """What a repairer needs of the engine."""

    def submit_own(self, kind: OperationKind, *, guest_id: str, volume_id: str) -> OperationView:
        """Begin what attachd does by itself about an attachment."""

    def resume(self, operation_id: str) -> OperationView:
        """Go on with one that needs attention."""


class Repairer:
    """``audit`` finds, ``engine`` mends."""

    def __init__(self, *, audit: Callable[[], Iterable[Finding]], engine: Engine) -> None:
        self._audit = audit
        self._engine = engine
        self._patience = Patience(first=_FENCE_PAUSE)

    def repair(self) -> tuple[OperationView, ...]:
        """Begin everything that is safe; the operations, which go on behind this call.

        Raises as the audit does, and shutting-down, journal-full.
        """
        return tuple(self._begin(finding) for finding in _one_each(self._audit()))

    def fence(self, findings: Iterable[Finding]) -> None:
        """Begin only what keeps attachd itself from using a dangerous device.

        One that stays as it is although it was begun is begun again, at longer and longer pauses.
        """
        for finding in _one_each(findings):
            attachment = f"{finding.guest_id}/{finding.volume_id}"
            if finding.repair is Repair.FENCE and self._patience.is_over(attachment):
                self._begin(finding)

    def _begin(self, finding: Finding) -> OperationView:
        if finding.repair is Repair.RESUME and finding.operation_id is not None:
            return self._engine.resume(finding.operation_id)
        if finding.repair is None or finding.guest_id is None or finding.volume_id is None:
            raise AssertionError(f"{finding.code} says {finding.repair} and of nothing")
        kind = OperationKind(finding.repair.value)  # named as its repair
        return self._engine.submit_own(kind, guest_id=finding.guest_id, volume_id=finding.volume_id)


def _one_each(findings: Iterable[Finding]) -> Iterable[Finding]:
    """One repair for an attachment, however many findings it has."""
    return {
        (finding.repair, finding.volume_id, finding.guest_id, finding.operation_id): finding
        for finding in findings
        if finding.repair is not None
    }.values()
