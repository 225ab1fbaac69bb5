"""Broken parts: each leaves the four worlds as they were, with its code and its exit status."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from tests.functional import faults
from tests.functional.lab import Cloud, Guest, Host, Result, Worlds, eventually


@pytest.fixture
def attach(host: Host, guest: Guest) -> Callable[[str], Result]:
    """Attach a volume to the guest; whatever its end."""
    return lambda volume: host.attachctl("attach", guest.name, volume, "-f", "json")


def code_of(result: Result) -> str:
    assert "Traceback" not in result.out + result.err
    return str(result.json["code"])


# --- Keystone and Cinder ---------------------------------------------------------------------


def test_keystone_refuses_the_password(
    host: Host, worlds: Worlds, guest: Guest, attach: Callable[[str], Result], volume: str
) -> None:
    with host.option("cinder", "password", "not-the-password"):
        result = attach(volume)
    assert result.status == 4, result.out
    assert code_of(result) in ("cinder-unavailable", "cinder-refused")
    assert "not-the-password" not in result.out + result.err
    worlds.assert_nothing_left(volume, guest)


def test_cinders_api_is_stopped(
    host: Host, worlds: Worlds, guest: Guest, attach: Callable[[str], Result], volume: str
) -> None:
    with faults.packets(host, faults.CINDER_PORT, "reject"):
        result = attach(volume)
    assert (result.status, code_of(result)) == (4, "cinder-unavailable")
    worlds.assert_nothing_left(volume, guest)


def test_cinder_answers_each_request_with_503_once_and_the_attach_succeeds(
    host: Host, worlds: Worlds, guest: Guest, attach: Callable[[str], Result], volume: str
) -> None:
    once: tuple[dict[str, Any], ...] = (
        {"method": "POST", "path": "/attachments", "body": "instance_uuid", "status": 503},
        {"method": "PUT", "path": "/attachments/", "status": 503},
        {"method": "POST", "path": "/action", "body": "os-complete", "status": 503},
    )
    with faults.cinder_that_fails(host, *once):
        result = attach(volume)
        assert result.status == 0, result.out + result.err
        worlds.assert_attached(guest, volume, result.json)
    assert host.attachctl("detach", guest.name, volume).status == 0
    worlds.assert_nothing_left(volume, guest)


@pytest.mark.exhaustive  # the kills in an attach's undo begin so
def test_os_complete_fails_for_good(
    host: Host, worlds: Worlds, guest: Guest, attach: Callable[[str], Result], volume: str
) -> None:
    with faults.cinder_that_fails(
        host,
        {"method": "POST", "path": "/action", "body": "os-complete", "status": 500, "times": 99},
    ):
        result = attach(volume)
    assert (result.status, code_of(result)) == (1, "cinder-unavailable")
    assert guest.disk_with_serial(volume) is None
    worlds.assert_nothing_left(volume, guest)


@pytest.mark.exhaustive  # three minutes of Cinder's own time-outs
def test_cinder_volume_is_stopped(
    host: Host, worlds: Worlds, guest: Guest, attach: Callable[[str], Result], volume: str
) -> None:
    with host.stopped("cinder-volume.service"):
        result = attach(volume)
        assert result.status in (1, 4), result.out + result.err
        assert code_of(result).startswith("cinder-")
        worlds.assert_nothing_left(volume, guest)


# --- the host --------------------------------------------------------------------------------


def test_iscsid_is_masked(
    host: Host, worlds: Worlds, guest: Guest, attach: Callable[[str], Result], volume: str
) -> None:
    with host.stopped(*faults.ISCSID, masked=True):
        result = attach(volume)
    assert (result.status, code_of(result)) == (4, "iscsi-unavailable")
    worlds.assert_nothing_left(volume, guest)


@pytest.mark.exhaustive  # the soak restarts it, and the one before stops it for good
def test_iscsid_is_only_stopped_and_comes_back_by_itself(
    host: Host, worlds: Worlds, guest: Guest, attach: Callable[[str], Result], volume: str
) -> None:
    host.do("systemctl", "stop", "iscsid.service")
    result = attach(volume)
    assert result.status == 0, result.out + result.err
    assert host.attachctl("detach", guest.name, volume).status == 0
    worlds.assert_nothing_left(volume, guest)


@pytest.mark.parametrize("verdict", ["reject", pytest.param("drop", marks=pytest.mark.exhaustive)])
def test_the_portal_does_not_answer(
    host: Host,
    worlds: Worlds,
    guest: Guest,
    attach: Callable[[str], Result],
    volume: str,
    verdict: str,
) -> None:
    with faults.packets(host, 3260, verdict):
        result = attach(volume)
    assert (result.status, code_of(result)) == (1, "connect-failed")
    worlds.assert_nothing_left(volume, guest)


CHANGE_CHAP = """
for file in /sys/kernel/config/target/iscsi/$IQN/tpgt_1/acls/*/auth/password; do
    echo -n another-secret > $file
done
"""

ANOTHER_LUN = """
lun=$(ls -d /sys/kernel/config/target/iscsi/$IQN/tpgt_1/lun/lun_0)
store=$(find $lun -maxdepth 1 -type l -exec readlink -f {} \\;)
for acl in /sys/kernel/config/target/iscsi/$IQN/tpgt_1/acls/*; do
    rm $(find $acl/lun_0 -maxdepth 1 -type l)
    rmdir $acl/lun_0
done
rm $(find $lun -maxdepth 1 -type l)
rmdir $lun
mkdir ${lun%0}1
ln -s $store ${lun%0}1/store
for acl in /sys/kernel/config/target/iscsi/$IQN/tpgt_1/acls/*; do
    mkdir $acl/lun_1
    ln -s ${lun%0}1 $acl/lun_1/mapped
done
"""
"""The target offers its disk as LUN 1, where Cinder says LUN 0."""


def test_the_chap_secret_was_changed_behind_cinders_back(
    host: Host, worlds: Worlds, guest: Guest, attach: Callable[[str], Result], volume: str
) -> None:
    with faults.after_each_export(host, CHANGE_CHAP):
        result = attach(volume)
    assert (result.status, code_of(result)) == (1, "connect-failed")
    worlds.assert_nothing_left(volume, guest)


@pytest.mark.exhaustive  # two minutes of os-brick's scans
def test_the_target_has_another_lun_than_asked_for(
    host: Host, worlds: Worlds, guest: Guest, attach: Callable[[str], Result], volume: str
) -> None:
    with faults.after_each_export(host, ANOTHER_LUN):
        result = attach(volume)
    assert (result.status, code_of(result)) == (1, "connect-failed")
    worlds.assert_nothing_left(volume, guest)


@pytest.mark.exhaustive  # the next one is refused by the same step, for its WWN
def test_the_device_is_smaller_than_the_volume(
    host: Host,
    worlds: Worlds,
    guest: Guest,
    attach: Callable[[str], Result],
    new_volume: Callable[..., str],
) -> None:
    volume = new_volume(name=f"shrunk-{uuid.uuid4()}")
    lv = host.script(f"lvs --noheadings -o vg_name,lv_name | grep {volume}").split()
    host.do("lvreduce", "--force", "--yes", "-L", "512M", "/".join(lv))
    result = attach(volume)
    assert (result.status, code_of(result)) == (1, "wrong-device")
    worlds.assert_nothing_left(volume, guest)


def test_the_device_has_the_wwn_of_another_attachment(
    host: Host,
    worlds: Worlds,
    guest: Guest,
    new_guest: Callable[..., Guest],
    attach: Callable[[str], Result],
    new_volume: Callable[..., str],
) -> None:
    first, second = new_volume(), new_volume()
    assert attach(first).status == 0
    # The second export becomes the first one's backstore: another name for the same disk.
    same_disk = f"""
    here=/sys/kernel/config/target/iscsi/$IQN/tpgt_1/lun/lun_0
    there=$(ls -d /sys/kernel/config/target/iscsi/*{first}/tpgt_1/lun/lun_0)
    store=$(find $there -maxdepth 1 -type l -exec readlink -f {{}} \\;)
    for acl in /sys/kernel/config/target/iscsi/$IQN/tpgt_1/acls/*; do
        rm $(find $acl/lun_0 -maxdepth 1 -type l)
        rmdir $acl/lun_0
    done
    rm $(find $here -maxdepth 1 -type l)
    ln -s $store $here/same_disk
    for acl in /sys/kernel/config/target/iscsi/$IQN/tpgt_1/acls/*; do
        mkdir $acl/lun_0
        ln -s $here $acl/lun_0/mapped
    done
    """
    other = new_guest("--stopped")
    with faults.after_each_export(host, same_disk):
        result = host.attachctl("attach", other.name, second, "-f", "json")
    assert (result.status, code_of(result)) == (1, "wrong-device")
    worlds.assert_nothing_left(second, other)
    disk = guest.disk_with_serial(first)
    assert disk is not None
    guest.do("dd", f"if=/dev/{disk}", "of=/dev/null", "bs=1M", "count=1", "iflag=direct")
    assert host.attachctl("detach", guest.name, first).status == 0
    worlds.assert_nothing_left(first, guest)


# --- the guest -------------------------------------------------------------------------------


def test_libvirt_refuses_the_disk(
    host: Host, worlds: Worlds, new_guest: Callable[..., Guest], volume: str
) -> None:
    crowded = new_guest("--ports", "1")
    # A device that libvirt knows nothing of sits on the port that libvirt takes for free.
    ports = host.do("virsh", "qemu-monitor-command", crowded.name, "--hmp", "info qtree")
    buses = [line.split()[1] for line in ports.splitlines() if line.strip().startswith("bus: pci.")]
    for bus in sorted(set(buses)):
        host.run(
            *("virsh", "qemu-monitor-command", crowded.name, "--hmp"),
            f"device_add virtio-rng-pci,bus={bus},id=squatter-{bus.replace('.', '-')}",
        )
    result = host.attachctl("attach", crowded.name, volume, "-f", "json")
    assert (result.status, code_of(result)) == (1, "guest-refused")
    worlds.assert_nothing_left(volume, crowded)


@pytest.mark.exhaustive  # the next one meets a libvirtd that hangs there
def test_libvirtd_stops_before_the_plug_and_stays_away(
    host: Host, worlds: Worlds, guest: Guest, volume: str
) -> None:
    operation = host.begin_and_wait_for("update", "attach", guest.name, volume)
    with host.stopped(*faults.LIBVIRT):
        eventually("it ended", lambda: host.state_of(operation) not in ("accepted", "running"))
        assert host.state_of(operation) == "undone"
    worlds.assert_nothing_left(volume, guest)


def test_libvirtd_hangs_in_the_plug_and_the_attach_is_resumed_when_it_answers(
    host: Host, worlds: Worlds, guest: Guest, volume: str
) -> None:
    # The guest's QEMU hangs first, so that the call has left attachd, and can't come back.
    with ExitStack() as libvirtd:
        with host.frozen(f"guest={guest.name},"):
            shell = host.attachctl_in_background("attach", guest.name, volume, "-f", "json")
            operation = host.wait_for_step("plug", volume)
            libvirtd.enter_context(host.frozen("/usr/sbin/libvirtd"))
        out, err = shell.communicate(timeout=900)
        assert shell.returncode == 5, out + err
        assert json.loads(out)["code"] == "libvirt-unavailable"
        assert volume in json.loads(out)["details"], "what may be left is named"
        assert host.state_of(operation) == "needs-attention"
    eventually("nothing is open", lambda: not host.open_operations())
    state = host.state_of(operation)
    assert state in ("done", "undone")
    if state == "done":
        assert host.attachctl("detach", guest.name, volume).status == 0
    worlds.assert_nothing_left(volume, guest)


@pytest.mark.exhaustive  # the one before has it come back, too
def test_libvirtd_restarts_in_the_middle(
    host: Host, worlds: Worlds, guest: Guest, volume: str
) -> None:
    operation = host.begin_and_wait_for("update", "attach", guest.name, volume)
    host.do("systemctl", "restart", "libvirtd.service")
    eventually("it ended", lambda: host.state_of(operation) not in ("accepted", "running"))
    assert host.state_of(operation) == "done"
    assert host.attachctl("detach", guest.name, volume).status == 0
    worlds.assert_nothing_left(volume, guest)


def test_a_guest_that_ignores_the_unplug_keeps_its_disk_whole(
    host: Host, cloud: Cloud, worlds: Worlds, new_guest: Callable[..., Guest], volume: str
) -> None:
    deaf = new_guest()
    attached = host.attachctl("attach", deaf.name, volume, "-f", "json")
    assert attached.status == 0, attached.err
    with host.option("guest", "unplug_timeout", "30"):
        host.do("virsh", "suspend", deaf.name)
        result = host.attachctl("detach", deaf.name, volume, "-f", "json")
        assert (result.status, code_of(result)) == (1, "unplug-timeout")
        assert cloud.status(volume) == "in-use"
        (record,) = cloud.attachments(volume)
        assert record["status"] == "attached"
        for inactive in (False, True):
            assert f"<serial>{volume}</serial>" in host.domain_xml(deaf.name, inactive=inactive)
        (listed,) = host.attachctl("list", "--guest", deaf.name, "-f", "json").json
        assert listed["state"] == "attached"

        # QEMU can't take the request back: when the guest obeys late, the detach goes forward.
        host.do("virsh", "resume", deaf.name)
        eventually("the volume is available", lambda: cloud.status(volume) == "available")
        eventually("nothing is open", lambda: not host.open_operations())
    worlds.assert_nothing_left(volume, deaf)


# --- two at once -----------------------------------------------------------------------------


def test_the_same_attach_from_two_shells(
    host: Host, worlds: Worlds, guest: Guest, volume: str
) -> None:
    shells = [host.attachctl_in_background("attach", guest.name, volume) for _ in range(2)]
    outputs = [shell.communicate(timeout=600) for shell in shells]
    assert sorted(shell.returncode for shell in shells) == [0, 4], outputs
    (attachment,) = host.attachctl("list", "--guest", guest.name, "-f", "json").json
    worlds.assert_attached(guest, volume, attachment)
    assert host.attachctl("detach", guest.name, volume).status == 0
    worlds.assert_nothing_left(volume, guest)
