"""The daemon as a systemd service: who it is, what it leaves behind, how it stops and starts."""

from __future__ import annotations

import json

import pytest

from tests.functional.lab import Cloud, Guest, Host, Worlds, eventually

SOCKET = "/run/attachd/attachd.sock"
LOCAL_TARGET = "rtslib-fb-targetctl.service"
"""The lab's targets are the host's own, as DevStack's are: they end behind the guests."""


def main_pid(host: Host) -> int:
    return int(host.do("systemctl", "show", "-P", "MainPID", "attachd.service"))


def curl(host: Host, *options: str, stdin: str = "") -> tuple[int, str]:
    """(status, body) of a request on the socket."""
    out = host.do(
        *("curl", "-s", "--unix-socket", SOCKET, "-w", "\n%{http_code}", *options), stdin=stdin
    )
    body, _, status = out.rpartition("\n")
    return int(status), body


def test_it_runs_as_its_own_user_and_cannot_go_back(host: Host) -> None:
    pid = main_pid(host)
    status = host.do("cat", f"/proc/{pid}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    uid = host.do("id", "-u", "attachd").strip()
    assert set(fields["Uid"].split()) == {uid}
    assert int(fields["CapEff"], 16) == 0
    assert int(fields["CapPrm"], 16) == 0


def test_its_helper_carries_next_to_nothing(host: Host) -> None:
    """It was forked before the libraries that only the daemon needs were there."""
    pid = main_pid(host)
    helper = host.do("pgrep", "-P", str(pid)).split()[0]
    of_daemon, of_helper = (host.do("cat", f"/proc/{each}/maps") for each in (pid, helper))
    assert "/libvirt" in of_daemon
    assert "/libvirt" not in of_helper


def test_it_stands_between_iscsid_and_libvirt(host: Host) -> None:
    before = host.do("systemctl", "show", "-P", "Before", "attachd.service").split()
    after = host.do("systemctl", "show", "-P", "After", "attachd.service").split()
    assert "libvirtd.service" in before
    assert "virtqemud.service" in before
    assert {"iscsid.service", "open-iscsi.service", "multipathd.service"} <= set(after)
    assert LOCAL_TARGET in after
    assert "libvirtd.service" not in after
    guests = host.do("systemctl", "show", "-P", "After", "libvirt-guests.service").split()
    assert {"attachd.service", LOCAL_TARGET} <= set(guests)


def test_a_guests_scope_ends_before_it(host: Host, guest: Guest) -> None:
    scopes = host.do("systemctl", "list-units", "--plain", "--no-legend", "machine-qemu*")
    scope = next(line.split()[0] for line in scopes.splitlines() if guest.name[-8:] in line)
    after = host.do("systemctl", "show", "-P", "After", scope).split()
    assert {"attachd.service", LOCAL_TARGET} <= set(after)


@pytest.mark.cloud
def test_the_api_document_and_bad_requests(host: Host) -> None:
    status, body = curl(host, "http://attachd/v1/openapi.json")
    assert status == 200
    assert "/v1/attachments" in json.loads(body)["paths"]
    url = "http://attachd/v1/attachments"
    typed = ("-H", "Content-Type: application/json")
    for text in ("{", "[]", '{"guest": "g"}', '{"guest": 1, "volume": "v"}', "nonsense"):
        status, body = curl(host, "-X", "POST", *typed, "-d", text, url)
        assert (status, json.loads(body)["code"]) == (400, "bad-request"), text
    unknown = '{"guest": "g", "volume": "v", "surprise": 1}'
    assert curl(host, "-X", "POST", *typed, "-d", unknown, url)[0] == 400


@pytest.mark.cloud
def test_a_body_of_100_megabytes_is_refused_and_the_daemon_lives(host: Host) -> None:
    pid = main_pid(host)
    answer = host.script(
        f"head -c 100M /dev/zero | curl -s --unix-socket {SOCKET} -w '%{{http_code}}' "
        "-o /dev/null -H 'Content-Type: application/json' -H 'Expect:' --data-binary @- "
        "http://attachd/v1/attachments || true"
    )
    assert answer.strip().endswith("413")
    assert host.attachctl("list").status == 0
    assert main_pid(host) == pid


@pytest.mark.cloud
def test_a_dead_helper_takes_the_daemon_with_it_and_systemd_starts_both_anew(host: Host) -> None:
    pid = main_pid(host)
    helper = host.do("pgrep", "-P", str(pid)).split()[0]
    host.do("kill", "-KILL", helper)
    eventually("there is another daemon", lambda: main_pid(host) not in (0, pid))
    eventually("it answers", lambda: host.attachctl("list").status == 0)  # its start takes a while


def test_a_killed_daemon_finishes_what_it_began(
    host: Host, cloud: Cloud, worlds: Worlds, guest: Guest, volume: str
) -> None:
    begun = host.attachctl("attach", guest.name, volume, "--no-wait", "-f", "json")
    assert begun.status == 0, begun.err
    eventually("Cinder has an attachment", lambda: len(cloud.attachments(volume)) == 1)
    host.do("systemctl", "kill", "--signal=KILL", "attachd.service")
    eventually("nothing is open", lambda: host.attachctl("list").status == 0)
    eventually("nothing is open", lambda: not host.open_operations())
    worlds.assert_nothing_left(volume, guest)


@pytest.mark.parametrize("option", [("guest", "unplug_timeout", "soon"), ("host", "my_pi", "x")])
def test_a_mistake_in_the_file_is_named_and_nothing_starts(
    host: Host, option: tuple[str, str, str]
) -> None:
    host.script(
        "cp /etc/attachd/attachd.conf /root/bad.conf; "
        f"crudini --set /root/bad.conf {' '.join(option)}"
    )
    result = host.run("attachd", "--config-file", "/root/bad.conf")
    host.do("rm", "/root/bad.conf")
    assert result.status == 1
    assert result.code == "config-invalid"
    assert "/root/bad.conf" in result.err
    assert option[1] in result.err
    assert "Traceback" not in result.err
