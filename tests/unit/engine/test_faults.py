"""The fault matrix: every outside step and every undo, with every way in which each can go wrong.

The engine's own journal, locks and steps, between fakes that keep the worlds' rules. A row names a
step and what goes wrong in it; then how the operation comes to its end, and to which. Behind each,
what had been put off has come, the worlds are back, and the four of them agree.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise

import pytest

from attachd.audit.findings import FindingCode
from attachd.errors import AttachdError, Code, Refused, Unreachable, World
from attachd.model import GuestState, OperationKind, OperationState
from attachd.saga.history import RESUMPTIONS
from tests.unit.bench import PATIENCE, Bench

Arrange = Callable[[Bench], object]

AT_ONCE = "at once"  # nothing was waited for
ITSELF = "by itself"  # it needed attention, and went on when the world answered again
BY_HAND = "by hand"  # it needed attention until an operator had mended it and resumed it

Ends = Mapping[str, tuple[str, str]]
"""By fault: the way to the operation's end, and the end. ``*``: any fault that isn't named."""

# --- what goes wrong, in the words of the real rooms ------------------------------------------


def no(code: Code, *, touched: bool = False) -> AttachdError:
    """A definite answer."""
    return AttachdError(code, "No.", touched=touched)


def away(world: World, *, touched: bool) -> Unreachable:
    """No answer; ``touched``: the call had left."""
    return Unreachable(_CODES[world], "Out of reach.", world=world, touched=touched)


_CODES = {
    World.CINDER: Code.CINDER_UNAVAILABLE,
    World.HOST: Code.ISCSI_UNAVAILABLE,
    World.GUEST: Code.LIBVIRT_UNAVAILABLE,
}
OVERDUE = Unreachable(Code.DEADLINE_EXCEEDED, "It hangs.", world=World.HOST, touched=True)
STOPPED = AttachdError(Code.DEADLINE_EXCEEDED, "It was stopped at its deadline.", touched=True)
STILL_THERE = AttachdError(
    Code.DEADLINE_EXCEEDED, "Accepted, and still there.", world=World.CINDER, touched=True
)


def cinder(verb: str) -> dict[str, Arrange]:
    """Faults of a call that changes something in Cinder."""
    refused = Refused(Code.CINDER_REFUSED, "No.")
    lost = away(World.CINDER, touched=True)
    return {
        "refused": lambda b: b.cinder.fail_next(verb, refused),
        "not reached": lambda b: b.cinder.fail_next(verb),
        "not answered": lambda b: b.cinder.fail_next(verb, lost),
        "answer lost": lambda b: b.cinder.lose_answer_next(verb),
        "hangs, comes late": lambda b: b.cinder.orphan_next(verb, lost),
    }


def cinder_with_an_answer(verb: str) -> dict[str, Arrange]:
    """The same where the answer says something that is needed."""
    garbled = no(Code.CINDER_REFUSED, touched=True)
    return {**cinder(verb), "garbled": lambda b: b.cinder.lose_answer_next(verb, garbled)}


def cinder_deletes() -> dict[str, Arrange]:
    """The same where Cinder accepts first, and does it later."""
    return {**cinder("delete"), "overdue": lambda b: b.cinder.orphan_next("delete", STILL_THERE)}


def host(method: str, refusal: Code, failure: Code) -> dict[str, Arrange]:
    """Faults of a call that changes something on the host."""
    refused, failed = no(refusal), no(failure, touched=True)
    unreached, lost = away(World.HOST, touched=False), away(World.HOST, touched=True)

    def behind(error: AttachdError) -> Arrange:
        return lambda b: b.host.fail_next(method, error, after_effect=True)

    return {
        "refused": lambda b: b.host.fail_next(method, refused),
        "failed": lambda b: b.host.fail_next(method, failed),
        "failed behind it": behind(failed),
        "stopped": lambda b: b.host.fail_next(method, STOPPED),
        "stopped behind it": behind(STOPPED),
        "not reached": lambda b: b.host.fail_next(method, unreached),
        "not answered": lambda b: b.host.fail_next(method, lost),
        "answer lost": behind(lost),
        "hangs, never comes": lambda b: b.host.fail_next(method, OVERDUE),
    }


def host_connects() -> dict[str, Arrange]:
    """Of a connect, which iscsid may finish later."""
    return {
        **host("connect", Code.CONNECT_FAILED, Code.CONNECT_FAILED),
        "hangs, comes late": lambda b: b.host.orphan_next_login(OVERDUE),
    }


def host_disconnects() -> dict[str, Arrange]:
    """Of a disconnect, which os-brick may finish later."""
    return {
        **host("disconnect", Code.STILL_IN_USE, Code.DISCONNECT_FAILED),
        "hangs, comes late": lambda b: b.host.orphan_next_removal(OVERDUE),
    }


def libvirt(method: str) -> dict[str, Arrange]:
    """Faults of a call that changes something in a guest."""
    refused, failed = no(Code.GUEST_REFUSED), no(Code.GUEST_REFUSED, touched=True)
    unreached, lost = away(World.GUEST, touched=False), away(World.GUEST, touched=True)
    return {
        "refused": lambda b: b.guests.fail_next(method, refused),
        "failed": lambda b: b.guests.fail_next(method, failed),
        "failed behind it": lambda b: b.guests.fail_next(method, failed, after=True),
        "not reached": lambda b: b.guests.fail_next(method, unreached),
        "not answered": lambda b: b.guests.fail_next(method, lost),
        "answer lost": lambda b: b.guests.fail_next(method, lost, after=True),
        "hangs, comes late": lambda b: b.guests.orphan_next(method, lost),
    }


def host_looks() -> dict[str, Arrange]:
    """Faults of the identity's proof, which changes nothing."""
    unreached = away(World.HOST, touched=False)
    return {
        "wrong device": lambda b: b.host.fail_next("identify", no(Code.WRONG_DEVICE)),
        "no answer": lambda b: b.host.fail_next("identify", unreached),
        "no names": lambda b: b.host.fail_next("leading_to", unreached),
        "no guests": lambda b: b.guests.fail_next("all", away(World.GUEST, touched=False)),
    }


