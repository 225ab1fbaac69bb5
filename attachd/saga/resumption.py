"""After a crash, or after a world was out of reach: does an operation go forward or back?

Decided from its history and from what was seen just now, never from the journal alone. An attach
goes forward only where its guest holds the disk already, Cinder's attachment is still ours, and no
undo was begun; then every step is done anew, each asking first, and the device behind the guest's
disk is identified again on the way. Any other attach goes back. A detach goes forward once its
guest let go, else back; an extend once Cinder's volume has grown, else back. Any other goes forward
unless its undo was begun: doing it again does no harm. What had touched nothing yet simply begins
anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attachd.model import OperationKind
from attachd.saga.history import Entry, Happening, StepSpec, undo_was_begun, was_begun


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What was seen of an operation's attachment. What couldn't be seen raises, and isn't here.

    ``guest_holds_disk``: in the live XML where the guest is live, else in the persistent one.
    ``attachment_is_ours``: Cinder's attachment is there and leads to the LUNs it led to.
    ``volume_has_grown``: Cinder's volume has the size that an extend was asked for.
    """

    guest_holds_disk: bool
    attachment_is_ours: bool
    volume_has_grown: bool = False


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Which way, and why."""

    happening: Happening
    reason: str


def decide(
    kind: OperationKind, steps: Sequence[StepSpec], history: Sequence[Entry], seen: Sighting
) -> Verdict:
    """Which way an interrupted operation goes."""
    if not any(was_begun(history, step.name) for step in steps if step.undoable or step.pivot):
        return _forward("nothing was touched before")
    if kind is OperationKind.ATTACH:
        return _attach(history, seen)
    if kind in (OperationKind.DETACH, OperationKind.CLEAN_UP):
        return _detach(seen)
    if kind is OperationKind.EXTEND:
        return _extend(seen)
    return _another(history)


def _attach(history: Sequence[Entry], seen: Sighting) -> Verdict:
    if undo_was_begun(history):
        return _back("its undo was begun")
    if not seen.guest_holds_disk:
        return _back("its guest doesn't hold the disk")
    if not seen.attachment_is_ours:
        return _back("Cinder's attachment isn't there, or isn't this host's")
    return _forward("its guest holds the disk, and Cinder's attachment is this host's")


def _detach(seen: Sighting) -> Verdict:
    if seen.guest_holds_disk:
        return _back("its guest holds the disk")
    return _forward("its guest let go of the disk")


def _extend(seen: Sighting) -> Verdict:
    if seen.volume_has_grown:
        return _forward("Cinder's volume has grown")
    return _back("Cinder's volume hasn't grown")


def _another(history: Sequence[Entry]) -> Verdict:
    if undo_was_begun(history):
        return _back("its undo was begun")
    return _forward("doing it again does no harm")


def _forward(reason: str) -> Verdict:
    return Verdict(happening=Happening.RESUME_FORWARD, reason=reason)


def _back(reason: str) -> Verdict:
    return Verdict(happening=Happening.RESUME_BACK, reason=reason)
