"""A daemon that dies when it is told to, and a guest with a volume whose bytes must outlive it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import zip_longest

import pytest

from attachd.engine.kill_points import VARIABLE, all_names
from tests.functional.lab import Cloud, Guest, Host, Worlds, eventually

MEGABYTES = 4
DROP_IN = "/run/systemd/system/attachd.service.d/kill.conf"
KILL_AT = "/var/lib/attachd/kill-at"
"""The file that names the moment; the daemon removes it itself, as it dies."""


CHOSEN = frozenset(
    {
        "attach.reserve.do.after-intent",
        "attach.create.do.after-effect",
        "attach.update.do.after-intent+0.5",
        "attach.connect.do.after-intent+2",
        "attach.connect.do.after-effect",
        "attach.plug.do.after-intent",
        "attach.connect.undo.after-effect",
        "detach.unplug.do.after-intent+0.3",
        "detach.disconnect.do.after-intent+1",
        "detach.delete.do.after-effect",
        "release.forget.do.after-intent",
        "extend.cinder-extend.do.after-intent+1",
    }
)

# Seconds behind an intent at which the step's outside call is under way.
INSIDE = [
    *("attach.create.do.after-intent+0.1", "attach.create.do.after-intent+0.3"),
    *("attach.update.do.after-intent+0.5", "attach.update.do.after-intent+3"),
    *(f"attach.connect.do.after-intent+{seconds}" for seconds in (0.5, 1, 1.5, 2, 2.5, 3)),
    *("attach.plug.do.after-intent+0.2", "attach.plug.do.after-intent+0.6"),
    *("attach.complete.do.after-intent+0.2", "attach.complete.do.after-intent+0.5"),
    *("detach.begin.do.after-intent+0.1", "detach.begin.do.after-intent+0.3"),
    *("detach.unplug.do.after-intent+0.3", "detach.unplug.do.after-intent+0.8"),
    *(f"detach.disconnect.do.after-intent+{seconds}" for seconds in (0.5, 1, 1.5, 2, 3)),
    *("detach.delete.do.after-intent+0.3", "detach.delete.do.after-intent+2"),
    *("extend.cinder-extend.do.after-intent+1", "extend.cinder-extend.do.after-intent+4"),
    *("extend.host-extend.do.after-intent+0.5", "extend.host-extend.do.after-intent+1.5"),
    *("extend.resize.do.after-intent+0.2", "adopt.identify.do.after-intent+0.3"),
]


def points(operation: str, verb: str) -> list[object]:
    """The moments of an operation; those that aren't chosen are left to ``make crash``."""
    return [
        pytest.param(name, marks=() if name in CHOSEN else pytest.mark.exhaustive)
        for name in [*all_names(), *INSIDE]
        if name.startswith(f"{operation}.") and f".{verb}." in name
    ]


def in_turn(*lists: Sequence[object]) -> list[object]:
    """One of each, over and over: where an attach ends attached, a detach can begin."""
    return [each for row in zip_longest(*lists) for each in row if each is not None]


@contextmanager
def mortal(host: Host) -> Iterator[None]:
    """A daemon that can be told when to die."""
    environment = f"[Service]\nEnvironment={VARIABLE}={KILL_AT}\n"
    anew = "systemctl daemon-reload; systemctl restart attachd.service"
    host.do(
        *("sh", "-euc", f"mkdir -p {DROP_IN.rpartition('/')[0]}; cat > {DROP_IN}; {anew}"),
        stdin=environment,
    )
    try:
        yield
    finally:
        host.script(f"rm -f {DROP_IN} {KILL_AT}; {anew}")


@contextmanager
def a_scene(host: Host, cloud: Cloud, worlds: Worlds, guest: Guest) -> Iterator[Scene]:
    """The volume is written once; behind the last kill its bytes are read once more."""
    with mortal(host):
        scene = Scene(host, worlds, cloud, guest, cloud.volume())
        scene.become(attached=True)
        disk = guest.disk_with_serial(scene.volume)
        assert disk is not None
        scene.checksum = guest.write(disk, MEGABYTES)
        yield scene
        scene.become(attached=True)
        assert scene.is_attached()
        scene.become(attached=False)
        cloud.delete(scene.volume)


@dataclass
class Scene:
    """A running guest, a volume with bytes on it, and the daemon that shall die."""

    host: Host
    worlds: Worlds
    cloud: Cloud
    guest: Guest
    volume: str
    checksum: str = ""

    @contextmanager
    def dying_at(self, moment: str) -> Iterator[None]:
        """The daemon dies once at this moment, and did when this is left."""
        doomed = self.pid()
        self.host.do("sh", "-c", f"cat > {KILL_AT}", stdin=moment)
        yield
        eventually(
            f"it dies at {moment}, or a little later", lambda: self.pid() != doomed, patience=60
        )

    def pid(self) -> int:
        """The daemon's main process; systemd has it running again."""
        eventually(
            "attachd runs",
            lambda: self.host.run("systemctl", "is-active", "-q", "attachd").status == 0,
        )
        return int(self.host.do("systemctl", "show", "-P", "MainPID", "attachd.service"))

    def ask(self, verb: str, moment: str, around: AbstractContextManager[object]) -> bool:
        """Ask for an operation, die in it, wait until nothing is open; what was told is true.

        Is it attached afterwards?
        """
        with around, self.dying_at(moment):
            result = self.host.attachctl(verb, self.guest.name, self.volume)
            assert result.status in (0, 1, 5), result.out + result.err
        eventually("nothing is open", lambda: not self.host.open_operations())
        attached = self.is_attached()
        if result.status != 5:  # which is told before it is resumed by itself
            assert attached == ((verb, result.status) in (("attach", 0), ("detach", 1)))
        return attached

    def become(self, *, attached: bool) -> None:
        """As a user would, where the last test left it otherwise."""
        if self.is_known() != attached:
            self.do("attach" if attached else "detach")

    def do(self, verb: str) -> None:
        """As a user would."""
        result = self.host.attachctl(verb, self.guest.name, self.volume)
        assert result.status == 0, result.err

    def is_known(self) -> bool:
        """Does attachd say that it is attached?"""
        return bool(self.host.api("attachments")["attachments"])

    def bytes_in_guest(self) -> str:
        """The checksum of what the guest reads; attachd isn't asked."""
        disk = self.guest.disk_with_serial(self.volume)
        assert disk is not None
        return self.guest.checksum(disk, MEGABYTES)

    def gib_in_guest(self) -> float:
        """The size of the disk, as the guest's own kernel knows it."""
        disk = self.guest.disk_with_serial(self.volume)
        assert disk is not None
        return self.guest.size(disk) / 1024**3

    def is_attached(self) -> bool:
        """The four worlds agree, one way or the other; and no byte is lost."""
        audit = self.host.attachctl("audit")
        assert audit.status == 0, audit.out + audit.err
        listed = self.host.api("attachments")["attachments"]
        if not listed:
            self.worlds.assert_nothing_left(self.volume, self.guest)
            self.assert_no_export()
            return False
        (attachment,) = listed
        assert attachment["state"] == "attached"
        disk = self.worlds.assert_attached(self.guest, self.volume, attachment)
        assert self.guest.checksum(disk, MEGABYTES) == self.checksum
        return True

    def assert_no_export(self) -> None:
        """Cinder's target lets no initiator in to this volume any more."""
        acls = self.host.script(
            "ls -d /sys/kernel/config/target/iscsi/*/tpgt_1/acls/iqn* 2>/dev/null || true"
        )
        assert self.volume not in acls
