"""Progress on stderr: what is under way, for how long, and why it failed."""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

Argv = Sequence[str | Path]

TICK_SECONDS = 15.0
TAIL_LINES = 30


class LabError(Exception):
    """Something the user must know; shown without a traceback."""


def note(text: str) -> None:
    """Print one line of progress."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a long step, say from time to time that it still runs, and how long it took."""
    started = time.monotonic()
    done = threading.Event()

    def tick() -> None:
        while not done.wait(TICK_SECONDS):
            note(f"{title} ... {time.monotonic() - started:.0f} s")

    note(f"{title} ...")
    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()
    note(f"{title}: {time.monotonic() - started:.1f} s")


def tail(log: Path) -> str:
    """Return the end of a log, for an error's message."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
    except FileNotFoundError:
        return f"({log} is missing)"
    return "\n".join([f"--- the end of {log}", *lines])


def run_logged(argv: Argv, log: Path, cwd: Path | None = None) -> None:
    """Run a command with its output in a log; when it fails, the log's end is the error.

    It never outlives this process: on Ctrl-C it is killed before the exception goes on, and if
    this process is killed the kernel kills it, too (where no sudo stands between the two).
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *argv],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            status = child.wait()
        except BaseException:
            with contextlib.suppress(PermissionError):  # sudo is root's, and ends on Ctrl-C itself
                child.kill()
            child.wait()
            raise
    if status:
        raise LabError(f"{argv[0]} failed with status {status}\n{tail(log)}")
