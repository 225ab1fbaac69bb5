"""attachctl trace: an operation's story, drawn by the client."""

from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest

from attachd.errors import Code, Problem
from attachd.model import OperationState
from attachd.story import FORMS
from tests.fakes.engine import Failure, FakeEngine
from tests.unit.cli.conftest import Run

UNDONE = Failure(
    OperationState.UNDONE,
    Problem(code=Code.CONNECT_FAILED, brief="The volume's device did not appear."),
    failed_step="connect",
)


@pytest.fixture
def undone(daemon: FakeEngine, run: Run) -> str:
    """An attach that was rolled back; its id."""
    daemon.failure = UNDONE
    run("attach", "web", "data")
    return daemon.until_submitted()


def test_a_story_is_text_unless_another_form_is_asked_for(run: Run, undone: str) -> None:
    ran = run("trace", undone)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("attach of volume data, guest web: undone\n")
    assert "x connect              FAILED" in ran.out
    assert "< undo create          done" in ran.out
    assert ran.out.endswith("\nconnect-failed: The volume's device did not appear.\n")
    assert run("trace", undone, "--format", "text").out == ran.out


@pytest.mark.parametrize(
    ("form", "head"),
    [
        ("mermaid", "sequenceDiagram\n"),
        ("plantuml", "@startuml\n"),
        ("seqdiag", "seqdiag {\n"),
        ("svg", "<svg "),
    ],
)
@pytest.mark.parametrize("requests", [(), ("--requests",)])
def test_every_form(run: Run, undone: str, form: str, head: str, requests: tuple[str, ...]) -> None:
    ran = run("trace", undone, "--format", form, *requests)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(head)
    assert "did not appear" in ran.out
    if form == "svg":
        ET.fromstring(ran.out)  # noqa: S314 - our own


def test_an_operation_that_still_runs_has_a_story(daemon: FakeEngine, run: Run) -> None:
    daemon.hold = True
    run("attach", "web", "data", "--no-wait")
    ran = run("trace", daemon.until_submitted())
    assert ran.status == 0
    assert ran.out.startswith("attach of volume data, guest web: running\n")
    assert "-> user" not in ran.out


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.usefixtures("daemon")
def test_no_such_operation_is_3(run: Run, form: str) -> None:
    ran = run("trace", "none", "--format", form)
    assert (ran.status, ran.out) == (3, "")
    assert ran.err.startswith("operation-not-found: ")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("trace",), "arguments are required: OPERATION"),
        (("trace", "x", "--format", "mermade"), "did you mean mermaid?"),
        (("trace", "x", "--request"), "did you mean --requests?"),
        (("trace", "x", "-c", "state"), "unrecognized arguments: -c"),
    ],
)
def test_wrong_usage_is_2(run: Run, argv: tuple[str, ...], words: str) -> None:
    ran = run(*argv)
    assert (ran.status, ran.out) == (2, "")
    assert words in ran.err


def test_help_says_what_it_draws(run: Run) -> None:
    out = run("trace", "--help").out
    assert "The drawn story of an operation" in out
    assert "text (default), mermaid, plantuml, seqdiag, svg" in " ".join(out.split())


_LOADED = """
import sys
from attachd.cli.main import main
status = main(sys.argv[1:])
print(*sorted(name for name in sys.modules), file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.parametrize("form", FORMS)
def test_only_the_renderer_that_is_asked_for_is_loaded(undone: str, form: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _LOADED, "trace", undone, "--format", form],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(ran.stderr.split())
    assert {name for name in FORMS if f"attachd.story.{name}" in loaded} == {form}
    assert ("xml.etree.ElementTree" in loaded) == (form == "svg")
    rooms = {name.split(".")[1] for name in loaded if name.startswith("attachd.")}
    assert rooms == {"cli", "errors", "plain", "story"}
