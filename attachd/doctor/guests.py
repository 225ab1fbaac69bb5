"""libvirt's checks: versions, the guests' free slots, Nova's guests among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attachd.doctor.catalogue import Check, Fault
from attachd.doctor.examination import BarredError, Examination, single
from attachd.doctor.findings import Finding, failed, fine, unseen, wrong
from attachd.doctor.ports import Guests, Host
from attachd.errors import AttachdError
from attachd.model import Bus, Guest
from attachd.vitals import NOVA_COMPUTE, Neighbour, Version, spelled_version

HOOK_DIRECTORY_SINCE = (6, 5, 0)
"""Of libvirt: before it, hooks/qemu.d isn't looked into (libvirt.org/hooks.html)."""


def examinations(guests: Guests, host: Host) -> tuple[Examination, ...]:
    """All of them."""
    return (
        Examination(
            checks=(Check.LIBVIRT, Check.QEMU, Check.FREE_SLOTS),
            look=lambda: _look_at_libvirt(guests),
        ),
        single(Check.NOVA, lambda: _look_for_nova(guests, host)),
    )


def _look_at_libvirt(guests: Guests) -> Iterator[Finding]:
    try:
        versions = guests.versions()
    except AttachdError as exc:
        yield failed(Fault.LIBVIRT_UNAVAILABLE, exc)
        raise BarredError(Fault.LIBVIRT_UNAVAILABLE) from exc
    yield libvirt(versions.libvirt)
    yield qemu(versions.qemu)
    yield from free_slots(guests.all())


def libvirt(version: Version) -> Finding:
    """Is it new enough for attachd's hook?"""
    if version < HOOK_DIRECTORY_SINCE:
        return wrong(Fault.LIBVIRT_TOO_OLD, f"libvirt is {spelled_version(version)}.")
    return fine(Check.LIBVIRT, f"libvirt {spelled_version(version)} answers.")


def qemu(version: Version | None) -> Finding:
    """Can a lost unplug be repeated?"""
    if version is None:
        return unseen(
            Check.QEMU,
            "libvirt finds no QEMU.",
            remedy="Install QEMU for this machine's architecture (qemu-system-x86).",
        )
    if not repeats_unplug(version):
        return wrong(Fault.QEMU_UNPLUG_FIX_MISSING, f"QEMU is {spelled_version(version)}.")
    return fine(Check.QEMU, f"QEMU {spelled_version(version)} takes repeated unplugs.")


def repeats_unplug(version: Version) -> bool:
    """Does it take a second device_del of a device whose first one was lost?

    QEMU 5.0 began to refuse it ("Forbid repeated device_del"); for ACPI's hot-plug, which q35 has
    by default since 6.1, that was mended in 8.1, and in the stable releases 7.2.3 and 8.0.1
    ("allow repeating hot-unplug requests", libvirt#309).
    """
    return version < (5, 0, 0) or (7, 2, 3) <= version < (8, 0, 0) or version >= (8, 0, 1)


def free_slots(guests: Iterable[Guest]) -> list[Finding]:
    """One finding for each running guest."""
    running = [guest for guest in guests if guest.state.live]
    if not running:
        return [fine(Check.FREE_SLOTS, "No guest runs.")]
    return [_slots_of(guest) for guest in running]


def _slots_of(guest: Guest) -> Finding:
    virtio = guest.free_slots.get(Bus.VIRTIO)
    room = ", ".join(f"{_count(free)} on {bus}" for bus, free in guest.free_slots.items())
    found = f"Guest {guest.name} can take more volumes: {room}."
    return wrong(Fault.NO_FREE_SLOT, found) if virtio == 0 else fine(Check.FREE_SLOTS, found)


def _count(free: int | None) -> str:
    return "any number" if free is None else str(free)


def _look_for_nova(guests: Guests, host: Host) -> Finding:
    compute = [each for each in host.neighbours() if each.program == NOVA_COMPUTE]
    try:
        owned = [guest.name for guest in guests.all() if guest.nova_owned]
    except AttachdError:
        if not compute:
            raise
        owned = []
    return nova(compute, owned)


def nova(compute: Iterable[Neighbour], owned: list[str]) -> Finding:
    """``compute``: nova-compute's processes; ``owned``: the names of guests with Nova's mark."""
    signs = [f"nova-compute runs (process {each.pid})" for each in compute]
    if owned:
        signs.append(f"Nova's guests: {', '.join(sorted(owned))}")
    if signs:
        return wrong(Fault.NOVA_ON_HOST, f"{'; '.join(signs)}.")
    return fine(Check.NOVA, "There is no nova-compute, and no guest of Nova's.")
