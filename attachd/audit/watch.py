"""A slow watch over the four worlds: what others change in them is in the log within its interval.

Each finding is told once when it appears, and once when it is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from attachd.audit.findings import Finding
from attachd.logs.subject import about
from attachd.periodic import Periodic

LOG = logging.getLogger(__name__)

_SHARE = 0.007  # of a processor
# Seconds: what is dangerous must not go unseen for longer.
_LONGEST_PAUSE = 300.0


class Watch:
    """Audits every ``interval`` seconds between ``start`` and ``stop``.

    Less often where this would take more than 0.7 percent of a processor, up to five minutes.
    ``helper``: seconds of a processor that the privileged helper and its commands have taken; they
    are an audit's while ``idle`` says that no operation is at work.
    ``fence`` gets what each audit found, and keeps attachd from using what is dangerous; then
    ``forget`` gets it, and forgets history that nothing of is left.
    """

    def __init__(
        self,
        *,
        audit: Callable[[], Sequence[Finding]],
        fence: Callable[[Sequence[Finding]], object],
        forget: Callable[[Sequence[Finding]], object],
        interval: float,
        helper: Callable[[], float],
        idle: Callable[[], bool],
    ) -> None:
        self._helper = helper
        self._idle = idle
        self._helped = 0.0
        self._audit = audit
        self._fence = fence
        self._forget = forget
        self._known: dict[tuple[object, ...], Finding] = {}
        self._periodic = Periodic(
            name="watch",
            interval=interval,
            look=self._look,
            failing="The four worlds can't be compared now",
            share=_SHARE,
            longest=_LONGEST_PAUSE,
            others=lambda: self._helped,
        )

    def start(self) -> None:
        """Begin; the first audit comes after one interval, when what was open has settled."""
        self._periodic.start()

    def stop(self, timeout: float) -> bool:
        """Audit no more; False where an audit is still under way after ``timeout`` seconds."""
        return self._periodic.stop(timeout)

    def _look(self) -> None:
        with self._counting():
            findings = self._audit()
        found = {_key(finding): finding for finding in findings}
        for key, finding in found.items():
            if key not in self._known:
                _tell(logging.WARNING, "Audit: %s", finding)
        for key, finding in self._known.items():
            if key not in found:
                _tell(logging.INFO, "Audit: no more: %s", finding)
        self._known = found
        self._fence(findings)
        self._forget(findings)

    @contextmanager
    def _counting(self) -> Iterator[None]:
        idle, before = self._idle(), self._helper()
        yield
        if idle and self._idle():
            self._helped += self._helper() - before


def _key(finding: Finding) -> tuple[object, ...]:
    """What makes it the same finding as before: its words may change."""
    return (
        finding.code,
        finding.volume_id,
        finding.guest_id,
        finding.operation_id,
        tuple(sorted(finding.says)) if finding.volume_id is None else (),
    )


def _tell(level: int, words: str, finding: Finding) -> None:
    with about(
        finding=finding.code,
        attachment=finding.attachment_id,
        volume=finding.volume_id,
        guest=finding.guest_id,
        guest_name=finding.guest_name,
        operation=finding.operation_id,
    ):
        LOG.log(level, words, _in_a_line(finding))


def _in_a_line(finding: Finding) -> str:
    says = "; ".join(f"{world}: {words}" for world, words in finding.says.items())
    subject = f" (volume {finding.volume_id}, guest {finding.guest_name})"
    return f"{finding.code}: {finding.brief}{subject if finding.volume_id else ''} [{says}]"
