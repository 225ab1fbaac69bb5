"""The lab as the functional tests use it, or another cloud and host: other eyes than attachd's.

Cinder is asked through its API from outside, the host through iscsiadm, sysfs and configfs, the
guest through virsh and from inside. attachd is only ever driven as a user would: by attachctl. What
a test looks at again and again it asks the API for: attachctl's start costs the emulated CPU two
seconds.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openstack
from openstack.connection import Connection

from tests.functional.shells import LAB, LabShell, Shell

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE = 600
"""Seconds: emulation is slow, and a wait that never ends tells nothing."""
SECTOR = 512
"""Bytes, whatever the disk's own: the kernel counts all sizes in these."""

# iscsiadm that lists nothing where there is nothing: status 21.
_LISTED = "listed() { iscsiadm -m $1 2>/dev/null || [ $? = 21 ]; }; listed"
_SCSI_DISKS = (
    "for d in /sys/block/sd*; do [ -e $d ] || continue; "
    "case $(readlink -f $d) in */session*) echo ${d##*/};; esac; done"
)
API = "curl -fsS --unix-socket /run/attachd/attachd.sock http://attachd/v1"


Leftovers = tuple[list[str], list[str], list[dict[str, Any]]]
"""The iSCSI sessions, the SCSI disks, and attachd's open operations."""


