"""Every route: what it answers, and that its answer is what its schema promises."""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from attachd.api import schemas
from attachd.audit.findings import Finding, FindingCode, Repair
from attachd.doctor.catalogue import Check, Fault
from attachd.doctor.findings import fine, unseen, wrong
from attachd.errors import Code, Problem, Refused, World
from attachd.model import Bus, Mode, OperationKind, OperationState
from tests.fakes.engine import Failure, FakeEngine
from tests.unit.serving import Answer, ask, serving

WANTED = {"guest": "web", "volume": "data"}
FINDING = Finding(
    code=FindingCode.DEVICE_GONE,
    brief="It is gone.",
    says={World.HOST: "no device", World.CINDER: "volume in-use"},
    resolution="Look for it.",
    volume_id="v",
)
ATTACHMENT_FIELDS = {
    "attachment_id",
    "volume_id",
    "volume_name",
    "guest_id",
    "guest_name",
    "device",
    "serial",
    "bus",
    "mode",
    "size_gib",
    "host_path",
    "wwn",
    "state",
    "operation_id",
    "guest_path",
    "persistent",
    "adopted",
}


def fits(answer: Answer, component: str) -> Answer:
    jsonschema.Draft202012Validator(
        {**schemas.ref(component), "components": {"schemas": schemas.COMPONENTS}}
    ).validate(answer.document)
    return answer


def refused(answer: Answer, status: int, code: str) -> Answer:
    fits(answer, "ProblemDocument")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.status, answer.document["status"]) == (status, status)
    assert answer.document["code"] == code
    return answer


def test_attach_answers_with_the_operation(served: Path, engine: FakeEngine) -> None:
    answer = fits(ask(served, "POST", "/v1/attachments", WANTED), "Operation")

    assert answer.status == 202
    operation = answer.document
    assert answer.headers["Location"] == f"/v1/operations/{operation['operation_id']}"
    assert ask(served, "GET", answer.headers["Location"]).document == operation
    (request,) = engine.requests
    assert (request.kind, request.guest, request.volume) == (OperationKind.ATTACH, "web", "data")
    assert (request.bus, request.mode, request.device) == (Bus.VIRTIO, Mode.RW, None)
    assert not request.override_nova
    assert uuid.UUID(request.request_id)


def test_attach_hands_on_everything_asked_for(served: Path, engine: FakeEngine) -> None:
    wanted = {
        **WANTED,
        "device": "sdc",
        "bus": "scsi",
        "mode": "ro",
        "request_id": "mine",
        "override_nova": True,
    }

    assert ask(served, "POST", "/v1/attachments", wanted).status == 202

    (request,) = engine.requests
    assert (request.bus, request.mode, request.device) == (Bus.SCSI, Mode.RO, "sdc")
    assert request.override_nova
    assert request.request_id == "mine"


def test_the_same_request_id_gets_the_first_answer(served: Path, engine: FakeEngine) -> None:
    wanted = {**WANTED, "request_id": "mine"}
    first = ask(served, "POST", "/v1/attachments", wanted)
    second = ask(served, "POST", "/v1/attachments", wanted)
    other = ask(served, "POST", "/v1/attachments", {**wanted, "volume": "logs"})

    assert second.document == first.document
    assert len(engine.requests) == 1
    refused(other, 422, "request-id-reused")


def test_extend_answers_with_the_operation(served: Path, engine: FakeEngine) -> None:
    wanted = {**WANTED, "size_gib": 2.0, "request_id": "mine"}
    ask(served, "POST", "/v1/attachments", WANTED)
    answer = fits(ask(served, "POST", "/v1/attachments/extend", wanted), "Operation")

    assert answer.status == 202
    assert answer.document["attachment"]["size_gib"] == 2
    assert answer.headers["Location"] == f"/v1/operations/{answer.document['operation_id']}"
    request = engine.requests[-1]
    assert (request.kind, request.guest, request.volume) == (OperationKind.EXTEND, "web", "data")
    assert (request.size_gib, request.request_id) == (2, "mine")
    assert isinstance(request.size_gib, int)
    again = ask(served, "POST", "/v1/attachments/extend", {**wanted, "size_gib": 3})
    refused(again, 422, "request-id-reused")


@pytest.mark.parametrize("size_gib", [0, -1, 2**31, 1.5, "2", True, None])
def test_a_size_that_is_none_is_refused(served: Path, engine: FakeEngine, size_gib: object) -> None:
    wanted = {**WANTED, "size_gib": size_gib}
    answer = refused(ask(served, "POST", "/v1/attachments/extend", wanted), 400, "bad-request")
    assert "size_gib" in answer.document["details"]
    refused(ask(served, "POST", "/v1/attachments/extend", WANTED), 400, "bad-request")
    assert engine.requests == []


