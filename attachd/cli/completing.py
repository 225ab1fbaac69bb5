"""Completion in a shell: argcomplete asks here what the word under the cursor may become.

Guests, volumes, attachments and operations are asked of the daemon. Where it doesn't answer in a
moment there is nothing to choose from, and not a word about it: nobody asked for an error.
"""

from __future__ import annotations

import argparse
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import argcomplete
from argcomplete.completers import FilesCompleter, SuppressCompleter

from attachd.cli.client import Client
from attachd.cli.failure import Failure
from attachd.cli.parser import Parser, socket_path

PATIENCE = 1.0  # seconds, unless $ATTACHD_COMPLETION_SECONDS says others

_NEWEST_OPERATIONS = 30
_MOST_CHOICES = 1000

Choices = Mapping[str, str]
"""What the word may become, each with what it stands for."""

Document = dict[str, Any]


def complete(parser: Parser) -> NoReturn:
    """Write what the shell wants to know, and end the process."""
    prepare(parser)
    argcomplete.autocomplete(
        parser,
        always_complete_options=False,
        default_completer=SuppressCompleter(),
    )
    os._exit(1)  # not reached: that ends the process


def prepare(parser: Parser) -> None:
    """Give each argument of each command its completer, where its choices don't say all."""
    for command in _with_all_below(parser):
        for action in command._actions:
            # What is missing yet is what is asked for: without it, argparse would forget the rest.
            action.required = False
            if action.dest in _QUESTIONS:
                action.completer = partial(  # type: ignore[attr-defined]
                    _answered, _QUESTIONS[action.dest], command.get_default("command")
                )
            elif action.dest == "socket":
                action.completer = FilesCompleter()  # type: ignore[attr-defined]


def _with_all_below(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _with_all_below(below)


# --- what may be chosen --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Typed:
    """What the command line has so far: a command's name, its arguments, and the word's begin."""

    command: str
    arguments: argparse.Namespace
    prefix: str


@dataclass(frozen=True, kw_only=True)
class Thing:
    """What has an id and perhaps a name; ``about``: what else is to be known of it."""

    identity: str
    name: str
    about: str


Get = Callable[..., Document]
"""Asks the daemon for a document."""

Question = Callable[[Typed, Get], Choices]


def _guests(typed: Typed, get: Get) -> Choices:
    """Those of libvirt to attach to, else those that have an attachment."""
    if typed.command in ("attach", "adopt"):
        override = getattr(typed.arguments, "override_nova", False)
        guests = [
            Thing(identity=guest["guest_id"], name=guest["guest_name"], about=guest["state"])
            for guest in get("/v1/guests", {"limit": _MOST_CHOICES})["guests"]
            if override or not guest["nova_owned"]
        ]
    else:
        found = get("/v1/attachments")["attachments"]
        volumes = Counter((each["guest_id"], each["guest_name"]) for each in found)
        guests = [
            Thing(identity=guest_id, name=name, about=f"{count} attached")
            for (guest_id, name), count in volumes.items()
        ]
    return _by_name(guests, typed.prefix)


def _volumes(typed: Typed, get: Get) -> Choices:
    """Those that Cinder has for the command, else those that are attached to its guest."""
    status = {"attach": "available", "adopt": "in-use"}.get(typed.command)
    if status is not None:
        query = {"status": status, "limit": _MOST_CHOICES}
        volumes = [
            Thing(
                identity=volume["volume_id"],
                name=volume["volume_name"],
                about=f"{volume['size_gib']} GiB",
            )
            for volume in get("/v1/volumes", query)["volumes"]
            if not volume["encrypted"]
        ]
    else:
        guest = getattr(typed.arguments, "guest", None)
        volumes = [
            Thing(
                identity=each["volume_id"],
                name=each["volume_name"],
                about=f"{each['device']}, {each['size_gib']} GiB",
            )
            for each in get("/v1/attachments")["attachments"]
            if guest in (None, each["guest_id"], each["guest_name"])
        ]
    return _by_name(volumes, typed.prefix)


def _attachments(_typed: Typed, get: Get) -> Choices:
    return {
        each["attachment_id"]: f"{each['volume_name'] or each['volume_id']}, {each['guest_name']}"
        for each in get("/v1/attachments")["attachments"]
        if each["attachment_id"] is not None
    }


def _operations(typed: Typed, get: Get) -> Choices:
    """The newest; those that can be resumed, where one shall be."""
    resuming = typed.command == "operation_resume"
    query: Document = {"limit": _NEWEST_OPERATIONS, **({"open": "true"} if resuming else {})}
    about = "{kind} of {volume}, {guest}: {state}".format_map
    return {
        each["operation_id"]: about(each)
        for each in get("/v1/operations", query)["operations"]
        if not resuming or each["state"] == "needs-attention"
    }


_QUESTIONS: dict[str, Question] = {
    "guest": _guests,
    "volume": _volumes,
    "attachment": _attachments,
    "operation": _operations,
}


def _by_name(things: Iterable[Thing], prefix: str) -> Choices:
    """Names, as far as they can be typed and stand for one thing; ids where they are begun."""
    things = list(things)
    names = Counter(thing.name for thing in things)
    chosen = {}
    for thing in things:
        by_name = names[thing.name] == 1 and _can_be_typed(thing.name)
        if by_name:
            chosen[thing.name] = thing.about
        if not by_name or (prefix and thing.identity.startswith(prefix)):
            chosen[thing.identity] = f"{thing.name}, {thing.about}" if thing.name else thing.about
    return chosen


def _can_be_typed(name: str) -> bool:
    return bool(name) and name.isprintable() and not name.startswith("-")


# --- the daemon's answer -------------------------------------------------------------------------


def _answered(
    question: Question,
    command: str,
    *,
    prefix: str,
    parsed_args: argparse.Namespace,
    **_others: object,
) -> Choices:
    """A completer as argcomplete calls it."""
    typed = Typed(command=command, arguments=parsed_args, prefix=prefix)
    client = Client(socket_path(parsed_args))
    try:
        with _in_time(patience()):
            return question(typed, lambda *asked: client.get(*asked).document)
    except (Failure, OSError, LookupError, TypeError):
        return {}  # also where what answers isn't attachd
    finally:
        client.close()


def patience() -> float:
    """Seconds that the daemon has for its answer."""
    with suppress(ValueError):
        if 0 < (seconds := float(os.environ.get("ATTACHD_COMPLETION_SECONDS", ""))) < float("inf"):
            return seconds
    return PATIENCE


@contextmanager
def _in_time(seconds: float) -> Iterator[None]:
    """Raise TimeoutError when they are over, whatever is waited for."""

    def over(*_: object) -> NoReturn:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
