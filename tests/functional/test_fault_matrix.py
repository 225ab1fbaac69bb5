"""The fault matrix on real parts: a service that goes in the middle, a guest that does.

Whatever an operation comes to, it comes to an end, what it says is true, and by other eyes than
attachd's either all four worlds have the attachment or none has anything of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import openstack.exceptions
import pytest
from keystoneauth1.exceptions import ClientException

from tests.functional import faults
from tests.functional.lab import Cloud, Guest, Host, Worlds, eventually, making_guests

UNDER_WAY = ("accepted", "running")
OPEN = (*UNDER_WAY, "needs-attention")
SHORT = "30"
"""Seconds of a deadline that shall pass."""

CREATE = {"method": "POST", "path": "/attachments", "body": "instance_uuid"}
UPDATE = {"method": "PUT", "path": "/attachments/"}
COMPLETE = {"method": "POST", "path": "/action", "body": "os-complete"}
BEGIN = {"method": "POST", "path": "/action", "body": "os-begin_detaching"}


# --- what is asked for, and what comes of it -----------------------------------------------------


def attach(host: Host, guest: Guest, volume: str) -> None:
    """As a user would; it must succeed."""
    result = host.attachctl("attach", guest.name, volume)
    assert result.status == 0, result.out + result.err


def detach(host: Host, guest: Guest, volume: str) -> None:
    """As a user would; it must succeed."""
    result = host.attachctl("detach", guest.name, volume)
    assert result.status == 0, result.out + result.err


def begin(host: Host, verb: str, guest: Guest, volume: str) -> str:
    """Begin an operation; its id."""
    result = host.attachctl(verb, guest.name, volume, "--no-wait", "-f", "json")
    assert result.status == 0, result.out + result.err
    return str(result.json["operation_id"])


def rested(host: Host, operation: str) -> str:
    """An operation's state once it isn't under way."""
    eventually("it rests", lambda: host.state_of(operation) not in UNDER_WAY)
    return host.state_of(operation)


def ended(host: Host, operation: str) -> str:
    """How it ends when all parts work again: by itself, or resumed as it asks for."""

    def closed() -> bool:
        if host.state_of(operation) == "needs-attention":
            host.attachctl("operation", "resume", operation)
        return host.state_of(operation) not in OPEN

    eventually("it ends", closed)
    return host.state_of(operation)


def begun(host: Host, operation: str, step: str, *, direction: str = "do") -> bool:
    """Was a step, or its undo, begun, whatever has become of the operation?"""
    steps = host.operation(operation)["steps"]
    return (step, direction) in [(s["name"], s["direction"]) for s in steps]


def attachment_of(host: Host, volume: str) -> dict[str, Any] | None:
    """What attachd has of a volume."""
    for attachment in host.api("attachments")["attachments"]:
        if attachment["volume_id"] == volume:
            found: dict[str, Any] = attachment
            return found
    return None


def leave_nothing(host: Host, worlds: Worlds, guest: Guest, volume: str, *, attached: bool) -> None:
    """All four worlds have it, or none has; then it is detached."""
    attachment = attachment_of(host, volume)
    assert (attachment is not None) == attached
    if attachment is not None:
        worlds.assert_attached(guest, volume, attachment)
        detach(host, guest, volume)
    worlds.assert_nothing_left(volume, guest)


# --- the services behind Cinder ------------------------------------------------------------------

SERVICES = {
    "rabbitmq": "rabbitmq-server.service",
    "mariadb": "mariadb.service",
    "keystone": "keystone.service",
    "cinder-api": "cinder-api.service",
    "cinder-volume": "cinder-volume.service",
    "iscsid": "iscsid.service",
    "libvirtd": "libvirtd.service",
}

BEHIND_CINDER = {"cinder-scheduler", "cinder-volume"}
"""Each has a queue of its name."""


def works(host: Host, cloud: Cloud, volume: str) -> bool:
    """Does Cinder answer, are its services up, and do they listen to RabbitMQ again?"""
    try:
        listed = cloud.block.get("/os-services")
        attachments = cloud.block.get(f"/attachments?volume_id={volume}&all_tenants=1")
    except (openstack.exceptions.SDKException, ClientException):
        return False
    if not (listed.ok and attachments.ok):
        return False
    queues = host.run("rabbitmqctl", "--quiet", "list_queues", "name", "consumers")
    if queues.status != 0:
        return False
    rows = [line.split() for line in queues.out.splitlines()]
    listening = {row[0] for row in rows if len(row) == 2 and row[1] not in ("consumers", "0")}
    up = {s["binary"] for s in listed.json()["services"] if s["state"] == "up"}
    return BEHIND_CINDER.issubset(up & listening)


@contextmanager
def without(host: Host, cloud: Cloud, volume: str, service: str) -> Iterator[None]:
    """A service stopped for a while; all of them work again when this is left."""
    try:
        with host.stopped(SERVICES[service]):
            yield
    finally:
        eventually("Cinder works again", lambda: works(host, cloud, volume))


@pytest.mark.parametrize(
    "service", ["mariadb", pytest.param("keystone", marks=pytest.mark.exhaustive)]
)
def test_a_service_is_away_when_an_attach_is_asked_for(
    host: Host, cloud: Cloud, worlds: Worlds, guest: Guest, volume: str, service: str
) -> None:
    with without(host, cloud, volume, service):
        host.restart_attachd()  # it has no token, and needs none to start
        result = host.attachctl("attach", guest.name, volume, "-f", "json")
        assert (result.status, result.json["code"]) == (4, "cinder-unavailable"), result.out
    worlds.assert_nothing_left(volume, guest)
    attach(host, guest, volume)
    leave_nothing(host, worlds, guest, volume, attached=True)


@pytest.mark.exhaustive
def test_keystone_is_stopped_when_attachd_has_a_token(
    host: Host, cloud: Cloud, worlds: Worlds, guest: Guest, volume: str
) -> None:
    """Whether Cinder takes a token that it can't validate anew is Cinder's affair."""
    assert host.attachctl("attach", guest.name, "no-such-volume").status == 3  # with a token
    with without(host, cloud, volume, "keystone"):
        result = host.attachctl("attach", guest.name, volume, "-f", "json")
    assert result.status in (0, 1, 4, 5), result.out + result.err
    if result.status in (1, 4, 5):
        assert result.json["code"] in ("cinder-unavailable", "cinder-refused")
    eventually("nothing is open", lambda: not host.open_operations())
    leave_nothing(host, worlds, guest, volume, attached=attachment_of(host, volume) is not None)


def test_rabbitmq_is_away_from_the_update_on(
    host: Host, cloud: Cloud, worlds: Worlds, guest: Guest, volume: str
) -> None:
    """Cinder's API takes the connector, and can't hand it on to cinder-volume."""
    with without(host, cloud, volume, "rabbitmq"):
        shell = host.attachctl_in_background("attach", guest.name, volume, "-f", "json")
        operation = host.wait_for_step("update", volume)
        time.sleep(10)
    out, err = shell.communicate(timeout=900)
    assert "Traceback" not in out + err
    assert shell.returncode in (0, 1, 5), out + err
    if shell.returncode:
        assert json.loads(out)["code"].startswith("cinder-")
    state = ended(host, operation)
    assert (shell.returncode, state) in ((0, "done"), (1, "undone"), (5, "done"), (5, "undone"))
    leave_nothing(host, worlds, guest, volume, attached=state == "done")


@pytest.mark.parametrize(
    ("verb", "step", "service"),
    [
        pytest.param("attach", "update", "mariadb", marks=pytest.mark.exhaustive),
        pytest.param("attach", "update", "keystone", marks=pytest.mark.exhaustive),
        pytest.param("attach", "update", "cinder-api", marks=pytest.mark.exhaustive),
        ("attach", "update", "cinder-volume"),
        pytest.param("attach", "update", "rabbitmq", marks=pytest.mark.exhaustive),
        pytest.param("attach", "connect", "iscsid", marks=pytest.mark.exhaustive),
        pytest.param("detach", "unplug", "mariadb", marks=pytest.mark.exhaustive),
        ("detach", "unplug", "libvirtd"),
        pytest.param("detach", "unplug", "rabbitmq", marks=pytest.mark.exhaustive),
        pytest.param("detach", "unplug", "cinder-api", marks=pytest.mark.exhaustive),
        pytest.param("detach", "unplug", "cinder-volume", marks=pytest.mark.exhaustive),
        pytest.param("detach", "unplug", "keystone", marks=pytest.mark.exhaustive),
        pytest.param("detach", "unplug", "iscsid", marks=pytest.mark.exhaustive),
    ],
    ids=lambda word: word,
)
def test_a_service_restarts_in_the_middle(
    host: Host,
    cloud: Cloud,
    worlds: Worlds,
    guest: Guest,
    volume: str,
    verb: str,
    step: str,
    service: str,
) -> None:
    if verb == "detach":
        attach(host, guest, volume)
    operation = begin(host, verb, guest, volume)
    eventually(f"{step} was begun", lambda: begun(host, operation, step))
    host.do("systemctl", "restart", SERVICES[service])
    eventually("Cinder works again", lambda: works(host, cloud, volume))
    state = ended(host, operation)
    assert state in ("done", "undone")
    leave_nothing(host, worlds, guest, volume, attached=(verb == "attach") == (state == "done"))


@pytest.mark.parametrize("how", ["stopped", "hung"])
def test_cinder_volume_does_not_delete_the_attachment(
    host: Host, cloud: Cloud, worlds: Worlds, guest: Guest, volume: str, how: str
) -> None:
    """The guest has let go and the host is clear: nothing is left but to wait for Cinder."""
    attach(host, guest, volume)
    unit = SERVICES["cinder-volume"]
    with host.option("cinder", "retries", "0"):
        with host.stopped(unit) if how == "stopped" else faults.hung(host, unit):
            result = host.attachctl("detach", guest.name, volume, "-f", "json")
            assert (result.status, result.json["code"]) == (5, "cinder-unavailable"), result.out
            assert not [line for line in host.sessions() if volume in line]
            assert guest.disk_with_serial(volume) is None
            (operation,) = [o["operation_id"] for o in host.open_operations()]
        eventually("Cinder works again", lambda: works(host, cloud, volume))
        eventually("it goes on by itself", lambda: not host.open_operations())
        assert host.state_of(operation) == "done"
    worlds.assert_nothing_left(volume, guest)


# --- the way to the storage ----------------------------------------------------------------------


def test_the_portal_goes_in_a_disconnect(
    host: Host, worlds: Worlds, guest: Guest, volume: str
) -> None:
    """The kernel's own wait for the target is longer than the disconnect's deadline."""
    attach(host, guest, volume)
    attachment = attachment_of(host, volume)
    assert attachment is not None
    with host.option("host", "disconnect_timeout", SHORT):
        with ExitStack() as portal:
            with faults.held_open(host, attachment["host_path"]):
                operation = begin(host, "detach", guest, volume)
                eventually("it disconnects", lambda: begun(host, operation, "disconnect"))
                portal.enter_context(faults.packets(host, 3260, "drop"))
            assert rested(host, operation) in ("needs-attention", "done")
        assert ended(host, operation) == "done"
    worlds.assert_nothing_left(volume, guest)


@pytest.mark.parametrize(
    "wakes", ["in the roll-back", pytest.param("behind it", marks=pytest.mark.exhaustive)]
)
def test_iscsid_hangs_in_a_connect_and_wakes(
    host: Host, worlds: Worlds, guest: Guest, volume: str, wakes: str
) -> None:
    """It was asked for a login that nobody waits for any more: that must not outlive the undo."""
    with faults.hung(host, SERVICES["iscsid"]):
        operation = host.begin_and_wait_for("connect", "attach", guest.name, volume)
        eventually(
            "the roll-back has begun",
            lambda: begun(host, operation, "connect", direction="undo"),
        )
        if wakes == "behind it":
            assert rested(host, operation) in ("undone", "needs-attention")
    if wakes == "behind it":
        time.sleep(60)  # iscsid's own patience with a login: three tries of 15 seconds
    assert ended(host, operation) == "undone"
    worlds.assert_nothing_left(volume, guest)


def test_a_guest_fills_a_thin_pool(host: Host, worlds: Worlds, guest: Guest, volume: str) -> None:
    """What the guest couldn't write is lost, and known to be; the detach is as clean as any."""
    attach(host, guest, volume)
    disk = guest.disk_with_serial(volume)
    assert disk is not None
    with faults.on_a_pool_that_fills_up(host, volume, megabytes=32):
        write = f"dd if=/dev/zero of=/dev/{disk} bs=1M count=96 conv=fsync"
        full = guest.run("sh", "-c", write)
        assert full.status != 0, "the pool had room for all of it"
        assert host.do("virsh", "domstate", guest.name).strip() == "running"
        detach(host, guest, volume)
        assert guest.disk_with_serial(volume) is None
    worlds.assert_nothing_left(volume, guest)


