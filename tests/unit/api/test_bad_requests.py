"""Whatever is sent: a problem+json answer, nothing handed to the engine, and the daemon lives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from attachd.api.peers import Peer
from tests.fakes.engine import FakeEngine
from tests.unit.serving import BODY_LIMIT, Answer, Connection, ask, ask_raw, connected, serving

WANTED = {"guest": "web", "volume": "data"}
HUNDRED_MB = 100 * 1024 * 1024


def refused(answer: Answer, status: int, code: str = "bad-request") -> Answer:
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert set(answer.document) == {
        "type",
        "title",
        "status",
        "code",
        "brief",
        "details",
        "resolution",
    }
    assert answer.document["code"] == code
    assert answer.document["status"] == status
    return answer


@pytest.fixture(scope="module")
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture(scope="module")
def served(engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One server for all: each test leaves it alive."""
    path = tmp_path_factory.mktemp("api") / "attachd.sock"
    with serving(engine, path):
        yield path


@pytest.fixture(autouse=True)
def alive_and_untouched(served: Path, engine: FakeEngine) -> Iterator[None]:
    yield
    assert engine.requests == []
    assert ask(served, "GET", "/v1/health").status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nothing",
        b'{"guest": "web", "volume": "data"} x',
        b'{"guest": "web", "volume": "data", "guest": "db"}',
        b'{"guest": "web", "volume": NaN}',
        b'{"guest": "w\xff", "volume": "data"}',
        b'{"guest": "web", "volume": "\\ud800"}',
        b'{"guest": "web", "volume": "data", "\\udfff": 1}',
        b'\xef\xbb\xbf{"guest": "web", "volume": "data"}',
        b'{"guest": ' + b"1" * 5000 + b"}",
        b"[" * 30000,
        b'{"guest":' * 6000,
        json.dumps(WANTED).encode("utf-16"),
    ],
)
def test_what_is_no_json(served: Path, body: bytes) -> None:
    refused(ask(served, "POST", "/v1/attachments", body), 400)


@pytest.mark.parametrize("body", [[], "web", 1, None, True])
def test_what_is_no_object(served: Path, body: object) -> None:
    refused(ask(served, "POST", "/v1/attachments", json.dumps(body).encode()), 400)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({}, "'guest' is a required property; 'volume' is a required property"),
        ({"guest": "web"}, "'volume' is a required property"),
        ({**WANTED, "colour": "red", "size": 1}, "unknown: 'colour', 'size'"),
        ({**WANTED, "a\nb" * 100: 1}, "unknown: 'a\\nb"),
        ({**WANTED, "guest": 7}, "guest must be of type string"),
        ({**WANTED, "guest": None}, "guest must be of type string"),
        ({**WANTED, "guest": ["web"]}, "guest must be of type string"),
        ({**WANTED, "guest": ""}, "guest must not be empty"),
        ({**WANTED, "guest": "g" * 256}, "guest must not be longer than 255 characters"),
        ({**WANTED, "volume": "da\0ta"}, "volume must not contain control characters"),
        ({**WANTED, "volume": "data\n"}, "volume must not contain control characters"),
        ({**WANTED, "bus": "ide"}, "bus must be one of virtio, scsi"),
        ({**WANTED, "mode": "RW"}, "mode must be one of rw, ro"),
        ({**WANTED, "override_nova": 1}, "override_nova must be of type boolean"),
        ({**WANTED, "override_nova": "yes"}, "override_nova must be of type boolean"),
        ({**WANTED, "request_id": ""}, "request_id must not be empty"),
        ({**WANTED, "request_id": "r" * 129}, "request_id must not be longer than 128 characters"),
    ],
)
def test_what_breaks_the_schema(served: Path, body: object, complaint: str) -> None:
    answer = refused(ask(served, "POST", "/v1/attachments", body), 400)

    assert complaint in str(answer.document["details"])
    assert len(str(answer.document["details"])) < 300