def proofs() -> dict[str, Arrange]:
    """Faults of the proof of absence, which changes nothing."""
    again = "detach.disconnect.do.after-effect"
    return {
        "no host": lambda b: b.host.fail_next("present", away(World.HOST, touched=False)),
        "no guest": lambda b: b.at.update(
            {again: lambda: b.guests.fail_next("get", away(World.GUEST, touched=False))}
        ),
        "someone logs in again": lambda b: b.at.update({again: partial(log_in_again, b)}),
    }


def log_in_again(bench: Bench) -> None:
    """Somebody's iscsiadm, behind attachd's back."""
    (record,) = bench.journal.live_attachments()
    assert record.connection is not None
    (attachment,) = bench.cinder.list_attachments(record.volume_id)
    full = bench.cinder.get_attachment(attachment.attachment_id)
    assert full is not None
    assert full.connection is not None
    bench.host.connect(record.volume_id, full.connection)


def table(*rows: tuple[str, dict[str, Arrange], Ends]) -> list[object]:
    """One case for each fault of each step."""
    cases: list[object] = []
    for step, faults, ends in rows:
        assert set(ends) - {"*"} <= set(faults), f"{step} has no such fault"
        for name, fault in faults.items():
            way, end = ends[name] if name in ends else ends["*"]
            cases.append(pytest.param(fault, way, end, id=f"{step}: {name}"))
    return cases


# --- an attach's steps ------------------------------------------------------------------------

UNDONE: Ends = {"*": (AT_ONCE, "undone")}


@pytest.mark.parametrize(
    ("fault", "way", "end"),
    table(
        ("create", cinder_with_an_answer("create"), UNDONE),
        ("update", cinder_with_an_answer("update"), UNDONE),
        ("connect", host_connects(), UNDONE),
        ("identify", host_looks(), UNDONE),
        ("plug", libvirt("plug"), UNDONE),
        ("complete", cinder("complete"), UNDONE),
    ),
)
def test_a_step_of_an_attach(bench: Bench, fault: Arrange, way: str, end: str) -> None:
    guest, volume = unattached(bench)
    fault(bench)
    operation = bench.submit(OperationKind.ATTACH, "web", "data")
    assert end_of(bench, operation, way) == end
    everything_lands(bench)
    bench.assert_nothing_left(guest, volume)


# --- an attach's undos ------------------------------------------------------------------------

GOES_ON = (ITSELF, "undone")
RESUMED = (BY_HAND, "undone")


