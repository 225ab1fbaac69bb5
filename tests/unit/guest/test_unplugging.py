"""The moments of an unplug that a real libvirt doesn't offer at will."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from attachd.errors import AttachdError, Code, Unreachable
from attachd.guest.domain_events import DomainEvents
from attachd.guest.domain_xml import DomainXml
from attachd.guest.domains import Answer, Layer
from attachd.guest.failures import refused
from attachd.guest.unplugging import Unplugging
from tests.unit.guest.domains_xml import OUR_DISK, UUID, VOLUME, domain
from tests.unit.guest.scripted_domains import ScriptedDomains, lost

LONG = 60.0
SHORT = 0.5
SOURCE = "/dev/disk/by-id/wwn-0x6001405f"


class GuestDomain:
    """As much of a virDomain as an event brings along."""

    def UUIDString(self) -> str:  # noqa: N802 - libvirt's name
        return UUID


class Bench:
    def __init__(self) -> None:
        self.domains = ScriptedDomains()
        self.events = DomainEvents()
        self.asked_again = 0
        for layer in (Layer.LIVE, Layer.CONFIG):
            self.domains.documents[layer].append(OUR_DISK)

    def unplug(
        self, *, timeout: float = LONG, retry_interval: float = LONG, source: str | None = None
    ) -> None:
        Unplugging(
            domains=self.domains,
            events=self.events,
            timeout=timeout,
            retry_interval=retry_interval,
            asked_again=self._asked_again,
        ).unplug(UUID, VOLUME, source=source)

    def _asked_again(self) -> None:
        self.asked_again += 1

    def fails(
        self, *, timeout: float = LONG, retry_interval: float = LONG, source: str | None = None
    ) -> AttachdError:
        with pytest.raises(AttachdError) as caught:
            self.unplug(timeout=timeout, retry_interval=retry_interval, source=source)
        return caught.value

    def by_another_hand(self) -> None:
        """The disk was plugged without attachd's names; libvirt gives it an alias while it runs."""
        nameless = OUR_DISK.replace(f"<serial>{VOLUME}</serial>", "")
        self.domains.documents = {
            Layer.LIVE: [nameless.replace(f"ua-{VOLUME}", "virtio-disk1")],
            Layer.CONFIG: [nameless.replace(f"<alias name='ua-{VOLUME}'/>", "")],
        }

    def disks(self) -> tuple[int, int]:
        live, config = (self.domains.documents.get(layer, []) for layer in Layer)
        return len(live), len(config)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def after_a_moment(call: Callable[..., None], *args: object) -> None:
    threading.Timer(0.2, call, args).start()


def test_live_first_then_settled_then_persistent(bench: Bench) -> None:
    bench.unplug(retry_interval=0.1)
    assert bench.domains.log == ["detach 1", "settle", "detach 2"]
    assert bench.disks() == (0, 0)


def test_absence_is_not_believed_before_it_has_settled(bench: Bench) -> None:
    bench.domains.remove(Layer.LIVE)
    bench.domains.remove(Layer.CONFIG)
    bench.domains.settles.append(lambda: bench.domains.documents[Layer.LIVE].append(OUR_DISK))
    bench.unplug(retry_interval=0.1)
    assert bench.domains.log == ["settle", "detach 1", "settle"]
    assert bench.disks() == (0, 0)


def test_a_guest_that_refuses_keeps_its_disk_at_once(bench: Bench) -> None:
    bench.domains.detaches.append(Answer.ACCEPTED)
    after_a_moment(bench.events._removal_failed, None, GuestDomain(), f"ua-{VOLUME}", None)
    error = bench.fails()
    assert (error.code, error.touched) == (Code.GUEST_REFUSED, False)
    assert bench.disks() == (1, 1)


def test_another_device_that_is_refused_means_nothing(bench: Bench) -> None:
    bench.domains.detaches.append(Answer.ACCEPTED)
    after_a_moment(bench.events._removal_failed, None, GuestDomain(), "ua-other", None)
    assert bench.fails(timeout=SHORT).code == Code.UNPLUG_TIMEOUT


def test_libvirt_will_never_do_it(bench: Bench) -> None:
    bench.domains.detaches.append(Answer.NEVER)
    error = bench.fails()
    assert (error.code, error.touched) == (Code.GUEST_REFUSED, False)
    assert error.problem.details == "not so"
    assert bench.disks() == (1, 1)


def test_not_now_is_asked_again_until_it_works(bench: Bench) -> None:
    bench.domains.detaches.extend([Answer.NOT_NOW, Answer.NOT_NOW])
    bench.unplug(retry_interval=0.1)
    assert bench.domains.log[:3] == ["detach 1"] * 3
    assert bench.asked_again == 2


def test_not_now_until_the_deadline_leaves_nothing_pending(bench: Bench) -> None:
    bench.domains.detaches.extend([Answer.NOT_NOW] * 100)
    error = bench.fails(timeout=SHORT, retry_interval=0.1)
    assert (error.code, error.touched) == (Code.GUEST_REFUSED, False)


def test_an_unanswered_request_stays_pending_whatever_the_next_answer(bench: Bench) -> None:
    bench.domains.detaches.extend([Answer.ACCEPTED, *[Answer.NOT_NOW] * 100])
    error = bench.fails(timeout=SHORT, retry_interval=0.1)
    assert (error.code, error.touched) == (Code.UNPLUG_TIMEOUT, False)
    assert bench.disks() == (1, 1)


