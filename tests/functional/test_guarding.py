"""The journal and the daemon themselves, and who may do what: refusals and recoveries are clear."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.functional import faults
from tests.functional.lab import Cloud, Guest, Host, Result, Worlds, eventually

SOCKET = "/run/attachd/attachd.sock"
STATE = "/var/lib/attachd"
JOURNAL = f"{STATE}/journal.db"
CONFIG = "/etc/attachd/attachd.conf"
UNIT = Path(__file__).resolve().parents[2] / "systemd" / "attachd.service"
MOST_EXPOSURE = 6.0
TOKEN = "gAAAA[A-Za-z0-9_-]{80,}"
"""What a token of Keystone's looks like (Fernet)."""


def main_pid(host: Host) -> int:
    return int(host.do("systemctl", "show", "-P", "MainPID", "attachd.service"))


def attach_and_detach(host: Host, worlds: Worlds, guest: Guest, volume: str) -> None:
    for verb in ("attach", "detach"):
        result = host.attachctl(verb, guest.name, volume)
        assert result.status == 0, result.err
    worlds.assert_nothing_left(volume, guest)


# --- who may do what --------------------------------------------------------------------------


def as_nobody(host: Host, *argv: str) -> Result:
    return host.run("runuser", "-u", "nobody", "--", *argv)


def test_other_users_are_kept_out_and_learn_nothing(host: Host, guest: Guest, volume: str) -> None:
    """Of what is there they hear the same as of what isn't."""
    attached = host.attachctl("attach", guest.name, volume, "-f", "json")
    assert attached.status == 0, attached.err
    there, nowhere = attached.json, str(uuid.uuid4())
    pairs = [
        (("list",), ("list", "--guest", nowhere)),
        (("show", there["attachment_id"]), ("show", nowhere)),
        (("operation", "show", there["operation_id"]), ("operation", "show", nowhere)),
        (("detach", guest.name, volume), ("detach", nowhere, nowhere)),
        (("attach", guest.name, volume), ("attach", nowhere, nowhere)),
    ]
    for real, made_up in pairs:
        answers = [as_nobody(host, "attachctl", *argv) for argv in (real, made_up)]
        assert [(a.status, a.code) for a in answers] == [(4, "permission-denied")] * 2
        assert answers[0] == answers[1]
    for file in (JOURNAL, CONFIG, f"{STATE}/locks", f"{STATE}/daemon.lock"):
        assert as_nobody(host, "cat", file).status != 0, file
    assert host.attachctl("detach", guest.name, volume).status == 0


def test_a_socket_that_was_opened_too_wide_still_keeps_them_out(host: Host) -> None:
    curl = ("curl", "-s", "--unix-socket", SOCKET, "-w", "%{http_code}")
    host.do("chmod", "0666", SOCKET)
    try:
        answers = [
            as_nobody(host, *curl, f"http://attachd{path}").out
            for path in ("/v1/attachments", "/v1/operations/x", "/metrics", "/nowhere")
        ]
    finally:
        host.do("chmod", "0660", SOCKET)
    assert len(set(answers)) == 1
    assert answers[0].endswith("403")
    assert "permission-denied" in answers[0]


def test_the_modes_of_its_files(host: Host, worlds: Worlds, guest: Guest, volume: str) -> None:
    attach_and_detach(host, worlds, guest, volume)
    found = host.do("find", STATE, SOCKET, "-printf", "%p %m %u %g\n").splitlines()
    modes = {line.split()[0]: line.split()[1:] for line in found}
    assert modes.pop(SOCKET) == ["660", "root", "attachd"]
    assert modes.pop(STATE) == ["700", "attachd", "attachd"]
    assert modes.pop(f"{STATE}/locks") == ["700", "attachd", "attachd"]
    assert {JOURNAL, f"{JOURNAL}-wal", f"{JOURNAL}-shm", f"{STATE}/daemon.lock"} <= set(modes)
    assert f"{STATE}/locks/os-brick-connect_volume" in modes
    for name, rest in modes.items():
        assert rest == ["600", "attachd", "attachd"], name