@pytest.mark.parametrize(
    ("fault", "way", "end"),
    table(
        (
            "plug",
            libvirt("unplug"),
            {"*": GOES_ON, "refused": RESUMED, "failed": RESUMED, "failed behind it": RESUMED},
        ),
        (
            "connect",
            host_disconnects(),
            {
                "*": GOES_ON,
                "refused": RESUMED,
                "failed": RESUMED,
                "failed behind it": RESUMED,
                "stopped": RESUMED,
                "stopped behind it": RESUMED,
            },
        ),
        ("create", cinder_deletes(), {"*": GOES_ON, "refused": RESUMED}),
    ),
)
def test_an_undo_of_an_attach(bench: Bench, fault: Arrange, way: str, end: str) -> None:
    guest, volume = unattached(bench)
    bench.cinder.fail_next("complete", Refused(Code.CINDER_REFUSED, "No."))
    fault(bench)
    operation = bench.submit(OperationKind.ATTACH, "web", "data")
    assert end_of(bench, operation, way) == end
    everything_lands(bench)
    bench.assert_nothing_left(guest, volume)
    assert_undone_in_reverse(bench, operation)


def assert_undone_in_reverse(bench: Bench, operation: str) -> None:
    """No undo was begun before the last one that stands on it had succeeded (law 4)."""
    steps = [s for s in bench.engine.operation(operation).steps if s.direction == "undo"]
    order = ["plug", "connect", "create", "reserve"]
    for earlier, later in pairwise(steps):
        gone = earlier.state == "done"
        assert order.index(later.name) == order.index(earlier.name) + gone


# --- a detach's steps: back before the guest let go, only forward behind it -------------------

ATTACHED = (AT_ONCE, "undone")
FORWARD = (ITSELF, "done")
PUSHED = (BY_HAND, "done")


@pytest.mark.parametrize(
    ("fault", "way", "end"),
    table(
        (
            "begin",
            cinder("begin_detaching"),
            {"*": ATTACHED, "refused": (AT_ONCE, "refused"), "not reached": (AT_ONCE, "refused")},
        ),
        (
            "unplug",
            libvirt("unplug"),
            {
                "refused": ATTACHED,
                "failed": (BY_HAND, "undone"),
                "failed behind it": PUSHED,
                "not reached": ATTACHED,
                "not answered": (ITSELF, "undone"),
                "answer lost": FORWARD,
                "hangs, comes late": (ITSELF, "undone"),
            },
        ),
        (
            "disconnect",
            host_disconnects(),
            {
                "*": FORWARD,
                "refused": PUSHED,
                "failed": PUSHED,
                "failed behind it": PUSHED,
                "stopped": PUSHED,
                "stopped behind it": PUSHED,
            },
        ),
        ("prove", proofs(), {"*": FORWARD, "someone logs in again": PUSHED}),
        ("delete", cinder_deletes(), {"*": FORWARD, "refused": PUSHED}),
    ),
)
def test_a_step_of_a_detach(bench: Bench, fault: Arrange, way: str, end: str) -> None:
    guest, volume = attached(bench)
    fault(bench)
    operation = bench.submit(OperationKind.DETACH, "web", "data")
    assert end_of(bench, operation, way) == end
    if end == "done":
        everything_lands(bench)
        bench.assert_nothing_left(guest, volume)
        return
    bench.assert_attached(guest, volume)
    everything_lands(bench)
    if not live_disks(bench, guest):  # the request that hung has come through: it can't be undone
        until_detached(bench)
        bench.assert_nothing_left(guest, volume)


@pytest.mark.parametrize(
    ("fault", "way", "end"),
    table(("begin", cinder("roll_detaching"), {"*": GOES_ON, "refused": RESUMED})),
)
def test_an_undo_of_a_detach(bench: Bench, fault: Arrange, way: str, end: str) -> None:
    guest, volume = attached(bench)
    bench.guests.make_deaf(guest)
    fault(bench)
    operation = bench.submit(OperationKind.DETACH, "web", "data")
    assert end_of(bench, operation, way) == end
    everything_lands(bench)
    bench.assert_attached(guest, volume)
    bench.guests.hear(guest)
    until_detached(bench)
    bench.assert_nothing_left(guest, volume)


# --- a world goes at a moment, and comes back when the operation rests ------------------------

LEAVE: dict[World, Arrange] = {
    World.CINDER: lambda b: b.cinder.stop(),
    World.HOST: lambda b: b.host.stop(),
    World.GUEST: lambda b: b.guests.go_away(),
}
COME_BACK: dict[World, Arrange] = {
    World.CINDER: lambda b: b.cinder.start(),
    World.HOST: lambda b: b.host.start(),
    World.GUEST: lambda b: b.guests.come_back(),
}
DONE = (AT_ONCE, "done")
BACK = (AT_ONCE, "undone")
REFUSED = (AT_ONCE, "refused")


