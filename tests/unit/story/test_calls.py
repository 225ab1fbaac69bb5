"""Which arrows calls are drawn as, by when they began and ended."""

from __future__ import annotations

from attachd.story.calls import Call, messages_of
from attachd.story.story import Participant

CINDER, BRICK, LIBVIRT = Participant.CINDER, Participant.BRICK, Participant.LIBVIRT


def call(participant: Participant, name: str, at: float, ended: float) -> Call:
    return Call(participant=participant, name=name, at=at, ended=ended)


def arrows(*calls: Call) -> list[str]:
    return [
        f"{m.source} {'answers' if m.answer else 'asks'} {m.target}"
        + ("" if m.answer else f": {m.text}")
        for m in messages_of(sorted(calls, key=lambda each: each.at))
    ]


def test_what_one_asks_of_two_at_once_is_nobody_elses() -> None:
    """libvirt is read while Cinder still thinks: it isn't Cinder that reads."""
    assert arrows(call(CINDER, "GET", 0.0, 1.0), call(LIBVIRT, "read", 0.1, 0.2)) == [
        f"attachd asks {CINDER}: GET",
        f"attachd asks {LIBVIRT}: read",
        f"{LIBVIRT} answers attachd",
        f"{CINDER} answers attachd",
    ]


def test_the_answers_come_in_the_order_of_the_ends() -> None:
    assert arrows(call(CINDER, "GET", 0.0, 0.5), call(LIBVIRT, "read", 0.1, 0.9)) == [
        f"attachd asks {CINDER}: GET",
        f"attachd asks {LIBVIRT}: read",
        f"{CINDER} answers attachd",
        f"{LIBVIRT} answers attachd",
    ]


def test_os_brick_runs_its_commands_itself() -> None:
    commands = (call(BRICK, "iscsiadm", 0.1, 0.2), call(BRICK, "tee", 0.3, 1.0))
    assert arrows(call(BRICK, "connect", 0.0, 1.0), *commands) == [
        f"attachd asks {BRICK}: connect",
        f"{BRICK} asks {BRICK}: iscsiadm",
        f"{BRICK} asks {BRICK}: tee",
        f"{BRICK} answers attachd",
    ]


def test_one_behind_the_other_is_asked_by_attachd() -> None:
    assert arrows(call(BRICK, "connect", 0.0, 1.0), call(BRICK, "scsi_id", 1.0, 1.1)) == [
        f"attachd asks {BRICK}: connect",
        f"{BRICK} answers attachd",
        f"attachd asks {BRICK}: scsi_id",
        f"{BRICK} answers attachd",
    ]


def test_two_of_the_same_times_are_one_within_the_other() -> None:
    both = (call(BRICK, "connect", 0.0, 1.0), call(BRICK, "iscsiadm", 0.0, 1.0))
    assert arrows(*both) == [
        f"attachd asks {BRICK}: connect",
        f"{BRICK} asks {BRICK}: iscsiadm",
        f"{BRICK} answers attachd",
    ]
