"""attachd is killed at each moment that has a name, and in the middle of its outside calls.

Behind each: systemd starts it again, it recovers by itself, the four worlds agree by other eyes,
and every byte that was on the volume still is. ``make test`` runs the chosen ones, ``make crash``
all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import zip_longest

import pytest

from attachd.engine.kill_points import VARIABLE, all_names
from tests.functional import faults
from tests.functional.lab import Cloud, Guest, Host, Leftovers, Worlds, eventually

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
        "attach.complete.do.before-intent",
        "attach.connect.undo.after-effect",
        "detach.begin.do.after-effect",
        "detach.unplug.do.after-intent+0.3",
        "detach.disconnect.do.after-intent+1",
        "detach.delete.do.after-effect",
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
]


def points(prefix: str, verb: str) -> list[object]:
    """The moments of an operation, those that are left to ``make crash`` marked."""
    return [
        pytest.param(name, marks=() if name in CHOSEN else pytest.mark.exhaustive)
        for name in [*all_names(), *INSIDE]
        if name.startswith(f"{prefix}.") and f".{verb}." in name
    ]


def in_turn(*lists: list[object]) -> list[object]:
    """One of each, over and over: where an attach ends attached, a detach can begin."""
    return [each for row in zip_longest(*lists) for each in row if each is not None]


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
        if bool(self.host.api("attachments")["attachments"]) != attached:
            verb = "attach" if attached else "detach"
            result = self.host.attachctl(verb, self.guest.name, self.volume)
            assert result.status == 0, result.err

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


@pytest.fixture(scope="module")
def mortal(host: Host) -> Iterator[None]:
    """A daemon that can be told when to die."""
    environment = f"[Service]\nEnvironment={VARIABLE}={KILL_AT}\n"
    anew = "systemctl daemon-reload; systemctl restart attachd.service"
    host.do(
        *("sh", "-euc", f"mkdir -p {DROP_IN.rpartition('/')[0]}; cat > {DROP_IN}; {anew}"),
        stdin=environment,
    )
    yield
    host.script(f"rm -f {DROP_IN} {KILL_AT}; {anew}")


@pytest.fixture(scope="module")
def scene(host: Host, cloud: Cloud, worlds: Worlds, guest: Guest, mortal: None) -> Iterator[Scene]:
    """The volume is written once; behind the last kill its bytes are read once more."""
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


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left(host: Host, left_before: list[Leftovers]) -> Iterator[None]:
    """Behind the last of these tests. Between them the volume stays as each has left it: all four
    worlds agree on that, or it has failed.
    """
    yield
    assert host.leftovers() == left_before[0]


@pytest.mark.parametrize("moment", in_turn(points("attach", "do"), points("detach", "do")))
def test_killed(scene: Scene, moment: str, tell: Callable[[str], None]) -> None:
    verb = moment.partition(".")[0]
    scene.become(attached=verb == "detach")
    tell("attached" if scene.ask(verb, moment, nullcontext()) else "not attached")


@pytest.mark.parametrize("moment", points("attach", "undo"))
def test_killed_in_an_attachs_undo(scene: Scene, moment: str, tell: Callable[[str], None]) -> None:
    scene.become(attached=False)
    never = {"path": "/action", "body": "os-complete", "status": 500, "times": 99}
    assert not scene.ask("attach", moment, faults.cinder_that_fails(scene.host, never))
    tell("not attached")


@pytest.mark.parametrize("moment", points("detach", "undo"))
def test_killed_in_a_detachs_undo(scene: Scene, moment: str, tell: Callable[[str], None]) -> None:
    """The guest obeys late: attached for a while, or at once detached."""
    scene.become(attached=True)
    with suspended(scene), scene.dying_at(moment):
        result = scene.host.attachctl("detach", scene.guest.name, scene.volume)
        assert result.status in (1, 5), result.out + result.err
    eventually(
        "the guest that obeyed late has let go",
        lambda: scene.cloud.status(scene.volume) == "available",
    )
    eventually("nothing is open", lambda: not scene.host.open_operations())
    assert not scene.is_attached()
    tell("undone, then detached when the guest obeyed late")


def test_cinder_finishes_an_export_behind_the_recovery(scene: Scene) -> None:
    """cinder-volume is held up, attachd dies, its successor looks, and only then is it exported."""
    scene.become(attached=False)
    host = scene.host
    host.do("systemctl", "kill", "--signal=STOP", "cinder-volume.service")
    try:
        host.begin_and_wait_for("update", "attach", scene.guest.name, scene.volume)
        eventually("the export waits in the queue", lambda: _unacknowledged(host) > 0)
        host.do("systemctl", "kill", "--signal=KILL", "attachd.service")
        eventually("attachd is back", lambda: host.attachctl("list").status == 0)
        assert host.open_operations() != []
        assert scene.cloud.status(scene.volume) == "reserved"
    finally:
        host.do("systemctl", "kill", "--signal=CONT", "cinder-volume.service")
    eventually("nothing is open", lambda: not host.open_operations())
    assert not scene.is_attached()


def test_the_privileged_helper_is_killed_in_a_connect(scene: Scene) -> None:
    scene.become(attached=False)
    host, doomed = scene.host, scene.pid()
    host.begin_and_wait_for("connect", "attach", scene.guest.name, scene.volume)
    host.do("pkill", "-KILL", "-P", str(doomed))
    eventually("there is another daemon", lambda: scene.pid() != doomed)
    eventually("nothing is open", lambda: not host.open_operations())
    assert not scene.is_attached()


def _unacknowledged(host: Host) -> int:
    """How many calls cinder-volume has taken from RabbitMQ and not answered for, or not taken."""
    listed = host.do("rabbitmqctl", "--quiet", "list_queues", "name", "messages")
    return sum(int(line.split()[1]) for line in listed.splitlines() if "cinder-volume" in line)


@contextmanager
def suspended(scene: Scene) -> Iterator[None]:
    """The guest ignores its unplug; attachd doesn't wait for long."""
    with scene.host.option("guest", "unplug_timeout", "20"):
        scene.host.do("virsh", "suspend", scene.guest.name)
        try:
            yield
        finally:
            scene.host.do("virsh", "resume", scene.guest.name)
