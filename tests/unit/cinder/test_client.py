"""The real client before a real HTTP server on which everything can go wrong."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from attachd.cinder.client import CinderClient
from attachd.errors import AttachdError, Code, Refused, Unreachable
from attachd.logs.journald import JournaldHandler
from attachd.model import CinderAttachment
from attachd.trace import collecting
from attachd.trace.masking import MASK
from tests.fakes.cinder_client import TRIES, client_of
from tests.fakes.cinder_http import CinderServer
from tests.unit.logs.journal import FakeJournald

CONNECTOR = {"host": "compute-1", "initiator": "iqn.1993-08.org.debian:01:abc", "ip": "192.0.2.1"}
INSTANCE = str(uuid.uuid4())
CHANGING = ["create", "update", "complete", "delete", "begin_detaching", "roll_detaching"]
CHANGING += ["extend"]
RETRIED = [500, 502, 503, 504]


@pytest.fixture
def server() -> Iterator[CinderServer]:
    with CinderServer() as server:
        yield server


@pytest.fixture
def client(server: CinderServer) -> Iterator[CinderClient]:
    with client_of(server) as client:
        yield client


class Scene:
    """A volume brought to where a verb can be tried, and the proof that it had its effect."""

    def __init__(self, server: CinderServer, verb: str) -> None:
        rules = server.rules
        self.rules = rules
        self.verb = verb
        self.volume = rules.add_volume(name="data").id
        self.attachment = ""
        if verb == "create":
            return
        self.attachment = rules.create(self.volume, INSTANCE).id
        if verb == "update":
            return
        rules.update(self.attachment, CONNECTOR)
        if verb == "complete":
            return
        rules.complete(self.attachment)
        if verb == "roll_detaching":
            rules.begin_detaching(self.volume)

    def do(self, client: CinderClient) -> CinderAttachment | None:
        verbs: dict[str, Callable[[], CinderAttachment | None]] = {
            "create": lambda: client.create_attachment(
                self.volume, instance_id=INSTANCE, prior_attachment_ids=()
            ),
            "update": lambda: client.update_attachment(self.attachment, CONNECTOR),
            "complete": lambda: client.complete_attachment(self.attachment),
            "delete": lambda: client.delete_attachment(self.attachment),
            "begin_detaching": lambda: client.begin_detaching(self.volume),
            "roll_detaching": lambda: client.roll_detaching(self.volume),
            "extend": lambda: client.extend_volume(self.volume, 2),
        }
        return verbs[self.verb]()

    def is_done(self) -> bool:
        status = self.rules.volume(self.volume).status
        if self.verb == "create":
            return status == "reserved" and len(self.rules.attachments) == 1
        if self.verb == "extend":
            return (status, self.rules.volume(self.volume).size) == ("in-use", 2)
        return (
            status
            == {
                "update": "attaching",
                "complete": "in-use",
                "delete": "available",
                "begin_detaching": "detaching",
                "roll_detaching": "in-use",
            }[self.verb]
        )


# --- what every request carries -------------------------------------------------------------


def test_each_answers_request_id_is_in_the_log(
    server: CinderServer, client: CinderClient, tmp_path: Path
) -> None:
    """What changes something is told to everybody, what only reads to those who debug."""
    volume = server.rules.add_volume(name="data").id
    log = logging.getLogger("attachd.cinder.session")
    with FakeJournald(tmp_path / "socket") as journald:
        handler = JournaldHandler(path=journald.path)
        log.addHandler(handler)
        log.setLevel(logging.DEBUG)
        try:
            with collecting() as calls:
                client.get_volume(volume)
                client.create_attachment(volume, instance_id=INSTANCE, prior_attachment_ids=())
        finally:
            log.setLevel(logging.NOTSET)
            log.removeHandler(handler)
            handler.close()
        entries = journald.entries()
    told = {
        (entry["MESSAGE"][0].split(" in ")[0], entry["PRIORITY"][0]): entry["ATTACHD_REQUEST_ID"]
        for entry in entries
    }
    assert set(told) >= {
        (f"Cinder: GET /volumes/{volume} -> 200", "7"),
        ("Cinder: POST /attachments -> 200", "6"),
    }
    answered = [call.exchange.request_id for call in calls if call.exchange]
    assert sorted(told.values()) == sorted([each] for each in answered)


def test_every_request_carries_both_tokens_the_microversion_and_the_request_id(
    server: CinderServer, client: CinderClient
) -> None:
    request_id = f"req-{uuid.uuid4()}"
    mine = client.for_request(request_id)
    for verb in CHANGING:
        Scene(server, verb).do(mine)
    mine.list_attachments(INSTANCE)
    sent = [request for request in server.requests if "/attachments" in request.path]
    assert {request.verb for request in sent} >= {"create", "update", "complete", "delete"}
    for request in sent:
        assert request.headers["x-auth-token"] == request.headers["x-service-token"]
        assert request.headers["openstack-api-version"] == "volume 3.69"
        assert request.headers["x-openstack-request-id"] == request_id


def test_a_view_leaves_the_client_as_it_was(server: CinderServer, client: CinderClient) -> None:
    client.for_request("req-1").list_attachments(INSTANCE)
    client.list_attachments(INSTANCE)
    first, second = server.seen("list_attachments")
    assert first.headers["x-openstack-request-id"] == "req-1"
    assert "x-openstack-request-id" not in second.headers


def test_keystone_is_asked_once_for_many_requests(
    server: CinderServer, client: CinderClient
) -> None:
    for _ in range(5):
        client.list_attachments(INSTANCE)
    assert len(server.seen("token")) == 1
    assert len(server.seen("versions")) == 1


# --- microversions --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "used", "shared_targets"),
    [
        ("3.44", "3.44", None),
        ("3.47", "3.47", None),
        ("3.48", "3.48", True),
        ("3.69", "3.69", None),
        ("3.71", "3.69", None),
        ("3.100", "3.69", None),
    ],
)
def test_the_highest_microversion_that_both_know_is_used(
    server: CinderServer,
    client: CinderClient,
    offered: str,
    used: str,
    shared_targets: bool | None,
) -> None:
    server.microversion = offered
    volume_id = server.rules.add_volume(shared_targets=None).id
    volume = client.get_volume(volume_id)
    assert volume is not None
    assert volume.shared_targets is shared_targets
    assert server.seen("get_volume")[0].headers["openstack-api-version"] == f"volume {used}"


def test_too_old_a_cinder_is_not_asked(server: CinderServer, client: CinderClient) -> None:
    server.microversion = "3.43"
    with pytest.raises(Unreachable) as caught:
        client.create_attachment(INSTANCE, instance_id=INSTANCE, prior_attachment_ids=())
    assert caught.value.touched is False
    assert "3.44" in caught.value.problem.brief
    assert not server.seen("create")


@pytest.mark.parametrize("status", [500, 503])
def test_version_documents_that_fail_once_are_read_again(
    server: CinderServer, client: CinderClient, status: int
) -> None:
    server.fail("versions", status, times=2)
    assert client.list_attachments(INSTANCE) == ()


# --- faults that pass -----------------------------------------------------------------------


@pytest.mark.parametrize("verb", CHANGING)
@pytest.mark.parametrize("status", RETRIED)
def test_a_status_that_passes_is_overcome(
    server: CinderServer, client: CinderClient, verb: str, status: int
) -> None:
    scene = Scene(server, verb)
    server.fail(verb, status)
    scene.do(client)
    assert scene.is_done()
    assert len(server.seen(verb)) == 2


@pytest.mark.parametrize("verb", CHANGING)
def test_a_connection_that_breaks_before_the_work_is_overcome(
    server: CinderServer, client: CinderClient, verb: str
) -> None:
    scene = Scene(server, verb)
    server.drop(verb, after_work=False)
    scene.do(client)
    assert scene.is_done()
    assert len(server.seen(verb)) == 2


@pytest.mark.parametrize("verb", CHANGING)
@pytest.mark.parametrize("how", ["dropped", "500", "504"])
def test_work_whose_answer_was_lost_is_not_repeated(
    server: CinderServer, client: CinderClient, verb: str, how: str
) -> None:
    scene = Scene(server, verb)
    if how == "dropped":
        server.drop(verb, after_work=True)
    else:
        server.fail_after_work(verb, int(how))
    result = scene.do(client)
    assert scene.is_done()
    assert len(server.seen(verb)) == 1
    if verb == "update":
        assert result is not None
        assert result.connection is not None
    if verb == "create":
        assert result is not None
        assert result.attachment_id in scene.rules.attachments


@pytest.mark.parametrize("verb", ["create", "update"])
def test_an_answer_that_is_late_is_looked_for(server: CinderServer, verb: str) -> None:
    scene = Scene(server, verb)
    with client_of(server, request_timeout=0.3) as client:
        client.list_attachments(INSTANCE)
        server.delay(verb)
        scene.do(client)
        assert scene.is_done()
        assert len(server.seen(verb)) == 1
        server.stop()


def test_a_question_isnt_given_a_changes_time(server: CinderServer) -> None:
    """A kept-alive connection to an API host that died answers nothing, and a new one does."""
    volume_id = server.rules.add_volume().id
    with client_of(server, query_timeout=0.3) as client:
        client.list_attachments(INSTANCE)
        server.delay("get_volume")
        assert client.get_volume(volume_id) is not None
        assert len(server.seen("get_volume")) == 2
        server.stop()


@pytest.mark.parametrize("status", RETRIED)
def test_a_reading_that_fails_is_repeated(
    server: CinderServer, client: CinderClient, status: int
) -> None:
    volume_id = server.rules.add_volume().id
    server.fail("get_volume", status, times=TRIES - 1)
    assert client.get_volume(volume_id) is not None


# --- faults that last -----------------------------------------------------------------------


@pytest.mark.parametrize("verb", CHANGING)
def test_a_status_that_lasts_is_told_as_touched(
    server: CinderServer, client: CinderClient, verb: str
) -> None:
    scene = Scene(server, verb)
    server.fail(verb, 503, times=TRIES)
    with pytest.raises(Unreachable) as caught:
        scene.do(client)
    assert caught.value.code == Code.CINDER_UNAVAILABLE
    assert caught.value.touched is True
    assert len(server.seen(verb)) == TRIES
    assert "req-" in caught.value.problem.details


def test_a_reading_touches_nothing(server: CinderServer, client: CinderClient) -> None:
    server.fail("get_attachment", 503, times=TRIES)
    with pytest.raises(Unreachable) as caught:
        client.get_attachment(INSTANCE)
    assert caught.value.touched is False


def test_other_server_errors_are_not_repeated(server: CinderServer, client: CinderClient) -> None:
    server.fail("get_attachment", 501)
    with pytest.raises(Unreachable):
        client.get_attachment(INSTANCE)
    assert len(server.seen("get_attachment")) == 1


@pytest.mark.parametrize("verb", CHANGING)
def test_a_stopped_cinder_is_untouched(
    server: CinderServer, client: CinderClient, verb: str
) -> None:
    scene = Scene(server, verb)
    client.list_attachments(INSTANCE)
    server.stop()
    with pytest.raises(Unreachable) as caught:
        scene.do(client)
    assert caught.value.code == Code.CINDER_UNAVAILABLE
    assert caught.value.touched is False


def test_a_cinder_that_comes_back_is_used_again(server: CinderServer, client: CinderClient) -> None:
    server.stop()
    with pytest.raises(Unreachable) as caught:
        client.list_attachments(INSTANCE)
    assert caught.value.touched is False
    server.start()
    assert client.list_attachments(INSTANCE) == ()


# --- Keystone -------------------------------------------------------------------------------


def test_a_token_that_expires_is_renewed_in_the_middle(
    server: CinderServer, client: CinderClient
) -> None:
    scene = Scene(server, "create")
    client.list_attachments(INSTANCE)
    server.expire_tokens()
    scene.do(client)
    assert scene.is_done()
    first, second = server.seen("create")
    assert first.headers["x-auth-token"] != second.headers["x-auth-token"]
    assert second.headers["x-auth-token"] == second.headers["x-service-token"]
    assert len(server.seen("token")) == 2


def test_a_new_token_that_isnt_accepted_either_is_a_refusal(
    server: CinderServer, client: CinderClient
) -> None:
    server.fail("create", 401, times=2)
    with pytest.raises(Refused) as caught:
        Scene(server, "create").do(client)
    assert len(server.seen("create")) == 2
    assert "[cinder]" in caught.value.problem.resolution


def test_a_refused_password_names_the_options(server: CinderServer) -> None:
    with client_of(server, password="wrong") as client, pytest.raises(Unreachable) as caught:
        Scene(server, "create").do(client)
    problem = caught.value.problem
    assert caught.value.touched is False
    assert "[cinder]" in problem.resolution
    assert "password" in problem.resolution
    assert "wrong" not in f"{problem.brief} {problem.details}"
    assert len(server.seen("token")) == 1


def test_a_password_changed_in_the_middle_touches_nothing(
    server: CinderServer, client: CinderClient
) -> None:
    scene = Scene(server, "create")
    client.list_attachments(INSTANCE)
    server.expire_tokens()
    server.password = "another"
    with pytest.raises(Unreachable) as caught:
        scene.do(client)
    assert caught.value.touched is False
    assert not scene.rules.attachments


def test_a_keystone_that_fails_once_is_asked_again(
    server: CinderServer, client: CinderClient
) -> None:
    server.fail("token", 503, times=TRIES - 1)
    assert client.list_attachments(INSTANCE) == ()


@pytest.mark.parametrize("missing", ["service", "region"])
def test_a_catalogue_without_cinder_says_so(server: CinderServer, missing: str) -> None:
    server.in_catalogue = missing != "service"
    with (
        client_of(server, region_name="elsewhere") as client,
        pytest.raises(Unreachable) as caught,
    ):
        client.list_attachments(INSTANCE)
    assert caught.value.touched is False
    assert "catalogue" in caught.value.problem.brief
    assert "region_name" in caught.value.problem.resolution


@pytest.mark.parametrize("verb", ["identity", "token"])
@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b'{"versions": [1]}',
        b'{"token": {}}',
        b'{"token": {"catalog": 1, "expires_at": "x"}}',
        b"[" * 100_000,
    ],
    ids=["null", "versions", "token", "catalogue", "deep"],
)
def test_what_keystone_says_is_not_trusted(
    server: CinderServer, client: CinderClient, verb: str, body: bytes
) -> None:
    for _ in range(3 * TRIES):
        server.garble(verb, body)
    with pytest.raises(Unreachable) as caught:
        client.list_attachments(INSTANCE)
    assert caught.value.touched is False
    assert not server.seen("list_attachments")


# --- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", CHANGING)
@pytest.mark.parametrize("status", [400, 403, 409, 413])
def test_a_refusal_is_final_untouched_and_in_cinders_own_words(
    server: CinderServer, client: CinderClient, verb: str, status: int
) -> None:
    scene = Scene(server, verb)
    server.fail(verb, status, message="Because\nI say so; auth_password=hunter2")
    with pytest.raises(Refused) as caught:
        scene.do(client)
    problem = caught.value.problem
    assert problem.code == Code.CINDER_REFUSED
    assert caught.value.touched is False
    assert "Because I say so" in problem.details
    assert "req-" in problem.details
    assert "hunter2" not in problem.details
    assert len(server.seen(verb)) == 1


def test_a_volume_that_isnt_in_use_isnt_detached(
    server: CinderServer, client: CinderClient
) -> None:
    volume_id = server.rules.add_volume().id
    with pytest.raises(Refused):
        client.begin_detaching(volume_id)
    with pytest.raises(Refused):
        client.begin_detaching(volume_id, status="available")
    assert not server.seen("begin_detaching")


def test_a_status_that_is_known_is_not_asked_for(
    server: CinderServer, client: CinderClient
) -> None:
    scene = Scene(server, "begin_detaching")
    client.begin_detaching(scene.volume, status="in-use")
    assert not server.seen("get_volume")
    assert server.rules.volume(scene.volume).status == "detaching"


def test_a_404_from_something_before_cinder_is_no_proof_of_absence(
    server: CinderServer, client: CinderClient
) -> None:
    scene = Scene(server, "delete")
    server.answer_html("get_attachment", 404, times=TRIES)
    with pytest.raises(Unreachable):
        client.get_attachment(scene.attachment)
    server.answer_html("delete", 404, times=TRIES)
    with pytest.raises(Unreachable):
        client.delete_attachment(scene.attachment)
    assert scene.attachment in scene.rules.attachments


# --- law 11: only what is ours --------------------------------------------------------------


def test_two_new_attachments_after_a_lost_answer_are_nobodys(
    server: CinderServer, client: CinderClient
) -> None:
    scene = Scene(server, "create")
    server.drop("create", after_work=True)
    server.rewrite(
        "list_attachments",
        lambda document: document["attachments"].append(
            {**document["attachments"][0], "id": str(uuid.uuid4())}
        ),
    )
    server.rewrite(
        "list_attachments",
        lambda document: document["attachments"].append(
            {**document["attachments"][0], "id": str(uuid.uuid4())}
        ),
    )
    with pytest.raises(AttachdError) as caught:
        scene.do(client)
    assert caught.value.code == Code.WORLDS_DISAGREE
    assert caught.value.touched is True
    assert len(server.seen("create")) == 1


def test_a_first_create_that_comes_late_is_noticed(
    server: CinderServer, client: CinderClient
) -> None:
    """The repetition succeeds as well: Cinder lets an instance reserve again and again."""
    scene = Scene(server, "create")
    server.drop("create", after_work=False)
    server.rewrite("create", lambda _: scene.rules.create(scene.volume, INSTANCE))
    with pytest.raises(AttachdError) as caught:
        scene.do(client)
    assert caught.value.code == Code.WORLDS_DISAGREE


def test_attachments_that_were_there_before_are_not_ours(
    server: CinderServer, client: CinderClient
) -> None:
    scene = Scene(server, "create")
    prior = scene.rules.create(scene.volume, INSTANCE).id
    server.drop("create", after_work=True)
    found = client.create_attachment(
        scene.volume, instance_id=INSTANCE, prior_attachment_ids=[prior]
    )
    assert found.attachment_id != prior
    assert len(server.seen("create")) == 1


def test_another_instances_attachment_is_not_ours(
    server: CinderServer, client: CinderClient
) -> None:
    volume_id = server.rules.add_volume(multiattach=True, status="in-use").id
    server.drop("create", after_work=False)
    other = server.rules.create(volume_id, str(uuid.uuid4()))
    server.rules.complete(other.id)
    found = client.create_attachment(volume_id, instance_id=INSTANCE, prior_attachment_ids=())
    assert found.attachment_id != other.id
    assert found.instance_id == INSTANCE


# --- had ready ------------------------------------------------------------------------------


def test_the_first_request_waits_for_no_token(server: CinderServer, client: CinderClient) -> None:
    client.warm()
    before = [request.path for request in server.requests]
    client.get_volume(str(uuid.uuid4()))
    assert before
    (only,) = server.requests[len(before) :]
    assert "/volumes/" in only.path


# --- update ---------------------------------------------------------------------------------


def test_an_attachment_that_was_just_created_is_not_looked_at(
    server: CinderServer, client: CinderClient
) -> None:
    scene = Scene(server, "update")
    client.update_attachment(scene.attachment, CONNECTOR, fresh=True)
    assert scene.is_done()
    assert server.seen("get_attachment") == []


def test_also_then_a_lost_answer_is_looked_for(server: CinderServer, client: CinderClient) -> None:
    scene = Scene(server, "update")
    server.drop("update", after_work=True)
    assert client.update_attachment(scene.attachment, CONNECTOR, fresh=True).connection is not None
    assert len(server.seen("update")) == 1


# --- delete ---------------------------------------------------------------------------------


def test_an_attachment_that_stays_after_its_delete_runs_into_the_deadline(
    server: CinderServer,
) -> None:
    scene = Scene(server, "delete")
    server.fail("delete", HTTPStatus.OK)
    with client_of(server, delete_timeout=0.1) as client, pytest.raises(AttachdError) as caught:
        scene.do(client)
    assert caught.value.code == Code.DEADLINE_EXCEEDED
    assert caught.value.touched is True


def test_a_delete_that_cinder_forgot_half_way_is_finished(
    server: CinderServer, client: CinderClient
) -> None:
    """cinder-volume took the export away; each DELETE fails for want of it ever after."""
    scene = Scene(server, "delete")
    scene.rules.forget_a_delete(scene.attachment)
    scene.do(client)
    assert server.seen("delete")
    assert scene.is_done()


def test_the_other_users_of_a_volume_keep_its_export(
    server: CinderServer, client: CinderClient
) -> None:
    scene = Scene(server, "delete")
    scene.rules.volume(scene.volume).multiattach = True
    scene.rules.create(scene.volume, "another-guest")
    scene.rules.forget_a_delete(scene.attachment)
    with pytest.raises(Unreachable) as caught:
        scene.do(client)
    assert caught.value.touched is True
    assert server.seen("detach") == []


def test_a_delete_that_nothing_can_finish_says_why_it_failed(
    server: CinderServer, client: CinderClient
) -> None:
    scene = Scene(server, "delete")
    scene.rules.forget_a_delete(scene.attachment)
    for _ in range(9):
        server.fail("detach", HTTPStatus.INTERNAL_SERVER_ERROR)
    with pytest.raises(Unreachable) as caught:
        scene.do(client)
    assert "Could not find target" in caught.value.problem.details


def test_an_answer_without_the_attachment_says_that_it_is_gone(
    server: CinderServer, client: CinderClient
) -> None:
    scene = Scene(server, "delete")
    scene.do(client)
    assert scene.is_done()
    assert server.seen("get_attachment") == []


@pytest.mark.parametrize(
    "other_words",
    [
        lambda answer: answer.clear(),
        lambda answer: answer.update(attachments=None),
        lambda answer: answer.update(attachments=[{}]),
        lambda answer: answer.update(attachments=[{"id": 1}]),
    ],
)
def test_after_any_other_answer_it_is_looked_for(
    server: CinderServer, client: CinderClient, other_words: Callable[[Any], object]
) -> None:
    scene = Scene(server, "delete")
    server.rewrite("delete", other_words)
    scene.do(client)
    assert scene.is_done()
    assert len(server.seen("get_attachment")) == 1


def test_a_delete_waits_until_the_attachment_is_gone(
    server: CinderServer, client: CinderClient
) -> None:
    scene = Scene(server, "delete")
    server.fail("delete", HTTPStatus.OK)
    server.rewrite("get_attachment", lambda _: None)
    server.rewrite(
        "get_attachment", lambda _: scene.rules.delete(scene.attachment, by_service=True)
    )
    scene.do(client)
    assert len(server.seen("get_attachment")) == 3


# --- an extend --------------------------------------------------------------------------------


def test_an_extend_is_waited_for_until_the_volume_is_in_use_again(
    server: CinderServer, client: CinderClient
) -> None:
    scene = Scene(server, "extend")
    scene.rules.extend_ends = ""
    for _ in range(3):  # two looks before it, one behind
        server.rewrite("get_volume", lambda _: None)
    server.rewrite("get_volume", lambda _: scene.rules.finish_extend(scene.volume, "grown"))
    scene.do(client)
    assert scene.is_done()
    assert len(server.seen("extend")) == 1
    wanted = server.seen("extend")[0].headers["openstack-api-version"]
    assert wanted == "volume 3.69"


@pytest.mark.parametrize("end", ["no-room", "error"])
def test_an_extend_that_came_to_nothing(
    server: CinderServer, client: CinderClient, end: str
) -> None:
    scene = Scene(server, "extend")
    scene.rules.extend_ends = end
    with pytest.raises(AttachdError) as caught:
        scene.do(client)
    assert caught.value.code is Code.CINDER_REFUSED
    assert caught.value.touched == (end == "error")
    assert "1 GiB still" in caught.value.problem.brief
    assert len(server.seen("extend")) == 1


def test_an_extend_without_an_end(server: CinderServer) -> None:
    scene = Scene(server, "extend")
    scene.rules.extend_ends = ""
    with client_of(server, extend_timeout=0.2) as client:
        with pytest.raises(AttachdError) as caught:
            scene.do(client)
        assert (caught.value.code, caught.value.touched) == (Code.DEADLINE_EXCEEDED, True)
        with pytest.raises(AttachdError) as caught:
            scene.do(client)  # somebody's is under way, and nothing more is asked for
        assert (caught.value.code, caught.value.touched) == (Code.DEADLINE_EXCEEDED, False)
    assert len(server.seen("extend")) == 1


def test_cinder_goes_away_while_it_extends(server: CinderServer, client: CinderClient) -> None:
    scene = Scene(server, "extend")
    scene.rules.extend_ends = ""
    server.rewrite("get_volume", lambda _: None)
    server.rewrite(
        "get_volume", lambda _: server.fail("get_volume", HTTPStatus.BAD_GATEWAY, times=TRIES)
    )
    with pytest.raises(Unreachable) as caught:
        scene.do(client)
    assert caught.value.touched


def test_a_full_quota(server: CinderServer, client: CinderClient) -> None:
    scene = Scene(server, "extend")
    with pytest.raises(Refused) as caught:
        client.extend_volume(scene.volume, 1001)
    problem = caught.value.problem
    assert problem.code is Code.CINDER_REFUSED
    assert "exceeds allowed gigabytes quota" in problem.details
    assert "quota show" in problem.resolution


# --- what nobody waits for any more ----------------------------------------------------------


def settle(client: CinderClient, scene: Scene, *, age: float = 0) -> None:
    verbs: dict[str, Callable[[], None]] = {
        "create": lambda: client.settle_create(
            scene.volume, instance_id=INSTANCE, prior_attachment_ids=(), age=age
        ),
        "update": lambda: client.settle_update(scene.attachment, age=age),
        "begin_detaching": lambda: client.settle_begin(scene.volume, age=age),
        "extend": lambda: client.settle_extend(scene.volume, size_gib=2, age=age),
    }
    verbs[scene.verb]()


QUESTIONS = {
    "create": "list_attachments",
    "update": "get_attachment",
    "begin_detaching": "get_volume",
    "extend": "get_volume",
}


@pytest.mark.parametrize("verb", sorted(QUESTIONS))
def test_an_orphans_effect_is_waited_for(
    server: CinderServer, client: CinderClient, verb: str
) -> None:
    """It comes behind the second look; the third one sees it."""
    scene = Scene(server, verb)
    server.rewrite(QUESTIONS[verb], lambda _: None)
    server.rewrite(QUESTIONS[verb], lambda _: _have_effect(scene))
    settle(client, scene)
    assert len(server.seen(QUESTIONS[verb])) == 3
    assert scene.is_done()


@pytest.mark.parametrize("verb", sorted(QUESTIONS))
def test_an_orphan_that_can_have_no_effect_any_more_is_waited_for_no_longer(
    server: CinderServer, verb: str
) -> None:
    scene = Scene(server, verb)
    with client_of(server, orphan_timeout=1.0) as client:
        settle(client, scene)
        assert len(server.seen(QUESTIONS[verb])) > 1
        server.requests.clear()
        settle(client, scene, age=1.0)
    assert server.seen(QUESTIONS[verb]) == []


@pytest.mark.parametrize("verb", sorted(QUESTIONS))
def test_an_orphan_that_cant_be_looked_for_is_not_gone(server: CinderServer, verb: str) -> None:
    scene = Scene(server, verb)
    with client_of(server, orphan_timeout=30) as client:
        server.fail(QUESTIONS[verb], HTTPStatus.SERVICE_UNAVAILABLE, times=TRIES)
        with pytest.raises(Unreachable):
            settle(client, scene)


def _have_effect(scene: Scene) -> None:
    effects: dict[str, Callable[[], object]] = {
        "create": lambda: scene.rules.create(scene.volume, INSTANCE),
        "update": lambda: scene.rules.update(scene.attachment, CONNECTOR),
        "begin_detaching": lambda: scene.rules.begin_detaching(scene.volume),
        "extend": lambda: scene.rules.extend(scene.volume, 2),
    }
    effects[scene.verb]()


# --- answers that can't be used -------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000],
    ids=["empty", "cut", "null", "list", "string", "no-text", "deep"],
)
def test_a_body_that_isnt_cinders_is_refused(
    server: CinderServer, client: CinderClient, body: bytes
) -> None:
    scene = Scene(server, "update")
    server.garble("update", body)
    with pytest.raises(AttachdError) as caught:
        scene.do(client)
    assert caught.value.code == Code.CINDER_REFUSED
    assert caught.value.touched is True


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda d: d.clear(), "volume"),
        (lambda d: d["volume"].pop("id"), "volume.id"),
        (lambda d: d["volume"].update(id=str(uuid.uuid4())), "volume.id"),
        (lambda d: d["volume"].pop("status"), "volume.status"),
        (lambda d: d["volume"].update(size="1"), "volume.size"),
        (lambda d: d["volume"].pop("encrypted"), "volume.encrypted"),
        (lambda d: d["volume"].update(multiattach="no"), "volume.multiattach"),
        (lambda d: d["volume"].update(shared_targets=1), "volume.shared_targets"),
        (lambda d: d["volume"].update(service_uuid=1), "volume.service_uuid"),
        (lambda d: d["volume"].update(name=[]), "volume.name"),
        (lambda d: d["volume"].update(attachments=[{}]), "volume.attachments[0].attachment_id"),
    ],
)
def test_a_volume_is_read_or_refused_by_name(
    server: CinderServer, client: CinderClient, change: Change, path: str
) -> None:
    volume_id = server.rules.add_volume().id
    server.rewrite("get_volume", change)
    with pytest.raises(AttachdError) as caught:
        client.get_volume(volume_id)
    assert caught.value.code == Code.CINDER_REFUSED
    assert f"{path} " in caught.value.problem.brief
    assert caught.value.touched is False


@pytest.mark.parametrize(
    ("verb", "change", "path"),
    [
        ("create", lambda d: d["attachment"].pop("id"), "attachment.id"),
        ("create", lambda d: d["attachment"].update(volume_id=1), "attachment.volume_id"),
        ("update", lambda d: d["attachment"].update(id=INSTANCE), "attachment.id"),
        ("update", lambda d: d["attachment"].pop("status"), "attachment.status"),
        (
            "update",
            lambda d: d["attachment"].update(connection_info={}),
            "attachment.connection_info",
        ),
        (
            "update",
            lambda d: d["attachment"]["connection_info"].update(target_lun="0"),
            "attachment.connection_info.target_lun",
        ),
    ],
)
def test_an_attachment_is_read_or_refused_by_name(
    server: CinderServer, client: CinderClient, verb: str, change: Change, path: str
) -> None:
    scene = Scene(server, verb)
    server.rewrite(verb, change)
    with pytest.raises(AttachdError) as caught:
        scene.do(client)
    assert caught.value.code == Code.CINDER_REFUSED
    assert f"{path} " in caught.value.problem.brief
    assert caught.value.touched is True


def test_another_protocol_is_told_with_the_reservation_still_there(
    server: CinderServer, client: CinderClient
) -> None:
    scene = Scene(server, "update")
    server.rewrite(
        "update", lambda d: d["attachment"]["connection_info"].update(driver_volume_type="rbd")
    )
    with pytest.raises(AttachdError) as caught:
        scene.do(client)
    assert caught.value.code == Code.PROTOCOL_UNSUPPORTED
    assert caught.value.touched is True


# --- ids and names --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reference", ["../os-services", "a/b?c=d#e", "%2e%2e", "x" * 300, "", ".."]
)
def test_no_reference_becomes_a_path(
    server: CinderServer, client: CinderClient, reference: str
) -> None:
    with pytest.raises(Refused) as caught:
        client.find_volume(reference)
    assert caught.value.code == Code.VOLUME_NOT_FOUND
    assert client.get_volume(reference) is None
    assert client.get_attachment(reference) is None
    client.delete_attachment(reference)
    for verb in (client.complete_attachment, client.begin_detaching, client.roll_detaching):
        with pytest.raises(Refused):
            verb(reference)
    with pytest.raises(Refused):
        client.update_attachment(reference, CONNECTOR)
    with pytest.raises(Refused):
        client.extend_volume(reference, 2)
    cinders = [request for request in server.requests if "/v3/" in request.path]
    assert {request.verb for request in cinders} <= {"token", "versions", "list_volumes"}


# --- secrets and threads --------------------------------------------------------------------


def test_no_secret_is_logged_even_at_debug(
    server: CinderServer, client: CinderClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    scene = Scene(server, "update")
    server.fail("update", 503)
    attachment = scene.do(client)
    server.expire_tokens()
    client.get_attachment(scene.attachment)
    assert attachment is not None
    assert attachment.connection is not None
    assert attachment.connection.chap is not None
    secrets = {
        value
        for request in server.requests
        for name, value in request.headers.items()
        if name in ("x-auth-token", "x-service-token")
    }
    assert len(secrets) == 2, "a token before it expired, and one after"
    secrets.add(attachment.connection.chap.password)
    assert caplog.records
    assert not [secret for secret in secrets if secret in caplog.text]


def test_many_operations_share_one_client(server: CinderServer, client: CinderClient) -> None:
    workers = 8
    together = threading.Barrier(workers, action=server.expire_tokens)

    def attach_and_detach(number: int) -> str:
        volume_id = server.rules.add_volume(name=f"data-{number}").id
        mine = client.for_request(f"req-{number}")
        mine.list_attachments(volume_id)
        attachment = mine.create_attachment(
            volume_id, instance_id=INSTANCE, prior_attachment_ids=()
        )
        together.wait(timeout=60)
        mine.update_attachment(attachment.attachment_id, CONNECTOR)
        mine.complete_attachment(attachment.attachment_id)
        mine.begin_detaching(volume_id)
        mine.delete_attachment(attachment.attachment_id)
        return server.rules.volume(volume_id).status

    with ThreadPoolExecutor(workers) as pool:
        assert set(pool.map(attach_and_detach, range(workers))) == {"available"}
    assert not server.rules.attachments


# --- what it isn't shown ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.get_volume(INSTANCE),
        lambda client: client.get_attachment(INSTANCE),
        lambda client: client.list_attachments(INSTANCE),
        lambda client: client.list_volumes(status="available", limit=1),
    ],
    ids=["get_volume", "get_attachment", "list_attachments", "list_volumes"],
)
def test_what_cinder_hides_from_a_user_is_not_gone(
    server: CinderServer, ask: Callable[[CinderClient], object]
) -> None:
    """Without the role admin a 404, or an empty list, is no proof of anything."""
    server.roles = ("member", "service")
    with client_of(server) as client, pytest.raises(Unreachable) as caught:
        ask(client)
    assert caught.value.code == Code.CINDER_UNAVAILABLE
    assert "role admin" in caught.value.problem.brief
    assert caught.value.touched is False


def test_a_list_to_choose_from_is_asked_for_once(
    server: CinderServer, client: CinderClient
) -> None:
    server.fail("list_volumes", HTTPStatus.SERVICE_UNAVAILABLE)
    with pytest.raises(Unreachable) as caught:
        client.list_volumes(status="available", limit=1)
    assert caught.value.code == Code.CINDER_UNAVAILABLE
    assert len(server.seen("list_volumes")) == 1


def test_a_delete_that_cinder_hides_is_not_done(server: CinderServer) -> None:
    scene = Scene(server, "delete")
    server.roles = ("member", "service")
    server.fail("delete", HTTPStatus.OK)
    server.rewrite("get_attachment", lambda _: scene.rules.attachments.clear())
    with client_of(server) as client, pytest.raises(Unreachable):
        scene.do(client)


def test_a_clock_that_is_set_back_holds_nothing_up(
    server: CinderServer, client: CinderClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """keystoneauth would sleep until the wall clock is where it was."""
    volume = server.rules.add_volume(name="data").id
    assert client.get_volume(volume) is not None
    slept: list[float] = []
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 7200)
    monkeypatch.setattr(time, "sleep", slept.append)
    assert client.get_volume(volume) is not None
    assert max(slept, default=0) < 60


# --- what is kept of it for the operation's story ------------------------------------------------


def test_every_request_and_its_answer_is_noted_without_a_secret(
    server: CinderServer, client: CinderClient
) -> None:
    scene = Scene(server, "update")
    with collecting() as calls:
        scene.do(client)
    (put,) = [c.exchange for c in calls if c.exchange and c.exchange.method == "PUT"]
    assert put.url.endswith(f"/attachments/{scene.attachment}")
    assert put.status == HTTPStatus.OK
    assert put.body["attachment"]["connector"]["initiator"] == CONNECTOR["initiator"]
    info = put.answer["attachment"]["connection_info"]
    assert info["target_iqn"]
    assert (info["auth_username"], info["auth_password"]) == (MASK, MASK)


def test_where_nobody_collects_no_answer_is_read_twice(
    server: CinderServer, client: CinderClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch asks all day long."""
    monkeypatch.setattr("attachd.cinder.session.kept", lambda _body: pytest.fail("masked"))
    Scene(server, "update").do(client)


def test_a_refusal_is_noted_with_its_status(server: CinderServer, client: CinderClient) -> None:
    scene = Scene(server, "create")
    scene.rules.volume(scene.volume).status = "error"
    with collecting() as calls, pytest.raises(Refused):
        scene.do(client)
    noted = [call for call in calls if call.outcome]
    assert [call.outcome for call in noted] == ["HTTP 400"]
    assert noted[0].exchange is not None
    assert noted[0].exchange.status == HTTPStatus.BAD_REQUEST
