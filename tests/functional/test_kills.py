"""attachd is killed at each moment that has a name, and in the middle of its outside calls.

Behind each: systemd starts it again, it recovers by itself, the four worlds agree by other eyes,
and every byte that was on the volume still is. ``make test`` runs the chosen ones, ``make crash``
all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import pytest

from tests.functional import faults
from tests.functional.lab import Cloud, Guest, Host, Leftovers, Worlds, eventually
from tests.functional.mortal import Scene, a_scene, in_turn, points


@pytest.fixture(scope="module")
def scene(host: Host, cloud: Cloud, worlds: Worlds, guest: Guest) -> Iterator[Scene]:
    with a_scene(host, cloud, worlds, guest) as scene:
        yield scene


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left(host: Host, left_before: list[Leftovers]) -> Iterator[None]:
    """Behind the last of these tests. Between them the volume stays as each has left it: all four
    worlds agree on that, or it has failed.
    """
    yield
    assert host.leftovers() == left_before[0]


@pytest.mark.parametrize(
    "moment",
    in_turn(points("attach", "do"), points("detach", "do")),
)
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


@pytest.mark.parametrize("moment", in_turn(points("release", "do"), points("adopt", "do")))
def test_killed_in_a_release_or_an_adopt(
    scene: Scene, moment: str, tell: Callable[[str], None]
) -> None:
    """Whatever attachd knows of it afterwards: the guest has its disk all along."""
    verb = moment.partition(".")[0]
    if verb == "release":
        scene.become(attached=True)
    elif scene.is_known():
        scene.do("release")
    with scene.dying_at(moment):
        result = scene.host.attachctl(verb, scene.guest.name, scene.volume)
        assert result.status in (0, 1, 5), result.out + result.err
    eventually("nothing is open", lambda: not scene.host.open_operations())
    assert scene.bytes_in_guest() == scene.checksum
    audit = scene.host.attachctl("audit")
    assert audit.status == 0, audit.out + audit.err
    tell("attachd's" if scene.is_known() else "released")
    if not scene.is_known():
        scene.do("adopt")
    assert scene.is_attached()


@pytest.mark.parametrize("moment", points("extend", "do"))
def test_killed_in_an_extend(scene: Scene, moment: str, tell: Callable[[str], None]) -> None:
    """The guest has its disk, in the size that Cinder says, or in the one before in all worlds."""
    scene.become(attached=True)
    before, _ = scene.cloud.size(scene.volume)
    with scene.dying_at(moment):
        result = scene.host.attachctl("extend", scene.guest.name, scene.volume, str(before + 1))
        assert result.status in (0, 1, 5), result.out + result.err
    eventually("nothing is open", lambda: not scene.host.open_operations())
    assert scene.is_attached()
    size, status = scene.cloud.size(scene.volume)
    assert status == "in-use"
    assert size in (before, before + 1)
    eventually("the guest has that size", lambda: scene.gib_in_guest() == size)
    tell("extended" if size > before else "as before")


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
