from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from attachd.errors import AttachdError, Code
from attachd.host.portals import answering
from attachd.portal import spelled, split_portal
from tests.unit.host.tree import target


@pytest.fixture
def alive() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def refusing() -> str:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """A full backlog drops what else comes, as a firewall does."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = server.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(address)
        yield f"127.0.0.1:{address[1]}"
        for client in waiting:
            client.close()


def test_a_living_portal(alive: str) -> None:
    assert answering([target(portal=alive)], timeout=10) == (target(portal=alive),)


def test_only_the_living_are_used(alive: str, refusing: str) -> None:
    asked = [target(portal=refusing), target(portal=alive)]
    assert answering(asked, timeout=10) == (target(portal=alive),)


def test_none_alive(refusing: str) -> None:
    with pytest.raises(AttachdError) as caught:
        answering([target(portal=refusing)], timeout=10)
    assert caught.value.code is Code.CONNECT_FAILED
    assert not caught.value.touched
    assert refusing in caught.value.problem.details


def test_a_portal_that_drops_packets(silent: str) -> None:
    with pytest.raises(AttachdError) as caught:
        answering([target(portal=silent)], timeout=0.3)
    assert not caught.value.touched
    assert "0.3 s" in caught.value.problem.details


@pytest.mark.parametrize(
    ("portal", "parts"),
    [
        ("10.0.0.1:3260", ("10.0.0.1", 3260)),
        ("10.0.0.1:3260,1", ("10.0.0.1", 3260)),
        ("[2001:DB8:0::1]:3260", ("2001:db8::1", 3260)),
        ("2001:db8::1:3260", ("2001:db8::1", 3260)),
        ("SAN.example:3260", ("san.example", 3260)),
    ],
)
def test_parts_of_a_portal(portal: str, parts: tuple[str, int]) -> None:
    assert split_portal(portal) == parts


@pytest.mark.parametrize(
    "portal", ["[2001:DB8:0::1]:3260", "[2001:db8::1]:3260,1", "[2001:db8:0:0:0:0:0:1]:3260"]
)
def test_one_spelling(portal: str) -> None:
    assert spelled(portal) == "[2001:db8::1]:3260"