def test_a_disk_that_was_only_half_there_is_made_whole(bench: Bench) -> None:
    bench.domains.remove(Layer.CONFIG)
    bench.domains.detaches.extend([Answer.ACCEPTED] * 100)
    error = bench.fails(timeout=SHORT)
    assert (error.code, error.touched) == (Code.UNPLUG_TIMEOUT, False)
    assert bench.disks() == (1, 1)


def test_another_hands_disk_is_found_by_its_source_alone(bench: Bench) -> None:
    bench.by_another_hand()
    bench.unplug(retry_interval=0.1)
    assert bench.disks() == (1, 1)
    bench.domains.log.clear()
    bench.unplug(retry_interval=0.1, source=SOURCE)
    assert bench.domains.log == ["detach 1", "settle", "detach 2"]
    assert bench.disks() == (0, 0)


def test_another_hands_disk_stays_where_it_was(bench: Bench) -> None:
    """Nobody ever wanted it in the persistent XML, perhaps."""
    bench.by_another_hand()
    bench.domains.remove(Layer.CONFIG)
    bench.domains.detaches.extend([Answer.ACCEPTED] * 100)
    error = bench.fails(timeout=SHORT, source=SOURCE)
    assert (error.code, error.touched) == (Code.UNPLUG_TIMEOUT, False)
    assert bench.disks() == (1, 0)


def test_making_it_whole_may_fail(bench: Bench) -> None:
    bench.domains.remove(Layer.CONFIG)
    bench.domains.detaches.extend([Answer.ACCEPTED] * 100)
    bench.domains.attaches.append(refused("no", "no", touched=False))
    assert bench.fails(timeout=SHORT).touched


def test_out_of_reach_before_anything_left(bench: Bench) -> None:
    bench.domains.reads.append(lost(touched=False))
    error = bench.fails()
    assert isinstance(error, Unreachable)
    assert not error.touched


def test_out_of_reach_with_the_first_request(bench: Bench) -> None:
    bench.domains.detaches.append(lost(touched=False))
    assert not bench.fails().touched


def test_the_answer_to_a_request_is_lost_and_libvirt_comes_back(bench: Bench) -> None:
    bench.domains.detaches.append(lost(touched=True))
    bench.domains.reads.extend([None, lost(touched=False)])
    bench.unplug(retry_interval=0.1)
    assert bench.disks() == (0, 0)


def test_libvirt_stays_away_after_the_request(bench: Bench) -> None:
    bench.domains.detaches.append(lost(touched=True))
    bench.domains.reads.extend([None, *[lost(touched=False) for _ in range(100)]])
    error = bench.fails(timeout=SHORT)
    assert isinstance(error, Unreachable)
    assert error.touched


def test_an_unreadable_guest_is_not_a_gone_disk(bench: Bench) -> None:
    bench.domains.reads.append(refused("unreadable", "/domain/uuid: missing", touched=False))
    assert bench.fails().problem.details == "/domain/uuid: missing"
    assert bench.disks() == (1, 1)


def test_a_busy_guest_is_not_a_gone_disk(bench: Bench) -> None:
    bench.domains.settles.append(refused("busy", "cannot acquire the job", touched=False))
    error = bench.fails(retry_interval=0.1)
    assert error.touched
    assert bench.disks() == (0, 1)


def test_a_persistent_xml_that_keeps_the_disk(bench: Bench) -> None:
    del bench.domains.documents[Layer.LIVE]
    bench.domains.detaches.append(Answer.NEVER)
    error = bench.fails()
    assert (error.code, error.touched) == (Code.GUEST_REFUSED, False)


def test_the_guest_goes_meanwhile(bench: Bench) -> None:
    def go() -> None:
        bench.domains.exists = False
        bench.events._lifecycle(None, GuestDomain(), 5, 0, None)

    bench.domains.detaches.append(Answer.ACCEPTED)
    after_a_moment(go)
    bench.unplug()


def test_stopping_ends_the_wait(bench: Bench) -> None:
    bench.domains.detaches.append(Answer.ACCEPTED)
    after_a_moment(bench.events.stop)
    error = bench.fails()
    assert isinstance(error, Unreachable)
    assert error.touched


def test_stopping_ends_waits_to_come(bench: Bench) -> None:
    bench.events.stop()
    bench.domains.detaches.append(Answer.ACCEPTED)
    assert isinstance(bench.fails(), Unreachable)


def test_listeners_of_removals(bench: Bench) -> None:
    heard: list[tuple[str, str]] = []

    def fails(guest_id: str, alias: str) -> None:
        raise RuntimeError

    bench.events.on_disk_removed(fails)
    bench.events.on_disk_removed(lambda guest_id, alias: heard.append((guest_id, alias)))
    bench.events._device_removed(None, GuestDomain(), "ua-x", None)
    assert heard == [(UUID, "ua-x")]


def test_what_a_save_image_has_stays(bench: Bench) -> None:
    """The guest was saved while it was asked: it may have let go before, or not."""
    del bench.domains.documents[Layer.LIVE]
    bench.domains.saved = DomainXml.parse(domain(OUR_DISK, live=False))
    assert (error := bench.fails()).code is Code.GUEST_SAVED
    assert not error.touched
    assert bench.domains.log == []

    bench.domains.saved = DomainXml.parse(domain("", live=False))
    bench.unplug()
    assert bench.disks() == (0, 0)


def test_a_guest_that_is_saved_while_it_is_asked(bench: Bench) -> None:
    bench.domains.detaches.append(Answer.ACCEPTED)

    def save() -> None:
        bench.domains.saved = DomainXml.parse(domain(OUR_DISK, live=False))
        del bench.domains.documents[Layer.LIVE]
        bench.events.look_again()

    after_a_moment(save)
    error = bench.fails()
    assert (error.code, error.touched) == (Code.GUEST_SAVED, True)
