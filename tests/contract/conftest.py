"""The Cinders that the contract suite holds to the same rules.

A world is a Cinder with volumes to try it on: the in-memory fake, the real client before the HTTP
fake, and (marked ``lab``) the real client, from outside, before the real Cinder of the lab.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import pytest

from attachd import conf
from attachd.cinder.client import CinderClient
from attachd.cinder.retry import Retry
from attachd.cinder.session import CinderSession, load_auth, new_session
from attachd.operations.ports import Cinder
from tests.fakes.cinder import ORPHAN_SECONDS, FakeCinder
from tests.fakes.cinder_client import client_of
from tests.fakes.cinder_http import CinderServer

ROOT = Path(__file__).parents[2]
PREFIX = "contract-"
VOLUME_DEADLINE = 300.0


class CinderWorld(Protocol):
    """A Cinder, and how to make volumes in it.

    ``orphan_timeout``: seconds that it may go on with a request whose caller is gone.
    """

    cinder: Cinder
    orphan_timeout: float

    def new_volume(self, *, name: str | None = None) -> str:
        """Make an available volume of 1 GiB; return its id."""

    def orphan(self, verb: str, request: Callable[[], object]) -> AbstractContextManager[None]:
        """A request whose caller died comes to its effect inside, a little later, or when left."""


class _DeadError(Exception):
    """The caller of a request is gone."""


class _Fake:
    orphan_timeout = ORPHAN_SECONDS

    def __init__(self) -> None:
        self.fake = FakeCinder()
        self.cinder: Cinder = self.fake

    def new_volume(self, *, name: str | None = None) -> str:
        return self.fake.add_volume(name=name)

    @contextmanager
    def orphan(self, verb: str, request: Callable[[], object]) -> Iterator[None]:
        self.fake.orphan_next(verb, _DeadError())
        with suppress(_DeadError):
            request()
        yield


class _Http:
    orphan_timeout = 30.0

    def __init__(self, server: CinderServer, client: CinderClient) -> None:
        self.server = server
        self.cinder: Cinder = client

    def new_volume(self, *, name: str | None = None) -> str:
        return self.server.rules.add_volume(name=name).id

    def orphan(self, verb: str, request: Callable[[], object]) -> AbstractContextManager[None]:
        return _soon(request, seconds=0.1)


class _Lab:
    """The lab's Cinder through attachd's own user; it deletes the volumes that it made."""

    def __init__(self, configuration: Path) -> None:
        config = conf.load([], files=[configuration])
        options = config.cinder
        self._session = new_session(auth=load_auth(config, "cinder"), timeout=options.auth_timeout)
        self._adapter = CinderSession(
            session=self._session,
            region_name=options.region_name,
            interface=options.interface,
            connect_timeout=options.connect_timeout,
            request_timeout=options.request_timeout,
            query_timeout=options.query_timeout,
        )
        self.cinder: Cinder = CinderClient(
            session=self._adapter,
            retry=Retry(
                tries=options.retries + 1,
                deadline=options.retry_deadline,
                pause=options.retry_pause,
            ),
            delete_timeout=options.delete_timeout,
            orphan_timeout=options.orphan_timeout,
            extend_timeout=options.extend_timeout,
        )
        self.orphan_timeout: float = options.orphan_timeout
        self._volumes: list[str] = []

    def orphan(self, verb: str, request: Callable[[], object]) -> AbstractContextManager[None]:
        return _soon(request, seconds=2)

    def new_volume(self, *, name: str | None = None) -> str:
        body = {"volume": {"size": 1, "name": name or f"{PREFIX}{uuid.uuid4()}"}}
        response = self._adapter.exchange("POST", "/volumes", body=body)
        volume_id: str = response.json()["volume"]["id"]
        self._volumes.append(volume_id)
        self._wait_until(volume_id, "available")
        return volume_id

    def _wait_until(self, volume_id: str, status: str | None) -> None:
        deadline = time.monotonic() + VOLUME_DEADLINE
        while (volume := self.cinder.get_volume(volume_id)) is not None or status is not None:
            found = volume.status if volume else None
            if found == status:
                return
            assert time.monotonic() < deadline, f"volume {volume_id} is {found}, not {status}"
            time.sleep(1)

    def close(self) -> None:
        """Delete what is left of each volume."""
        for volume_id in self._volumes:
            for attachment in self.cinder.list_attachments(volume_id):
                self.cinder.delete_attachment(attachment.attachment_id)
            self._adapter.exchange("DELETE", f"/volumes/{volume_id}")
            self._wait_until(volume_id, None)
        self._session.session.close()


@contextmanager
def _soon(request: Callable[[], object], *, seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, request)
    timer.start()
    try:
        yield
    finally:
        timer.join()


@pytest.fixture(scope="session")
def lab_configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of the lab's attachd; its URLs hold outside of the lab as well."""
    if not json.loads(_lab("status", "--json")).get("ready"):
        _lab("up")
    configuration = _lab("ssh", "--", "cat", "/etc/attachd/attachd.conf")
    path = tmp_path_factory.mktemp("lab") / "attachd.conf"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(configuration)
    return path


def _lab(*arguments: str) -> bytes:
    done = subprocess.run(
        [ROOT / "tools" / "lab", *arguments], stdout=subprocess.PIPE, check=True, timeout=1800
    )
    return done.stdout


@pytest.fixture(params=["fake", "http", pytest.param("lab", marks=pytest.mark.lab)])
def cinder_world(request: pytest.FixtureRequest) -> Iterator[CinderWorld]:
    """Each of the three in turn."""
    worlds: dict[str, Any] = {"fake": _fake_world, "http": _http_world, "lab": _lab_world}
    yield from worlds[request.param](request)


def _fake_world(_: pytest.FixtureRequest) -> Iterator[CinderWorld]:
    yield _Fake()


def _http_world(_: pytest.FixtureRequest) -> Iterator[CinderWorld]:
    patience = _Http.orphan_timeout
    with CinderServer() as server, client_of(server, orphan_timeout=patience) as client:
        yield _Http(server, client)


def _lab_world(request: pytest.FixtureRequest) -> Iterator[CinderWorld]:
    world = _Lab(request.getfixturevalue("lab_configuration"))
    yield world
    world.close()
