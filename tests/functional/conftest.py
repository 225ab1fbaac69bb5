"""The lab, once for all functional tests; guests and volumes; and that no test leaves a thing.

$ATTACHD_TEST_HOST names another host than the lab's (see shells.py): then $OS_CLOUD is its cloud in
a clouds.yaml, attachd runs on it already, and the tests that aren't marked ``cloud`` are left out.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.functional import shells
from tests.functional.lab import (
    Cloud,
    Guest,
    Host,
    Leftovers,
    Worlds,
    making_guests,
    run_lab,
)
from tests.functional.shells import LabShell, Shell

LAB_DIRECTORY = Path(os.environ.get("ATTACHD_LAB_DIR", "~/.cache/attachd-lab")).expanduser()


STORY = pytest.StashKey[list[tuple[str, str]]]()
STORY_FILE = "build/how-it-ended.txt"
"""The table as it grows: a run that is killed keeps what it has seen."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How each test ended that has something to tell."""
    story = terminalreporter.config.stash.get(STORY, [])
    if story:
        terminalreporter.section("how it ended")
    for moment, end in story:
        terminalreporter.write(_row(moment, end))


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Tells how a test with a parameter ended, in a table at the end of the run."""
    file = request.config.rootpath / STORY_FILE
    if STORY not in request.config.stash:
        file.parent.mkdir(exist_ok=True)
        file.write_text("", encoding="utf-8")
    story = request.config.stash.setdefault(STORY, [])

    def add(end: str) -> None:
        story.append((request.node.callspec.id, end))
        with file.open("a", encoding="utf-8") as table:
            table.write(_row(*story[-1]))

    return add


def _row(moment: str, end: str) -> str:
    return f"{moment:45} {end}\n"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    in_lab = isinstance(_shell(), LabShell)
    for item in items:
        if "functional" not in Path(item.path).parts:
            continue
        item.add_marker(pytest.mark.lab)
        if not in_lab and item.get_closest_marker("cloud") is None:
            item.add_marker(pytest.mark.skip(reason="only the lab can do that"))


def _shell() -> Shell:
    try:
        return shells.chosen(os.environ)
    except ValueError as exc:
        raise pytest.UsageError(str(exc)) from exc


@pytest.fixture(scope="session")
def host() -> Host:
    """The host with attachd in it: the lab's, up and with this tree's attachd, or the named one."""
    shell = _shell()
    host = Host(shell)
    if isinstance(shell, LabShell):
        result = run_lab("up", timeout=1800)
        assert result.status == 0, result.err[-4000:]
    else:
        for needed in (("attachctl", "list"), ("lab-guest", "--help")):
            result = host.run(*needed)
            assert result.status == 0, f"{shell} can't: {needed[0]}\n{result.err}"
    if noise := host.run("true").err:
        warnings.warn(f"commands on the host begin with: {noise}", stacklevel=1)
    return host


@pytest.fixture(scope="session")
def cloud(host: Host) -> Cloud:
    """Cinder, asked from outside."""
    if isinstance(_shell(), LabShell):
        return Cloud(LAB_DIRECTORY)
    assert "OS_CLOUD" in os.environ, "OS_CLOUD must name an administrator's cloud in a clouds.yaml"
    return Cloud(None, os.environ["OS_CLOUD"])


@pytest.fixture(scope="session")
def worlds(host: Host, cloud: Cloud) -> Worlds:
    """All four worlds, by other eyes."""
    return Worlds(host, cloud)


@pytest.fixture
def new_guest(host: Host) -> Iterator[Callable[..., Guest]]:
    """Makes guests; all of them are gone behind the test: an idle one costs the others time."""
    with making_guests(host) as make:
        yield make


@pytest.fixture(scope="session")
def guest(host: Host) -> Iterator[Guest]:
    """A running guest with free ports."""
    with making_guests(host) as make:
        yield make()


@pytest.fixture(scope="session")
def idle_volumes(cloud: Cloud) -> Iterator[list[str]]:
    """Volumes that a test left as it got them, for the next one."""
    idle: list[str] = []
    yield idle
    for volume_id in idle:
        cloud.delete(volume_id)


@pytest.fixture
def new_volume(cloud: Cloud, idle_volumes: list[str]) -> Iterator[Callable[..., str]]:
    """Makes volumes; each must be as it was at the end, or deletable: attached to nothing.

    One with a name of its own is used once.
    """
    made: list[str] = []
    named: list[str] = []

    def make(*, name: str | None = None) -> str:
        volume_id = idle_volumes.pop() if name is None and idle_volumes else cloud.volume(name=name)
        (made if name is None else named).append(volume_id)
        return volume_id

    yield make
    for volume_id in made:
        if cloud.status(volume_id) == "available" and not cloud.attachments(volume_id):
            idle_volumes.append(volume_id)
        else:
            cloud.delete(volume_id)
    for volume_id in named:
        cloud.delete(volume_id)


@pytest.fixture
def volume(new_volume: Callable[..., str]) -> str:
    """An available volume of 1 GiB."""
    return new_volume()


@pytest.fixture(scope="session")
def left_before(host: Host) -> list[Leftovers]:
    """What the latest test left, or what was there before the first: the next one finds it."""
    sessions, disks, _ = host.leftovers()
    return [(sessions, disks, [])]


@pytest.fixture(autouse=True)
def nothing_is_left(host: Host, left_before: list[Leftovers]) -> Iterator[None]:
    """No functional test leaves a session, a device, a node record or an open operation."""
    yield
    left = host.leftovers()
    before, left_before[0] = left_before[0], (left[0], left[1], [])
    if left != before:
        host.take_everything_off()
        sessions, disks, _ = host.leftovers()
        left_before[0] = (sessions, disks, [])
    assert left == before