def test_locks_that_are_shared_stay_usable_for_cinder(
    host: Host, worlds: Worlds, guest: Guest, volume: str
) -> None:
    """In either order: attachd makes the file, or Cinder did before."""
    group = f"locks{uuid.uuid4().hex[:6]}"
    place = f"/var/lib/{group}"
    lock = f"{place}/os-brick-connect_volume"
    opened = f"open('{lock}', 'a+')"
    host.script(
        f"groupadd {group}\nfor user in attachd cinder; do usermod -aG {group} $user; done\n"
        f"install -d -m 2770 -g {group} {place}\n"
    )
    try:
        with host.option("host", "lock_path", place):
            assert host.attachctl("attach", guest.name, volume).status == 0
            host.do("runuser", "-u", "cinder", "--", "python3", "-c", opened)
            assert host.do("stat", "-c", "%a %U %G", lock).split() == ["660", "attachd", group]
            host.do("rm", lock)
            host.do("runuser", "-u", "cinder", "--", "sh", "-c", f"umask 002; : > {lock}")
            detached = host.attachctl("detach", guest.name, volume)
            assert detached.status == 0, detached.err
    finally:
        host.script(
            f"for user in attachd cinder; do gpasswd -d $user {group}; done >/dev/null\n"
            f"groupdel {group}\nrm -r {place}\n"
        )
    worlds.assert_nothing_left(volume, guest)


def test_how_much_of_the_host_is_open_to_the_service(host: Host) -> None:
    """And what is, has its reason in the unit."""
    analyze = ("systemd-analyze", "security", "--no-pager")
    said = host.do(*analyze, "attachd.service")
    overall = re.search(r"Overall exposure level for attachd\.service: ([0-9.]+)", said)
    assert overall, said
    assert float(overall[1]) <= MOST_EXPOSURE
    words = UNIT.read_text()
    for each in json.loads(host.do(*analyze, "--json=short", "attachd.service")):
        if each["exposure"] is not None and not each["set"]:
            names = [name for name in re.findall(r"\w+=", each["name"]) if name in words]
            assert names, each


def test_neither_process_leaves_a_core(host: Host) -> None:
    pid = main_pid(host)
    for process in (str(pid), *host.do("pgrep", "-P", str(pid)).split()):
        limits = host.do("cat", f"/proc/{process}/limits")
        assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE), limits


# --- the journal's file and its disk ----------------------------------------------------------


@contextmanager
def own_disk(host: Host) -> Iterator[None]:
    """attachd's state is on a small file system of its own, empty at first; it runs there."""
    host.do("systemctl", "stop", "attachd.service")
    host.script(
        "mount -t tmpfs -o size=16m,mode=0700,uid=$(id -u attachd),gid=$(id -g attachd) "
        f"tmpfs {STATE}\n"
    )
    try:
        host.restart_attachd()
        yield
    finally:
        host.run("systemctl", "stop", "attachd.service")
        host.do("umount", STATE)
        host.do("systemctl", "reset-failed", "attachd.service", "attachd.socket")
        host.restart_attachd()


def fill(host: Host) -> None:
    host.script(f"dd if=/dev/zero of={STATE}/filler-$$ bs=4k 2>/dev/null || true")


def test_a_full_disk(host: Host, worlds: Worlds, guest: Guest, volume: str) -> None:
    """What was accepted comes to its end, a kill between; nothing more is accepted."""
    with own_disk(host):
        attach_and_detach(host, worlds, guest, volume)
        fill(host)
        with faults.packets(host, 3260, "reject"):
            undone = host.attachctl("attach", guest.name, volume)
        assert (undone.status, undone.code) == (1, "connect-failed")
        worlds.assert_nothing_left(volume, guest)
        host.do("systemctl", "kill", "--signal=KILL", "attachd.service")
        eventually("it is back", lambda: host.attachctl("list").status == 0)

        host.do("rm", "-f", f"{STATE}/journal.ballast")
        fill(host)
        before = host.leftovers()
        refused = host.attachctl("attach", guest.name, volume, "-f", "json")
        assert (refused.status, refused.json["code"]) == (4, "journal-full")
        assert all(refused.json.values())
        assert host.leftovers() == before
        worlds.assert_nothing_left(volume, guest)
        assert host.attachctl("operation", "list").status == 0

        host.script(f"rm {STATE}/filler-*")
        attach_and_detach(host, worlds, guest, volume)


