"""The server on its socket: how it comes to one, and how it stops whatever its clients do."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from attachd.api import sockets
from attachd.api.app import create_app
from attachd.api.server import Server
from attachd.errors import AttachdError, Code
from tests.fakes.engine import FakeEngine
from tests.unit.serving import Connection, ask, connected, serving

BOUND = 50.0
"""Seconds that are far too many for a stop here, and far fewer than one that hangs."""


# --- stopping ---------------------------------------------------------------------------------


def stops(engine: FakeEngine, path: Path) -> None:
    """Leaves the block only when the stop is through; and then no thread is left."""
    began = time.monotonic()
    with serving(engine, path):
        pass
    assert time.monotonic() - began < BOUND


@pytest.fixture(autouse=True)
def no_thread_left() -> object:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_stop_with_idle_connections(engine: FakeEngine, path: Path) -> None:
    """Silent from the start, silent between two requests, silent within one."""
    with serving(engine, path) as server:
        silent = [connected(path) for _ in range(20)]
        kept = Connection(path)
        kept.request("GET", "/v1/health")
        assert kept.answer().status == 200
        half = connected(path)
        half.sendall(b"POST /v1/attachments HTTP/1.1\r\nContent-Length: 10\r\n")
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < BOUND
    for sock in (*silent, half):
        sock.close()
    kept.close()


def test_stop_with_a_follower(engine: FakeEngine, path: Path) -> None:
    engine.hold = True
    with serving(engine, path) as server:
        location = ask(path, "POST", "/v1/attachments", {"guest": "web", "volume": "data"}).headers[
            "Location"
        ]
        follower = connected(path)
        follower.sendall(f"GET {location}/events?after=1&wait=2 HTTP/1.1\r\n\r\n".encode())
        engine.until_waiting(1)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < BOUND
    follower.close()


def test_stop_with_a_client_that_never_reads(engine: FakeEngine, path: Path) -> None:
    engine.volumes["data"] = "v" * 10_000_000
    with serving(engine, path) as server:
        ask(path, "POST", "/v1/attachments", {"guest": "web", "volume": "data"})
        deaf = connected(path)
        deaf.sendall(b"GET /v1/attachments HTTP/1.1\r\n\r\n")
        assert deaf.recv(1)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < BOUND
    deaf.close()


def test_a_stop_does_not_wait_for_the_next_look_at_silent_connections(
    engine: FakeEngine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is far away, for each look costs something while nobody asks."""
    monkeypatch.setattr("attachd.api.server._SILENCE_SECONDS", 10 * BOUND)
    with serving(engine, path) as server:
        assert ask(path, "GET", "/v1/health").status == 200
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < BOUND


def test_silent_connections_take_no_thread(engine: FakeEngine, path: Path) -> None:
    with serving(engine, path, threads=1):
        silent = [connected(path) for _ in range(10)]
        assert ask(path, "GET", "/v1/health").status == 200
        for sock in silent:
            sock.close()