# --- the guest -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def victim(host: Host) -> Iterator[Guest]:
    """A guest whose plug is pulled again and again."""
    with making_guests(host) as make:
        yield make()


@pytest.fixture
def running(host: Host, victim: Guest) -> Guest:
    """The same, running."""
    if host.do("virsh", "domstate", victim.name).strip() != "running":
        started = victim.start()
        assert started.status == 0, started.err
    return victim


def virsh(verb: str, guest: Guest) -> str:
    """A command that a hanging libvirt can't hold up for ever."""
    return f"timeout 120 virsh {verb} {guest.name}"


def when_the_device_is_there(volume: str, command: str) -> str:
    """In the background: once the volume's device appears on the host."""
    appeared = f"ls /dev/disk/by-path | grep -q {volume}"
    wait = f"for _ in $(seq 600); do if {appeared}; then break; fi; sleep 0.1; done"
    return f"({wait}; {command}) >/dev/null 2>&1 &"


DESTROYED_AT = {
    "create": (CREATE, False),
    "update": (UPDATE, False),
    "connect": (UPDATE, True),
    "complete": (COMPLETE, False),
}
"""By step: the request to Cinder at which, or behind which, the plug is pulled."""


@pytest.mark.parametrize("step", DESTROYED_AT)
def test_a_guest_is_destroyed_in_an_attach(
    host: Host,
    worlds: Worlds,
    running: Guest,
    volume: str,
    step: str,
) -> None:
    """It is a guest that doesn't run, then: the disk goes into its persistent XML."""
    request, behind = DESTROYED_AT[step]
    with faults.at_cinders(host, request, virsh("destroy", running), behind=behind):
        result = host.attachctl("attach", running.name, volume)
    assert result.status == 0, result.out + result.err
    leave_nothing_cold(host, worlds, running, volume, attached=True)


