"""attachd is killed in the old style of an attach and of a detach; see test_kills."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest

from tests.functional.lab import Cloud, Guest, Host, Leftovers, Worlds, eventually
from tests.functional.mortal import CHOSEN, Scene, a_scene, in_turn

pytestmark = pytest.mark.exhaustive


WHOSE = "attach.create.do.after-effect"
"""From here on nobody can tell whether the volume is reserved for us."""


def chosen(verb: str) -> list[str]:
    """The chosen moments of an operation on its way forward."""
    forward = {name for name in CHOSEN if name.startswith(f"{verb}.") and ".do." in name}
    return sorted(forward - {WHOSE})


@pytest.fixture(scope="module")
def scene(host: Host, cloud: Cloud, worlds: Worlds, guest: Guest) -> Iterator[Scene]:
    old_style = host.option("cinder", "attach_flow", "volume-actions")
    with old_style, a_scene(host, cloud, worlds, guest) as scene:
        yield scene


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left(host: Host, left_before: list[Leftovers]) -> Iterator[None]:
    """Behind the last of these tests."""
    yield
    assert host.leftovers() == left_before[0]


@pytest.mark.parametrize("moment", in_turn(chosen("attach"), chosen("detach")))
def test_killed_in_the_old_style(scene: Scene, moment: str, tell: Callable[[str], None]) -> None:
    verb = moment.partition(".")[0]
    scene.become(attached=verb == "detach")
    tell("attached" if scene.ask(verb, moment, nullcontext()) else "not attached")


def test_killed_before_it_is_known_whose_reservation_it_is(scene: Scene) -> None:
    """It is left alone, and an operator decides (law 11)."""
    scene.become(attached=False)
    with scene.dying_at(WHOSE):
        result = scene.host.attachctl("attach", scene.guest.name, scene.volume)
        assert result.status == 5, result.out + result.err

    def asks_for_attention() -> bool:
        return [o["state"] for o in scene.host.open_operations()] == ["needs-attention"]

    eventually("it asks for attention", asks_for_attention)
    (waiting,) = scene.host.open_operations()
    assert scene.cloud.status(scene.volume) == "attaching"
    scene.cloud.set_status(scene.volume, "available")
    resumed = scene.host.attachctl("operation", "resume", waiting["operation_id"])
    assert resumed.status == 1, resumed.out + resumed.err
    eventually("nothing is open", lambda: not scene.host.open_operations())
    assert not scene.is_attached()
