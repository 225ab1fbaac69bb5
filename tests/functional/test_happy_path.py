"""The main job on real parts: bytes written in one guest are read in another."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.functional.lab import Guest, Host, Worlds, eventually

MEGABYTES = 4


@pytest.mark.cloud
def test_bytes_go_from_one_running_guest_to_another(
    host: Host, worlds: Worlds, guest: Guest, new_guest: Callable[..., Guest], volume: str
) -> None:
    attached = host.attachctl("attach", guest.name, volume, "-f", "json")
    assert attached.status == 0, attached.err
    attachment = attached.json
    assert attachment["state"] == "attached"
    assert attachment["guest_name"] == guest.name
    assert attachment["serial"] == volume
    assert (attachment["bus"], attachment["mode"]) == ("virtio", "rw")
    disk = worlds.assert_attached(guest, volume, attachment)
    written = guest.write(disk, MEGABYTES)

    again = host.attachctl("attach", guest.name, volume)
    assert (again.status, again.code) == (4, "already-attached")
    other = new_guest()
    elsewhere = host.attachctl("attach", other.name, volume)
    assert (elsewhere.status, elsewhere.code) == (4, "volume-not-available")
    assert guest.checksum(disk, MEGABYTES) == written

    detached = host.attachctl("detach", guest.name, volume)
    assert detached.status == 0, detached.err
    assert guest.disk_with_serial(volume) is None
    worlds.assert_nothing_left(volume, guest)

    attached = host.attachctl("attach", other.name, volume, "-f", "json")
    assert attached.status == 0, attached.err
    disk = worlds.assert_attached(other, volume, attached.json)
    assert other.checksum(disk, MEGABYTES) == written
    assert host.attachctl("detach", other.name, volume).status == 0
    worlds.assert_nothing_left(volume, guest, other)


@pytest.mark.cloud
def test_two_volumes_of_one_guest_and_a_chosen_name(
    host: Host, worlds: Worlds, guest: Guest, new_volume: Callable[..., str]
) -> None:
    first, second = new_volume(), new_volume()
    running = [
        host.attachctl_in_background("attach", guest.name, first, "--device", "vdq", "-f", "json"),
        host.attachctl_in_background("attach", guest.name, second, "--mode", "ro", "-f", "json"),
    ]
    outputs = [process.communicate(timeout=600) for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs

    listed = host.attachctl("list", "--guest", guest.name, "-f", "json").json
    by_volume = {attachment["volume_id"]: attachment for attachment in listed}
    assert by_volume[first]["device"] == "vdq"
    taken = host.attachctl("attach", guest.name, second, "--device", "vdq")
    assert taken.status == 4
    disk = worlds.assert_attached(guest, second, by_volume[second])
    assert guest.do("cat", f"/sys/block/{disk}/ro").strip() == "1"

    assert host.attachctl("detach", guest.name, first).status == 0
    worlds.assert_nothing_left(first)
    worlds.assert_attached(guest, second, by_volume[second])
    assert host.attachctl("detach", guest.name, second).status == 0
    worlds.assert_nothing_left(second, guest)


@pytest.mark.cloud
def test_a_stopped_guest_gets_its_disk_when_it_starts(
    host: Host, worlds: Worlds, new_guest: Callable[..., Guest], volume: str
) -> None:
    stopped = new_guest("--stopped")
    attached = host.attachctl("attach", stopped.name, volume, "-f", "json")
    assert attached.status == 0, attached.err
    assert stopped.start().status == 0
    worlds.assert_attached(stopped, volume, attached.json)
    host.do("virsh", "destroy", stopped.name)
    assert host.attachctl("detach", stopped.name, volume).status == 0
    worlds.assert_nothing_left(volume, stopped)


def test_an_attach_without_waiting_can_be_followed(
    host: Host, worlds: Worlds, guest: Guest, volume: str
) -> None:
    begun = host.attachctl("attach", guest.name, volume, "--no-wait", "-f", "json")
    assert begun.status == 0, begun.err
    operation = begun.json.get("operation_id") or begun.json["id"]

    def ended() -> bool:
        shown = host.attachctl("operation", "show", operation, "-f", "json")
        assert shown.status == 0, shown.err
        return bool(shown.json["state"] == "done")

    eventually("the operation is done", ended)
    steps = host.attachctl("operation", "show", operation, "-f", "json").json["steps"]
    assert [step["name"] for step in steps] == [
        "precheck",
        "reserve",
        "create",
        "update",
        "connect",
        "identify",
        "plug",
        "complete",
        "remember",
    ]
    timed_out = host.attachctl("detach", guest.name, volume, "--timeout", "1")
    assert timed_out.status == 7, timed_out.err
    eventually("nothing is open", lambda: not host.open_operations())
    worlds.assert_nothing_left(volume, guest)


@pytest.mark.cloud
def test_the_lab_gives_up_its_guest(host: Host, new_guest: Callable[..., Guest]) -> None:
    """What the other tests rest on: a command inside a guest has its own exit status."""
    guest = new_guest()
    assert guest.run("sh", "-c", "exit 7").status == 7
    assert host.run("lab-guest", "exec", "no-such-guest", "--", "true").status != 0