def test_a_guest_is_destroyed_when_the_device_is_there(
    host: Host, worlds: Worlds, running: Guest, volume: str
) -> None:
    """Around identify and plug, whichever it meets."""
    script = when_the_device_is_there(volume, virsh("destroy", running))
    with faults.at_cinders(host, UPDATE, script, behind=True):
        result = host.attachctl("attach", running.name, volume)
        eventually("it was destroyed", lambda: is_shut_off(host, running))
    assert result.status in (0, 1), result.out + result.err
    leave_nothing_cold(host, worlds, running, volume, attached=result.status == 0)


def test_a_guest_is_destroyed_in_the_middle_of_its_plug(
    host: Host, worlds: Worlds, running: Guest, volume: str
) -> None:
    """Its QEMU hangs, so that libvirt waits for it in the plug; then it is killed."""
    pid = host.do("pgrep", "--oldest", "--full", f"guest={running.name},").strip()
    host.do("kill", "-STOP", pid)
    try:
        operation = host.begin_and_wait_for("plug", "attach", running.name, volume)
        host.do("timeout", "120", "virsh", "destroy", running.name)
    finally:
        host.run("kill", "-CONT", pid)  # it may be gone
    state = ended(host, operation)
    assert state in ("done", "undone")
    leave_nothing_cold(host, worlds, running, volume, attached=state == "done")


