"""The two ways in which the guest world fails: it could not be asked, or it said no."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from attachd.errors import AttachdError, Code, Unreachable, World

_LOOK_AT_LIBVIRT = (
    "The logs of the libvirt daemon and of the guest (/var/log/libvirt/qemu) say more."
)


def unavailable(details: str, *, touched: bool) -> Unreachable:
    """libvirt could not be asked."""
    return Unreachable(
        Code.LIBVIRT_UNAVAILABLE,
        "libvirt doesn't answer.",
        world=World.GUEST,
        touched=touched,
        details=details,
        resolution="Look at the libvirt daemon: systemctl status libvirtd virtqemud.",
    )


def refused(
    brief: str, details: object, *, touched: bool, resolution: str = _LOOK_AT_LIBVIRT
) -> AttachdError:
    """libvirt, or the guest, answered no."""
    return AttachdError(
        Code.GUEST_REFUSED,
        brief,
        details=str(details),
        resolution=resolution,
        touched=touched,
    )


def saved(guest: str) -> AttachdError:
    """The guest goes on with the disks of its save image, whatever is done to its XML."""
    return AttachdError(
        Code.GUEST_SAVED,
        f"Guest {guest} is saved: its disks can't be changed now.",
        resolution=f"Start it (virsh start {guest}), or give its memory up: virsh "
        f"managedsave-remove {guest}",
        touched=False,
    )


@contextlib.contextmanager
def touching() -> Iterator[None]:
    """Whatever fails in here fails after something may have changed, even a mere look."""
    try:
        yield
    except AttachdError as exc:
        exc.touched = True
        raise
