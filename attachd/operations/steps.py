"""A step as the engine runs it: what the plan knows of it, and how it is done and undone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from attachd.errors import Code
from attachd.model import Guest, Volume
from attachd.saga.history import StepSpec


@dataclass(frozen=True, kw_only=True)
class Step:
    """One row of an operation's table. Both callables raise only AttachdError on purpose."""

    spec: StepSpec
    do: Callable[[], None]
    undo: Callable[[], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Unanswered:
    """A step whose effect may still come, though nobody waits for it.

    ``age``: seconds since it was last asked for, at the least. ``orphaned``: an earlier process
    asked. ``undoing``: it is its undo that was begun. ``failed_with``: the journal has its failure;
    None: it has nothing but that it was begun.
    """

    age: float
    orphaned: bool
    undoing: bool
    failed_with: Code | None


Verb = Callable[[], None]


def bind(table: Sequence[StepSpec], **verbs: Verb | tuple[Verb, Verb]) -> tuple[Step, ...]:
    """Join a table's rows with what does them, or does and undoes them, by the step's name."""
    steps = []
    for spec in table:
        verb = verbs.pop(spec.name)
        do, undo = verb if isinstance(verb, tuple) else (verb, None)
        steps.append(Step(spec=spec, do=do, undo=undo))
    if verbs:
        raise ValueError(f"no step is named {', '.join(verbs)}")
    return tuple(steps)


class Claim(Protocol):
    """Takes an operation's guest and volume for it alone (law 5), until its run ends."""

    def __call__(self, guest: GuestName, volume: VolumeName, *, volume_only: bool = False) -> bool:
        """Lock both and set the busy mark; True where it had to wait for another operation.

        ``volume_only``: the guest isn't locked, and nothing is waited for. Raises Refused
        guest-busy or volume-busy.
        """


class ExportTurn(Protocol):
    """A turn at a volume's backend, for a while."""

    def __call__(self, service_uuid: str | None) -> AbstractContextManager[bool]:
        """Entered when it has come: so many attaches at once are between reserve and export.

        True where it had to wait. ``service_uuid``: of the volume service that makes the export.
        """


@dataclass(frozen=True, kw_only=True)
class GuestName:
    """A guest's id and name."""

    guest_id: str
    name: str

    @classmethod
    def of(cls, guest: Guest) -> GuestName:
        """Of a guest that was read."""
        return cls(guest_id=guest.guest_id, name=guest.name)


@dataclass(frozen=True, kw_only=True)
class VolumeName:
    """A volume's id and name; ``shareable``: other guests may have it at the same time."""

    volume_id: str
    name: str
    shareable: bool = False

    @classmethod
    def of(cls, volume: Volume) -> VolumeName:
        """Of a volume that was read."""
        return cls(volume_id=volume.volume_id, name=volume.name, shareable=volume.multiattach)
