"""A slow watch over the four worlds: what others change in them is in the log within its interval.

Each finding is told once when it appears, and once when it is gone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from attachd.audit.findings import Finding
from attachd.errors import AttachdError

LOG = logging.getLogger(__name__)


class Watch:
    """Audits every ``interval`` seconds between ``start`` and ``stop``."""

    def __init__(self, *, audit: Callable[[], Iterable[Finding]], interval: float) -> None:
        self._audit = audit
        self._interval = interval
        self._stopping = threading.Event()
        self._known: dict[tuple[object, ...], Finding] = {}
        self._thread = threading.Thread(target=self._look_now_and_then, name="watch")

    def start(self) -> None:
        """Begin; the first audit comes after one interval, when what was open has settled."""
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Audit no more; False where an audit is still under way after ``timeout`` seconds."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _look_now_and_then(self) -> None:
        while not self._stopping.wait(self._interval):
            try:
                self._look()
            except AttachdError as exc:
                LOG.warning("The four worlds can't be compared now: %s", exc)
            except Exception:  # without this thread nothing would ever be noticed
                LOG.exception("The four worlds can't be compared now")

    def _look(self) -> None:
        found = {_key(finding): finding for finding in self._audit()}
        for key, finding in found.items():
            if key not in self._known:
                LOG.warning("Audit: %s", _in_a_line(finding))
        for key, finding in self._known.items():
            if key not in found:
                LOG.info("Audit: no more: %s", _in_a_line(finding))
        self._known = found


def _key(finding: Finding) -> tuple[object, ...]:
    """What makes it the same finding as before: its words may change."""
    return (
        finding.code,
        finding.volume_id,
        finding.guest_id,
        finding.operation_id,
        tuple(sorted(finding.says)) if finding.volume_id is None else (),
    )


def _in_a_line(finding: Finding) -> str:
    says = "; ".join(f"{world}: {words}" for world, words in finding.says.items())
    subject = f" (volume {finding.volume_id}, guest {finding.guest_name})"
    return f"{finding.code}: {finding.brief}{subject if finding.volume_id else ''} [{says}]"
