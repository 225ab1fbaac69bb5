"""The engine with its real journal, locks and steps, between fakes that keep the worlds' rules."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from attachd.audit.auditor import Auditor
from attachd.audit.repairer import Repairer
from attachd.engine.claims import Claims
from attachd.engine.engine import Engine
from attachd.engine.observers import Observer
from attachd.engine.turns import Turns
from attachd.engine.views import OperationView
from attachd.journal.journal import Journal
from attachd.metrics.exposition import Metrics
from attachd.model import AttachFlow, Bus, OperationKind, Request
from tests.fakes.cinder import FakeCinder
from tests.fakes.guests import FakeGuests
from tests.fakes.host import FakeHost

in_both_styles = pytest.mark.parametrize("flow", list(AttachFlow))
"""Marks a test, or a module, whose bench attaches in the new style, and once more in the old."""

PATIENCE = 30.0
_FULL = 2  # PRAGMA synchronous
RESUME_SECONDS = 0.3
"""What waits goes on by itself no sooner: time for a test to see that it waits."""


class KilledError(BaseException):
    """The end of a process, as far as a thread can tell."""


@dataclass
class Bench:
    """An engine and its worlds; ``recover`` is a new start of the daemon behind its crash.

    ``flow``: the style in which it attaches.
    ``at``: what happens in the worlds at a named moment (see kill_points), once each.
    ``power_cuts``: what the journal didn't wait for the disk with is lost in a crash.
    """

    directory: Path
    cinder: FakeCinder = field(default_factory=FakeCinder)
    host: FakeHost = field(default_factory=FakeHost)
    guests: FakeGuests = field(default_factory=FakeGuests)
    workers: int = 4
    exports_at_once: int = 4
    turn_timeout: float = PATIENCE
    boot_id: str = "first-boot"
    kill_at: str = ""
    at: dict[str, Callable[[], object]] = field(default_factory=dict)
    killed: threading.Event = field(default_factory=threading.Event)
    requests: int = 0
    flow: AttachFlow = AttachFlow.ATTACHMENTS
    observers: Sequence[Observer] = ()
    power_cuts: bool = False

    def __post_init__(self) -> None:
        self.cinder.configure(self.flow)

    def start(self) -> None:
        """A daemon starts."""
        self.journal = Journal(path=self.directory / "journal.db", boot_id=self.boot_id)
        if self.power_cuts:
            self.keep_what_is_on_the_disk()
        self.metrics = Metrics(journal=self.journal)
        self.engine = Engine(
            journal=self.journal,
            claims=Claims(
                journal=self.journal, lock_path=self.directory / "locks", timeout=PATIENCE
            ),
            cinder=self.cinder,
            host=self.host,
            guests=self.guests,
            workers=self.workers,
            turns=Turns(at_once=self.exports_at_once, timeout=self.turn_timeout),
            resume_interval=RESUME_SECONDS,
            reached=self._at,
            observers=(self.metrics.work, *self.observers),
        )
        self.auditor = Auditor(
            journal=self.journal, cinder=self.cinder, host=self.host, guests=self.guests
        )
        self.repairer = Repairer(audit=self.auditor.audit, engine=self.engine)
        self.engine.start()

    def _at(self, name: str) -> None:
        """The worlds change at a moment; the daemon dies at the moment ``kill_at``, once."""
        if (change := self.at.pop(name, None)) is not None:
            change()
        if name == self.kill_at:
            self.kill_at = ""
            self.killed.set()
            raise KilledError

    def keep_what_is_on_the_disk(self) -> None:
        """From here on the journal's files are kept aside as of each commit that is durable."""
        self.power_cuts = True
        transact = self.journal._transact

        def keeping(work: Callable[[], None], *, durable: bool = True) -> None:
            transact(work, durable=durable)
            if self.journal._db.execute("PRAGMA synchronous").fetchone()[0] == _FULL:
                self._copy_journal(self.directory, self.directory / "disk")

        self.journal._transact = keeping  # type: ignore[method-assign]
        self._copy_journal(self.directory, self.directory / "disk")

    def _copy_journal(self, source: Path, target: Path) -> None:
        target.mkdir(exist_ok=True)
        for name in ("journal.db", "journal.db-wal"):
            (target / name).unlink(missing_ok=True)
            if (source / name).exists():
                shutil.copy(source / name, target / name)

    def recover(self) -> None:
        """The daemon was killed; the next one brings everything to its end."""
        assert self.engine.stop(PATIENCE), "the engine left a thread"
        self.journal.close()
        if self.power_cuts:
            self._copy_journal(self.directory / "disk", self.directory)
        self.start()
        self.until_closed()

    def until_closed(self) -> None:
        """Every operation comes to its end by itself."""
        deadline = time.monotonic() + PATIENCE
        for row in self.journal.operations():
            while self.journal.operation(row.operation_id).state.open:
                assert time.monotonic() < deadline, self.engine.operation(row.operation_id)
                self.engine.wait(row.operation_id, after=10**6, timeout=0.05)

    def stop(self) -> None:
        """The daemon stops in order."""
        assert self.engine.stop(PATIENCE), "the engine left a thread"
        self.journal.close()

    def submit(self, kind: OperationKind, guest: str, volume: str, **options: Any) -> str:
        """Begin an operation; its id."""
        self.requests += 1
        options.setdefault("request_id", f"request-{self.requests}")
        request = Request(kind=kind, guest=guest, volume=volume, **options)
        return self.engine.submit(request).operation_id

    def rested(self, operation_id: str) -> OperationView:
        """An operation once it rests."""
        after = 0
        while not (view := self.engine.operation(operation_id)).state.resting:
            events = self.engine.wait(operation_id, after=after, timeout=PATIENCE)
            assert events or self.engine.operation(operation_id).state.resting, view
            after = events[-1].seq if events else after
        return view

    def attach(self, guest: str, volume: str, **options: Any) -> OperationView:
        """Attach, to its rest."""
        return self.rested(self.submit(OperationKind.ATTACH, guest, volume, **options))

    def detach(self, guest: str, volume: str) -> OperationView:
        """Detach, to its rest."""
        return self.rested(self.submit(OperationKind.DETACH, guest, volume))

    # --- what the four worlds say -----------------------------------------------------------

    def assert_nothing_left(self, guest_id: str, volume_id: str) -> None:
        """No world has anything of it."""
        assert self.cinder.status(volume_id) == "available"
        assert self.cinder.list_attachments(volume_id) == ()
        assert self.cinder.rules.exports == set()
        assert self.host.devices == ()
        assert self.host.logins == frozenset()
        guest = self.guests.get(guest_id)
        assert guest is None or guest.disks == ()
        assert self.journal.live_attachments() == ()
        assert self.auditor.audit() == ()
        assert self.journal.operations(open_only=True) == ()

    def assert_attached(self, guest_id: str, volume_id: str) -> None:
        """All worlds have it, and agree: the guest in each XML that it has."""
        assert self.cinder.status(volume_id) == "in-use"
        (attachment,) = self.cinder.list_attachments(volume_id)
        assert attachment.status == "attached"
        (record,) = self.journal.live_attachments()
        assert record.state == "attached"
        assert record.attachment_id == attachment.attachment_id
        (device,) = self.host.devices
        assert (record.host_path, record.wwn) == (device.path, device.wwn)
        guest = self.guests.get(guest_id)
        assert guest is not None
        assert guest.state.live or guest.persistent
        documents = [guest.live_disks] if guest.state.live else []
        documents += [guest.config_disks] if guest.persistent else []
        assert sum(map(len, documents)) == len(guest.disks)
        for (disk,) in documents:
            assert (disk.serial, disk.source) == (volume_id, device.path)
            assert (disk.target, disk.bus) == (record.device, Bus.VIRTIO)
        assert self.journal.operations(open_only=True) == ()
        assert self.auditor.audit() == ()