HARMS = {
    "read-only": (f"mount -o remount,ro {STATE}", f"mount -o remount,rw {STATE}"),
    "emptied": (f"truncate -s 0 {JOURNAL}", f"cp -p {STATE}/whole {JOURNAL}"),
    "cut": (f"truncate -s 5000 {JOURNAL}", f"cp -p {STATE}/whole {JOURNAL}"),
    "damaged": (
        f"head -c 4096 /dev/urandom | dd of={JOURNAL} bs=4096 seek=2 conv=notrunc status=none",
        f"cp -p {STATE}/whole {JOURNAL}",
    ),
    "newer": (f"sqlite3 {JOURNAL} 'PRAGMA user_version = 99'", f"cp -p {STATE}/whole {JOURNAL}"),
}


def test_a_journal_that_cannot_be_trusted(
    host: Host, worlds: Worlds, guest: Guest, volume: str
) -> None:
    """No daemon runs on it, it stays as it is, and once it is mended all goes on."""
    with own_disk(host):
        assert host.attachctl("attach", guest.name, volume).status == 0
        host.do("systemctl", "stop", "attachd.service")
        host.do("cp", "-p", JOURNAL, f"{STATE}/whole")
        for name, (harm, mend) in HARMS.items():
            host.script(harm)
            before = host.do("sha256sum", JOURNAL)
            started = host.run("attachd")
            assert (started.status, started.code) == (1, "journal-unavailable"), name
            assert "Traceback" not in started.err + started.out
            assert host.do("sha256sum", JOURNAL) == before, name
            host.script(mend)
        host.restart_attachd()
        detached = host.attachctl("detach", guest.name, volume)
        assert detached.status == 0, detached.err
    worlds.assert_nothing_left(volume, guest)


def test_a_second_daemon_is_refused(host: Host) -> None:
    """On the first one's socket, and on one of its own."""
    pid = main_pid(host)
    copy = "/root/second.conf"
    host.script(f"cp -p {CONFIG} {copy}; crudini --set {copy} api socket /run/attachd/second.sock")
    try:
        same = host.run("attachd")
        other = host.run("attachd", "--config-file", copy)
    finally:
        host.do("rm", "-f", copy, "/run/attachd/second.sock")
    assert (same.status, same.code) == (1, "config-invalid")
    assert "Another process listens" in same.err
    assert (other.status, other.code) == (1, "journal-unavailable")
    assert "Another attachd" in other.err
    for result in (same, other):
        assert "Traceback" not in result.err
    assert host.attachctl("list").status == 0
    assert main_pid(host) == pid


# --- the clock --------------------------------------------------------------------------------


def jump(host: Host, hours: int) -> None:
    host.script(f"date -s @$(($(date +%s) + {3600 * hours})) >/dev/null")


@pytest.mark.parametrize(
    "hours",
    [
        pytest.param(2, id="forth", marks=pytest.mark.exhaustive),  # what counts is that it jumps
        pytest.param(-2, id="back"),
    ],
)
def test_the_clock_jumps_in_the_midst(
    host: Host, cloud: Cloud, worlds: Worlds, guest: Guest, volume: str, hours: int
) -> None:
    begun = host.attachctl_in_background("attach", guest.name, volume, "-f", "json")
    eventually("Cinder has an attachment", lambda: len(cloud.attachments(volume)) == 1)
    jump(host, hours)
    try:
        out, err = begun.communicate(timeout=600)
        assert begun.returncode == 0, out + err
        worlds.assert_attached(guest, volume, json.loads(out))
        assert host.attachctl("audit").status == 0
        begun = host.attachctl_in_background("detach", guest.name, volume)
        eventually("it is detaching", lambda: cloud.status(volume) != "in-use")
    finally:
        jump(host, -hours)
    out, err = begun.communicate(timeout=600)
    assert begun.returncode == 0, out + err
    worlds.assert_nothing_left(volume, guest)
    newest = host.attachctl("operation", "list", "-f", "json").json[0]
    assert newest["kind"] == "detach"
    shown = host.attachctl("operation", "show", newest["operation_id"], "-f", "json").json
    assert all(0 <= step["seconds"] < 600 for step in shown["steps"])


