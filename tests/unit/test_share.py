"""The man pages and completions that tools/share writes: whole, sound, and of this very attachd."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from attachd import conf
from attachd.cli.parser import build_parser
from attachd.errors import Exit
from tests.fakes.engine import FakeEngine
from tests.unit.cli.terminal import Terminal
from tests.unit.serving import serving

PROJECT = Path(__file__).resolve().parents[2]
PAGES = {"attachctl": "man1/attachctl.1", "attachd": "man8/attachd.8"}
PAGES["attachd.conf"] = "man5/attachd.conf.5"
SECTIONS = ["NAME", "SYNOPSIS", "DESCRIPTION", "FILES", "EXAMPLES", "SEE ALSO"]
SECTIONS_OF_COMMANDS = [*SECTIONS, "OPTIONS", "EXIT STATUS"]


def written(directory: Path) -> Path:
    subprocess.run(
        [sys.executable, PROJECT / "tools" / "share", directory],
        check=True,
        capture_output=True,
        env={"SOURCE_DATE_EPOCH": "1700000000", "PATH": "/usr/bin:/bin"},
    )
    return directory


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("share"))


def words(page: Path) -> str:
    """A page's text without its marks."""
    plain = re.sub(r"\\f[BIR]|\\&|^\.(TP|PP|nf|fi)\n", "", page.read_text(), flags=re.MULTILINE)
    return plain.replace(r"\-", "-").replace(r"\(aq", "'").replace(r"\(ti", "~")


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from parsers(below)


def needs(program: str) -> None:
    """A test that passes over what isn't there looks as if it had passed."""
    assert shutil.which(program), f"{program} isn't here: tools/setup installs it"


# --- man pages --------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES.values())
@pytest.mark.parametrize(
    "checker", [("mandoc", "-Tlint", "-Wstyle"), ("man", "--warnings", "-l", "-Tutf8")]
)
def test_nothing_is_wrong_with_a_page(share: Path, checker: tuple[str, ...], page: str) -> None:
    needs(checker[0])
    checked = subprocess.run(
        [*checker, share / "man" / page], capture_output=True, text=True, check=False
    )
    complaints = checked.stdout if checker[0] == "mandoc" else checked.stderr
    # That the other pages aren't installed here is no fault of this one.
    wrong = [line for line in complaints.splitlines() if "referenced manual not found" not in line]
    assert wrong == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_what_each_page_has(share: Path, name: str) -> None:
    page = (share / "man" / PAGES[name]).read_text()
    sections = re.findall(r"^\.SH (.*)$", page, flags=re.MULTILINE)
    assert set(sections) >= set(SECTIONS if name == "attachd.conf" else SECTIONS_OF_COMMANDS)
    assert re.search(rf"^\.TH {name.upper()} \d 2023-11-14 ", page, flags=re.MULTILINE)


def test_every_command_option_and_exit_status_is_told(share: Path) -> None:
    text = words(share / "man" / PAGES["attachctl"])
    for parser in parsers(build_parser()):
        commands = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        assert commands or re.search(rf"^\.SS {parser.prog}( [A-Z ]+)?$", text, re.MULTILINE)
        for action in parser._actions:
            for option in action.option_strings:
                assert re.search(rf"^(.*, )?{option}[ ,\n]", text, re.MULTILINE), option
        for column in (parser.epilog or "").partition("columns: ")[2].split(", "):
            assert column in text
    listed = text.partition(".SH EXIT STATUS\n")[2].partition(".SH ")[0]
    assert [int(found) for found in re.findall(r"^\d+$", listed, re.MULTILINE)] == list(Exit)


def test_every_option_of_the_configuration_is_told(share: Path) -> None:
    text = words(share / "man" / PAGES["attachd.conf"])
    for group, options in conf.list_opts():
        section = text.partition(f".SH [{group}]\n")[2].partition("\n.SH ")[0]
        for option in options:
            assert re.search(rf"^{option.dest}$", section, re.MULTILINE), (group, option.dest)