def test_attachments_are_listed_and_shown(served: Path, engine: FakeEngine) -> None:
    assert ask(served, "GET", "/v1/attachments").document == {"attachments": []}
    ask(served, "POST", "/v1/attachments", WANTED)
    ask(served, "POST", "/v1/attachments", {"guest": "db", "volume": "logs"})

    every = fits(ask(served, "GET", "/v1/attachments"), "Attachments").document["attachments"]
    assert [found["guest_name"] for found in every] == ["db", "web"]
    for guest in ("db", engine.guests["db"]):
        found = ask(served, "GET", f"/v1/attachments?guest={guest}").document["attachments"]
        assert found == every[:1]
    one = fits(ask(served, "GET", f"/v1/attachments/{every[0]['attachment_id']}"), "Attachment")
    assert one.document == every[0]
    assert set(one.document) == ATTACHMENT_FIELDS
    refused(ask(served, "GET", "/v1/attachments/none"), 404, "attachment-not-found")


def test_adopt_and_release(served: Path, engine: FakeEngine) -> None:
    wanted = {**WANTED, "request_id": "mine"}
    adopted = fits(ask(served, "POST", "/v1/attachments/adopt", wanted), "Operation")
    assert (adopted.status, adopted.document["kind"]) == (202, "adopt")
    again = ask(served, "POST", "/v1/attachments/adopt", wanted)
    assert again.document == adopted.document
    (listed,) = fits(ask(served, "GET", "/v1/attachments"), "Attachments").document["attachments"]
    assert (listed["adopted"], listed["serial"]) == (True, None)

    released = fits(ask(served, "POST", "/v1/attachments/release", WANTED), "Operation")
    assert (released.status, released.document["kind"]) == (202, "release")
    assert ask(served, "GET", "/v1/attachments").document == {"attachments": []}
    one = f"/v1/attachments/{listed['attachment_id']}"
    assert fits(ask(served, "GET", one), "Attachment").document["state"] == "released"
    refused(ask(served, "DELETE", one), 409, "not-attached")
    assert [str(request.kind) for request in engine.requests] == ["adopt", "release"]


@pytest.mark.parametrize("verb", ["adopt", "release"])
def test_adopt_and_release_take_nothing_else(served: Path, engine: FakeEngine, verb: str) -> None:
    for body in ({**WANTED, "override_nova": True}, {"guest": "web"}, {**WANTED, "volume": ""}):
        refused(ask(served, "POST", f"/v1/attachments/{verb}", body), 400, "bad-request")
    assert engine.requests == []


def test_detach_by_guest_and_volume(served: Path, engine: FakeEngine) -> None:
    ask(served, "POST", "/v1/attachments", WANTED)

    answer = ask(served, "DELETE", "/v1/attachments?guest=web&volume=data&request_id=bye")

    assert fits(answer, "Operation").status == 202
    assert answer.document["kind"] == "detach"
    assert engine.requests[-1].request_id == "bye"
    assert ask(served, "GET", "/v1/attachments").document == {"attachments": []}


def test_detach_by_id_never_takes_a_later_attachment(served: Path) -> None:
    attach = ask(served, "POST", "/v1/attachments", WANTED).document
    first = ask(served, "GET", f"/v1/operations/{attach['operation_id']}").document["attachment"]
    target = f"/v1/attachments/{first['attachment_id']}"

    detach = ask(served, "DELETE", f"{target}?request_id=bye")
    assert detach.status == 202
    ask(served, "POST", "/v1/attachments", WANTED)

    again = ask(served, "DELETE", f"{target}?request_id=bye")
    assert again.document["operation_id"] == detach.document["operation_id"]
    refused(ask(served, "DELETE", target), 409, "not-attached")
    assert len(ask(served, "GET", "/v1/attachments").document["attachments"]) == 1


def test_operations_newest_first_and_only_the_open(served: Path, engine: FakeEngine) -> None:
    done = ask(served, "POST", "/v1/attachments", WANTED).document["operation_id"]
    engine.hold = True
    held = ask(served, "POST", "/v1/attachments", {"guest": "db", "volume": "logs"})
    running = held.document["operation_id"]

    def listed(query: str) -> list[str]:
        answer = fits(ask(served, "GET", f"/v1/operations{query}"), "Operations")
        return [found["operation_id"] for found in answer.document["operations"]]

    assert listed("") == [running, done]
    assert listed("?open=false") == [running, done]
    assert listed("?open=true") == [running]
    refused(ask(served, "GET", "/v1/operations/none"), 404, "operation-not-found")