# --- secrets ----------------------------------------------------------------------------------


READ = ("attachments", "operations", "audit", "health", "openapi.json")


def test_no_secret_is_in_any_file_or_log(
    host: Host, cloud: Cloud, worlds: Worlds, new_guest: Callable[..., Guest], volume: str
) -> None:
    """After an attach, a failed one, a detach, a kill and its recovery; all of it in debug."""
    host.script("umask 077; rm -f /root/secrets; : > /root/secrets")
    guest = new_guest("--stopped")
    said: list[str] = []

    def attachctl(*argv: str) -> int:
        result = host.attachctl(*argv)
        said.extend((result.out, result.err))
        return result.status

    kept = "cat /sys/kernel/config/target/iscsi/$IQN/tpgt_1/acls/*/auth/password >> /root/secrets"
    with host.option("DEFAULT", "debug", "true"), faults.after_each_export(host, kept):
        assert attachctl("attach", guest.name, volume) == 0
        assert attachctl("list", "--long") == 0
        assert attachctl("audit") == 0
        assert attachctl("detach", guest.name, volume) == 0
        fault = {"method": "POST", "path": "/action", "body": "os-complete", "status": 500}
        with faults.cinder_that_fails(host, {**fault, "times": 99}):
            assert attachctl("attach", guest.name, volume) == 1
        assert attachctl("attach", guest.name, volume, "--no-wait") == 0
        eventually("Cinder has an attachment", lambda: len(cloud.attachments(volume)) == 1)
        host.do("systemctl", "kill", "--signal=KILL", "attachd.service")
        eventually("it is back", lambda: host.attachctl("list").status == 0)
        eventually("nothing is open", lambda: not host.open_operations())
        if cloud.status(volume) == "in-use":
            assert attachctl("detach", guest.name, volume) == 0
        for operation in host.attachctl("operation", "list", "-f", "json").json[:8]:
            assert attachctl("operation", "show", operation["operation_id"], "-f", "json") == 0
        curl = ("curl", "-s", "--unix-socket", SOCKET)
        said.append(host.do(*curl, *(f"http://attachd/v1/{path}" for path in READ)))
    worlds.assert_nothing_left(volume, guest)
    host.script(
        "{ cat /root/secrets; crudini --get /etc/attachd/attachd.conf cinder password; } |"
        "sort -u | grep . > /root/secrets.sorted; mv /root/secrets.sorted /root/secrets"
    )
    secrets = host.do("cat", "/root/secrets").split()
    assert len(secrets) >= 2
    assert all(len(secret) >= 8 for secret in secrets)
    try:
        assert host.script(SEARCH) == ""
    finally:
        host.do("rm", "/root/secrets")
    everything = "\n".join(said)
    assert not [secret for secret in secrets if secret in everything]
    assert not re.search(TOKEN, everything)


# The names of places where a secret is; never the secret. journalctl's fifth word is who logged.
SEARCH = f"""
places="{STATE} /run/attachd /etc/iscsi /var/lib/iscsi /var/log /tmp /var/tmp /var/crash"
search() {{ # OPTION...
    grep -rla "$@" $places --exclude-dir=journal 2>/dev/null || true
    # Cinder's LIO driver hands the password to its tool on a command line, which sudo logs.
    journalctl --no-pager -a -o short | grep -av 'sudo\\[[0-9]*\\]: *cinder :' |
        grep -a "$@" | awk '{{print "journal:", $5}}' | sort -u
}}
search -F -f /root/secrets
search -E '{TOKEN}'
grep -rlFa -f /root/secrets /etc/attachd | grep -vx {CONFIG} || true
grep -rlEa '{TOKEN}' /etc/attachd || true
"""
