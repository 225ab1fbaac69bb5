"""Many volumes: as many as a guest has places for, several on each of several guests, and one of
many whose portal is dead."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.functional import faults
from tests.functional.lab import Cloud, Guest, Host, Result, eventually

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(7200)]

AT_ONCE = 4
FEW = 32
"""Volumes. An export takes Cinder longer the more there are, and its API waits 30 seconds for one
here: with 42 exports four more at once are too much for it, and each attach is undone.
"""
PATIENCE = 3600
"""Seconds. cinder-volume, emulated, exports one volume in ten."""
MEGABYTES = 1
PORTAL_TIMEOUT = 5
"""Seconds: [host] portal_timeout as it is by itself."""
SLACK = 1.15


@pytest.fixture
def make_volumes(cloud: Cloud) -> Iterator[Callable[[int], list[str]]]:
    """Makes so many volumes; all of them are gone behind the test."""
    made: list[str] = []

    def one(_: int) -> None:
        made.append(cloud.volume())

    def make(count: int) -> list[str]:
        before = len(made)
        list(pool.map(one, range(count)))
        return made[before:]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield make
        list(pool.map(cloud.delete, made))


def ask_for_each(
    host: Host, verb: str, pairs: Sequence[tuple[Guest, str]], *, at_once: int
) -> list[tuple[Result, float]]:
    """attachctl for every pair, so many at once: what came of it, and when (monotonic seconds)."""

    def one(pair: tuple[Guest, str]) -> tuple[Result, float]:
        guest, volume = pair
        return host.attachctl(verb, guest.name, volume, timeout=PATIENCE), time.monotonic()

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, pairs))


def attach_each(host: Host, pairs: Sequence[tuple[Guest, str]]) -> None:
    """All must succeed. Some at once, one after another where there are many."""
    results = ask_for_each(host, "attach", pairs[:FEW], at_once=AT_ONCE)
    results += ask_for_each(host, "attach", pairs[FEW:], at_once=1)
    assert [result.err for result, _ in results if result.status != 0] == []


def detach_each(host: Host, pairs: Sequence[tuple[Guest, str]]) -> None:
    """All must succeed. Some at once, one after another while there are many."""
    results = ask_for_each(host, "detach", pairs[FEW:], at_once=1)
    results += ask_for_each(host, "detach", pairs[:FEW], at_once=AT_ONCE)
    assert [result.err for result, _ in results if result.status != 0] == []


def assert_all_attached(host: Host, cloud: Cloud, pairs: Sequence[tuple[Guest, str]]) -> None:
    """By every world: each its own session, device, name, and disk in its guest."""
    listed = host.api("attachments")["attachments"]
    assert {(a["guest_name"], a["volume_id"]) for a in listed} == {
        (guest.name, volume) for guest, volume in pairs
    }
    assert len({(a["guest_name"], a["device"]) for a in listed}) == len(pairs)
    assert len({a["wwn"] for a in listed}) == len(pairs)
    sessions = "\n".join(host.sessions())
    for guest, volume in pairs:
        assert cloud.status(volume) == "in-use"
        assert sessions.count(volume) == 1
        assert guest.disk_with_serial(volume) is not None
    audit = host.attachctl("audit", timeout=PATIENCE)
    assert audit.status == 0, audit.out + audit.err


def assert_all_gone(host: Host, cloud: Cloud, pairs: Sequence[tuple[Guest, str]]) -> None:
    """No world knows any of it."""
    everything = "\n".join(host.sessions())
    for guest in {guest.name for guest, _ in pairs}:
        everything += host.domain_xml(guest) + host.domain_xml(guest, inactive=True)
    for _, volume in pairs:
        assert cloud.status(volume) == "available"
        assert volume not in everything
    assert host.api("attachments")["attachments"] == []
    assert host.scsi_disks() == []


def test_as_many_as_a_guest_has_places_for(
    host: Host,
    cloud: Cloud,
    new_guest: Callable[..., Guest],
    make_volumes: Callable[[int], list[str]],
) -> None:
    """24 disks of a virtio guest with 24 free root ports; there is no place for a 25th."""
    places = 24
    guest = new_guest("--ports", str(places))
    *volumes, one_more = make_volumes(places + 1)
    pairs = [(guest, volume) for volume in volumes]
    attach_each(host, pairs)
    assert_all_attached(host, cloud, pairs)
    refused = host.attachctl("attach", guest.name, one_more)
    assert (refused.status, refused.code) == (4, "no-free-slot")
    assert cloud.status(one_more) == "available"
    last = guest.disk_with_serial(volumes[-1])
    assert last is not None
    assert guest.checksum(last, MEGABYTES) != guest.write(last, MEGABYTES)
    detach_each(host, pairs)
    assert_all_gone(host, cloud, pairs)


def test_eight_guests_with_eight_volumes_each(
    host: Host,
    cloud: Cloud,
    new_guest: Callable[..., Guest],
    make_volumes: Callable[[int], list[str]],
) -> None:
    count = 8
    guests = [new_guest("--memory", "128") for _ in range(count)]
    volumes = make_volumes(count * count)
    pairs = [(guests[number % count], volume) for number, volume in enumerate(volumes)]
    attach_each(host, pairs)
    assert_all_attached(host, cloud, pairs)
    detach_each(host, pairs)
    eventually("nothing is open", lambda: not host.open_operations())
    assert_all_gone(host, cloud, pairs)


def test_a_dead_portal_holds_up_nobody_else(
    host: Host,
    cloud: Cloud,
    new_guest: Callable[..., Guest],
    make_volumes: Callable[[int], list[str]],
) -> None:
    """Eight at once, and again with a portal that drops what one of them says to it."""
    count = 8
    guests = [new_guest("--memory", "128") for _ in range(count)]
    pairs = list(zip(guests, make_volumes(count), strict=True))

    def attached_by() -> tuple[list[Result], float]:
        """The results, and the seconds until the last one that succeeded."""
        began = time.monotonic()
        results = ask_for_each(host, "attach", pairs, at_once=count)
        last = max(at for result, at in results if result.status == 0)
        return [result for result, _ in results], last - began

    results, undisturbed = attached_by()
    assert [result.err for result in results if result.status != 0] == []
    detach_each(host, pairs)

    elsewhere = {"method": "PUT", "path": "/attachments/", "rewrite": [":3260", ":3261"]}
    with (
        faults.packets(host, 3261, "drop"),
        faults.cinder_that_fails(host, {**elsewhere, "ahead": 0}),
    ):
        results, disturbed = attached_by()
    (dead,) = [number for number, result in enumerate(results) if result.status != 0]
    assert (results[dead].status, results[dead].code) == (1, "connect-failed")
    assert disturbed <= undisturbed * SLACK + PORTAL_TIMEOUT
    _, without = pairs[dead]
    assert cloud.status(without) == "available"
    alive = [pair for number, pair in enumerate(pairs) if number != dead]
    assert_all_attached(host, cloud, alive)
    detach_each(host, alive)
    assert_all_gone(host, cloud, pairs)