def away_from(**rows: tuple[tuple[str, str], tuple[str, str], tuple[str, str]]) -> list[object]:
    """Rows of steps, columns of worlds: how it ends when that world goes as the step begins."""
    return [
        pytest.param(step, world, *ends, id=f"{step}: {world}")
        for step, row in rows.items()
        for world, ends in zip((World.CINDER, World.HOST, World.GUEST), row, strict=True)
    ]


@pytest.mark.parametrize(
    ("step", "world", "way", "end"),
    away_from(
        #         Cinder   the host  libvirt
        create=(BACK, BACK, BACK),
        update=(GOES_ON, BACK, BACK),
        connect=(GOES_ON, BACK, BACK),
        identify=(GOES_ON, GOES_ON, BACK),
        plug=(GOES_ON, DONE, BACK),
        complete=(GOES_ON, DONE, DONE),
    ),
)
def test_a_world_goes_in_an_attach(
    bench: Bench, step: str, world: World, way: str, end: str
) -> None:
    guest, volume = unattached(bench)
    bench.at[f"attach.{step}.do.after-intent"] = lambda: LEAVE[world](bench)
    operation = bench.submit(OperationKind.ATTACH, "web", "data")
    assert end_of(bench, operation, way, mend=COME_BACK[world]) == end
    if end == "done":
        bench.assert_attached(guest, volume)
    else:
        bench.assert_nothing_left(guest, volume)


@pytest.mark.parametrize(
    ("step", "world", "way", "end"),
    away_from(
        #         Cinder   the host  libvirt
        plug=(GOES_ON, GOES_ON, GOES_ON),
        connect=(GOES_ON, GOES_ON, BACK),
        create=(GOES_ON, BACK, BACK),
    ),
)
def test_a_world_goes_in_an_attachs_undo(
    bench: Bench, step: str, world: World, way: str, end: str
) -> None:
    guest, volume = unattached(bench)
    bench.cinder.fail_next("complete", Refused(Code.CINDER_REFUSED, "No."))
    bench.at[f"attach.{step}.undo.after-intent"] = lambda: LEAVE[world](bench)
    operation = bench.submit(OperationKind.ATTACH, "web", "data")
    assert end_of(bench, operation, way, mend=COME_BACK[world]) == end
    bench.assert_nothing_left(guest, volume)


@pytest.mark.parametrize(
    ("step", "world", "way", "end"),
    away_from(
        #         Cinder   the host  libvirt
        begin=(REFUSED, FORWARD, BACK),
        unplug=(FORWARD, FORWARD, BACK),
        disconnect=(FORWARD, FORWARD, FORWARD),
        prove=(FORWARD, DONE, FORWARD),
        delete=(FORWARD, DONE, DONE),
    ),
)
def test_a_world_goes_in_a_detach(
    bench: Bench, step: str, world: World, way: str, end: str
) -> None:
    guest, volume = attached(bench)
    bench.at[f"detach.{step}.do.after-intent"] = lambda: LEAVE[world](bench)
    operation = bench.submit(OperationKind.DETACH, "web", "data")
    assert end_of(bench, operation, way, mend=COME_BACK[world]) == end
    if end == "done":
        bench.assert_nothing_left(guest, volume)
    else:
        bench.assert_attached(guest, volume)


@pytest.mark.parametrize(("step", "world", "way", "end"), away_from(begin=(GOES_ON, BACK, BACK)))
def test_a_world_goes_in_a_detachs_undo(
    bench: Bench, step: str, world: World, way: str, end: str
) -> None:
    guest, volume = attached(bench)
    bench.guests.make_deaf(guest)
    bench.at[f"detach.{step}.undo.after-intent"] = lambda: LEAVE[world](bench)
    operation = bench.submit(OperationKind.DETACH, "web", "data")
    assert end_of(bench, operation, way, mend=COME_BACK[world]) == end
    bench.assert_attached(guest, volume)


# --- the guest changes at a moment ------------------------------------------------------------


def lose(bench: Bench, guest: str) -> None:
    """A guest that is undefined and destroyed is no more."""
    bench.guests.undefine(guest)
    if bench.guests.get(guest) is not None:
        bench.guests.destroy(guest)


CHANGES: dict[str, Callable[[Bench, str], object]] = {
    "destroyed": lambda b, guest: b.guests.destroy(guest),
    "undefined": lambda b, guest: b.guests.undefine(guest),
    "gone": lose,
    "paused": lambda b, guest: b.guests.pause(guest),
    "deaf": lambda b, guest: b.guests.make_deaf(guest),
}
OF_A_STOPPED_GUEST: dict[str, Callable[[Bench, str], object]] = {
    "started": lambda b, guest: b.guests.start_guest(guest),
    "gone": lose,
}


