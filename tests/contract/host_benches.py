"""The two hosts that the contract suite holds to the same rules, each with its storage."""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from attachd.model import Chap, Connection, Target
from attachd.operations.ports import Host
from tests.contract.lio import PORTAL, PREFIX, Lio, LioTarget
from tests.fakes.host import FakeHost

MIB = 1024**2
SIZE = 64 * MIB
_HOLD = "import os, sys; os.open(sys.argv[1], os.O_RDONLY); print('open', flush=True); input()"


class HostBench(Protocol):
    """A host and a storage that exports to it."""

    host: Host

    def export(self, *, chap: Chap | None = None) -> Connection:
        """A new target with a LUN of SIZE bytes."""

    def export_beside(self, connection: Connection) -> Connection:
        """One more LUN of the same target."""

    def no_such_lun(self, connection: Connection) -> Connection:
        """A LUN of the same target that isn't there."""

    def replace_lun(self, connection: Connection) -> None:
        """Put another LUN, with a WWN of its own, behind the same number."""

    def grow(self, connection: Connection, size_bytes: int) -> None:
        """The storage extends the LUN, and tells nobody."""

    def close_portal(self, connection: Connection) -> None:
        """The portal refuses connections from now on."""

    def hold(self, device: str) -> AbstractContextManager[None]:
        """A process has the device open."""

    def orphan_login(self, volume_id: str, connection: Connection) -> AbstractContextManager[None]:
        """A login whose caller died comes about inside, a little later, or when left."""

    def leftovers(self) -> list[str]:
        """Sessions, devices and records of this storage that are on the host."""


class _DeadError(Exception):
    """Who began to log in is gone."""


class FakeBench:
    """FakeHost with its own storage."""

    def __init__(self) -> None:
        self.fake = FakeHost(exports_all=False)
        self.host: Host = self.fake

    def export(self, *, chap: Chap | None = None) -> Connection:
        """A new target with a LUN of SIZE bytes."""
        target = Target(portal=PORTAL, iqn=f"{PREFIX}:{uuid.uuid4().hex[:12]}", lun=0)
        self.fake.export(target, size_bytes=SIZE, chap=chap)
        return Connection(protocol="iscsi", targets=(target,), chap=chap)

    def export_beside(self, connection: Connection) -> Connection:
        """One more LUN of the same target."""
        beside = self.no_such_lun(connection)
        self.fake.export(beside.targets[0], size_bytes=SIZE)
        return beside

    def no_such_lun(self, connection: Connection) -> Connection:
        """A LUN of the same target that isn't there."""
        return _lun_of(connection, 1)

    def replace_lun(self, connection: Connection) -> None:
        """Put another LUN behind the same number."""
        wwn = f"36001405{uuid.uuid4().hex[:25]}"
        self.fake.export(connection.targets[0], size_bytes=SIZE, wwn=wwn)

    def grow(self, connection: Connection, size_bytes: int) -> None:
        """The storage extends the LUN."""
        self.fake.grow(connection.targets[0], size_bytes)

    def close_portal(self, connection: Connection) -> None:
        """The portal refuses connections."""
        self.fake.dead_portals.add(connection.targets[0].portal)

    def hold(self, device: str) -> AbstractContextManager[None]:
        """A process has the device open."""
        return self.fake.held(device)

    @contextmanager
    def orphan_login(self, volume_id: str, connection: Connection) -> Iterator[None]:
        """It comes when it is waited for."""
        self.fake.orphan_next_login(_DeadError())
        with suppress(_DeadError):
            self.host.connect(volume_id, connection)
        yield

    def leftovers(self) -> list[str]:
        """Sessions and devices."""
        return [device.path for device in self.fake.devices] + [iqn for _, iqn in self.fake.logins]


class LabBench:
    """The real room on this machine, in front of a real LIO."""

    def __init__(self, host: Host, lio: Lio) -> None:
        self.host = host
        self.lio = lio
        self._targets: dict[str, LioTarget] = {}

    def export(
        self,
        *,
        chap: Chap | None = None,
        mutual: Chap | None = None,
        portals: Sequence[str] = (PORTAL,),
    ) -> Connection:
        """A new target with a LUN of SIZE bytes.

        ``mutual``: how it proves itself to an initiator that asks.
        """
        target = self.lio.target(
            chap=(chap.username, chap.password) if chap else None,
            mutual=(mutual.username, mutual.password) if mutual else None,
            portals=portals,
        )
        self.lio.put(target, 0, size_bytes=SIZE)
        self._targets[target.iqn] = target
        places = tuple(Target(portal=portal, iqn=target.iqn, lun=0) for portal in portals)
        return Connection(protocol="iscsi", targets=places, chap=chap)

    def export_beside(self, connection: Connection) -> Connection:
        """One more LUN of the same target."""
        self.lio.put(self.target(connection), 1, size_bytes=SIZE)
        return _lun_of(connection, 1)

    def no_such_lun(self, connection: Connection) -> Connection:
        """A LUN of the same target that isn't there."""
        return _lun_of(connection, 7)

    def replace_lun(self, connection: Connection) -> None:
        """Put another LUN behind the same number."""
        self.lio.put(self.target(connection), connection.targets[0].lun, size_bytes=SIZE)

    def grow(self, connection: Connection, size_bytes: int) -> None:
        """The storage extends the LUN."""
        lun = connection.targets[0].lun
        self.lio.grow(self.target(connection), lun, size_bytes=size_bytes)

    def close_portal(self, connection: Connection) -> None:
        """The portal refuses connections."""
        self.lio.close_portal(self.target(connection))

    @contextmanager
    def hold(self, device: str) -> Iterator[None]:
        """A process has the device open."""
        with subprocess.Popen(
            [sys.executable, "-c", _HOLD, device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "open\n"
            yield
            holder.communicate("\n", timeout=120)

    @contextmanager
    def orphan_login(self, volume_id: str, connection: Connection) -> Iterator[None]:
        """The node record is there at once, the login begins two seconds later."""
        node = ["iscsiadm", "-m", "node", "-T", connection.targets[0].iqn, "-p", PORTAL]
        subprocess.run([*node, "--op", "new"], check=True, timeout=120, capture_output=True)
        options = {"check": True, "timeout": 120, "capture_output": True}
        login = threading.Timer(2, subprocess.run, ([*node, "--login"],), options)
        login.start()
        try:
            yield
        finally:
            login.join()

    def leftovers(self) -> list[str]:
        """What iscsiadm and the kernel know of our targets."""
        left = [line for mode in ("session", "node") for line in _iscsiadm(mode) if PREFIX in line]
        names = Path("/sys/class/iscsi_session").glob("*/targetname")
        left += [str(name) for name in names if PREFIX in name.read_text()]
        left += [str(path) for path in Path("/dev/disk/by-path").glob(f"*{PREFIX}*")]
        return left

    def target(self, connection: Connection) -> LioTarget:
        """The target that a connection leads to."""
        return self._targets[connection.targets[0].iqn]


def _lun_of(connection: Connection, lun: int) -> Connection:
    return replace(connection, targets=tuple(replace(t, lun=lun) for t in connection.targets))


def _iscsiadm(mode: str) -> list[str]:
    done = subprocess.run(
        ["iscsiadm", "-m", mode], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode in (0, 21), done.stderr
    return done.stdout.splitlines()
