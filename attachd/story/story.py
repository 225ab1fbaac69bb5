"""A story's nouns. Its texts are printable and of one line each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby


class Participant(StrEnum):
    """Who takes part, from left to right."""

    USER = "user"
    ATTACHD = "attachd"
    CINDER = "cinder-api"
    BRICK = "os-brick"
    LIBVIRT = "libvirt"
    GUEST = "guest"

    @property
    def identifier(self) -> str:
        """A word of letters alone, for languages in which a dash means something."""
        return self.name.lower()


class Look(StrEnum):
    """What is to be seen of a step at a glance."""

    PLAIN = "plain"
    FAILED = "failed"
    LOST = "lost"
    UNDO = "undo"


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A REST request and its answer; bodies as they went, but for their secrets.

    ``status`` is None where no answer came.
    """

    method: str
    url: str
    status: int | None
    request_id: str | None
    body: object
    answer: object


@dataclass(frozen=True, kw_only=True)
class Step:
    """One run of a step, or of its undo; ``number`` tells two runs of the same one apart.

    ``at`` is in seconds after the operation was accepted, None where it isn't known.
    """

    number: int
    name: str
    aim: str
    world: str
    undo: bool
    state: str
    at: float | None
    seconds: float | None
    code: str | None
    brief: str

    @property
    def title(self) -> str:
        """Its name, and whether this is its undo."""
        return f"undo {self.name}" if self.undo else self.name

    @property
    def failed(self) -> bool:
        """Did it go wrong?"""
        return self.state in ("failed", "untouched")

    @property
    def lost(self) -> bool:
        """Was attachd stopped in it, so that no outcome is recorded?"""
        return self.state == "unknown"

    @property
    def look(self) -> Look:
        """What is to be seen of it at a glance."""
        if self.failed:
            return Look.FAILED
        if self.lost:
            return Look.LOST
        return Look.UNDO if self.undo else Look.PLAIN

    @property
    def verdict(self) -> str:
        """How it ended, in a word or two for the eye."""
        if self.failed:
            return "FAILED"
        return "NO OUTCOME" if self.lost else self.state

    @property
    def heading(self) -> str:
        """All of it on a line."""
        aim = f" ({self.aim})" if self.aim else ""
        seconds = "" if self.seconds is None else f", {self.seconds:.3f} s"
        return f"{self.title}{aim}, {self.verdict}{seconds}"


@dataclass(frozen=True, kw_only=True)
class Message:
    """One arrow. A call tells its ``seconds`` and, as its answer does, its ``outcome``.

    ``outcome``: a word for what went wrong; None: nothing did. ``answer``: it goes back to who
    asked. ``step`` is None for what belongs to no step. ``request``: what went over HTTP.
    """

    source: Participant
    target: Participant
    text: str
    at: float | None = None
    seconds: float | None = None
    outcome: str | None = None
    answer: bool = False
    undo: bool = False
    step: Step | None = None
    request: Exchange | None = None

    @property
    def label(self) -> str:
        """Its text at an arrow: how long it took is told by the answer."""
        if not self.answer or self.seconds is None:
            return self.text
        return f"{self.text}, {self.seconds:.3f} s"


@dataclass(frozen=True, kw_only=True)
class Section:
    """Messages of one step, or what lies between two of them (``step`` is None)."""

    step: Step | None
    messages: tuple[Message, ...]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why it ended badly. ``details`` and ``resolution`` line by line."""

    code: str
    brief: str
    details: tuple[str, ...]
    resolution: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.code}: {self.brief}"

    @property
    def lines(self) -> tuple[str, ...]:
        """All of it."""
        return (str(self), *self.details, *self.resolution)


@dataclass(frozen=True, kw_only=True)
class Story:
    """One operation, from its request to its end, or as far as it is.

    ``facts``: what identifies it, as label and value. ``asked_by``: the participant who asked.
    ``seconds``: from its acceptance to the last that is known of it.
    """

    title: str
    kind: str
    state: str
    guest: str
    volume: str
    facts: tuple[tuple[str, str], ...]
    asked_by: Participant
    participants: tuple[Participant, ...]
    steps: tuple[Step, ...]
    messages: tuple[Message, ...]
    problem: Problem | None
    seconds: float

    @property
    def sections(self) -> Iterator[Section]:
        """The messages, step by step."""
        for step, messages in groupby(self.messages, key=lambda message: message.step):
            yield Section(step=step, messages=tuple(messages))
