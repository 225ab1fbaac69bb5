"""Who may come in, by the kernel's word on who is there."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path

import pytest

from attachd.api.openapi import ALL_ROUTES
from attachd.api.peers import GroupRule, Peer, peer_of
from attachd.api.routes import Route
from tests.fakes.engine import FakeEngine
from tests.unit.serving import Connection, ask, serving

STRANGER = 54321
ELSEWHERE = 54322


@pytest.fixture(autouse=True)
def somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon runs as a user that none of the peers is."""
    monkeypatch.setattr(os, "geteuid", lambda: 54323)


def test_root_may() -> None:
    assert GroupRule(gid=None)(Peer(pid=1, uid=0, gid=0))


def test_the_daemons_own_user_may_even_after_it_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = GroupRule(gid=None)
    peer = Peer(pid=1, uid=STRANGER, gid=STRANGER)
    assert not rule(peer)
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    assert rule(peer)


def test_without_credentials_nobody_may() -> None:
    assert not GroupRule(gid=0)(None)


def test_a_process_of_the_group_may() -> None:
    assert GroupRule(gid=ELSEWHERE)(Peer(pid=1, uid=STRANGER, gid=ELSEWHERE))
    assert not GroupRule(gid=ELSEWHERE)(Peer(pid=1, uid=STRANGER, gid=STRANGER))


def test_where_there_is_no_group_nobody_is_in_it() -> None:
    assert not GroupRule(gid=None)(Peer(pid=1, uid=STRANGER, gid=STRANGER))


def test_a_user_of_the_group_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the process's own group, but its user's, by the user database."""
    user = pwd.getpwnam("nobody")
    members = {user.pw_name: [user.pw_gid, ELSEWHERE]}
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: members.get(name, [gid]))

    assert GroupRule(gid=ELSEWHERE)(Peer(pid=1, uid=user.pw_uid, gid=user.pw_gid))
    assert not GroupRule(gid=STRANGER)(Peer(pid=1, uid=user.pw_uid, gid=user.pw_gid))


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"X_REMOTE_UID": "0", "X_REMOTE_GID": "0"},
        {"X_REMOTE_PID": "1", "X_REMOTE_UID": "root", "X_REMOTE_GID": "0"},
        {"HTTP_X_REMOTE_PID": "1", "HTTP_X_REMOTE_UID": "0", "HTTP_X_REMOTE_GID": "0"},
    ],
)
def test_half_a_word_is_none(environ: dict[str, str]) -> None:
    assert peer_of(environ) is None


def test_the_kernel_is_asked_on_every_request(tmp_path: Path) -> None:
    """The real SO_PEERCRED; and headers that claim something else change nothing."""
    path = tmp_path / "attachd.sock"
    seen: list[Peer | None] = []

    def remember(peer: Peer | None) -> bool:
        seen.append(peer)
        return len(seen) < 3

    with serving(FakeEngine(), path, authorise=remember):
        connection = Connection(path)
        statuses = []
        for _ in range(3):
            connection.request(
                "GET", "/v1/health", headers={"X_REMOTE_UID": "1", "X-REMOTE-UID": "1"}
            )
            statuses.append(connection.answer().status)
        connection.close()

    assert statuses == [200, 200, 403]
    assert set(seen) == {Peer(pid=os.getpid(), uid=os.getuid(), gid=os.getgid())}


@pytest.mark.parametrize("route", ALL_ROUTES, ids=lambda route: route.name)
def test_no_route_is_for_strangers(tmp_path: Path, route: Route) -> None:
    path = tmp_path / "attachd.sock"
    with serving(FakeEngine(), path, authorise=lambda _peer: False):
        answer = ask(path, route.method, route.path)
    assert (answer.status, answer.document["code"]) == (403, "permission-denied")


def test_the_rule_on_a_real_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own uid in, and out where the daemon is another user's and the group another one."""
    path = tmp_path / "attachd.sock"
    with serving(FakeEngine(), path, authorise=GroupRule(gid=os.getgid())):
        assert ask(path, "GET", "/v1/health").status == 200
    monkeypatch.setattr("attachd.api.peers._ROOT", STRANGER)
    monkeypatch.setattr(os, "getgrouplist", lambda _name, gid: [gid])
    with serving(FakeEngine(), path, authorise=GroupRule(gid=ELSEWHERE)):
        assert ask(path, "GET", "/v1/health").status == 403


@pytest.mark.skipif(os.getuid() != 0, reason="only root can connect as somebody else")
def test_somebody_else_on_a_socket_that_was_opened_too_wide() -> None:
    """The second line of defence, by the kernel's real word on a real stranger."""
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "attachd.sock"
        with serving(FakeEngine(), path, authorise=GroupRule(gid=ELSEWHERE)):
            Path(directory).chmod(0o755)
            path.chmod(0o666)
            stranger = Connection(path)
            os.seteuid(nobody.pw_uid)
            try:
                stranger.connect()
            finally:
                os.seteuid(0)
            stranger.request("GET", "/v1/health")
            refused = stranger.answer()
            stranger.close()
            assert ask(path, "GET", "/v1/health").status == 200

    assert refused.status == 403
    assert refused.document["code"] == "permission-denied"
