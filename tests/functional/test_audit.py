"""The audit on the real worlds: it finds what others changed; a detach takes away what is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.functional import faults
from tests.functional.lab import Cloud, Guest, Host, Worlds, eventually


@pytest.fixture
def attached(host: Host, worlds: Worlds, guest: Guest, volume: str) -> Iterator[str]:
    """A volume that is attached; whatever a test does to it, a detach leaves nothing of it."""
    assert found(host) == {}
    result = host.attachctl("attach", guest.name, volume)
    assert result.status == 0, result.err
    assert found(host) == {}
    yield volume
    result = host.attachctl("detach", guest.name, volume)
    assert result.status == 0, result.err
    worlds.assert_nothing_left(volume, guest)
    assert found(host) == {}


def found(host: Host) -> dict[str, str]:
    """The audit's codes, each with its volume; its exit status fits them."""
    result = host.attachctl("audit", "-f", "json")
    assert result.status == (5 if result.json else 0), result.out + result.err
    return {finding["code"]: finding["volume_id"] for finding in result.json}


def repaired(host: Host) -> str:
    """What ``audit --repair`` says that it did, and that the worlds agree then."""
    result = host.attachctl("audit", "--repair")
    assert (result.status, result.out) == (0, "The four worlds agree.\n"), result.out + result.err
    return result.err


def fenced(host: Host, guest: Guest) -> list[dict[str, object]]:
    """What the audit finds as soon as the attachment was fenced; attachd would repair none of it.

    While the fencing goes on, the audit leaves its volume out.
    """
    eventually("it is fenced", lambda: state_of(host, guest) == "needs-attention", patience=90)
    eventually("the audit finds it", lambda: found(host) != {})
    result = host.attachctl("audit", "-f", "json")
    assert result.status == 5
    assert {finding["repair"] for finding in result.json} == {None}
    return list(result.json)


def state_of(host: Host, guest: Guest) -> str:
    (listed,) = host.attachctl("list", "--guest", guest.name, "-f", "json").json
    return str(listed["state"])


@pytest.mark.cloud
def test_a_volume_reset_to_available(host: Host, cloud: Cloud, attached: str) -> None:
    cloud.set_status(attached, "available")
    assert found(host) == {"volume-status-differs": attached}
    said = host.attachctl("audit", "--repair", "--dry-run")
    assert said.status == 5
    assert "volume available" in said.out
    assert "Safe to do: restore" in said.out
    assert cloud.status(attached) == "available"
    assert repaired(host).startswith("restore of volume")
    assert cloud.status(attached) == "in-use"


DELETE_AS_A_SERVICE = """
import sys
from attachd import conf, daemon
config = conf.load([], files=["/etc/attachd/attachd.conf"])
daemon._cinder(config).delete_attachment(sys.argv[1])
"""
"""Cinder lets nobody but a service delete an attachment in use."""


def test_an_attachment_that_somebody_deleted_is_fenced_within_a_minute(
    host: Host, cloud: Cloud, guest: Guest, attached: str
) -> None:
    """The guest runs and keeps its disk, until someone detaches it; attachd uses it no more."""
    (record,) = cloud.attachments(attached)
    host.do("/opt/attachd/bin/python", "-c", DELETE_AS_A_SERVICE, str(record["id"]))
    findings = fenced(host, guest)
    assert {"attachment-gone", "attachment-needs-attention"} <= {f["code"] for f in findings}
    assert "attachment-gone" in host.do("journalctl", "-u", "attachd", "-o", "cat", "-n", "200")
    assert guest.disk_with_serial(attached) is not None


def test_another_disk_behind_the_same_lun_is_fenced_and_its_own_used_again(
    host: Host, guest: Guest, attached: str
) -> None:
    with faults.another_disk_behind_its_lun(host, attached):
        assert "wrong-device" in {finding["code"] for finding in fenced(host, guest)}
    assert repaired(host).startswith("restore of volume")
    assert state_of(host, guest) == "attached"


@pytest.mark.cloud
def test_a_disk_taken_out_with_virsh(host: Host, guest: Guest, attached: str) -> None:
    (listed,) = host.attachctl("list", "--guest", guest.name, "-f", "json").json
    host.do("virsh", "detach-disk", guest.name, listed["device"], "--config")
    assert found(host) == {"disk-gone": attached}


@pytest.mark.cloud
def test_a_session_logged_out_by_hand(host: Host, attached: str) -> None:
    (session,) = [line for line in host.sessions() if attached in line]
    host.do("iscsiadm", "-m", "node", "-T", session.split()[3], "--logout")
    assert found(host) == {"device-gone": attached}


@pytest.mark.cloud
def test_a_guest_that_was_undefined(
    host: Host, worlds: Worlds, new_guest: Callable[..., Guest], volume: str
) -> None:
    lost = new_guest("--stopped")
    assert host.attachctl("attach", lost.name, volume).status == 0
    host.do("timeout", "60", "virsh", "undefine", lost.name)
    assert found(host) == {"guest-gone": volume}
    assert repaired(host).startswith("clean-up of volume")
    worlds.assert_nothing_left(volume)


def test_a_world_out_of_reach_is_no_agreement(host: Host, attached: str) -> None:
    with host.stopped(*faults.LIBVIRT):
        result = host.attachctl("audit", "-f", "json")
    assert result.status == 5
    (finding,) = result.json
    assert (finding["code"], finding["says"]) == (
        "world-unreachable",
        {"guest": "libvirt-unavailable"},
    )
    assert attached not in result.out


def test_a_session_of_an_operator_is_left_alone(
    host: Host, cloud: Cloud, new_volume: Callable[..., str], attached: str
) -> None:
    """A LUN that somebody exported and logged in to by hand, on attachd's host."""
    assert attached
    theirs = new_volume()
    iqn = f"iqn.2026-01.org.example:{theirs}"
    path = host.script(f"lvs --noheadings -o lv_path | grep {theirs}").strip()
    host.script(
        f"lvchange -ay -K {path}\n"
        f"targetcli /backstores/block create {theirs} {path} >/dev/null\n"
        "targetcli set global auto_add_default_portal=false >/dev/null\n"
        f"targetcli /iscsi create {iqn} >/dev/null\n"
        f"targetcli /iscsi/{iqn}/tpg1/portals create 127.0.0.1 3260 >/dev/null\n"
        f"targetcli /iscsi/{iqn}/tpg1/luns create /backstores/block/{theirs} >/dev/null\n"
        f"targetcli /iscsi/{iqn}/tpg1 set attribute generate_node_acls=1 authentication=0 "
        ">/dev/null\n"
        f"iscsiadm -m node -T {iqn} -p 127.0.0.1:3260 --op new >/dev/null\n"
        f"iscsiadm -m node -T {iqn} -p 127.0.0.1:3260 --login >/dev/null\n"
    )
    try:
        assert any(iqn in line for line in host.sessions())
        assert found(host) == {}
    finally:
        host.script(
            f"iscsiadm -m node -T {iqn} -p 127.0.0.1:3260 --logout >/dev/null\n"
            f"iscsiadm -m node -T {iqn} -p 127.0.0.1:3260 --op delete\n"
            f"targetcli /iscsi delete {iqn} >/dev/null\n"
            f"targetcli /backstores/block delete {theirs} >/dev/null\n"
        )
    assert cloud.status(theirs) == "available"