def test_unusual_names_are_none_of_its_business(served: Path, engine: FakeEngine) -> None:
    wanted = {"guest": "Büro 'x'; drop table", "volume": "☃" * 255}

    assert ask(served, "POST", "/v1/attachments", wanted).status == 202

    assert (engine.requests[0].guest, engine.requests[0].volume) == tuple(wanted.values())
    engine.requests.clear()


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_content_type(served: Path, content_type: str) -> None:
    body = json.dumps(WANTED).encode()
    refused(ask(served, "POST", "/v1/attachments", body, content_type=content_type), 415)


def test_a_charset_is_no_other_content_type(served: Path, engine: FakeEngine) -> None:
    body = json.dumps(WANTED).encode()
    kind = "application/json; charset=utf-8"
    assert ask(served, "POST", "/v1/attachments", body, content_type=kind).status == 202
    engine.requests.clear()


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/v1/attachments?guests=web"),
        ("GET", "/v1/attachments?guest="),
        ("GET", "/v1/attachments?guest=a&guest=b"),
        ("GET", "/v1/attachments?guest=a%00"),
        ("GET", "/v1/operations?open=yes"),
        ("GET", "/v1/operations?open=1"),
        ("GET", "/v1/operations?limit=0"),
        ("GET", "/v1/operations?limit=1001"),
        ("GET", "/v1/operations?limit=many"),
        ("GET", "/v1/operations?before="),
        ("GET", "/v1/guests?limit=0"),
        ("GET", "/v1/attachments?limit=0"),
        ("GET", "/v1/attachments?limit=1001"),
        ("GET", "/v1/volumes?limit=-1"),
        ("GET", "/v1/volumes?status="),
        ("GET", "/v1/operations/x/events?after=-1"),
        ("GET", "/v1/operations/x/events?after=1.5"),
        ("GET", "/v1/operations/x/events?after=" + "9" * 5000),
        ("GET", "/v1/operations/x/events?wait=nan"),
        ("GET", "/v1/operations/x/events?wait=inf"),
        ("GET", "/v1/operations/x/events?wait=-1"),
        ("DELETE", "/v1/attachments"),
        ("DELETE", "/v1/attachments?guest=web"),
        ("DELETE", "/v1/attachments?volume=data"),
        ("POST", "/v1/attachments?guest=web"),
    ],
)
def test_a_query_that_breaks_its_schema(served: Path, method: str, target: str) -> None:
    refused(ask(served, method, target, WANTED if method == "POST" else None), 400)


@pytest.mark.parametrize(
    "target",
    ["/", "/v1", "/v1/", "/v2/attachments", "/v1/attachments/", "/v1//attachments", "/v1/%00"],
)
def test_unknown_paths(served: Path, target: str) -> None:
    refused(ask(served, "GET", target), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("PUT", "/v1/attachments", {"GET", "HEAD", "POST", "DELETE"}),
        ("PATCH", "/v1/attachments/x", {"GET", "HEAD", "DELETE"}),
        ("OPTIONS", "/v1/attachments", {"GET", "HEAD", "POST", "DELETE"}),
        ("POST", "/v1/operations", {"GET", "HEAD"}),
        ("DELETE", "/v1/operations/x", {"GET", "HEAD"}),
        ("BREW", "/v1/health", {"GET", "HEAD"}),
    ],
)
def test_unknown_methods(served: Path, method: str, target: str, allowed: set[str]) -> None:
    answer = refused(ask(served, method, target), 405, "method-not-allowed")

    assert set(answer.headers["Allow"].split(", ")) == allowed


# --- size -------------------------------------------------------------------------------------


def padded(size: int) -> bytes:
    document = json.dumps(WANTED).encode()
    return document + b" " * (size - len(document))


def test_a_body_at_the_limit_and_one_above(served: Path, engine: FakeEngine) -> None:
    assert ask(served, "POST", "/v1/attachments", padded(BODY_LIMIT)).status == 202
    engine.requests.clear()
    above = ask(served, "POST", "/v1/attachments", padded(BODY_LIMIT + 1))
    refused(above, 413, "request-too-large")


def test_a_hundred_megabytes_are_not_read(served: Path) -> None:
    """The answer is there before the body is."""
    answer = ask_raw(
        served,
        b"POST /v1/attachments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        + f"Content-Length: {HUNDRED_MB}\r\n\r\n".encode()
        + b"{",
    )

    refused(answer, 413, "request-too-large")
    assert answer.headers["Connection"] == "close"


