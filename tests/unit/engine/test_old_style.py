"""The old style: a reservation without a name, an export without a trace, a late attachment."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from attachd.errors import AttachdError, Code, Refused, Unreachable, World
from attachd.model import AttachFlow, Mode, OperationKind, OperationState
from tests.unit.bench import PATIENCE, Bench, KilledError
from tests.unit.engine.test_crash import ATTACH, ATTACH_BACK, PLUGGED, RESERVED, until_called
from tests.unit.engine.test_faults import (
    BY_HAND,
    ITSELF,
    UNDONE,
    Arrange,
    attached,
    cinder,
    cinder_with_an_answer,
    end_of,
    everything_lands,
    table,
    unattached,
)

LOST = Unreachable(Code.CINDER_UNAVAILABLE, "Lost.", world=World.CINDER, touched=True)
ELSEWHERE = {"initiator": "iqn.2026-01.test:elsewhere", "host": "elsewhere"}

killing = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture
def flow() -> AttachFlow:
    return AttachFlow.VOLUME_ACTIONS


def old_verbs(bench: Bench) -> list[str]:
    """What changed something in Cinder, in order."""
    reading = {"find_volume", "get_volume", "list_attachments", "get_attachment"}
    verbs = [call.verb for call in bench.cinder.calls]
    return [v for v in verbs if v not in reading and not v.startswith("settle")]


def test_the_calls_of_an_attach_and_a_detach(bench: Bench) -> None:
    guest, volume = attached(bench)
    assert old_verbs(bench) == ["reserve", "initialize_connection", "attach"]
    bench.assert_attached(guest, volume)
    (record,) = bench.journal.live_attachments()
    assert (record.flow, record.reserved) == (AttachFlow.VOLUME_ACTIONS, False)
    assert bench.detach("web", "data").state == "done"
    assert old_verbs(bench)[3:] == ["begin_detaching", "terminate_connection", "detach"]
    bench.assert_nothing_left(guest, volume)
    assert bench.cinder.rules.targets == set()


def test_no_secret_is_journalled(bench: Bench) -> None:
    _, volume = attached(bench)
    password = bench.cinder.rules.volume(volume).chap_password.encode()
    files = [file.read_bytes() for file in bench.directory.glob("journal.db*")]
    assert files
    assert not any(password in content for content in files)


@pytest.mark.parametrize("read_only", [False, True], ids=["asked for", "the volume's own"])
def test_read_only(bench: Bench, read_only: bool) -> None:
    """Cinder refuses to attach a read-only volume in any other mode."""
    guest = bench.guests.add("web")
    volume = bench.cinder.add_volume(name="data", read_only=read_only)
    view = bench.attach("web", "data", mode=Mode.RW if read_only else Mode.RO)
    assert view.state is OperationState.DONE, view.problem
    assert bench.cinder.rules.volume(volume).attached_mode == "ro"
    bench.assert_attached(guest, volume)
    assert bench.detach("web", "data").state == "done"
    bench.assert_nothing_left(guest, volume)


# --- the style of what is attached already ------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (AttachFlow.VOLUME_ACTIONS, AttachFlow.ATTACHMENTS),
        (AttachFlow.ATTACHMENTS, AttachFlow.VOLUME_ACTIONS),
    ],
)
def test_the_configuration_changes_between_an_attach_and_its_detach(
    bench: Bench, before: AttachFlow, after: AttachFlow
) -> None:
    bench.cinder.configure(before)
    guest, volume = attached(bench)
    bench.stop()
    bench.cinder.configure(after)
    bench.start()
    bench.assert_attached(guest, volume)
    assert bench.detach("web", "data").state == "done"
    bench.assert_nothing_left(guest, volume)
    assert bench.cinder.rules.targets == set()
    assert ("detach" in old_verbs(bench)) == (before is AttachFlow.VOLUME_ACTIONS)


# --- multiattach --------------------------------------------------------------------------------


def give_to_another(bench: Bench, volume: str) -> str:
    """Somebody else attaches the volume, too, in the new style; the attachment's id."""
    rules = bench.cinder.rules
    theirs = rules.create(volume, "another instance")
    rules.update(theirs.id, ELSEWHERE)
    rules.complete(theirs.id)
    return theirs.id