def test_operations_page_by_page(served: Path, engine: FakeEngine) -> None:
    for number in range(5):
        ask(served, "POST", "/v1/attachments", {**WANTED, "request_id": f"r{number}"})

    def listed(query: str) -> list[str]:
        answer = fits(ask(served, "GET", f"/v1/operations?{query}"), "Operations")
        return [found["request_id"] for found in answer.document["operations"]]

    def id_of(request_id: str) -> str:
        views = engine.operations(open_only=False)
        return next(v.operation_id for v in views if v.request.request_id == request_id)

    assert listed("limit=2") == ["r4", "r3"]
    assert listed(f"limit=2&before={id_of('r3')}") == ["r2", "r1"]
    assert listed(f"limit=2&before={id_of('r1')}") == ["r0"]
    assert listed(f"before={id_of('r0')}") == []
    refused(ask(served, "GET", "/v1/operations?before=none"), 404, "operation-not-found")


def test_attachments_page_by_page(served: Path, engine: FakeEngine) -> None:
    for number in range(5):
        name = f"guest-{number}"
        engine.guests[name] = str(uuid.uuid4())
        ask(served, "POST", "/v1/attachments", {**WANTED, "guest": name, "request_id": name})

    def listed(query: str) -> tuple[list[str], str | None]:
        document = fits(ask(served, "GET", f"/v1/attachments{query}"), "Attachments").document
        return [found["guest_name"] for found in document["attachments"]], document.get("next")

    every = [f"guest-{number}" for number in range(5)]
    assert listed("") == (every, None)
    assert listed("?limit=5") == (every, None)
    first, following = listed("?limit=2")
    assert first == every[:2]
    rest, following = listed(f"?limit=2&after={following}")
    assert rest == every[2:4]
    assert listed(f"?limit=2&after={following}") == (every[4:], None)
    refused(ask(served, "GET", "/v1/attachments?after=none"), 404, "attachment-not-found")


@pytest.mark.parametrize("things", ["operations", "guests", "volumes"])
def test_a_list_has_a_usual_length(
    served: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, things: str
) -> None:
    monkeypatch.setattr("attachd.api.routes.USUAL_LIMIT", 3)
    for number in range(4):
        name = f"one-more-{number}"
        engine.guests[name] = engine.volumes[name] = str(uuid.uuid4())
        ask(served, "POST", "/v1/attachments", {**WANTED, "request_id": name})
    assert len(ask(served, "GET", f"/v1/{things}").document[things]) == 3
    assert len(ask(served, "GET", f"/v1/{things}?limit=4").document[things]) == 4


def test_the_guests_and_volumes_to_choose_from(served: Path, engine: FakeEngine) -> None:
    guests = fits(ask(served, "GET", "/v1/guests"), "Guests").document["guests"]
    assert [found["guest_name"] for found in guests] == ["web", "db"]
    assert guests[0]["guest_id"] == engine.guests["web"]
    assert ask(served, "GET", "/v1/guests?limit=1").document == {"guests": guests[:1]}

    ask(served, "POST", "/v1/attachments", WANTED)

    def volumes(query: str) -> list[str]:
        answer = fits(ask(served, "GET", f"/v1/volumes{query}"), "Volumes")
        return [found["volume_name"] for found in answer.document["volumes"]]

    assert volumes("") == ["logs"]
    assert volumes("?status=in-use") == ["data"]
    assert volumes("?status=error") == []


@pytest.mark.parametrize("things", ["guests", "volumes"])
def test_a_slow_world_takes_no_more_threads_than_may_wait(
    path: Path, engine: FakeEngine, things: str
) -> None:
    engine.hold = True
    with serving(engine, path, threads=3, long_polls=1):
        posted = ask(path, "POST", "/v1/attachments", WANTED)
        target = f"{posted.headers['Location']}/events?after=1&wait=5"
        follower = threading.Thread(target=ask, args=(path, "GET", target))
        follower.start()
        engine.until_waiting(1)
        refused(ask(path, "GET", f"/v1/{things}"), 429, "too-many-requests")
        engine.release(posted.document["operation_id"])
        follower.join(timeout=60)
        assert ask(path, "GET", f"/v1/{things}").status == 200


