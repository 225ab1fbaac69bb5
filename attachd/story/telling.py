"""From the API's documents of an operation to its Story: read once, here and in ``calls``.

Whoever asked opens it, and hears its end. In between each step has its messages: calls of a library
and their answers, what passes between libvirt and the guest, what attachd notes by itself. What
belongs to no step (a recovery's looks, a resumption) stands where it happened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from attachd.plain import printable
from attachd.story import words
from attachd.story.calls import Call, messages_of, read_call, talk_with_guest
from attachd.story.placing import Placed, Span, place
from attachd.story.story import Message, Participant, Problem, Step, Story

Document = Mapping[str, Any]


def tell(operation: Document, events: Sequence[Document] = (), *, requests: bool = False) -> Story:
    """The story of the operation that the API answered.

    ``events``: the operation's; they alone know of its resumptions. ``requests``: with every REST
    request and its answer.
    """
    clock = _Clock(operation["created_at"])
    steps = tuple(_step(number, each, clock) for number, each in enumerate(operation["steps"]))
    read = (read_call(each, requests=requests) for each in operation["calls"])
    calls = [each for each in read if not each.is_from_memory]
    placed = place(
        calls, [_span(*pair, clock) for pair in zip(steps, operation["steps"], strict=True)]
    )
    before, *behind = _between(placed, _resumptions(events, clock), len(steps))
    disk = _disk(operation)
    told = before
    for step, mine, between in zip(steps, placed.within, behind, strict=True):
        told += [*_in_step(step, mine, disk), *between]
    return _whole(operation, clock, steps, told)


# --- the operation as a whole -------------------------------------------------------------------


def _whole(
    operation: Document, clock: _Clock, steps: tuple[Step, ...], told: list[Message]
) -> Story:
    asked_by = _asker(operation)
    kind, state = printable(operation["kind"]), printable(operation["state"])
    guest = printable(operation["guest_name"] or operation["guest"])
    volume = printable(operation["volume_name"] or operation["volume"])
    about = f"volume {volume}, guest {guest}"
    opening = Message(source=asked_by, target=Participant.ATTACHD, text=f"{kind} {about}", at=0.0)
    messages = (opening, *told, *_closing(operation, asked_by, clock))
    seen = {message.source for message in messages} | {message.target for message in messages}
    return Story(
        title=f"{kind} of {about}",
        kind=kind,
        state=state,
        guest=guest,
        volume=volume,
        facts=tuple(_facts(operation, asked_by)),
        asked_by=asked_by,
        participants=tuple(each for each in Participant if each in seen),
        steps=steps,
        messages=messages,
        problem=_problem(operation["problem"]),
        seconds=max(_ends((*steps, *messages))),
    )


def _asker(operation: Document) -> Participant:
    """Who asked: attachd's own requests have ids that it made of their kind."""
    own = re.fullmatch(rf"{re.escape(operation['kind'])}-[0-9a-f-]{{36}}", operation["request_id"])
    return Participant.ATTACHD if own else Participant.USER


def _facts(operation: Document, asked_by: Participant) -> Iterator[tuple[str, str]]:
    yield "operation", printable(operation["operation_id"])
    yield "volume", _named(operation["volume_name"] or operation["volume"], operation["volume_id"])
    yield "guest", _named(operation["guest_name"] or operation["guest"], operation["guest_id"])
    who = "attachd itself" if asked_by is Participant.ATTACHD else "a user"
    yield "asked for by", f"{who}, request {printable(operation['request_id'])}"
    yield "at", printable(operation["created_at"])
    yield "in Cinder's logs", printable(operation["global_request_id"])


def _named(name: str, known_id: str | None) -> str:
    return printable(name if known_id in (None, name) else f"{name} ({known_id})")


def _closing(operation: Document, asked_by: Participant, clock: _Clock) -> Iterator[Message]:
    """The end as it is told to who asked; nothing while it goes on."""
    state, problem = operation["state"], operation["problem"]
    text = words.end(state)
    if text is None:
        return
    code = problem["code"] if problem else None
    if asked_by is Participant.USER:
        text += f" (exit {words.exit_status(state, code=code)})"
    yield Message(
        source=Participant.ATTACHD,
        target=asked_by,
        text=text,
        at=clock.seconds(operation["finished_at"]),
        outcome=None if state == "done" else printable(code or state),
        answer=asked_by is not Participant.ATTACHD,
    )


def _problem(document: Document | None) -> Problem | None:
    if document is None:
        return None
    return Problem(
        code=printable(document["code"]),
        brief=printable(document["brief"]),
        details=_lines(document["details"]),
        resolution=_lines(document["resolution"]),
    )