def moments(operation: str, verb: str, *steps: str) -> list[str]:
    """In the middle of each of these steps, and behind each, in their order."""
    return [
        f"{operation}.{step}.{verb}.{moment}"
        for step in steps
        for moment in ("after-intent", "after-effect")
    ]


ATTACH = moments("attach", "do", "create", "update", "connect", "identify", "plug", "complete")
ATTACH_BACK = moments("attach", "undo", "plug", "connect", "create")
DETACH = moments("detach", "do", "begin", "unplug", "disconnect", "prove", "delete")
DETACH_BACK = moments("detach", "undo", "begin")
PLUGGED = ATTACH.index("attach.plug.do.after-effect")
LET_GO = DETACH.index("detach.unplug.do.after-effect")
HOLDS_ON = ("paused", "deaf")


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("moment", ATTACH)
def test_a_guest_changes_in_an_attach(bench: Bench, moment: str, change: str) -> None:
    guest, volume = unattached(bench)
    bench.at[moment] = lambda: CHANGES[change](bench, guest)
    assert_attached_unless_gone(bench, guest, volume, moment, change)


@pytest.mark.parametrize("change", OF_A_STOPPED_GUEST)
@pytest.mark.parametrize("moment", ATTACH)
def test_a_stopped_guest_changes_in_an_attach(bench: Bench, moment: str, change: str) -> None:
    guest, volume = unattached(bench, state=GuestState.SHUTOFF)
    bench.at[moment] = lambda: OF_A_STOPPED_GUEST[change](bench, guest)
    assert_attached_unless_gone(bench, guest, volume, moment, change)


def assert_attached_unless_gone(
    bench: Bench, guest: str, volume: str, moment: str, change: str
) -> None:
    """The disk goes where the guest has a document for it; a guest that is no more has none."""
    view = bench.attach("web", "data")
    gone = change == "gone"
    assert (view.state == "done") == (not gone or ATTACH.index(moment) >= PLUGGED), view.problem
    if not gone:
        bench.assert_attached(guest, volume)
    elif view.state == "done":
        assert {finding.code for finding in bench.auditor.audit()} <= {FindingCode.GUEST_GONE}
        bench.detach("web", "data")
        bench.until_closed()
        bench.assert_nothing_left(guest, volume)
    else:
        assert view.state is OperationState.UNDONE
        bench.assert_nothing_left(guest, volume)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("moment", ATTACH_BACK)
def test_a_guest_changes_in_an_attachs_undo(bench: Bench, moment: str, change: str) -> None:
    guest, volume = unattached(bench)
    bench.cinder.fail_next("complete", Refused(Code.CINDER_REFUSED, "No."))
    bench.at[moment] = lambda: CHANGES[change](bench, guest)
    kept = change in HOLDS_ON and moment == ATTACH_BACK[0]
    operation = bench.submit(OperationKind.ATTACH, "web", "data")
    if kept:
        assert end_of(bench, operation, ITSELF, mend=lambda b: b.guests.resume(guest)) == "undone"
    else:
        assert end_of(bench, operation, AT_ONCE) == "undone"
    bench.assert_nothing_left(guest, volume)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("moment", DETACH)
def test_a_guest_changes_in_a_detach(bench: Bench, moment: str, change: str) -> None:
    guest, volume = attached(bench)
    bench.at[moment] = lambda: CHANGES[change](bench, guest)
    view = bench.detach("web", "data")
    kept = change in HOLDS_ON and DETACH.index(moment) < LET_GO
    assert view.state == ("undone" if kept else "done"), view.problem
    if kept:
        bench.assert_attached(guest, volume)
        bench.guests.resume(guest)
        until_detached(bench)
    bench.assert_nothing_left(guest, volume)


@pytest.mark.parametrize("change", OF_A_STOPPED_GUEST)
@pytest.mark.parametrize("moment", DETACH)
def test_a_stopped_guest_changes_in_a_detach(bench: Bench, moment: str, change: str) -> None:
    guest, volume = attached(bench, state=GuestState.SHUTOFF)
    bench.at[moment] = lambda: OF_A_STOPPED_GUEST[change](bench, guest)
    assert bench.detach("web", "data").state == "done"
    bench.assert_nothing_left(guest, volume)