def test_a_multiattach_volume_that_somebody_has_is_refused(bench: Bench) -> None:
    bench.guests.add("web")
    volume = bench.cinder.add_volume(name="data", multiattach=True)
    give_to_another(bench, volume)
    view = bench.attach("web", "data")
    assert view.problem is not None
    assert (view.state, view.problem.code) == ("refused", Code.VOLUME_NOT_AVAILABLE)
    assert old_verbs(bench) == []


def test_one_that_somebody_takes_behind_the_precheck_is_refused(bench: Bench) -> None:
    bench.guests.add("web")
    volume = bench.cinder.add_volume(name="data", multiattach=True)
    bench.at["attach.create.do.before-intent"] = lambda: give_to_another(bench, volume)
    assert bench.attach("web", "data").state == "undone"
    assert bench.cinder.status(volume) == "in-use"


def test_a_detach_leaves_the_export_of_whoever_has_the_volume_since(bench: Bench) -> None:
    """os-detach would take it away as a whole."""
    bench.guests.add("web")
    volume = bench.cinder.add_volume(name="data", multiattach=True)
    assert bench.attach("web", "data").state == "done"
    theirs = give_to_another(bench, volume)
    assert bench.detach("web", "data").state == "done"
    (left,) = bench.cinder.list_attachments(volume)
    assert left.attachment_id == theirs
    assert theirs in bench.cinder.rules.exports
    assert bench.cinder.status(volume) == "in-use"
    assert bench.host.devices == ()


