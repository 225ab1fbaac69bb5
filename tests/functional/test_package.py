"""The Debian package on a host with guests: upgraded under them, refused to go, and purged."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.functional.lab import Guest, Host, Worlds, run_lab

MEGABYTES = 4
PUSH_SECONDS = 1800
"""The first one makes a Debian that builds packages."""
CHANGELOG = Path(__file__).resolve().parents[2] / "debian" / "changelog"
CONF = "/etc/attachd/attachd.conf"
KEPT_CONF = "/root/attachd.conf.of-the-lab"
JOURNAL = "/var/lib/attachd/journal.db"
FIRST_SCHEMA = """
import sqlite3
from importlib import resources

first = resources.files("attachd.journal") / "migrations" / "0001_first.sql"
older = sqlite3.connect("/root/older.db")
older.executescript(first.read_text() + "PRAGMA user_version = 1;")
older.execute("ATTACH '/var/lib/attachd/journal.db' AS current")
tables = older.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table'").fetchall()
for (table,) in tables:
    columns = ", ".join(row[1] for row in older.execute(f"PRAGMA main.table_info({table})"))
    values = columns.replace(" state,", " replace(state, 'released', 'detached'),")
    older.execute(f"INSERT INTO main.{table} ({columns}) SELECT {values} FROM current.{table}")
older.commit()
"""
"""Makes /root/older.db: what the first attachd, which released nothing, would have written."""

# The lab's own: attachd's dependencies for the wheel, what a push carries, what tests keep.
LABS_OWN = "-path /opt/attachd -o -path /var/tmp/attachd-push -o -path /root -o -path /var/log"


class Package:
    """The package in the lab's host, in ever higher versions."""

    def __init__(self, host: Host) -> None:
        self._host = host
        found = re.match(r"attachd \((.+?)\)", CHANGELOG.read_text())
        assert found
        self._first = found[1]
        self._upgrades = 0

    @property
    def version(self) -> str:
        """The version that was installed last."""
        return self._first + (f"+{self._upgrades}" if self._upgrades else "")

    def install(self) -> None:
        """Instead of the wheel."""
        self._push()

    def upgrade(self) -> None:
        """To the next higher version."""
        self._upgrades += 1
        self._push(self.version)

    def _push(self, *version: str) -> None:
        result = run_lab("push", "--deb", *version, timeout=PUSH_SECONDS)
        assert result.status == 0, result.out + result.err
        shown = self._host.do("dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", "attachd")
        assert shown == f"installed {self.version}"


def back_to_the_wheel(host: Host) -> None:
    """As the lab was; also behind a purge, which took the lab's configuration away."""
    host.script(
        "getent group attachd >/dev/null || groupadd --system attachd\n"
        f"[ -e {CONF} ] || install -D -m 0640 -g attachd {KEPT_CONF} {CONF}\n"
    )
    result = run_lab("push", timeout=PUSH_SECONDS)
    assert result.status == 0, result.out + result.err


@pytest.fixture(scope="module")
def package(host: Host) -> Iterator[Package]:
    """It is installed instead of the wheel, which is back at the end."""
    host.do("cp", "-p", CONF, KEPT_CONF)
    package = Package(host)
    try:
        package.install()
        yield package
    finally:
        if host.run("dpkg-query", "--show", "attachd").status == 0:
            back_to_the_wheel(host)
        host.do("rm", KEPT_CONF)


def attached(host: Host, guest: Guest, volume: str) -> dict[str, object]:
    """Attach, and what attachd says of it."""
    result = host.attachctl("attach", guest.name, volume, "-f", "json")
    assert result.status == 0, result.out + result.err
    attachment: dict[str, object] = result.json
    return attachment


def attachment_of(host: Host, volume: str) -> dict[str, object]:
    """A volume's attachment, by the journal."""
    listed = host.api("attachments")["attachments"]
    (found,) = [a for a in listed if a["volume_id"] == volume and a["state"] == "attached"]
    shown: dict[str, object] = found
    return shown


def operations(host: Host) -> dict[str, str]:
    """Each operation's state, by the journal."""
    return {o["operation_id"]: o["state"] for o in host.api("operations")["operations"]}


def main_pid(host: Host) -> str:
    return host.do("systemctl", "show", "-P", "MainPID", "attachd.service").strip()


def test_it_is_in_the_wheels_place(host: Host, package: Package) -> None:
    unit = host.do("systemctl", "show", "-P", "FragmentPath", "attachd.service").strip()
    assert unit == "/usr/lib/systemd/system/attachd.service"
    assert "/usr/sbin/attachd" in host.do("systemctl", "show", "-P", "ExecStart", "attachd.service")
    assert host.do("ps", "-o", "user=", "-p", main_pid(host)).strip() == "attachd"
    assert host.do("sh", "-c", "command -v attachctl").strip() == "/usr/bin/attachctl"
    assert host.do("stat", "-c", "%U:%G %a", CONF).strip() == "root:attachd 640"
    assert host.attachctl("list").status == 0


