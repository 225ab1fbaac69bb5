"""Runs the examinations side by side, each to the deadline: one that hangs hides no other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from attachd.doctor.catalogue import Check
from attachd.doctor.examination import BarredError, Examination
from attachd.doctor.findings import Finding, in_words, unseen, wrong
from attachd.errors import AttachdError, Code, Refused

LOG = logging.getLogger(__name__)

PATIENCE = 40.0
"""Seconds that all looks have, side by side."""
TURN_SECONDS = 60.0
"""How long one caller waits for another's examination."""

_LOOK_INTO_THE_LOG = "attachd's log may say more: journalctl -u attachd"
_FORESEEN = (AttachdError, BarredError, OSError, type(None))
_ORDER = {check: place for place, check in enumerate(Check)}


@dataclass
class _Look:
    """One examination under way: what it told so far, and what stopped it."""

    examination: Examination
    told: list[Finding] = field(default_factory=list)
    stopped_by: BaseException | None = None
    ended: bool = False


class Doctor:
    """Examines when asked; one examination at a time, whoever asks.

    A look that hangs is left behind when ``patience`` (seconds) is over; the next examination waits
    for it once more, and begins no second one beside it.
    """

    def __init__(self, *, examinations: Iterable[Examination], patience: float = PATIENCE) -> None:
        self._examinations = tuple(examinations)
        self._patience = patience
        self._turn = threading.Lock()
        self._changed = threading.Condition()
        self._stopping = False
        self._hanging: dict[Examination, _Look] = {}

    def examine(self) -> tuple[Finding, ...]:
        """Every check has at least one finding. Raises shutting-down; deadline-exceeded where
        another examination takes too long.
        """
        if not self._turn.acquire(timeout=TURN_SECONDS):
            raise Refused(
                Code.DEADLINE_EXCEEDED,
                f"Another examination is still under way after {TURN_SECONDS:g} s.",
                resolution="Ask again.",
            )
        try:
            findings = self._examine()
        finally:
            self._turn.release()
        return tuple(sorted(findings, key=lambda finding: _ORDER[finding.check]))

    def stop(self) -> None:
        """An examination under way ends in shutting-down."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def _examine(self) -> list[Finding]:
        looks = [self._taken_up(each) for each in self._examinations]
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopping or all(look.ended for look in looks), timeout=self._patience
            )
            if self._stopping:
                raise Refused(Code.SHUTTING_DOWN, "attachd is stopping.")
            self._hanging = {look.examination: look for look in looks if not look.ended}
            return [finding for look in looks for finding in self._outcome(look)]

    def _taken_up(self, examination: Examination) -> _Look:
        """The look that was left behind, where it still hangs; else a new one."""
        hanging = self._hanging.get(examination)
        return hanging if hanging and not hanging.ended else self._begin(examination)

    def _begin(self, examination: Examination) -> _Look:
        look = _Look(examination)
        threading.Thread(
            target=self._run, args=(look,), name=f"doctor-{examination.checks[0]}", daemon=True
        ).start()
        return look

    def _run(self, look: _Look) -> None:
        try:
            for finding in look.examination.look():
                with self._changed:
                    look.told.append(finding)
        except BaseException as exc:  # noqa: BLE001 - told as what it is: nothing was seen
            look.stopped_by = exc
        with self._changed:
            look.ended = True
            self._changed.notify_all()

    def _outcome(self, look: _Look) -> list[Finding]:
        """What it told, and that nothing is known of the rest. With the lock held."""
        silence = f"No answer within {self._patience:g} s."
        if not look.ended and look.examination.silence is not None:
            return [*look.told, wrong(look.examination.silence, silence)]
        why, remedy = _reason(look.stopped_by) if look.ended else (silence, "")
        told = {finding.check for finding in look.told}
        missing = [check for check in look.examination.checks if check not in told]
        if missing and not isinstance(look.stopped_by, _FORESEEN):
            LOG.error("The doctor's look at %s failed", missing[0], exc_info=look.stopped_by)
        return [
            *look.told,
            *(unseen(check, why, remedy=remedy or _LOOK_INTO_THE_LOG) for check in missing),
        ]


def _reason(exc: BaseException | None) -> tuple[str, str]:
    """Why a look told no more, and what to do about it."""
    if isinstance(exc, BarredError):
        return f"It can't be seen behind {exc.fault}.", "Mend that first."
    if isinstance(exc, AttachdError):
        return in_words(exc), exc.problem.resolution
    if isinstance(exc, OSError):
        return f"{exc.filename}: {exc.strerror}", ""
    return f"The look failed: {type(exc).__name__}", ""
