"""The room over libvirt's own test driver, which needs no daemon; and where there is no libvirt."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import cast
from weakref import ref

import libvirt
import pytest

from attachd.errors import AttachdError, Code, Unreachable, World
from attachd.guest import LibvirtGuests
from attachd.guest.connection import Connection
from attachd.guest.domain_xml import DomainXml
from attachd.guest.domains import Domains
from attachd.guest.event_loop import EventLoop
from attachd.model import Bus, DiskSpec, GuestState, Mode
from attachd.operations.ports import Guests
from tests.unit.guest.domains_xml import domain

SECONDS = 60.0
XML_SECONDS = 1.0
TEST_DRIVER = "test:///default"
Room = Callable[..., LibvirtGuests]


def our_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("libvirt-")]


@pytest.fixture
def room() -> Iterator[Room]:
    """Makes rooms that aren't started yet, and stops them."""
    with ExitStack() as stack:

        def make(uri: str, *, open_timeout: float = SECONDS) -> LibvirtGuests:
            guests = LibvirtGuests(
                uri=uri,
                open_timeout=open_timeout,
                call_timeout=SECONDS,
                keepalive_interval=5,
                keepalive_count=5,
                unplug_timeout=SECONDS,
                unplug_retry_interval=6,
            )
            stack.callback(guests.stop)
            return guests

        yield make
    assert our_threads() == []


def test_it_fulfils_the_port(room: Room) -> None:
    started = room(TEST_DRIVER)
    started.start()
    guests: Guests = started
    guests.check()
    guest = guests.find("test")
    assert guests.get(guest.guest_id) == guest
    assert guests.all() == (guest,)
    assert (guest.state, guest.persistent, guest.nova_owned) == (GuestState.RUNNING, True, False)
    assert [disk.target for disk in guest.live_disks] == ["vda"]


def test_it_tells_its_versions(room: Room) -> None:
    guests = room(TEST_DRIVER)
    guests.start()
    number = libvirt.getVersion()
    versions = guests.versions()
    assert versions.libvirt == (number // 1_000_000, number // 1_000 % 1_000, number % 1_000)
    assert versions.qemu == (0, 0, 2)  # the test driver's own

    nowhere = room("qemu+unix:///system?socket=/nowhere/libvirt-sock", open_timeout=1)
    with pytest.raises(Unreachable):
        nowhere.versions()


def test_what_the_driver_refuses_is_told_in_its_words(room: Room) -> None:
    guests = room(TEST_DRIVER)
    guests.start()
    guest_id = guests.find("test").guest_id
    disk = DiskSpec(
        volume_id="volume-1", source="/dev/null", target="vdz", bus=Bus.VIRTIO, mode=Mode.RW
    )
    with pytest.raises(AttachdError) as caught:
        guests.plug(guest_id, disk)
    assert caught.value.code == Code.GUEST_REFUSED
    assert "attachdevice" in caught.value.problem.details.lower()


def test_a_listener_that_fails_harms_nobody(room: Room) -> None:
    reachable = threading.Event()

    def fails() -> None:
        raise RuntimeError

    guests = room(TEST_DRIVER)
    guests.on_reachable(fails)
    guests.on_reachable(reachable.set)
    guests.start()
    assert reachable.wait(SECONDS)
    guests.check()


def test_no_libvirt(room: Room, tmp_path: Path) -> None:
    guests = room(f"qemu:///system?socket={tmp_path / 'libvirt-sock'}")
    guests.start()
    for call in (guests.check, guests.all, lambda: guests.get("guest"), lambda: guests.find("g")):
        with pytest.raises(Unreachable) as caught:
            call()
        assert (caught.value.code, caught.value.world) == (Code.LIBVIRT_UNAVAILABLE, World.GUEST)
        assert not caught.value.touched
        assert "libvirt-sock" in caught.value.problem.details


def test_a_daemon_that_greets_nobody_holds_up_nobody_for_long(room: Room, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "libvirt-sock"))
        silent.listen()
        uri = f"qemu:///system?socket={tmp_path / 'libvirt-sock'}"
        guests = room(uri, open_timeout=0.5)
        guests.start()
        with pytest.raises(Unreachable) as caught:
            guests.check()
        assert not caught.value.touched
        assert "0.5 s" in caught.value.problem.details


def test_the_event_loop_starts_and_ends_again_and_again() -> None:
    loop = EventLoop()
    loop.stop()
    for _ in range(3):
        loop.start()
        time.sleep(0.05)
        assert our_threads() == ["libvirt-events"]
        loop.stop()
        assert our_threads() == []


class _Slow:
    """A connection whose every guest takes its time to show an XML, and its own only domain."""

    def __init__(self, guests: int, seconds: float = XML_SECONDS) -> None:
        self._guests = guests
        self._seconds = seconds

    def get(self) -> _Slow:
        return self

    def lookupByUUIDString(self, _: str) -> _Slow:  # noqa: N802 - libvirt's name
        return self

    def listAllDomains(self) -> list[_Slow]:  # noqa: N802
        return [self] * self._guests

    def XMLDesc(self, _: int) -> str:  # noqa: N802
        time.sleep(self._seconds)
        return domain("", live=False)

    def isPersistent(self) -> bool:  # noqa: N802
        return True

    def hasManagedSaveImage(self) -> bool:  # noqa: N802
        return False

    def state(self) -> tuple[int, int]:
        return libvirt.VIR_DOMAIN_SHUTOFF, 0


def test_each_xml_has_a_deadline_of_its_own() -> None:
    """libvirt waits 30 s before it shows an XML of a guest whose change hangs."""
    domains = Domains(connection=cast("Connection", _Slow(guests=2)), call_timeout=3.0)
    assert len(list(domains.all())) == 2
    hasty = Domains(connection=cast("Connection", _Slow(guests=1)), call_timeout=0.2)
    with pytest.raises(Unreachable):
        hasty.all()
    eventually_no_thread_of_ours()


def test_no_more_than_one_guests_documents_are_kept_in_memory() -> None:
    domains = Domains(connection=cast("Connection", _Slow(guests=3, seconds=0)), call_timeout=3.0)
    earlier: list[ref[DomainXml]] = []
    for number, reading in enumerate(domains.all()):
        assert [each() for each in earlier] == [None] * number
        earlier += [ref(document) for document in reading.documents]
    assert len(earlier) == 3
    eventually_no_thread_of_ours()


def eventually_no_thread_of_ours() -> None:
    deadline = time.monotonic() + SECONDS
    while our_threads() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert our_threads() == []
