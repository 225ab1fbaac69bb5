"""The old style's verbs before an HTTP server that breaks, and before APIs of any age."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from attachd.cinder.client import CinderClient
from attachd.errors import AttachdError, Code, Refused, Unreachable
from attachd.model import AttachFlow, Mode
from tests.fakes.cinder_client import TRIES, client_of
from tests.fakes.cinder_http import CinderServer, Document

CONNECTOR = {"host": "compute-1", "initiator": "iqn.1993-08.org.debian:01:abc", "ip": "192.0.2.1"}
INSTANCE = str(uuid.uuid4())
VERBS = [
    *("reserve", "unreserve", "initialize_connection", "terminate_connection", "attach", "detach")
]
FAULTS: dict[str, Callable[[CinderServer, str], object]] = {
    "500": lambda server, verb: server.fail(verb, 500),
    "503": lambda server, verb: server.fail(verb, 503),
    "500 behind it": lambda server, verb: server.fail_after_work(verb, 500),
    "dropped": lambda server, verb: server.drop(verb, after_work=False),
    "dropped behind it": lambda server, verb: server.drop(verb, after_work=True),
}


@pytest.fixture(params=["3.0", "3.43", "3.71"])
def server(request: pytest.FixtureRequest) -> Iterator[CinderServer]:
    with CinderServer(microversion=request.param) as server:
        yield server


@pytest.fixture
def client(server: CinderServer) -> Iterator[CinderClient]:
    with client_of(server, attach_flow=AttachFlow.VOLUME_ACTIONS) as client:
        yield client


class Scene:
    """A volume brought to where a verb can be tried, and the proof that it had its effect."""

    def __init__(self, server: CinderServer, verb: str) -> None:
        rules = server.rules
        self.rules = rules
        self.verb = verb
        self.volume = rules.add_volume(name="data").id
        self.attachment = str(uuid.uuid4())
        if verb == "reserve":
            return
        rules.reserve(self.volume)
        if verb in ("unreserve", "initialize_connection"):
            return
        rules.initialize_connection(self.volume, CONNECTOR)
        if verb in ("terminate_connection", "attach"):
            return
        self.attachment = rules.attach(self.volume, INSTANCE, "rw").id
        rules.begin_detaching(self.volume)

    def do(self, client: CinderClient) -> object:
        verbs: dict[str, Callable[[], object]] = {
            "reserve": lambda: client.reserve(self.volume),
            "unreserve": lambda: client.unreserve(self.volume),
            "initialize_connection": lambda: client.initialize_connection(self.volume, CONNECTOR),
            "terminate_connection": lambda: client.terminate_connection(self.volume, CONNECTOR),
            "attach": lambda: attach(client, self.volume),
            "detach": lambda: client.detach(self.volume, self.attachment),
        }
        return verbs[self.verb]()

    def is_done(self) -> bool:
        exported = any(access.startswith(self.volume) for access in self.rules.exports)
        return (self.rules.volume(self.volume).status, exported) == {
            "reserve": ("attaching", False),
            "unreserve": ("available", False),
            "initialize_connection": ("attaching", True),
            "terminate_connection": ("available", False),
            "attach": ("in-use", True),
            "detach": ("available", False),
        }[self.verb]


def attach(client: CinderClient, volume_id: str) -> object:
    return client.attach(
        volume_id,
        instance_id=INSTANCE,
        mountpoint="/dev/vdb",
        mode=Mode.RW,
        prior_attachment_ids=(),
    )


@pytest.mark.parametrize("verb", VERBS)
def test_it_has_its_effect(server: CinderServer, client: CinderClient, verb: str) -> None:
    scene = Scene(server, verb)
    scene.do(client)
    assert scene.is_done()
    assert len(server.seen(verb)) == 1


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("verb", VERBS)
def test_a_fault_that_passes(
    server: CinderServer, client: CinderClient, verb: str, fault: str
) -> None:
    scene = Scene(server, verb)
    FAULTS[fault](server, verb)
    scene.do(client)
    assert scene.is_done()
    repeats = "behind" not in fault or verb == "initialize_connection"  # of which nothing shows
    assert len(server.seen(verb)) == 1 + repeats


@pytest.mark.parametrize("verb", VERBS)
def test_a_fault_that_lasts(server: CinderServer, client: CinderClient, verb: str) -> None:
    scene = Scene(server, verb)
    server.fail(verb, 503, times=TRIES)
    with pytest.raises(Unreachable) as caught:
        scene.do(client)
    assert caught.value.touched
    assert not scene.is_done()


@pytest.mark.parametrize("verb", VERBS)
def test_a_refusal(server: CinderServer, client: CinderClient, verb: str) -> None:
    scene = Scene(server, verb)
    server.fail(verb, 400, message="Invalid volume: no")
    with pytest.raises(Refused) as caught:
        scene.do(client)
    assert (caught.value.code, caught.value.touched) == (Code.CINDER_REFUSED, False)
    assert len(server.seen(verb)) == 1


def test_an_answer_that_is_looked_for_in_vain(server: CinderServer, client: CinderClient) -> None:
    """Somebody takes the attachment away before its id is known."""
    scene = Scene(server, "attach")
    server.rewrite("attach", lambda _: None)
    look = "list_attachments" if server.microversion == "3.71" else "get_volume"
    server.fail(look, 503, times=TRIES)
    with pytest.raises(Unreachable) as caught:
        scene.do(client)
    assert caught.value.touched, "os-attach had its effect"


def test_a_terminate_that_fails_for_want_of_a_target(
    server: CinderServer, client: CinderClient
) -> None:
    scene = Scene(server, "detach")
    scene.rules.targets.clear()
    scene.rules.exports.clear()
    client.terminate_connection(scene.volume, CONNECTOR)
    assert scene.rules.exports == set()
    assert len(server.seen("initialize_connection")) == 1


def test_a_detach_of_what_is_gone_is_never_sent(server: CinderServer, client: CinderClient) -> None:
    """Cinder would make a volume available that somebody else has reserved meanwhile."""
    scene = Scene(server, "detach")
    scene.do(client)
    scene.rules.reserve(scene.volume)
    scene.do(client)
    assert len(server.seen("detach")) == 1
    assert scene.rules.volume(scene.volume).status == "attaching"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda info: info.pop("data"), "connection_info.data is missing"),
        (lambda info: info["data"].pop("target_iqn"), "connection_info.data.target_iqn"),
        (lambda info: info["data"].update(target_portal="x; reboot"), "target_portal"),
        (lambda info: info["data"].update(auth_password=7), "auth_password is not a string"),
        (lambda info: info.update(driver_volume_type="rbd"), "iscsi only"),
    ],
)
def test_what_cinder_answers_is_not_taken_on_trust(
    server: CinderServer,
    client: CinderClient,
    change: Callable[[Document], object],
    told: str,
) -> None:
    scene = Scene(server, "initialize_connection")
    server.rewrite("initialize_connection", lambda answer: change(answer["connection_info"]))
    with pytest.raises(AttachdError) as caught:
        scene.do(client)
    assert told in caught.value.problem.brief
    assert caught.value.touched
    assert scene.rules.volume(scene.volume).chap_password not in repr(caught.value.problem)


# --- microversions --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ("3.0", AttachFlow.VOLUME_ACTIONS),
        ("3.43", AttachFlow.VOLUME_ACTIONS),
        ("3.44", AttachFlow.ATTACHMENTS),
        ("3.71", AttachFlow.ATTACHMENTS),
    ],
)
def test_auto_takes_the_new_style_where_it_is_offered(offered: str, chosen: AttachFlow) -> None:
    with (
        CinderServer(microversion=offered) as server,
        client_of(server, attach_flow=None) as client,
    ):
        assert client.attach_flow() is chosen
        assert client.for_request("req-1").attach_flow() is chosen


@pytest.mark.parametrize("flow", AttachFlow)
def test_what_is_configured_is_not_asked_for(flow: AttachFlow) -> None:
    with CinderServer() as server, client_of(server, attach_flow=flow) as client:
        assert client.attach_flow() is flow
        assert not server.requests


def test_auto_that_cant_be_decided(server: CinderServer) -> None:
    with client_of(server, attach_flow=None) as client:
        server.stop()
        with pytest.raises(Unreachable):
            client.attach_flow()


@pytest.mark.parametrize("offered", ["3.0", "3.30", "3.43"])
def test_an_api_that_has_no_attachments_says_nothing_of_them(offered: str) -> None:
    """Its 404 for the verb isn't one for the attachment: nothing is gone because of it."""
    with (
        CinderServer(microversion=offered) as server,
        client_of(server, attach_flow=None) as client,
    ):
        attachment_id = Scene(server, "detach").attachment
        for verb in (
            client.get_attachment,
            client.complete_attachment,
            client.delete_attachment,
            lambda one: client.update_attachment(one, CONNECTOR),
        ):
            with pytest.raises(Unreachable) as caught:
                verb(attachment_id)
            assert "3.44" in caught.value.problem.brief
            assert caught.value.touched is False


def test_an_old_api_shows_the_attachments_with_their_volume(
    server: CinderServer, client: CinderClient
) -> None:
    scene = Scene(server, "detach")
    (attachment,) = client.list_attachments(scene.volume)
    assert attachment.attachment_id == scene.attachment
    assert attachment.instance_id == INSTANCE
    assert (attachment.volume_id, attachment.status) == (scene.volume, "attached")
    assert client.list_attachments(str(uuid.uuid4())) == ()