def test_a_guest_is_destroyed_in_its_unplug(
    host: Host, worlds: Worlds, running: Guest, volume: str
) -> None:
    """A guest that answers nothing, and then can't any more."""
    attach(host, running, volume)
    host.do("timeout", "60", "virsh", "suspend", running.name)
    operation = host.begin_and_wait_for("unplug", "detach", running.name, volume)
    host.do("timeout", "120", "virsh", "destroy", running.name)
    assert ended(host, operation) == "done"
    leave_nothing_cold(host, worlds, running, volume, attached=False)


def test_a_guest_is_destroyed_in_its_disconnect(
    host: Host, worlds: Worlds, running: Guest, volume: str
) -> None:
    """It has let go by then: what becomes of it concerns the detach no more."""
    attach(host, running, volume)
    with faults.hung(host, SERVICES["iscsid"]):
        operation = host.begin_and_wait_for("disconnect", "detach", running.name, volume)
        host.do("timeout", "120", "virsh", "destroy", running.name)
    assert ended(host, operation) == "done"
    leave_nothing_cold(host, worlds, running, volume, attached=False)


def is_shut_off(host: Host, guest: Guest) -> bool:
    """Does it no longer run?"""
    return host.do("virsh", "domstate", guest.name).strip() == "shut off"


def leave_nothing_cold(
    host: Host, worlds: Worlds, guest: Guest, volume: str, *, attached: bool
) -> None:
    """The same as ``leave_nothing`` with a guest that is shut off."""
    assert is_shut_off(host, guest)
    attachment = attachment_of(host, volume)
    assert (attachment is not None) == attached
    if attachment is not None:
        worlds.assert_attached_shut_off(guest, volume, attachment)
        detach(host, guest, volume)
    worlds.assert_nothing_left(volume, guest)


