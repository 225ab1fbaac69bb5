"""Forgets old operations, where an audit has seen that nothing of their volumes is left."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from attachd import trace
from attachd.audit.findings import Finding, FindingCode
from attachd.errors import AttachdError
from attachd.journal.history import Terms

LOG = logging.getLogger(__name__)

INTERVAL = 3600.0
"""Seconds between two times that anything is forgotten."""
ALWAYS_KEPT = 100
"""Operations that are kept however old they seem: the clock may be wrong."""
BATCHES = 50
"""At most so many go in one turn; the next audit's goes on."""


class History(Protocol):
    """The journal, as far as it forgets."""

    def forget_history(self, terms: Terms, *, spared: Collection[str]) -> int:
        """Forget some of the operations on these terms; how many."""


class Forgetting:
    """Keeps the history of ``days`` days, and of at most ``most`` operations that are over."""

    def __init__(self, *, history: History, most: int, days: int) -> None:
        self._history = history
        self._most = most
        self._days = days
        self._next = trace.now()

    def forget(self, findings: Sequence[Finding]) -> None:
        """To be called with what each audit found; now and then something is forgotten.

        A volume that anything was found about keeps its history, as does one whose device can't be
        looked at. While a whole world can't, anything may be left, and all of it is kept.
        """
        if trace.now() < self._next:
            return
        if any(map(_about_a_whole_world, findings)):
            return
        spared = {finding.volume_id for finding in findings if finding.volume_id is not None}
        if self._forgets_all(spared):
            self._next = trace.now() + INTERVAL

    def _forgets_all(self, spared: Collection[str]) -> bool:
        """Is nothing left to forget, or not now?"""
        try:
            return self._forget(spared)
        except AttachdError as exc:
            LOG.warning("No history can be forgotten now: %s", exc)
            return True

    def _forget(self, spared: Collection[str]) -> bool:
        """Was all of it forgotten?"""
        oldest = datetime.now(UTC) - timedelta(days=self._days)
        terms = Terms(
            ended_before=oldest.isoformat(timespec="milliseconds"),
            kept=min(ALWAYS_KEPT, self._most),
            most=self._most,
        )
        forgotten = 0
        for _ in range(BATCHES):
            batch = self._history.forget_history(terms, spared=spared)
            forgotten += batch
            if not batch:
                break
        if forgotten:
            LOG.info("Forgot %d operations that were over", forgotten)
        return not batch


def _about_a_whole_world(finding: Finding) -> bool:
    return finding.code is FindingCode.WORLD_UNREACHABLE and finding.volume_id is None
