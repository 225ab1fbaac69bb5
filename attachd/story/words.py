"""What steps are for, what a guest is asked in them, and what an end means, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from attachd.errors import NOT_FOUND_CODES, Code, Exit

_AIMS = {
    "precheck": "see whether it may be done, touch nothing",
    "reserve": "keep the device's name",
    "create": "take the volume in Cinder",
    "update": "have Cinder export it to this host",
    "connect": "bring the device to this host",
    "identify": "prove that the device is the volume's",
    "plug": "give the guest its disk",
    "complete": "have Cinder say in-use",
    "remember": "write the result down",
    "begin": "have Cinder say detaching",
    "unplug": "have the guest let go of its disk",
    "disconnect": "take the device off this host",
    "prove": "prove that guest and host are clear",
    "delete": "give the volume back to Cinder",
    "fetch": "ask Cinder where the volume is exported",
    "forget": "forget the attachment",
    "fence": "give the device to nobody any more",
    "cinder-extend": "have Cinder extend the volume",
    "host-extend": "have the host see its new size",
    "resize": "tell the guest",
}

_UNDOS = {
    "reserve": "free the device's name",
    "create": "give the volume back to Cinder",
    "connect": "take the device off this host",
    "plug": "have the guest let go of its disk",
    "begin": "have Cinder say in-use again",
}


def aim(step: str, *, undo: bool) -> str:
    """What a step, or its undo, is for; empty for one that isn't known here."""
    return (_UNDOS if undo else _AIMS).get(step, "")


class GuestTalk(NamedTuple):
    """What libvirt asks of a guest in a step, and the guest's possible answers.

    ``call``: libvirt's own, by which the guest is asked.
    """

    call: str
    question: str
    done: str
    untouched: str
    uncertain: str


_PLUG = GuestTalk(
    call="attach",
    question="take {disk}",
    done="has {disk}",
    untouched="doesn't have {disk}",
    uncertain="may have {disk}",
)
_UNPLUG = GuestTalk(
    call="detach",
    question="let go of {disk}",
    done="has let go of {disk}",
    untouched="keeps {disk}",
    uncertain="may keep {disk}",
)
_RESIZE = GuestTalk(
    call="resize",
    question="see the new size of {disk}",
    done="sees the new size",
    untouched="sees the old size",
    uncertain="may see the old size",
)

_TALKS = {
    ("plug", False): _PLUG,
    ("plug", True): _UNPLUG,
    ("unplug", False): _UNPLUG,
    ("resize", False): _RESIZE,
}

# The guest was seen to have its disk still.
_KEPT = frozenset({Code.UNPLUG_TIMEOUT, Code.GUEST_REFUSED})


def guest_talk(step: str, *, undo: bool) -> GuestTalk | None:
    """What passes between libvirt and the guest in a step; None: nothing does."""
    return _TALKS.get((step, undo))


def guest_answer(talk: GuestTalk, *, state: str, code: str | None) -> str | None:
    """What the guest did, as the step's outcome tells it; None: it tells nothing."""
    if state == "done":
        return talk.done
    kept = talk is _UNPLUG and code in _KEPT
    if state == "untouched" or kept:
        return talk.untouched
    return talk.uncertain if state == "failed" else None


_ENDS: Mapping[str, tuple[str, Exit]] = {
    "done": ("done", Exit.DONE),
    "undone": ("it failed, and everything was undone", Exit.UNDONE),
    "refused": ("refused, nothing was touched", Exit.REFUSED),
    "needs-attention": ("it needs attention: something is left", Exit.NEEDS_ATTENTION),
}


def end(state: str) -> str | None:
    """What an operation's state means; None: it goes on still."""
    return _ENDS[state][0] if state in _ENDS else None


def exit_status(state: str, *, code: str | None) -> int:
    """What attachctl exits with where somebody waited for an operation that ended so."""
    if state == "refused" and code in NOT_FOUND_CODES:
        return Exit.NOT_FOUND.value
    return _ENDS[state][1].value