# --- a guest that is no more ---------------------------------------------------------------------


def test_a_stopped_guest_is_undefined_in_an_attach(
    host: Host, worlds: Worlds, new_guest: Callable[..., Guest], volume: str
) -> None:
    guest = new_guest("--stopped")
    with faults.at_cinders(host, UPDATE, virsh("undefine", guest)):
        result = host.attachctl("attach", guest.name, volume, "-f", "json")
    assert (result.status, result.json["code"]) == (1, "guest-not-found"), result.out
    worlds.assert_nothing_left(volume)


def test_a_stopped_guest_is_undefined_in_a_detach(
    host: Host, worlds: Worlds, new_guest: Callable[..., Guest], volume: str
) -> None:
    guest = new_guest("--stopped")
    attach(host, guest, volume)
    with faults.at_cinders(host, BEGIN, virsh("undefine", guest)):
        detach(host, guest, volume)
    worlds.assert_nothing_left(volume)


def test_a_guest_becomes_transient_in_an_attach_and_goes(
    host: Host, worlds: Worlds, new_guest: Callable[..., Guest], volume: str
) -> None:
    guest = new_guest()
    with faults.at_cinders(host, UPDATE, virsh("undefine", guest)):
        attach(host, guest, volume)
    attachment = attachment_of(host, volume)
    assert attachment is not None
    worlds.assert_attached_transient(guest, volume, attachment)
    host.do("timeout", "120", "virsh", "destroy", guest.name)
    late = host.attachctl("detach", guest.name, volume)
    assert late.status in (0, 4), late.err  # 4: attachd was faster
    eventually("nothing is open", lambda: not host.open_operations())
    worlds.assert_nothing_left(volume)


def test_a_guest_becomes_transient_in_a_detach_and_goes(
    host: Host, worlds: Worlds, new_guest: Callable[..., Guest], volume: str
) -> None:
    guest = new_guest()
    attach(host, guest, volume)
    host.do("timeout", "60", "virsh", "suspend", guest.name)
    operation = host.begin_and_wait_for("unplug", "detach", guest.name, volume)
    host.script(f"{virsh('undefine', guest)}; {virsh('destroy', guest)}")
    assert ended(host, operation) == "done"
    worlds.assert_nothing_left(volume)
