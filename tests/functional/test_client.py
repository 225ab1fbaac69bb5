"""attachctl's manners where they need the real worlds: what a shell is offered, and short lists."""

from __future__ import annotations

import shlex
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.functional.lab import PROJECT, Guest, Host

# What bash does at a Tab: the words of the line, and the function that is bound to the command.
_TAB = """
export ATTACHD_COMPLETION_SECONDS=60  # the emulated Cinder takes its time
COMP_LINE={line}
COMP_POINT=${{#COMP_LINE}} COMP_TYPE=9
_python_argcomplete attachctl
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def completions(tmp_path_factory: pytest.TempPathFactory) -> str:
    """bash's completions, as they are installed."""
    share = tmp_path_factory.mktemp("share")
    subprocess.run([sys.executable, PROJECT / "tools" / "share", share], check=True)
    return (Path(share) / "bash-completion" / "completions" / "attachctl").read_text()


def offered(host: Host, completions: str, line: str) -> set[str]:
    """What bash in the lab's host offers behind the line."""
    out = host.do("bash", "-s", stdin=completions + _TAB.format(line=shlex.quote(line)))
    return {word.strip() for word in out.splitlines() if word.strip()}


def test_bash_offers_guests_and_volumes_and_lists_are_short(
    host: Host, completions: str, guest: Guest, new_volume: Callable[..., str]
) -> None:
    taken_name, free_name = (f"test {uuid.uuid4().hex[:8]}" for _ in range(2))
    taken, free = new_volume(name=taken_name), new_volume(name=free_name)

    def escaped(name: str) -> str:
        return name.replace(" ", "\\ ")

    assert host.attachctl("attach", guest.name, taken, "--quiet").status == 0
    try:
        assert guest.name in offered(host, completions, "attachctl attach ")
        assert offered(host, completions, "attachctl detach ") == {guest.name}
        of_guest = offered(host, completions, f"attachctl detach {guest.name} ")
        assert of_guest == {escaped(taken_name)}
        to_attach = offered(host, completions, f"attachctl attach {guest.name} ")
        assert escaped(free_name) in to_attach
        assert escaped(taken_name) not in to_attach
        assert offered(host, completions, f"attachctl attach {guest.name} {free[:13]}") == {free}
        elsewhere = f"attachctl detach --socket /nowhere {guest.name} "
        assert offered(host, completions, elsewhere) == set()
    finally:
        detached = host.attachctl("detach", guest.name, taken, "-f", "json")
        assert detached.status == 0, detached.err

    newest = host.attachctl("operation", "list", "--limit", "1", "-f", "json").json
    assert [found["operation_id"] for found in newest] == [detached.json["operation_id"]]
    before = f"limit=1&before={newest[0]['operation_id']}"
    (older,) = host.api(f"operations?{before}")["operations"]
    assert (older["kind"], older["volume_id"]) == ("attach", taken)