@pytest.mark.parametrize("change", ["destroyed", "undefined", "gone"])
@pytest.mark.parametrize("moment", DETACH_BACK)
def test_a_guest_changes_in_a_detachs_undo(bench: Bench, moment: str, change: str) -> None:
    guest, volume = attached(bench)
    bench.guests.make_deaf(guest)
    bench.at[moment] = lambda: CHANGES[change](bench, guest)
    assert bench.detach("web", "data").state == "undone"
    if change == "gone":  # so it let go after all
        until_detached(bench)
        bench.assert_nothing_left(guest, volume)
    else:
        bench.assert_attached(guest, volume)


@pytest.mark.parametrize(
    ("change", "end"), [("destroyed", "done"), ("gone", "done"), ("undefined", "undone")]
)
def test_a_guest_changes_while_its_unplug_is_waited_for(
    bench: Bench, change: str, end: str
) -> None:
    guest, volume = attached(bench)
    bench.guests.make_deaf(guest)
    bench.guests.unplug_timeout = PATIENCE if end == "done" else 0.5
    operation = bench.submit(OperationKind.DETACH, "web", "data")
    until_unplugging(bench)
    CHANGES[change](bench, guest)
    assert end_of(bench, operation, AT_ONCE) == end
    if end == "done":
        bench.assert_nothing_left(guest, volume)
    else:
        bench.assert_attached(guest, volume)


@pytest.mark.parametrize("change", ["destroyed", "gone"])
def test_a_guest_changes_while_the_unplug_of_an_undo_is_waited_for(
    bench: Bench, change: str
) -> None:
    guest, volume = unattached(bench)
    bench.guests.make_deaf(guest)
    bench.guests.unplug_timeout = PATIENCE
    bench.cinder.fail_next("complete", Refused(Code.CINDER_REFUSED, "No."))
    operation = bench.submit(OperationKind.ATTACH, "web", "data")
    until_unplugging(bench)
    CHANGES[change](bench, guest)
    assert end_of(bench, operation, AT_ONCE) == "undone"
    bench.assert_nothing_left(guest, volume)


# --- scenes -----------------------------------------------------------------------------------


def unattached(bench: Bench, *, state: GuestState = GuestState.RUNNING) -> tuple[str, str]:
    """A guest and a volume."""
    return bench.guests.add("web", state=state), bench.cinder.add_volume(name="data")


def attached(bench: Bench, *, state: GuestState = GuestState.RUNNING) -> tuple[str, str]:
    """A guest that has a volume."""
    guest, volume = unattached(bench, state=state)
    assert bench.attach("web", "data").state == "done"
    return guest, volume


def end_of(
    bench: Bench, operation: str, way: str, *, mend: Arrange = lambda _: None
) -> OperationState:
    """How it ends, which is when ``mend`` has been done to the worlds; and that it goes this way.

    One that goes on by itself may do so before anybody saw that it rested.
    """
    bench.rested(operation)
    mend(bench)
    if way == BY_HAND:
        row = bench.journal.operation(operation)
        assert (row.state, row.waiting_for) == ("needs-attention", None)
        assert row.problem is not None
        assert f"attachctl operation resume {operation}" in row.problem.resolution
        bench.engine.resume(operation)
    bench.until_closed()
    history = tuple(event.entry for event in bench.journal.events(operation))
    was_resumed = any(entry.happening in RESUMPTIONS for entry in history)
    assert was_resumed == (way != AT_ONCE)
    return bench.journal.operation(operation).state


def everything_lands(bench: Bench) -> None:
    """What was put off, and nobody waited for, comes now."""
    bench.cinder.land()
    bench.host.land()
    bench.guests.land()


def live_disks(bench: Bench, guest: str) -> int:
    """How many disks the guest holds while it runs."""
    view = bench.guests.get(guest)
    return len(view.live_disks) if view else 0


def until_detached(bench: Bench) -> None:
    """The guest has let go behind a roll-back: the detach goes forward by itself."""
    deadline = time.monotonic() + PATIENCE
    while bench.journal.live_attachments() or bench.journal.operations(open_only=True):
        assert time.monotonic() < deadline, bench.engine.operations(open_only=True)
        time.sleep(0.01)


def until_unplugging(bench: Bench) -> None:
    """libvirt was asked to unplug, and waits for the guest."""
    deadline = time.monotonic() + PATIENCE
    while "unplug" not in {call.method for call in bench.guests.calls}:
        assert time.monotonic() < deadline
        time.sleep(0.01)