def test_connections_are_bounded(
    engine: FakeEngine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attachd.api.server._MOST_CONNECTIONS", 5)
    with serving(engine, path):
        silent = [connected(path) for _ in range(6)]
        assert silent[-1].recv(1) == b""
        for sock in silent:
            sock.close()


def test_a_server_that_never_started_stops(engine: FakeEngine, path: Path) -> None:
    app = create_app(
        engine=engine,
        auditor=engine,
        repairer=engine,
        doctor=engine,
        metrics=engine,
        authorise=lambda _peer: True,
    )
    sock = sockets.bind(path, gid=None)
    Server(app, sock, threads=1, body_limit=1).stop()
    assert sock.fileno() == -1


# --- a socket of its own ----------------------------------------------------------------------


def test_the_socket_is_for_owner_and_group_alone(tmp_path: Path) -> None:
    for gid, mode in ((os.getgid(), 0o660), (None, 0o600)):
        path = tmp_path / "run" / "attachd.sock"
        with sockets.bind(path, gid=gid):
            found = path.stat()
            assert stat.S_IMODE(found.st_mode) == mode
            assert found.st_gid == os.getgid()
            assert not path.parent.stat().st_mode & stat.S_IRWXO


def test_it_is_never_open_to_others_while_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []

    def chown(path: Path, *_ids: int, **_options: bool) -> None:
        modes.append(stat.S_IMODE(path.stat().st_mode))

    monkeypatch.setattr(os, "chown", chown)
    umask = os.umask(0)
    try:
        with sockets.bind(tmp_path / "attachd.sock", gid=os.getgid()):
            assert modes == [0o600]
    finally:
        os.umask(umask)


def test_a_dead_daemons_socket_is_replaced(tmp_path: Path, engine: FakeEngine) -> None:
    path = tmp_path / "attachd.sock"
    sockets.bind(path, gid=None).close()
    assert path.is_socket()
    stops(engine, path)
    stops(engine, path)


def test_a_living_daemons_socket_is_not(tmp_path: Path, engine: FakeEngine) -> None:
    path = tmp_path / "attachd.sock"
    with serving(engine, path):
        with pytest.raises(AttachdError, match="socket") as caught:
            sockets.bind(path, gid=None)
        assert caught.value.code == Code.CONFIG_INVALID
        assert "Another process listens" in caught.value.problem.details
        assert ask(path, "GET", "/v1/health").status == 200


def test_whatever_else_lies_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "attachd.sock"
    path.write_text("precious")
    with pytest.raises(AttachdError) as caught:
        sockets.bind(path, gid=None)
    assert "not a socket" in caught.value.problem.details
    assert path.read_text() == "precious"


def test_a_directory_for_everybody_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(AttachdError) as caught:
        sockets.bind(tmp_path / "attachd.sock", gid=None)
    assert "Everybody may write" in caught.value.problem.details


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(AttachdError) as caught:
        sockets.bind(tmp_path / ("x" * 200), gid=None)
    assert "too long" in caught.value.problem.details


def test_a_group_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    assert sockets.group_id("no-such-group-here") is None
    assert "no-such-group-here" in caplog.text
    assert sockets.group_id("root") == 0


# --- systemd's socket -------------------------------------------------------------------------


def environ(pid: int, count: str = "1") -> dict[str, str]:
    return {"LISTEN_PID": str(pid), "LISTEN_FDS": count, "LISTEN_FDNAMES": "attachd", "HOME": "/"}


def test_what_is_not_meant_for_us_is_left_alone() -> None:
    for variables in ({}, {"LISTEN_PID": "", "LISTEN_FDS": "1"}, environ(1)):
        assert sockets.inherited_socket(variables) is None
        assert "LISTEN_PID" not in variables
        assert "LISTEN_FDS" not in variables


@pytest.mark.parametrize("count", ["0", "2", "", "x"])
def test_anything_but_one_socket_is_refused(count: str) -> None:
    with pytest.raises(AttachdError, match="socket"):
        sockets.inherited_socket(environ(os.getpid(), count))


ACTIVATED = """
import os, sys
from pathlib import Path
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
from attachd.api.app import create_app
from attachd.api.server import Server
from attachd.api.sockets import listening_socket
from attachd.errors import AttachdError
from tests.fakes.engine import FakeEngine

def remember(peer):
    print(peer.uid, peer.pid, flush=True)
    return True

try:
    sock = listening_socket(Path("/nonexistent/attachd.sock"), gid=None)
except AttachdError as exc:
    sys.exit(exc.problem.details)
assert not os.get_inheritable(sock.fileno())
assert not [name for name in os.environ if name.startswith("LISTEN_")]
engine = FakeEngine()
app = create_app(
    engine=engine,
    auditor=engine,
    repairer=engine,
    doctor=engine,
    metrics=engine,
    authorise=remember,
)
server = Server(app, sock, threads=2, body_limit=65536)
server.start()
print("ready", flush=True)
sys.stdin.read()
server.stop()
"""


def activated(sock: socket.socket) -> subprocess.Popen[str]:
    """A daemon to which ``sock`` was handed over as systemd does it."""
    return subprocess.Popen(
        [sys.executable, "-c", ACTIVATED, str(sock.fileno())],
        pass_fds=[sock.fileno()],
        env={**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "attachd.socket"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_socket_activation_keeps_the_peers_credentials(tmp_path: Path) -> None:
    path = tmp_path / "systemd.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))
        sock.listen()
        with activated(sock) as daemon:
            assert daemon.stdout is not None
            assert daemon.stdout.readline() == "ready\n"
            answer = ask(path, "GET", "/v1/health")
            peer = daemon.stdout.readline()
            _, errors = daemon.communicate(timeout=60)
        assert daemon.returncode == 0, errors
        assert answer.status == 200
        assert peer == f"{os.getuid()} {os.getpid()}\n"
        connected(path).close()  # systemd goes on listening for the next one


def test_a_tcp_socket_is_no_place_for_it() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        with activated(sock) as daemon:
            _, errors = daemon.communicate(timeout=60)
    assert daemon.returncode == 1
    assert "not a listening Unix stream socket" in errors