def _lines(text: str) -> tuple[str, ...]:
    return tuple(printable(line) for line in text.split("\n") if line.strip())


def _ends(told: Iterable[Step | Message]) -> Iterator[float]:
    for each in told:
        if each.at is not None:
            yield each.at + (0.0 if each.seconds is None else each.seconds)


def _disk(operation: Document) -> str:
    attachment = operation["attachment"]
    return f"disk {printable(attachment['device'])}" if attachment else "the disk"


class _Clock:
    """Turns the journal's wall times into seconds after the operation was accepted."""

    def __init__(self, accepted: str) -> None:
        self._accepted = datetime.fromisoformat(accepted)

    def seconds(self, at: str | None) -> float | None:
        """None stays None; a wall clock that was set back gives no time before 0."""
        if at is None:
            return None
        return max(0.0, (datetime.fromisoformat(at) - self._accepted).total_seconds())


# --- steps --------------------------------------------------------------------------------------


def _step(number: int, document: Document, clock: _Clock) -> Step:
    undo = document["direction"] == "undo"
    problem = document["problem"]
    at = document.get("offset")
    return Step(
        number=number,
        name=printable(document["name"]),
        aim=words.aim(document["name"], undo=undo),
        world=printable(document["world"]),
        undo=undo,
        state=printable(document["state"]),
        at=clock.seconds(document["started_at"]) if at is None else at,
        seconds=document["seconds"],
        code=printable(problem["code"]) if problem else None,
        brief=printable(problem["brief"]) if problem else "",
    )


def _span(step: Step, document: Document, clock: _Clock) -> Span:
    ended = clock.seconds(document["finished_at"])
    if step.at is not None and step.seconds is not None:
        ended = step.at + step.seconds
    return Span(began=step.at, ended=ended, running=step.state == "running")


def _in_step(step: Step, calls: Sequence[Call], disk: str) -> Iterator[Message]:
    """What happened in a step, each message marked with it."""
    for message in _of_step(step, calls, disk):
        yield replace(message, step=step, undo=step.undo)


def _of_step(step: Step, calls: Sequence[Call], disk: str) -> Iterator[Message]:
    yield from messages_of(calls, talk_with_guest(step, calls, disk))
    if not calls:
        yield _note(_without_calls(step), at=step.at)
    if step.failed:
        yield _note(f"{step.code}: {step.brief}", outcome=step.state)
    elif step.lost:
        yield _note("attachd was stopped here: no outcome is recorded", outcome="no outcome")


def _without_calls(step: Step) -> str:
    if step.lost:
        return "begun; what was asked of others isn't known"
    if step.state == "running":
        return "under way"
    alone = step.world == "journal" and step.name != "precheck"
    return "in the journal alone" if alone else "no call is noted"


def _note(text: str, *, at: float | None = None, outcome: str | None = None) -> Message:
    """What attachd says to itself."""
    return Message(
        source=Participant.ATTACHD, target=Participant.ATTACHD, text=text, at=at, outcome=outcome
    )


# --- what belongs to no step --------------------------------------------------------------------

_RESUMPTIONS = {"resume-forward": "it goes on forward", "resume-back": "it goes back"}


def _resumptions(events: Iterable[Document], clock: _Clock) -> Iterator[tuple[int, Message]]:
    """Each with the number of steps that had begun before it."""
    begun = 0
    for event in events:
        if event["phase"] == "intent":
            begun += 1
        elif event["state"] in _RESUMPTIONS:
            text = f"resumed: {_RESUMPTIONS[event['state']]}, since {event['reason']}"
            yield begun, _note(printable(text), at=clock.seconds(event["at"]))


def _between(
    placed: Placed[Call], resumptions: Iterable[tuple[int, Message]], steps: int
) -> Iterator[list[Message]]:
    """What came before the first step, and behind each of them."""
    decided: list[list[Message]] = [[] for _ in range(steps + 1)]
    for begun, message in resumptions:
        decided[min(begun, steps)].append(message)
    for calls, verdicts in zip((placed.before, *placed.behind), decided, strict=True):
        yield list(_looked_and_decided(calls, verdicts))


def _looked_and_decided(calls: Sequence[Call], verdicts: Iterable[Message]) -> Iterator[Message]:
    """A resumption looks first, and then decides."""
    for verdict in verdicts:
        earlier = [call for call in calls if verdict.at is None or call.at <= verdict.at]
        yield from messages_of(earlier)
        yield verdict
        calls = calls[len(earlier) :]
    yield from messages_of(calls)
