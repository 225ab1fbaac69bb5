"""Calls of the outer libraries: from the API's documents to messages and their answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attachd.plain import printable
from attachd.story import words
from attachd.story.story import Exchange, Message, Participant, Step

Document = Mapping[str, Any]

_LIBRARIES = {
    "cinder": Participant.CINDER,
    "os_brick": Participant.BRICK,
    "libvirt": Participant.LIBVIRT,
}
_WAIT = "wait for the guest"
_ROUND_TRIP = 0.02  # Keystone does not make a token sooner: it hashes a password for it


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call; times in seconds after the operation was accepted."""

    participant: Participant
    name: str
    at: float
    ended: float
    outcome: str | None = None
    request: Exchange | None = None

    @property
    def seconds(self) -> float:
        """How long it took."""
        return round(self.ended - self.at, 4)

    @property
    def is_from_memory(self) -> bool:
        """Was nobody asked? Every request wants a token, and most get the one that is there."""
        return self.name == "token" and self.outcome is None and self.seconds < _ROUND_TRIP


def read_call(document: Document, *, requests: bool) -> Call:
    """A call as the API tells it; without ``requests`` what went over HTTP is left out."""
    outcome = document.get("outcome")
    request = document.get("request")
    return Call(
        participant=_LIBRARIES.get(document["library"], Participant.ATTACHD),
        name=printable(document["name"]),
        at=document["started"],
        ended=document["ended"],
        outcome=None if outcome is None else printable(outcome),
        request=_exchange(request) if requests and request else None,
    )


def _exchange(document: Document) -> Exchange:
    request_id = document["request_id"]
    return Exchange(
        method=printable(document["method"]),
        url=printable(document["url"]),
        status=document["status"],
        request_id=None if request_id is None else printable(request_id),
        body=document["body"],
        answer=document["answer"],
    )


During = Mapping[int, Sequence[Message]]
"""What happens before the answer of a call, by the call's position."""


def messages_of(calls: Sequence[Call], during: During | None = None) -> Iterator[Message]:
    """Calls and answers in their order; some are under way at once.

    A call within one of os-brick's is made by os-brick itself: it runs its commands.
    """
    under_way: list[Call] = []
    for position, call in enumerate(calls):
        yield from _answers(under_way, until=call.at)
        yield _question(call, _caller(call, under_way))
        yield from (during or {}).get(position, ())
        under_way.append(call)
    yield from _answers(under_way, until=math.inf)


def _answers(under_way: list[Call], *, until: float) -> Iterator[Message]:
    """Of those that end until then; of two at once the one that was asked later is first."""
    ended = [call for call in reversed(under_way) if call.ended <= until]
    for call in sorted(ended, key=lambda each: each.ended):
        caller = _caller(call, under_way)
        under_way.remove(call)
        if caller is not call.participant:  # who asked itself has its answer
            yield _answer(call, caller)


def _caller(call: Call, under_way: Iterable[Call]) -> Participant:
    within = any(outer is not call and _contains(outer, call) for outer in under_way)
    return Participant.BRICK if within else Participant.ATTACHD


def _contains(outer: Call, inner: Call) -> bool:
    both = {outer.participant, inner.participant}
    return both == {Participant.BRICK} and outer.at <= inner.at and inner.ended <= outer.ended


def _question(call: Call, caller: Participant) -> Message:
    return Message(
        source=caller,
        target=call.participant,
        text=call.name,
        at=call.at,
        seconds=call.seconds,
        outcome=call.outcome,
        request=call.request,
    )


def _answer(call: Call, caller: Participant) -> Message:
    status = call.request.status if call.request else None
    return Message(
        source=call.participant,
        target=caller,
        text=call.outcome or (f"HTTP {status}" if status else "ok"),
        at=call.ended,
        seconds=call.seconds,
        outcome=call.outcome,
        answer=True,
        request=call.request,
    )


def talk_with_guest(step: Step, calls: Sequence[Call], disk: str) -> During:
    """What passes between libvirt and the guest in a step.

    The guest is asked by the first call that does so (another one may be about the persistent XML,
    or ask again), and answers while it is waited for.
    """
    talk = words.guest_talk(step.name, undo=step.undo)
    asking = [i for i, call in enumerate(calls) if talk and call.name == talk.call]
    if talk is None or not asking:
        return {}
    waiting = [i for i, call in enumerate(calls) if call.name == _WAIT]
    during = {asking[0]: [_to_guest(talk.question.format(disk=disk))]}
    answer = words.guest_answer(talk, state=step.state, code=step.code)
    if answer is not None:
        said = _from_guest(answer.format(disk=disk), outcome=step.state if step.failed else None)
        during.setdefault(max(asking[0], *waiting, 0), []).append(said)
    return during


def _to_guest(text: str) -> Message:
    return Message(source=Participant.LIBVIRT, target=Participant.GUEST, text=text)


def _from_guest(text: str, *, outcome: str | None) -> Message:
    return Message(
        source=Participant.GUEST,
        target=Participant.LIBVIRT,
        text=text,
        outcome=outcome,
        answer=True,
    )