def test_an_audit_lists_what_was_found(served: Path, engine: FakeEngine) -> None:
    assert fits(ask(served, "GET", "/v1/audit"), "Audit").document == {"findings": []}
    engine.findings = (FINDING,)
    (found,) = fits(ask(served, "GET", "/v1/audit"), "Audit").document["findings"]
    assert (found["code"], found["brief"]) == ("device-gone", "It is gone.")
    assert found["says"] == {"host": "no device", "cinder": "volume in-use"}
    assert (found["volume_id"], found["attachment_id"]) == ("v", None)
    engine.raises = Refused(Code.JOURNAL_UNAVAILABLE, "The journal can't be read.")
    refused(ask(served, "GET", "/v1/audit"), 503, "journal-unavailable")


def test_the_doctor_says_what_it_found(served: Path, engine: FakeEngine) -> None:
    engine.diagnosis = (
        fine(Check.KVM, "/dev/kvm is there."),
        wrong(Fault.NOVA_ON_HOST, "nova-compute runs."),
    )
    document = fits(ask(served, "GET", "/v1/doctor"), "Diagnosis").document
    assert document["fit"] is True
    kvm, nova = document["findings"]
    assert kvm == {
        "severity": "ok",
        "check": "kvm",
        "code": "kvm",
        "found": "/dev/kvm is there.",
        "remedy": "",
    }
    assert (nova["severity"], nova["check"], nova["code"]) == ("warning", "nova", "nova-on-host")
    assert nova["remedy"]
    engine.diagnosis = (unseen(Check.KVM, "No answer.", remedy="Ask again."),)
    assert fits(ask(served, "GET", "/v1/doctor"), "Diagnosis").document["fit"] is False
    engine.raises = Refused(Code.SHUTTING_DOWN, "attachd is stopping.")
    refused(ask(served, "GET", "/v1/doctor"), 503, "shutting-down")


@pytest.mark.parametrize("verb", ["reconnect", "disconnect"])
def test_a_guests_devices_come_and_go(served: Path, engine: FakeEngine, verb: str) -> None:
    ask(served, "POST", "/v1/attachments", WANTED)
    answer = fits(ask(served, "POST", f"/v1/guests/web/{verb}"), "Operations")
    assert answer.status == 202
    assert [found["kind"] for found in answer.document["operations"]] == [verb]
    assert ask(served, "POST", f"/v1/guests/nobody/{verb}").document == {"operations": []}


def test_what_is_safe_is_repaired(served: Path, engine: FakeEngine) -> None:
    engine.findings = (FINDING, replace(FINDING, repair=Repair.RESTORE, guest_id="g"))
    (_, found) = fits(ask(served, "GET", "/v1/audit"), "Audit").document["findings"]
    assert found["repair"] == "restore"
    answer = fits(ask(served, "POST", "/v1/audit/repair"), "Operations")
    assert answer.status == 202
    (begun,) = answer.document["operations"]
    assert (begun["kind"], begun["guest"], begun["volume"]) == ("restore", "g", "v")
    assert ask(served, "POST", "/v1/audit/repair").document == {"operations": []}


def test_an_operation_is_resumed(served: Path, engine: FakeEngine) -> None:
    engine.failure = Failure(
        OperationState.NEEDS_ATTENTION, Problem(code=Code.STILL_IN_USE, brief="It is held.")
    )
    operation = ask(served, "POST", "/v1/attachments", WANTED).document["operation_id"]
    target = f"/v1/operations/{operation}/resume"
    engine.failure, engine.hold = None, True

    answer = fits(ask(served, "POST", target), "Operation")
    assert (answer.status, answer.document["state"]) == (202, "running")
    assert answer.headers["Location"] == f"/v1/operations/{operation}"
    engine.release(operation)
    assert ask(served, "POST", target).document["state"] == "done"
    refused(ask(served, "POST", "/v1/operations/none/resume"), 404, "operation-not-found")


def test_an_operation_shows_its_steps_and_its_problem(served: Path, engine: FakeEngine) -> None:
    problem = Problem(code=Code.CONNECT_FAILED, brief="No device.", details="d", resolution="r")
    engine.failure = Failure(OperationState.UNDONE, problem, failed_step="connect")
    posted = ask(served, "POST", "/v1/attachments", WANTED)

    shown = fits(ask(served, "GET", posted.headers["Location"]), "Operation").document

    assert shown["state"] == "undone"
    assert shown["problem"] == {
        "code": "connect-failed",
        "brief": "No device.",
        "details": "d",
        "resolution": "r",
    }
    assert [(step["name"], step["direction"], step["state"]) for step in shown["steps"]] == [
        ("create", "do", "done"),
        ("connect", "do", "failed"),
        ("create", "undo", "done"),
    ]