def test_every_option_of_the_daemon_is_told(share: Path) -> None:
    helped = subprocess.run(
        [sys.executable, "-m", "attachd", "--help"], capture_output=True, text=True, check=True
    ).stdout
    text = words(share / "man" / PAGES["attachd"])
    options = re.findall(r"^  (-.*?)(?:  |$)", helped, re.MULTILINE)
    assert len(options) > 10
    for option in options:
        assert f"\n{option}\n" in text


def test_the_examples_are_right(share: Path, tmp_path: Path) -> None:
    """attachctl's are taken by its parser, those of the file by attachd."""
    text = words(share / "man" / PAGES["attachctl"]).partition(".SH EXAMPLES")[2]
    commands = [line for line in text.splitlines() if line.startswith("attachctl ")]
    assert len(commands) > 5
    for command in commands:
        build_parser().parse_args(shlex.split(command.partition(">")[0])[1:])

    example = (share / "man" / PAGES["attachd.conf"]).read_text().partition(".nf\n")[2]
    file = tmp_path / "attachd.conf"
    file.write_text(example.partition(".fi")[0].replace(r"\&", ""))
    assert conf.load([], files=[file]).brick.multipath == "on"


def test_a_build_can_be_the_same_every_time(share: Path, tmp_path: Path) -> None:
    again = written(tmp_path)
    files = [path.relative_to(share) for path in share.rglob("*") if path.is_file()]
    assert len(files) == 6
    for name in files:
        assert (again / name).read_bytes() == (share / name).read_bytes()


# --- completions ------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, engine: FakeEngine) -> Iterator[Path]:
    """A user's, who has attachctl, a daemon, and nothing else."""
    program = tmp_path / "bin" / "attachctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m attachd.cli.main "$@"\n')
    program.chmod(0o755)
    with serving(engine, tmp_path / "attachd.sock"):
        yield tmp_path


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine()
    engine.guests = {"web": engine.guests["web"], "the db": engine.guests["db"]}
    return engine


def environment(home: Path) -> dict[str, str]:
    return {
        "HOME": str(home),
        "ZDOTDIR": str(home),
        "XDG_CONFIG_HOME": str(home),
        "PATH": f"{home}/bin:/usr/bin:/bin",
        "PYTHONPATH": str(PROJECT),
        "ATTACHD_SOCKET": str(home / "attachd.sock"),
        "ATTACHD_COMPLETION_SECONDS": "60",
    }


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_tab_completes(share: Path, home: Path, shell: str) -> None:
    needs(shell)
    (home / ".bashrc").write_text(
        f"PS1='$ '\nsource {share}/bash-completion/completions/attachctl\n"
    )
    (home / ".zshrc").write_text(
        f"PS1='$ '\nfpath=({share}/zsh/vendor-completions $fpath)\n"
        "autoload -Uz compinit\ncompinit -u -D\n"
    )
    program = {"bash": ("bash", "--rcfile", f"{home}/.bashrc", "-i"), "zsh": ("zsh", "-d", "-i")}
    with Terminal(program=program[shell], environment=environment(home)) as terminal:

        def typed(keys: str, line: str) -> None:
            terminal.type(keys)
            terminal.until(lambda lines: lines and lines[-1].endswith(line))

        terminal.until(lambda lines: "$" in "".join(lines))
        typed("attachctl det\t", "attachctl detach")
        typed("\x15attachctl attach w\t", "attachctl attach web")
        typed("lo\t", "attachctl attach web logs")
        typed("--bus vir\t", "attachctl attach web logs --bus virtio")
        typed("\x15attachctl attach the\t", r"attachctl attach the\ db")
        typed("\x15attachctl trace x --form\t", "attachctl trace x --format")


def test_fish_completes_with_descriptions(share: Path, home: Path) -> None:
    needs("fish")

    def offered(line: str) -> list[str]:
        script = f"source {share}/fish/vendor_completions.d/attachctl.fish; complete -C '{line}'"
        return subprocess.run(
            ["fish", "--no-config", "-c", script],
            env={**environment(home), "TERM": "xterm"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()

    assert offered("attachctl det") == ["detach\ttake a volume off a guest"]
    assert offered("attachctl attach the") == ["the db\trunning"]
    assert offered("attachctl attach web l") == ["logs\t1 GiB"]