def test_a_client_that_sends_them_all_the_same_sees_why(served: Path) -> None:
    refused(ask(served, "POST", "/v1/attachments", padded(HUNDRED_MB)), 413, "request-too-large")


@pytest.mark.parametrize("chunk", [1000, 60000, HUNDRED_MB // 4])
def test_a_hundred_megabytes_in_chunks(served: Path, chunk: int) -> None:
    connection = Connection(served)
    body = (b" " * chunk for _ in range(HUNDRED_MB // chunk))
    headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    # A client may have its answer while it is still sending.
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.request("POST", "/v1/attachments", body, headers, encode_chunked=True)
    refused(connection.answer(), 413, "request-too-large")
    connection.close()


def test_a_chunked_body_within_the_limit(served: Path, engine: FakeEngine) -> None:
    connection = Connection(served)
    pieces = (piece for piece in (b'{"guest": "web",', b'"volume": "data"}'))
    headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    connection.request("POST", "/v1/attachments", pieces, headers, encode_chunked=True)
    assert connection.answer().status == 202
    connection.close()
    engine.requests.clear()


# --- what isn't HTTP --------------------------------------------------------------------------

CHUNKED = (
    b"POST /v1/attachments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def with_length(length: bytes, body: bytes = b"{}") -> bytes:
    return (
        b"POST /v1/attachments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: " + length + b"\r\n\r\n" + body
    )


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /v1/health\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET http://elsewhere/ HTTP/1.1\r\n\r\n", 400),
        (b"GET /v1/health HTTP/2.0\r\n\r\n", 505),
        (b"GET /v1/health HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /v1/health HTTP/1.1\r\nX: " + b"x" * 20000 + b"\r\n\r\n", 413),
        (with_length(b"-5"), 400),
        (with_length(b"1_0"), 400),
        (with_length(b"+2"), 400),
        (with_length(b"two"), 400),
        (with_length(b"2\r\nTransfer-Encoding: chunked"), 400),
        (with_length(b"2\r\nTransfer-Encoding: gzip"), 501),
        (CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n", 400),
        (CHUNKED + b"2\r\n{}xx0\r\n\r\n", 400),
        (CHUNKED + b"1;" + b"x" * 300000, 413),
        (CHUNKED + b"7fffffff\r\n{}", 413),
    ],
)
def test_what_is_hardly_http(served: Path, request_bytes: bytes, status: int) -> None:
    answer = ask_raw(served, request_bytes)

    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.document["status"] == status


def test_a_body_that_breaks_off_is_not_acted_upon(served: Path) -> None:
    """What arrived is a whole document; its caller may have meant more, or died."""
    with connected(served) as sock:
        body = json.dumps(WANTED).encode()
        sock.sendall(with_length(str(len(body) + 5).encode(), body))
        sock.shutdown(1)
        assert b"400" in sock.recv(65536)


def test_a_body_that_never_comes(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attachd.api.server._SILENCE_SECONDS", 0.3)
    with serving(engine, tmp_path / "impatient.sock"):
        answer = ask_raw(tmp_path / "impatient.sock", with_length(b"50"))

    refused(answer, 408)


# --- who asks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/v1/attachments", "/v1/operations/x", "/nothing", "/"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "BREW"])
def test_whoever_may_not_learns_nothing(
    engine: FakeEngine, tmp_path: Path, method: str, target: str
) -> None:
    asked: list[Peer | None] = []

    def nobody(peer: Peer | None) -> bool:
        asked.append(peer)
        return False

    with serving(engine, tmp_path / "shut.sock", authorise=nobody):
        answer = refused(
            ask(tmp_path / "shut.sock", method, target, WANTED), 403, "permission-denied"
        )

    assert len(asked) == 1
    assert answer.document["details"] == ""
    assert "Allow" not in answer.headers


def test_a_check_that_fails_is_a_no(engine: FakeEngine, tmp_path: Path) -> None:
    def broken(_peer: Peer | None) -> bool:
        raise OSError("the user database is gone")

    with serving(engine, tmp_path / "shut.sock", authorise=broken):
        refused(ask(tmp_path / "shut.sock", "GET", "/v1/health"), 403, "permission-denied")
