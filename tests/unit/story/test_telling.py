"""From documents to stories: who says what to whom, in which order, within which step."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from attachd.story.story import Look, Message, Participant, Story
from attachd.story.telling import tell
from tests.unit.story.stories import STORIES, Told, deaths_are_meant

pytestmark = deaths_are_meant

Stories = Mapping[str, Told]


def arrows(story: Story, step: str) -> list[str]:
    """The messages of a step, short."""
    return [
        _short(message)
        for message in story.messages
        if message.step is not None and message.step.title == step
    ]


def _short(message: Message) -> str:
    way = "<-" if message.answer else "->"
    ends = (message.source, message.target)
    left, right = reversed(ends) if message.answer else ends
    text = "/".join("ID" if len(part) == 36 else part for part in message.text.split("/"))
    return f"{left} {way} {right}: {text}"


def looks(story: Story) -> dict[str, Look]:
    return {step.title: step.look for step in story.steps}


# --- an operation from its request to its end -------------------------------------------------


def test_an_attach_is_opened_and_closed_by_who_asked(told: Stories) -> None:
    story = told["attached"].story()

    first, *_, last = story.messages
    assert _short(first) == "user -> attachd: attach volume data, guest web"
    assert _short(last) == "user <- attachd: done (exit 0)"
    assert (first.at, last.outcome) == (0.0, None)
    assert (story.title, story.state) == ("attach of volume data, guest web", "done")
    assert story.participants == tuple(Participant)
    assert story.problem is None
    assert set(looks(story).values()) == {Look.PLAIN}


def test_each_step_has_its_calls(told: Stories) -> None:
    story = told["attached"].story()
    assert [section.step.title for section in story.sections if section.step] == [
        *("precheck", "reserve", "create", "update", "connect", "identify", "plug", "complete"),
        "remember",
    ]
    asked = [arrow for arrow in arrows(story, "precheck") if "->" in arrow]
    assert sorted(asked[:2]) == [  # at the same time
        "attachd -> cinder-api: GET /volumes/data",
        "attachd -> libvirt: read",
    ]
    assert asked[2:] == ["attachd -> cinder-api: GET /attachments"]
    assert arrows(story, "reserve") == ["attachd -> attachd: in the journal alone"]
    assert arrows(story, "complete") == [
        "attachd -> cinder-api: POST /attachments/ID/action",
        "attachd <- cinder-api: ok",
    ]
    (call, answer) = (m for m in story.messages if m.step and m.step.name == "complete")
    assert call.seconds == answer.seconds
    assert call.seconds is not None
    assert answer.at == pytest.approx((call.at or 0) + call.seconds, abs=0.0002)


@pytest.mark.parametrize("name", STORIES)
def test_times_run_forward(told: Stories, name: str) -> None:
    """Within what one process noted; a wall time beside them is good for a millisecond."""
    story = told[name].story()
    times = [message.at for message in story.messages if message.at is not None]
    assert all(later >= earlier - 0.0021 for earlier, later in pairwise(times))
    assert max(times) <= story.seconds + 0.0001


@pytest.mark.parametrize("name", STORIES)
def test_every_call_is_told_once(told: Stories, name: str) -> None:
    story = told[name].story()
    calls = sorted(each["name"] for each in told[name].operation["calls"])
    assert sorted(m.text for m in story.messages if m.seconds is not None and not m.answer) == calls


def test_the_guest_is_asked_and_answers(told: Stories) -> None:
    assert arrows(told["attached"].story(), "plug") == [
        "attachd -> libvirt: attach",
        "libvirt -> guest: take disk vda",
        "libvirt <- guest: has disk vda",
        "attachd <- libvirt: ok",
    ]
    assert arrows(told["detached"].story(), "unplug")[1:3] == [
        "libvirt -> guest: let go of disk vda",
        "libvirt <- guest: has let go of disk vda",
    ]
    kept = told["kept"].story()
    assert arrows(kept, "unplug")[2:] == [
        "libvirt <- guest: keeps disk vda",
        "attachd <- libvirt: unplug-timeout",
        "attachd -> attachd: unplug-timeout: "
        "The guest was asked to let go of the disk, and didn't.",
    ]
    assert looks(kept) == {
        "precheck": Look.PLAIN,
        "begin": Look.PLAIN,
        "unplug": Look.FAILED,
        "undo begin": Look.UNDO,
    }


def test_the_guest_answers_while_it_is_waited_for() -> None:
    operation = _document(
        steps=[_step("unplug", "guest", 0.0, 9.0)],
        calls=[
            _call("libvirt", "detach", 1.0, 1.1),
            _call("libvirt", "wait for the guest", 1.1, 6.0),
            _call("libvirt", "wait for the guest", 6.0, 7.0),
            _call("libvirt", "settle", 7.0, 7.5),
            _call("libvirt", "detach", 7.5, 8.0),
        ],
    )
    texts = [_short(m) for m in tell(operation).messages if not (m.answer and m.seconds)]
    assert texts[1:-1] == [
        "attachd -> libvirt: detach",
        "libvirt -> guest: let go of the disk",
        "attachd -> libvirt: wait for the guest",
        "attachd -> libvirt: wait for the guest",
        "libvirt <- guest: has let go of the disk",
        "attachd -> libvirt: settle",
        "attachd -> libvirt: detach",
    ]


def test_a_guest_that_had_its_disk_already_is_not_asked() -> None:
    operation = _document(
        steps=[_step("plug", "guest", 0.0, 1.0)], calls=[_call("libvirt", "read", 0.1, 0.2)]
    )
    assert Participant.GUEST not in tell(operation).participants


def test_what_failed_and_what_was_undone(told: Stories) -> None:
    story = told["rolled back"].story()
    assert looks(story) == {
        **dict.fromkeys(
            ("precheck", "reserve", "create", "update", "connect", "identify", "plug"), Look.PLAIN
        ),
        "complete": Look.FAILED,
        **dict.fromkeys(("undo plug", "undo connect", "undo create", "undo reserve"), Look.UNDO),
    }
    assert arrows(story, "complete")[-1] == (
        "attachd -> attachd: cinder-refused: Cinder refused the request."
    )
    assert all(m.undo == bool(m.step and m.step.undo) for m in story.messages)
    closing = story.messages[-1]
    assert closing.text == "it failed, and everything was undone (exit 1)"
    assert closing.outcome == "cinder-refused"
    assert story.problem is not None
    assert story.problem.lines == (
        "cinder-refused: Cinder refused the request.",
        "HTTP 409: it is no longer attaching; it is in error",
        "See Cinder's log.",
    )


def test_an_undo_that_failed(told: Stories) -> None:
    story = told["unfinished"].story()
    assert looks(story)["undo plug"] is Look.FAILED
    assert "libvirt <- guest: keeps disk vda" in arrows(story, "undo plug")
    assert story.messages[-1].text == "it needs attention: something is left (exit 5)"


def test_what_was_refused_has_its_exit_status(told: Stories) -> None:
    story = told["refused"].story()
    assert story.messages[-1].text == "refused, nothing was touched (exit 3)"
    problem = {**told["refused"].operation["problem"], "code": "volume-busy"}
    story = told["refused"].but(problem=problem).story()
    assert story.messages[-1].text == "refused, nothing was touched (exit 4)"


def test_what_goes_on_has_no_end(told: Stories) -> None:
    story = told["attached"].but(state="running", finished_at=None).story()
    assert story.messages[-1].step is not None
    running = tell(_document(state="running", steps=[_step("plug", "guest", 1.0, None, "running")]))
    assert arrows(running, "plug") == ["attachd -> attachd: under way"]


@pytest.mark.parametrize("request_id", ["x", "fence-x", "attach-" + "0" * 36, "detach-" + "0" * 36])
def test_who_asked(told: Stories, request_id: str) -> None:
    story = told["attached"].but(request_id=request_id).story()
    own = request_id.startswith("attach-")
    assert story.asked_by is (Participant.ATTACHD if own else Participant.USER)
    assert (Participant.USER in story.participants) is not own
    assert story.messages[-1].text == ("done" if own else "done (exit 0)")


# --- recovery -----------------------------------------------------------------------------------


def test_a_step_in_which_attachd_was_killed(told: Stories) -> None:
    story = told["recovered"].story()

    assert looks(story)["connect"] is Look.LOST
    assert arrows(story, "connect") == [
        "attachd -> attachd: begun; what was asked of others isn't known",
        "attachd -> attachd: attachd was stopped here: no outcome is recorded",
    ]
    sections = list(story.sections)
    (lost,) = (i for i, section in enumerate(sections) if section.step and section.step.lost)
    looked = sections[lost + 1]
    assert looked.step is None
    assert [_short(message) for message in looked.messages] == [
        "attachd -> libvirt: read",
        "attachd <- libvirt: ok",
        "attachd -> cinder-api: GET /attachments/ID",
        "attachd <- cinder-api: ok",
        "attachd -> attachd: resumed: it goes back, since its guest doesn't hold the disk",
    ]
    following = sections[lost + 2].step
    assert following is not None
    assert following.title == "undo connect"


def test_steps_that_are_done_anew(told: Stories) -> None:
    story = told["completed"].story()
    names = [step.title for step in story.steps]
    assert names.count("plug") == 2
    (resumed,) = (i for i, m in enumerate(story.messages) if m.text.startswith("resumed:"))
    assert "it goes on forward, since" in story.messages[resumed].text
    steps = [m.step.number for m in story.messages[resumed:] if m.step]
    assert min(steps) == names.index("plug") + 1
    assert story.messages[-1].text == "done (exit 0)"


def test_without_events_nothing_is_said_of_resumptions(told: Stories) -> None:
    story = tell(told["recovered"].operation)
    assert not any("resumed" in message.text for message in story.messages)
    assert looks(story)["connect"] is Look.LOST


# --- calls and their places ---------------------------------------------------------------------


def test_what_os_brick_runs_within_a_call_is_its_own() -> None:
    operation = _document(
        steps=[_step("connect", "host", 0.0, 4.0)],
        calls=[
            _call("os_brick", "connect", 1.0, 3.0),
            _call("os_brick", "iscsiadm", 1.0, 2.0),
            _call("os_brick", "iscsiadm", 2.0, 3.0),
            _call("os_brick", "sg_inq", 3.0, 3.5),
        ],
    )
    assert arrows(tell(operation), "connect") == [
        "attachd -> os-brick: connect",
        "os-brick -> os-brick: iscsiadm",
        "os-brick -> os-brick: iscsiadm",
        "attachd <- os-brick: ok",
        "attachd -> os-brick: sg_inq",
        "attachd <- os-brick: ok",
    ]


def test_calls_between_steps_stay_there() -> None:
    operation = _document(
        steps=[_step("begin", "cinder", 1.0, 2.0), _step("unplug", "guest", 5.0, 1.0)],
        calls=[
            _call("cinder", "GET /early", 0.5, 0.6),
            _call("cinder", "GET /begin", 1.0, 1.5),
            _call("cinder", "GET /last", 3.0005, 3.1),  # a step's seconds are rounded
            _call("cinder", "GET /between", 4.0, 4.5),
            _call("cinder", "GET /unplug", 4.9995, 5.5),  # and so is its beginning
            _call("cinder", "GET /late", 7.0, 7.5),
        ],
    )
    places = {m.text: m.step and m.step.name for m in tell(operation).messages if not m.answer}
    assert {text: step for text, step in places.items() if text.startswith("GET")} == {
        "GET /early": None,
        "GET /begin": "begin",
        "GET /last": "begin",
        "GET /between": None,
        "GET /unplug": "unplug",
        "GET /late": None,
    }


def test_without_offsets_the_wall_clock_is_gone_by() -> None:
    step = _step("begin", "cinder", 1.0, 2.0)
    del step["offset"]
    story = tell(_document(steps=[step], calls=[_call("cinder", "GET /x", 1.5, 1.6)]))
    assert story.steps[0].at == 1.0
    assert arrows(story, "begin")[0] == "attachd -> cinder-api: GET /x"
    step["started_at"] = "2026-02-28T00:00:00+00:00"  # somebody set it back
    assert tell(_document(steps=[step])).steps[0].at == 0.0


def test_a_token_from_memory_is_no_call() -> None:
    operation = _document(
        steps=[_step("begin", "cinder", 0.0, 9.0)],
        calls=[
            _call("cinder", "token", 1.0, 1.0001),
            _call("cinder", "token", 2.0, 2.4),
            {**_call("cinder", "token", 3.0, 3.0), "outcome": "timeout"},
        ],
    )
    assert arrows(tell(operation), "begin") == [
        "attachd -> cinder-api: token",
        "attachd <- cinder-api: ok",
        "attachd -> cinder-api: token",
        "attachd <- cinder-api: timeout",
    ]


def test_requests_are_told_where_they_are_asked_for(told: Stories) -> None:
    story = told["attached"].story_with_requests()
    for message in story.messages:
        cinders = Participant.CINDER in (message.source, message.target)
        assert (message.request is not None) == cinders
    assert {m.text for m in story.messages if m.answer and m.request} == {"HTTP 200", "HTTP 202"}
    assert not any(message.request for message in told["attached"].story().messages)


def test_what_a_newer_daemon_says_is_told_as_it_is() -> None:
    step = _step("polish", "moon", 0.0, 1.0, "shiny")
    operation = _document(kind="gild", steps=[step], calls=[_call("gold", "leaf", 0.1, 0.2)])
    story = tell(operation)
    assert (story.kind, story.steps[0].heading) == ("gild", "polish, shiny, 1.000 s")
    assert arrows(story, "polish") == ["attachd -> attachd: leaf"]


def _document(
    *,
    kind: str = "detach",
    state: str = "done",
    steps: list[dict[str, Any]],
    calls: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    return {
        "operation_id": "o",
        "kind": kind,
        "state": state,
        "guest": "web",
        "volume": "data",
        "guest_id": "g",
        "guest_name": "web",
        "volume_id": "v",
        "volume_name": None,
        "request_id": "r",
        "global_request_id": "req-o",
        "created_at": "2026-03-01T10:00:00.000+00:00",
        "finished_at": "2026-03-01T10:00:09.000+00:00",
        "attachment": None,
        "problem": None,
        "steps": steps,
        "calls": calls or [],
    }


def _step(
    name: str, world: str, offset: float, seconds: float | None, state: str = "done"
) -> dict[str, Any]:
    return {
        "name": name,
        "world": world,
        "direction": "do",
        "state": state,
        "reason": "",
        "started_at": f"2026-03-01T10:00:0{offset:.3f}+00:00",
        "finished_at": None,
        "seconds": seconds,
        "problem": None,
        "offset": offset,
    }


def _call(library: str, name: str, started: float, ended: float) -> dict[str, Any]:
    return {"library": library, "name": name, "started": started, "ended": ended}
