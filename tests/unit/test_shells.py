"""The functional tests' ways to a host: each word of a command arrives as it was."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.functional.lab import Guest, Host, Result
from tests.functional.shells import (
    VARIABLE,
    LabShell,
    LocalShell,
    Shell,
    SshShell,
    chosen,
)

AWKWARD = ("printf", "%s\\n", "two words", "", "it's", "$HOME;", "--", "-x")


@pytest.mark.parametrize(
    ("value", "shell"),
    [
        (None, LabShell()),
        ("lab", LabShell()),
        ("ssh:root@compute", SshShell("root@compute")),
    ],
)
def test_the_environment_chooses(value: str | None, shell: Shell) -> None:
    assert chosen({} if value is None else {VARIABLE: value}) == shell


def test_this_machine_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for uid in (0, 1000):
        monkeypatch.setattr("os.geteuid", lambda uid=uid: uid)
        assert chosen({VARIABLE: "local"}) == LocalShell(is_root=uid == 0)


@pytest.mark.parametrize("value", ["", "ssh", "ssh:", "local:root", "lab:x", "somewhere"])
def test_nonsense_is_refused_and_named(value: str) -> None:
    with pytest.raises(ValueError, match=f"{VARIABLE} is lab, local or ssh.*{value!r}"):
        chosen({VARIABLE: value})


def test_the_labs_way_is_its_tool() -> None:
    program, tool, *words = LabShell().words(AWKWARD)
    assert program == sys.executable
    assert Path(tool).is_file()
    assert words == ["ssh", "--", *AWKWARD]


def test_only_who_is_not_root_needs_sudo() -> None:
    assert LocalShell(is_root=True).words(AWKWARD) == [*AWKWARD]
    assert LocalShell(is_root=False).words(AWKWARD) == ["sudo", "--non-interactive", "--", *AWKWARD]


def test_the_shell_at_the_other_end_of_ssh_takes_no_word_apart() -> None:
    *ssh, login, said = SshShell("root@compute").words(AWKWARD)
    assert (ssh[0], login) == ("ssh", "root@compute")
    done = subprocess.run(["sh", "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [*AWKWARD[2:]]


class Noted:
    """Runs every command on this machine, as who runs the tests, and remembers it."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, ...]] = []

    def words(self, argv: Sequence[str]) -> list[str]:
        self.ran.append(tuple(argv))
        return ["env", "--", *argv] if argv[0] != "lab-guest" else ["echo", *argv]


def test_a_host_is_its_shell() -> None:
    host = Host(Noted())
    assert host.run("sh", "-c", "cat; exit 3", stdin="in") == Result(3, "in", "")
    assert host.script("echo $((6 * 7))") == "42\n"
    with pytest.raises(AssertionError, match="false: 1"):
        host.do("false")
    begun = host.run_in_background("cat")
    assert begun.communicate(timeout=60) == ("", "")


def test_a_guest_is_reached_through_its_host() -> None:
    shell = Noted()
    guest = Guest(Host(shell), "web")
    assert guest.run("cat", "/a b").out == "lab-guest exec web -- cat /a b\n"
    assert guest.start().status == 0
    guest.run_in_background("true").communicate(timeout=60)
    assert shell.ran == [
        ("lab-guest", "exec", "web", "--", "cat", "/a b"),
        ("lab-guest", "start", "web"),
        ("lab-guest", "exec", "web", "--", "true"),
    ]