# --- every step fails ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "way", "end"),
    table(
        ("update", cinder_with_an_answer("update"), UNDONE),
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


@pytest.mark.parametrize(
    ("fault", "way", "end"),
    table(
        (
            "terminate",
            cinder("terminate_connection"),
            # What gave the reservation back, or not, leaves open whose the next one is.
            {
                "*": (ITSELF, "undone"),
                "refused": (BY_HAND, "undone"),
                "not answered": (ITSELF, "needs-attention"),
            },
        ),
    ),
)
def test_an_undo_of_an_attach(bench: Bench, fault: Arrange, way: str, end: str) -> None:
    guest, volume = unattached(bench)
    bench.cinder.fail_next("complete", Refused(Code.CINDER_REFUSED, "No."))
    fault(bench)
    operation = bench.submit(OperationKind.ATTACH, "web", "data")
    if end == "needs-attention":
        until_it_asks_whose_it_is(bench, operation)
        settle_it(bench, operation, volume)
    else:
        assert end_of(bench, operation, way) == end
    everything_lands(bench)
    bench.assert_nothing_left(guest, volume)


FORWARD = (ITSELF, "done")


@pytest.mark.parametrize(
    ("fault", "way", "end"),
    table(
        *(
            (verb, cinder(verb), {"*": FORWARD, "refused": (BY_HAND, "done")})
            for verb in ("terminate_connection", "detach")
        )
    ),
)
def test_the_end_of_a_detach(bench: Bench, fault: Arrange, way: str, end: str) -> None:
    guest, volume = attached(bench)
    fault(bench)
    operation = bench.submit(OperationKind.DETACH, "web", "data")
    assert end_of(bench, operation, way) == end
    everything_lands(bench)
    bench.assert_nothing_left(guest, volume)


def test_a_target_that_is_gone_is_no_reason_to_stay(bench: Bench) -> None:
    """LIO's driver fails to take an initiator from a target that the storage has lost."""
    guest, volume = attached(bench)
    bench.cinder.rules.targets.clear()
    bench.cinder.rules.exports.clear()
    assert bench.detach("web", "data").state == "done"
    bench.assert_nothing_left(guest, volume)


def test_an_attach_that_failed_half_way_in_cinder(bench: Bench) -> None:
    """cinder-volume leaves an attachment without an instance then."""
    guest, volume = unattached(bench)

    def half_done() -> None:
        row = bench.cinder.rules.attach(volume, guest, "rw")
        row.instance, row.status = None, "error_attaching"
        bench.cinder.rules.volume(volume).status = "attaching"

    bench.cinder.before_next("complete", half_done)
    bench.cinder.fail_next("complete", Refused(Code.CINDER_REFUSED, "No."))
    assert bench.attach("web", "data").state == "undone"
    bench.assert_nothing_left(guest, volume)


@killing
def test_the_export_moves_before_it_is_gone_on_with(bench: Bench) -> None:
    """The guest holds a disk that the connection of a new answer doesn't lead to."""
    guest, volume = unattached(bench)
    bench.kill_at = "attach.plug.do.after-effect"
    bench.submit(OperationKind.ATTACH, "web", "data")
    assert bench.killed.wait(PATIENCE)
    bench.cinder.rules.portal = "192.0.2.99:3260"
    bench.recover()
    bench.assert_nothing_left(guest, volume)


# --- whose reservation is it? -------------------------------------------------------------------


def until_it_asks_whose_it_is(bench: Bench, operation: str) -> None:
    """It rests, leaves the reservation alone, and waits for nobody but an operator."""
    view = bench.rested(operation)
    while bench.journal.operation(operation).waiting_for is not None:
        bench.engine.wait(operation, after=10**6, timeout=0.05)
    view = bench.rested(operation)
    assert view.problem is not None
    assert (view.state, view.problem.code) == ("needs-attention", Code.WORLDS_DISAGREE), view
    assert "doesn't say for whom" in view.problem.brief
    assert "openstack volume set --state available" in view.problem.resolution
    assert f"attachctl operation resume {operation}" in view.problem.resolution


def settle_it(bench: Bench, operation: str, volume: str) -> None:
    """The operator has seen that nobody else is attaching it, and does what is said."""
    assert bench.cinder.status(volume) == "attaching"
    bench.cinder.rules.volume(volume).status = "available"
    bench.engine.resume(operation)
    assert bench.rested(operation).state == "undone"


@pytest.mark.parametrize(
    "lose",
    [
        lambda b: b.cinder.lose_answer_next("create"),
        lambda b: b.cinder.orphan_next("create", LOST),
    ],
    ids=["answer lost", "comes late"],
)
def test_a_reserve_whose_answer_is_lost_for_good(
    bench: Bench, lose: Callable[[Bench], object]
) -> None:
    guest, volume = unattached(bench)
    lose(bench)
    operation = bench.submit(OperationKind.ATTACH, "web", "data")
    until_it_asks_whose_it_is(bench, operation)
    settle_it(bench, operation, volume)
    bench.assert_nothing_left(guest, volume)


def test_a_reserve_that_never_came(bench: Bench) -> None:
    guest, volume = unattached(bench)
    bench.cinder.fail_next("create", LOST)
    assert bench.attach("web", "data").state == "undone"
    bench.assert_nothing_left(guest, volume)


def test_somebody_elses_reservation_settles_itself(bench: Bench) -> None:
    """They go on to their attachment; then nothing of it was ours."""
    _, volume = unattached(bench)
    bench.cinder.before_next("create", lambda: bench.cinder.rules.reserve(volume))
    bench.cinder.fail_next("create", LOST)
    operation = bench.submit(OperationKind.ATTACH, "web", "data")
    until_it_asks_whose_it_is(bench, operation)
    bench.cinder.rules.attach(volume, "another instance", "rw")
    bench.engine.resume(operation)
    assert bench.rested(operation).state == "undone"
    assert bench.cinder.status(volume) == "in-use"
    assert len(bench.cinder.list_attachments(volume)) == 1


def test_a_new_attachment_of_somebody_elses_says_whose_it_is(bench: Bench) -> None:
    _, volume = unattached(bench)

    def somebody_is_faster() -> None:
        theirs = bench.cinder.rules.create(volume, "another instance")
        bench.cinder.rules.update(theirs.id, ELSEWHERE)

    bench.cinder.before_next("create", somebody_is_faster)
    bench.cinder.fail_next("create", LOST)
    assert bench.attach("web", "data").state == "undone"
    assert bench.cinder.status(volume) == "attaching"
    assert not {"unreserve", "terminate_connection"} & set(old_verbs(bench))


def test_somebody_else_was_faster_than_the_reserve(bench: Bench) -> None:
    _, volume = unattached(bench)
    bench.cinder.before_next("create", lambda: bench.cinder.rules.reserve(volume))
    assert bench.attach("web", "data").state == "undone"
    assert bench.cinder.status(volume) == "attaching"


# --- killed -------------------------------------------------------------------------------------

RESERVED_UNHEARD = "attach.create.do.after-effect"
PERHAPS_GIVEN_BACK = "attach.create.undo.after-intent"


def kill(bench: Bench, moment: str) -> str:
    """Die in an attach, start anew; the operation's id once it rests."""
    bench.kill_at = moment
    operation = bench.submit(OperationKind.ATTACH, "web", "data")
    assert bench.killed.wait(PATIENCE), f"the operation never came to {moment}"
    assert bench.engine.stop(PATIENCE)
    bench.journal.close()
    bench.start()
    if moment in (RESERVED_UNHEARD, PERHAPS_GIVEN_BACK):
        until_it_asks_whose_it_is(bench, operation)
    else:
        bench.until_closed()
    return operation


@killing
@pytest.mark.parametrize("moment", ATTACH)
def test_an_attach_is_killed(bench: Bench, moment: str) -> None:
    guest, volume = unattached(bench)
    operation = kill(bench, moment)
    if moment == RESERVED_UNHEARD:
        settle_it(bench, operation, volume)
    went_forward = bench.engine.operation(operation).state == "done"
    if went_forward:
        bench.assert_attached(guest, volume)
    else:
        bench.assert_nothing_left(guest, volume)
    assert went_forward == (not RESERVED <= ATTACH.index(moment) < PLUGGED)


@killing
@pytest.mark.parametrize("landed", [False, True], ids=["failed", "answer lost"])
@pytest.mark.parametrize("moment", ATTACH_BACK)
def test_an_attach_is_killed_on_its_way_back(bench: Bench, moment: str, landed: bool) -> None:
    """An attachment that os-attach left says by its id whose it is."""
    guest, volume = unattached(bench)
    if landed:
        bench.cinder.lose_answer_next("complete", AttachdError(Code.INTERNAL_ERROR, "Lost."))
    else:
        bench.cinder.fail_next("complete", times=2)
    if landed and moment == PERHAPS_GIVEN_BACK:
        bench.kill_at = moment
        operation = bench.submit(OperationKind.ATTACH, "web", "data")
        assert bench.killed.wait(PATIENCE)
        bench.recover()
    else:
        operation = kill(bench, moment)
        if moment == PERHAPS_GIVEN_BACK:
            settle_it(bench, operation, volume)
    if bench.engine.operation(operation).state == "done":
        assert moment == "attach.plug.undo.before-intent"
        bench.assert_attached(guest, volume)
    else:
        bench.assert_nothing_left(guest, volume)


@killing
@pytest.mark.parametrize("verb", ["initialize_connection", "attach"])
def test_an_attach_is_killed_in_a_call_that_goes_on_without_it(bench: Bench, verb: str) -> None:
    """cinder-volume's export, or its attachment, comes behind the end of who asked for it."""
    guest, volume = unattached(bench)
    bench.cinder.orphan_next(verb, KilledError())
    bench.submit(OperationKind.ATTACH, "web", "data")
    until_called(bench, verb)
    bench.recover()
    bench.cinder.land()
    if verb == "attach":  # the guest held its disk: it went forward
        bench.assert_attached(guest, volume)
    else:
        bench.assert_nothing_left(guest, volume)


@killing
@pytest.mark.parametrize("verb", ["terminate_connection", "detach"])
def test_a_detach_is_killed_in_a_call_that_goes_on_without_it(bench: Bench, verb: str) -> None:
    """What comes late must not come behind somebody else's reservation."""
    guest, volume = attached(bench)
    bench.cinder.orphan_next(verb, KilledError())
    bench.submit(OperationKind.DETACH, "web", "data")
    until_called(bench, verb)
    bench.recover()
    bench.assert_nothing_left(guest, volume)
    bench.cinder.rules.reserve(volume)
    bench.cinder.land()
    assert bench.cinder.status(volume) == "attaching"


@killing
def test_somebody_reserves_it_while_attachd_is_away(bench: Bench) -> None:
    """Ours was given back, and nobody has heard it."""
    _, volume = unattached(bench)
    bench.cinder.fail_next("complete", Refused(Code.CINDER_REFUSED, "No."))
    bench.kill_at = "attach.create.undo.after-effect"
    operation = bench.submit(OperationKind.ATTACH, "web", "data")
    assert bench.killed.wait(PATIENCE)
    bench.cinder.rules.reserve(volume)
    assert bench.engine.stop(PATIENCE)
    bench.journal.close()
    bench.start()
    until_it_asks_whose_it_is(bench, operation)
    assert bench.cinder.status(volume) == "attaching"