@dataclass(frozen=True)
class Result:
    """A command's end."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)

    @property
    def code(self) -> str:
        """The code of the error that attachctl printed for people: ``code: brief``.

        The shells on the way (a language that isn't installed) may print lines of their own first.
        """
        found = re.search(r"^([a-z]+(?:-[a-z]+)+): ", self.err, re.MULTILINE)
        assert found, f"no code in: {self.err!r} {self.out!r}"
        return found[1]


def run_lab(*argv: str, timeout: float = PATIENCE) -> Result:
    """Run ``tools/lab`` with these words."""
    return _run([sys.executable, str(LAB), *argv], timeout=timeout)


def _run(words: Sequence[str], *, stdin: str = "", timeout: float) -> Result:
    done = subprocess.run(
        words,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def _without_caches(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in member.name else member


def eventually(
    what: str, look: Callable[[], bool], *, patience: float = PATIENCE, pause: float = 1
) -> None:
    """Look again and again until it holds, ``pause`` seconds apart."""
    deadline = time.monotonic() + patience
    while not look():
        if time.monotonic() > deadline:
            raise AssertionError(f"it never came true that {what}")
        time.sleep(pause)


class Host:
    """The host where attachd runs, from root's shell: the lab's, unless told otherwise."""

    def __init__(self, shell: Shell | None = None) -> None:
        self._shell = shell or LabShell()

    def run(self, *argv: str, stdin: str = "", timeout: float = PATIENCE) -> Result:
        """Run a command there, whatever its end."""
        return _run(self._shell.words(argv), stdin=stdin, timeout=timeout)

    def run_in_background(self, *argv: str) -> subprocess.Popen[str]:
        """Begin a command there."""
        return subprocess.Popen(
            self._shell.words(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def do(self, *argv: str, stdin: str = "") -> str:
        """Run a command there that must succeed; what it printed."""
        result = self.run(*argv, stdin=stdin)
        assert result.status == 0, f"{shlex.join(argv)}: {result.status}\n{result.out}{result.err}"
        return result.out

    def script(self, text: str) -> str:
        """Run a shell script there that must succeed; what it printed."""
        return self.do("sh", "-eu", "-s", stdin=text)

    def carry(self, place: str, names: Iterable[str]) -> None:
        """Put these files and directories of the tree into a directory there, under their names."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name in names:
                tar.add(PROJECT / name, arcname=name, filter=_without_caches)
        text = base64.encodebytes(archive.getvalue()).decode()
        self.do("sh", "-c", f"base64 -d | tar -x -C {shlex.quote(place)}", stdin=text)

    def attachctl(self, *argv: str, timeout: float = PATIENCE) -> Result:
        """attachctl, as root."""
        return self.run("attachctl", *argv, timeout=timeout)

    def attachctl_in_background(self, *argv: str) -> subprocess.Popen[str]:
        """attachctl in a shell of its own."""
        return self.run_in_background("attachctl", *argv)

    def restart_attachd(self) -> None:
        """Restart the service; it is ready when this returns."""
        self.do("systemctl", "restart", "attachd.service")

    @contextmanager
    def option(self, group: str, name: str, value: str) -> Iterator[None]:
        """An option of attachd.conf for a while, the daemon restarted before and after."""
        with self.options((group, name, value)):
            yield

    @contextmanager
    def options(self, *settings: tuple[str, str, str]) -> Iterator[None]:
        """The same with several: group, name and value of each."""
        file, kept = "/etc/attachd/attachd.conf", f"/root/attachd.conf.{uuid.uuid4()}"
        self.do("cp", "-p", file, kept)
        try:
            for setting in settings:
                self.do("crudini", "--set", file, *setting)
            self.restart_attachd()
            yield
        finally:
            self.do("cp", "-p", kept, file)
            self.do("rm", kept)
            self.restart_attachd()

    @contextmanager
    def stopped(self, *units: str, masked: bool = False) -> Iterator[None]:
        """Units stopped (and masked) for a while."""
        active = [u for u in units if self.run("systemctl", "is-active", "-q", u).status == 0]
        if masked:
            self.do("systemctl", "mask", "--runtime", *units)
        self.do("systemctl", "stop", *units)
        try:
            yield
        finally:
            if masked:
                self.do("systemctl", "unmask", "--runtime", *units)
            if active:
                self.do("systemctl", "start", *active)

    @contextmanager
    def frozen(self, command: str) -> Iterator[None]:
        """The process with this in its command line does nothing for a while."""
        pid = self.do("pgrep", "--oldest", "--full", command).strip()
        self.do("kill", "-STOP", pid)
        try:
            yield
        finally:
            self.do("kill", "-CONT", pid)

    def leftovers(self) -> Leftovers:
        """The iSCSI sessions, the SCSI disks, and attachd's open operations, by one script."""
        sessions, disks, operations = self.script(
            f"{_LISTED} session\necho ---\n{_SCSI_DISKS}\necho ---\n{API}/operations?open=true\n"
        ).split("---\n")
        listed: list[dict[str, Any]] = json.loads(operations)["operations"]
        return sessions.splitlines(), disks.split(), listed

    def take_everything_off(self) -> None:
        """What a failed test left attached, as far as it goes: one failure shall not be many."""
        for attachment in self.api("attachments")["attachments"]:
            self.attachctl("detach", attachment["guest_id"], attachment["volume_id"])

    # --- what is on the host ----------------------------------------------------------------

    def sessions(self) -> list[str]:
        """The iSCSI sessions' lines, by iscsiadm."""
        result = self.run("iscsiadm", "-m", "session")
        assert result.status in (0, 21), result.err  # 21: no session
        return result.out.splitlines()

    def scsi_disks(self) -> list[str]:
        """The SCSI disks, by sysfs."""
        return self.script(_SCSI_DISKS).split()

    def domain_xml(self, guest: str, *, inactive: bool = False) -> str:
        """A domain's XML, by virsh."""
        return self.do("virsh", "dumpxml", guest, *(["--inactive"] if inactive else []))

    def open_operations(self) -> list[dict[str, Any]]:
        """attachd's own open operations."""
        operations: list[dict[str, Any]] = self.api("operations?open=true")["operations"]
        return operations

    def api(self, path: str) -> Any:
        """What attachd's API answers; it must."""
        return json.loads(self.do("sh", "-c", f"{API}/{shlex.quote(path)}"))

    # --- an operation under way -------------------------------------------------------------

    def begin_and_wait_for(self, step: str, *argv: str) -> str:
        """Begin an operation and wait until a step of it was begun; the operation's id."""
        begun = self.attachctl(*argv, "--no-wait", "-f", "json")
        assert begun.status == 0, begun.out + begun.err
        operation = str(begun.json["operation_id"])
        eventually(f"{step} was begun", lambda: self.has_begun(operation, step))
        return operation

    def wait_for_step(self, step: str, volume_id: str) -> str:
        """Wait until a step of the open operation on a volume was begun; the operation's id."""
        found: list[str] = []

        def reached() -> bool:
            found[:] = [
                operation["operation_id"]
                for operation in self.open_operations()
                if operation["volume"] == volume_id
            ]
            return bool(found) and self.has_begun(found[0], step)

        eventually(f"{step} was begun", reached)
        return found[0]

    def has_begun(self, operation_id: str, step: str) -> bool:
        """Was a step of an operation begun, which must still be under way?"""
        shown = self.operation(operation_id)
        assert shown["state"] in ("accepted", "running"), shown
        return step in [begun["name"] for begun in shown["steps"]]

    def state_of(self, operation_id: str) -> str:
        """An operation's state."""
        return str(self.operation(operation_id)["state"])

    def operation(self, operation_id: str) -> dict[str, Any]:
        """An operation with the steps that it has begun so far."""
        shown: dict[str, Any] = self.api(f"operations/{operation_id}")
        return shown


class Guest:
    """A guest that the host's program lab-guest made (on other hosts: see tools/guest-host)."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.name = name

    def start(self) -> Result:
        """Start it as a user would; it is up when this returns, if that went well."""
        return self.host.run("lab-guest", "start", self.name)

    def run(self, *argv: str, timeout: float = PATIENCE) -> Result:
        """Run a command inside the guest, whatever its end."""
        return self.host.run("lab-guest", "exec", self.name, "--", *argv, timeout=timeout)

    def run_in_background(self, *argv: str) -> subprocess.Popen[str]:
        """Begin a command inside the guest."""
        return self.host.run_in_background("lab-guest", "exec", self.name, "--", *argv)

    def do(self, *argv: str) -> str:
        """Run a command inside the guest that must succeed; what it printed."""
        result = self.run(*argv)
        assert result.status == 0, f"{shlex.join(argv)}: {result.status}\n{result.out}{result.err}"
        return result.out

    def disk_with_serial(self, volume_id: str) -> str | None:
        """The disk that the guest itself sees with the volume's serial: vdb, or None."""
        found = self.do(
            "sh",
            "-c",
            f"grep -ls '^{volume_id[:20]}' /sys/block/*/serial || true",
        ).split()
        return found[0].split("/")[3] if found else None

    def scsi_disk(self, volume_id: str) -> str:
        """The SCSI disk that names the volume in its page of identifiers: sda."""
        script = f"grep -l {volume_id} /sys/block/sd*/device/vpd_pg83"
        return self.do("sh", "-c", script).split("/")[3]

    def size(self, disk: str) -> int:
        """The disk's bytes, as the guest's own kernel knows them."""
        return int(self.do("cat", f"/sys/block/{disk}/size")) * SECTOR

    def write(self, disk: str, megabytes: int) -> str:
        """Fill the disk's first megabytes with random bytes, on the disk; their checksum."""
        self.do(
            "sh",
            "-c",
            f"dd if=/dev/urandom of=/tmp/data bs=1M count={megabytes} 2>/dev/null && "
            f"dd if=/tmp/data of=/dev/{disk} bs=1M conv=fsync 2>/dev/null",
        )
        return self.do("sha256sum", "/tmp/data").split()[0]

    @contextmanager
    def writing(self, disk: str) -> Iterator[None]:
        """It writes and syncs all along, from 64 MiB on; it ends in order, and wrote to the end."""
        script = (
            "rm -f /tmp/end; n=0; until [ -e /tmp/end ]; do "
            "n=$((n + 1)); echo $n > /tmp/next; mv /tmp/next /tmp/count; "
            f"dd if=/dev/zero of=/dev/{disk} bs=64k count=4 seek=1024 conv=fsync 2>/dev/null "
            "|| exit 1; done"
        )
        process = self.run_in_background("sh", "-c", script)
        try:
            yield
            before = int(self.do("cat", "/tmp/count"))
            eventually("it wrote again", lambda: int(self.do("cat", "/tmp/count")) > before + 1)
        finally:
            self.run("touch", "/tmp/end")
            _, err = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, err

    def checksum(self, disk: str, megabytes: int) -> str:
        """The checksum of the disk's first megabytes."""
        return self.do(
            "sh",
            "-c",
            f"dd if=/dev/{disk} bs=1M count={megabytes} 2>/dev/null | sha256sum",
        ).split()[0]


@contextmanager
def making_guests(host: Host) -> Iterator[Callable[..., Guest]]:
    """Makes guests, with options of ``lab-guest create``; all are gone at the end."""
    made: list[str] = []

    def make(*options: str) -> Guest:
        name = f"test-{uuid.uuid4().hex[:8]}"
        made.append(name)
        result = host.run("lab-guest", "create", name, *options)
        assert result.status == 0, result.err
        return Guest(host, name)

    try:
        yield make
    finally:
        for name in made:
            host.run("lab-guest", "delete", name)


class Cloud:
    """Cinder, asked from outside as an operator would."""

    def __init__(self, lab_directory: Path | None, name: str = "lab") -> None:
        """``name``: in the lab's clouds.yaml, or in the one that openstacksdk finds by itself."""
        files = None if lab_directory is None else [str(lab_directory / "clouds.yaml")]
        config = openstack.config.OpenStackConfig(config_files=files)
        self.connection = Connection(config=config.get_one(name))
        self.block: Any = self.connection.block_storage
        self.block.default_microversion = "3.59"

    def volume(
        self, *, size: int = 1, name: str | None = None, volume_type: str | None = None
    ) -> str:
        """A new volume's id, once it is available."""
        volume = self.block.create_volume(
            size=size, name=name or f"test-{uuid.uuid4()}", volume_type=volume_type
        )
        self.block.wait_for_status(volume, "available", ["error"], interval=1, wait=PATIENCE)
        return str(volume.id)

    def status(self, volume_id: str) -> str:
        """A volume's status."""
        return str(self.block.get_volume(volume_id).status)

    def attachments(self, volume_id: str) -> list[dict[str, Any]]:
        """A volume's attachments."""
        answer = self.block.get(f"/attachments/detail?volume_id={volume_id}&all_tenants=1")
        listed: list[dict[str, Any]] = answer.json()["attachments"]
        return listed

    @contextmanager
    def volume_type(
        self, *, extra_specs: dict[str, str] | None = None, qos: dict[str, str] | None = None
    ) -> Iterator[str]:
        """The name of a volume type for a while. ``qos``: for the front end."""
        made = self.block.create_type(name=f"test-{uuid.uuid4()}", extra_specs=extra_specs or {})
        specs = None
        if qos is not None:
            body = {"name": made.name, "consumer": "front-end", **qos}
            answer = self.block.post("/qos-specs", json={"qos_specs": body})
            assert answer.ok, answer.text
            specs = answer.json()["qos_specs"]["id"]
            assert self.block.get(f"/qos-specs/{specs}/associate?vol_type_id={made.id}").ok
        try:
            yield str(made.name)
        finally:
            if specs is not None:
                assert self.block.delete(f"/qos-specs/{specs}?force=true").ok
            self.block.delete_type(made)

    @contextmanager
    def used_elsewhere(self, volume_id: str) -> Iterator[None]:
        """Another host has the volume for a while."""
        connector = {"initiator": "iqn.1993-08.org.debian:01:else", "ip": "192.0.2.7"}
        asked = {"volume_uuid": volume_id, "connector": {**connector, "host": "else"}}
        answer = self.block.post("/attachments", json={"attachment": asked})
        assert answer.ok, answer.text
        attachment_id = answer.json()["attachment"]["id"]
        done = {"os-complete": attachment_id}
        assert self.block.post(f"/attachments/{attachment_id}/action", json=done).ok
        try:
            yield
        finally:
            answer = self.block.delete(f"/attachments/{attachment_id}")
            assert answer.ok, answer.text

    @contextmanager
    def quota(self, **limits: int) -> Iterator[None]:
        """The project's limits for a while."""
        place = f"/os-quota-sets/{self.connection.current_project_id}"
        before = self.block.get(place).json()["quota_set"]
        assert self.block.put(place, json={"quota_set": limits}).ok
        try:
            yield
        finally:
            kept = {name: before[name] for name in limits}
            assert self.block.put(place, json={"quota_set": kept}).ok

    @contextmanager
    def without_role(self, user: str, project: str, role: str) -> Iterator[None]:
        """A user hasn't a role in a project for a while."""
        identity: Any = self.connection.identity
        who = (identity.find_project(project), identity.find_user(user), identity.find_role(role))
        identity.unassign_project_role_from_user(*who)
        try:
            yield
        finally:
            identity.assign_project_role_to_user(*who)

    def extend(self, volume_id: str, size_gib: int) -> None:
        """Extend a volume in use, and wait until it is so again."""
        answer = self.block.post(
            f"/volumes/{volume_id}/action",
            json={"os-extend": {"new_size": size_gib}},
            microversion="3.42",
        )
        assert answer.status_code == 202, answer.text
        eventually("it has grown", lambda: self.size(volume_id) == (size_gib, "in-use"))

    def size(self, volume_id: str) -> tuple[int, str]:
        """A volume's size in GiB, and its status."""
        volume = self.block.get_volume(volume_id)
        return int(volume.size), str(volume.status)

    def delete(self, volume_id: str) -> None:
        """Delete a volume and wait until it is gone."""
        volume = self.block.get_volume(volume_id)
        self.block.delete_volume(volume, ignore_missing=True)
        self.block.wait_for_delete(volume, interval=1, wait=PATIENCE)

    def set_status(self, volume_id: str, status: str) -> None:
        """An administrator's reset-state."""
        self.block.reset_volume_status(volume_id, status=status)


class Worlds:
    """All four worlds, looked at with other eyes than attachd's."""

    def __init__(self, host: Host, cloud: Cloud) -> None:
        self.host = host
        self.cloud = cloud

    def assert_attached(self, guest: Guest, volume_id: str, attachment: dict[str, Any]) -> str:
        """All four agree that it is attached; the device name that the guest itself uses."""
        self._assert_connected(volume_id, attachment)
        self._assert_in_xml(guest, volume_id, attachment, inactive=False)
        self._assert_in_xml(guest, volume_id, attachment, inactive=True)
        disk = guest.disk_with_serial(volume_id)
        assert disk is not None
        return disk

    def assert_attached_shut_off(
        self, guest: Guest, volume_id: str, attachment: dict[str, Any]
    ) -> None:
        """All four agree that it is attached to a guest that doesn't run."""
        assert self.host.do("virsh", "domstate", guest.name).strip() == "shut off"
        self._assert_connected(volume_id, attachment)
        self._assert_in_xml(guest, volume_id, attachment, inactive=True)

    def assert_attached_transient(
        self, guest: Guest, volume_id: str, attachment: dict[str, Any]
    ) -> None:
        """All four agree that it is attached to a running guest without a persistent XML."""
        assert guest.name not in self.host.do("virsh", "list", "--persistent", "--all", "--name")
        self._assert_connected(volume_id, attachment)
        self._assert_in_xml(guest, volume_id, attachment, inactive=False)
        assert guest.disk_with_serial(volume_id) is not None

    def _assert_connected(self, volume_id: str, attachment: dict[str, Any]) -> None:
        assert self.cloud.status(volume_id) == "in-use"
        (record,) = self.cloud.attachments(volume_id)
        assert record["status"] == "attached"
        assert record["id"] == attachment["attachment_id"]
        assert any(volume_id in line for line in self.host.sessions())
        path = attachment["host_path"]
        assert path.startswith("/dev/disk/by-id/")
        self.host.do("test", "-b", path)

    def _assert_in_xml(
        self, guest: Guest, volume_id: str, attachment: dict[str, Any], *, inactive: bool
    ) -> None:
        xml = self.host.domain_xml(guest.name, inactive=inactive)
        assert f"<serial>{volume_id}</serial>" in xml
        assert attachment["host_path"] in xml

    def assert_nothing_left(self, volume_id: str, *guests: Guest) -> None:
        """All four agree that it never was, or is no more."""
        assert self.cloud.status(volume_id) == "available"
        assert self.cloud.attachments(volume_id) == []
        names = " ".join(shlex.quote(guest.name) for guest in guests)
        # One script: each command that goes to the emulated host alone costs a second.
        everything = self.host.script(
            f"{_LISTED} session; {_LISTED} node\n"
            f"for guest in {names}\n"
            "do virsh dumpxml $guest; virsh dumpxml --inactive $guest; done\n"
            f"{API}/attachments\n"
        )
        assert volume_id not in everything