def test_libvirts_hook_reaches_its_client(
    host: Host, worlds: Worlds, package: Package, new_guest: Callable[..., Guest], volume: str
) -> None:
    guest = new_guest("--stopped")
    attachment = attached(host, guest, volume)
    (session,) = [line for line in host.sessions() if volume in line]
    host.do("iscsiadm", "-m", "node", "-T", session.split()[3], "--logout")
    started = run_lab("guest", "start", guest.name)
    assert started.status == 0, started.out + started.err
    worlds.assert_attached(guest, volume, attachment)
    assert host.attachctl("detach", guest.name, volume).status == 0
    worlds.assert_nothing_left(volume, guest)


def test_an_upgrade_keeps_the_journal_and_the_running_guests_disk(
    host: Host, worlds: Worlds, package: Package, guest: Guest, volume: str
) -> None:
    attachment = attached(host, guest, volume)
    disk = worlds.assert_attached(guest, volume, attachment)
    written = guest.write(disk, MEGABYTES)
    before = (attachment_of(host, volume), operations(host), host.sessions())
    pid = main_pid(host)

    with guest.writing(disk):
        package.upgrade()
    assert (attachment_of(host, volume), operations(host), host.sessions()) == before
    assert main_pid(host) not in ("0", pid)
    assert guest.checksum(disk, MEGABYTES) == written
    assert host.attachctl("audit").status == 0

    assert host.attachctl("detach", guest.name, volume).status == 0
    worlds.assert_nothing_left(volume, guest)


def test_an_upgrade_brings_an_older_journal_up_to_date(
    host: Host, worlds: Worlds, package: Package, guest: Guest, volume: str
) -> None:
    """The journal of the first schema, with what is attached in it; and a copy of it is kept."""
    attachment = attached(host, guest, volume)
    disk = worlds.assert_attached(guest, volume, attachment)
    written = guest.write(disk, MEGABYTES)
    current = host.do("sqlite3", JOURNAL, "PRAGMA user_version").strip()
    before = (attachment_of(host, volume), operations(host), host.sessions())

    with guest.writing(disk):
        host.do("systemctl", "stop", "attachd.service")
        host.do("/usr/lib/attachd/bin/python3", "-I", "-c", FIRST_SCHEMA)
        host.script(
            f"rm -f {JOURNAL}-wal {JOURNAL}-shm\n"
            f"install -o attachd -g attachd -m 0600 /root/older.db {JOURNAL}\n"
            "rm /root/older.db\n"
        )
        package.upgrade()
    assert host.do("sqlite3", JOURNAL, "PRAGMA user_version").strip() == current
    copy = f"{JOURNAL}.schema-1"
    assert host.do("stat", "-c", "%U %a", copy).strip() == "attachd 600"
    assert (attachment_of(host, volume), operations(host), host.sessions()) == before
    assert guest.checksum(disk, MEGABYTES) == written
    assert host.attachctl("audit").status == 0

    assert host.attachctl("detach", guest.name, volume).status == 0
    worlds.assert_nothing_left(volume, guest)
    host.do("rm", copy)


def test_it_stays_while_a_volume_is_attached_and_a_purge_leaves_nothing(
    host: Host, worlds: Worlds, package: Package, guest: Guest, volume: str
) -> None:
    attachment = attached(host, guest, volume)
    refused = host.run("dpkg", "--purge", "attachd")
    assert refused.status != 0
    assert f"{guest.name} {volume} attached" in refused.err
    assert "attachctl detach" in refused.err
    assert host.attachctl("list").status == 0, "it was stopped"
    worlds.assert_attached(guest, volume, attachment)
    assert host.attachctl("detach", guest.name, volume).status == 0
    worlds.assert_nothing_left(volume, guest)

    orphans = owned_by_nobody(host)
    try:
        host.do("dpkg", "--purge", "attachd")
        assert host.run("dpkg-query", "--show", "attachd").status == 1
        for unit in ("attachd.service", "attachd.socket"):
            assert host.do("systemctl", "show", "-P", "LoadState", unit).strip() == "not-found"
        for base in ("passwd", "group"):
            assert host.run("getent", base, "attachd").status == 2, base
        assert host.run("test", "-e", "/run/attachd").status == 1
        left = f"find / -xdev \\( {LABS_OWN} \\) -prune -o -name '*attachd*' -print"
        assert host.do("sh", "-c", left) == ""
        assert owned_by_nobody(host) <= orphans
        assert host.do("virsh", "domstate", guest.name).strip() == "running"
    finally:
        back_to_the_wheel(host)
    assert host.attachctl("list").status == 0


def owned_by_nobody(host: Host) -> set[str]:
    """The files whose user or group is gone."""
    search = f"find / -xdev \\( {LABS_OWN} \\) -prune -o \\( -nouser -o -nogroup \\) -print"
    return set(host.do("sh", "-c", search).splitlines())