def test_events_are_complete_once_the_operation_rests(served: Path) -> None:
    location = ask(served, "POST", "/v1/attachments", WANTED).headers["Location"]

    whole = fits(ask(served, "GET", f"{location}/events"), "Events").document
    rest = ask(served, "GET", f"{location}/events?after=3&wait=5").document

    assert whole["resting"]
    assert whole["state"] == "done"
    assert [event["seq"] for event in whole["events"]] == list(range(1, len(whole["events"]) + 1))
    assert rest["events"] == whole["events"][3:]
    refused(ask(served, "GET", "/v1/operations/none/events"), 404, "operation-not-found")


def test_a_long_poll_ends_with_the_event(served: Path, engine: FakeEngine) -> None:
    engine.hold = True
    posted = ask(served, "POST", "/v1/attachments", WANTED)
    answers: list[Answer] = []
    follower = threading.Thread(
        target=lambda: answers.append(
            ask(served, "GET", f"{posted.headers['Location']}/events?after=1&wait=5")
        )
    )
    follower.start()
    engine.until_waiting(1)
    engine.release(posted.document["operation_id"])
    follower.join(timeout=60)

    assert answers[0].document["events"][0]["seq"] == 2
    assert not answers[0].document["resting"]


def test_a_long_poll_is_cut_short(
    served: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attachd.api.routes.LONGEST_WAIT", 0.2)
    engine.hold = True
    location = ask(served, "POST", "/v1/attachments", WANTED).headers["Location"]
    began = time.monotonic()

    answer = ask(served, "GET", f"{location}/events?after=1&wait=3600")

    assert time.monotonic() - began < 50
    assert answer.document["events"] == []
    assert not answer.document["resting"]


def test_long_polls_leave_threads_for_others(path: Path, engine: FakeEngine) -> None:
    engine.hold = True
    with serving(engine, path, threads=3, long_polls=2):
        posted = ask(path, "POST", "/v1/attachments", WANTED)
        target = f"{posted.headers['Location']}/events?after=1&wait=5"
        answers: list[Answer] = []
        followers = [
            threading.Thread(target=lambda: answers.append(ask(path, "GET", target)))
            for _ in range(2)
        ]
        for follower in followers:
            follower.start()
        engine.until_waiting(2)

        surplus = ask(path, "GET", target)
        health = ask(path, "GET", "/v1/health")

        assert engine.waiting == 2  # they were still waiting when these two were answered
        assert surplus.headers["Retry-After"] == "1"
        assert surplus.document["events"] == []
        assert health.status == 200
        engine.release(posted.document["operation_id"])
        for follower in followers:
            follower.join(timeout=60)
        assert [answer.headers.get("Retry-After") for answer in answers] == [None, None]


def test_health_is_the_engines_own_word(served: Path, engine: FakeEngine) -> None:
    assert fits(ask(served, "GET", "/v1/health"), "Health").document == engine.health()


def test_the_numbers_are_plain_text(served: Path, engine: FakeEngine) -> None:
    answer = ask(served, "GET", "/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert (answer.status, answer.body.decode()) == (200, engine.text())
    refused(ask(served, "GET", "/metrics?name=x"), 400, "bad-request")


def test_the_connector(served: Path, engine: FakeEngine) -> None:
    answer = fits(ask(served, "GET", "/v1/connector"), "Connector")
    assert answer.document == engine.connector()


def test_an_unforeseen_exception_is_logged_and_never_shown(
    served: Path, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.raises = RuntimeError("the secret inside")

    answer = refused(ask(served, "GET", "/v1/attachments"), 500, "internal-error")

    assert b"secret" not in answer.body
    assert b"Traceback" not in answer.body
    assert "the secret inside" in caplog.text
    engine.raises = None
    assert ask(served, "GET", "/v1/attachments").status == 200


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Code.SHUTTING_DOWN, 503),
        (Code.JOURNAL_FULL, 507),
        (Code.JOURNAL_UNAVAILABLE, 503),
        (Code.VOLUME_AMBIGUOUS, 409),
        (Code.GUEST_BUSY, 409),
        (Code.VOLUME_NOT_FOUND, 404),
    ],
)
def test_what_the_engine_refuses_keeps_its_code(
    served: Path, engine: FakeEngine, code: Code, status: int
) -> None:
    engine.raises = Refused(code, "No.", details="why", resolution="how")

    answer = refused(ask(served, "POST", "/v1/attachments", WANTED), status, code)

    assert answer.document["brief"] == "No."
    assert answer.document["details"] == "why"
    assert answer.document["resolution"] == "how"
