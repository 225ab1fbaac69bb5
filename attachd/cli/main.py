"""The entry point: parse, run, write; whatever happens becomes words and an exit status."""

from __future__ import annotations

import io
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from attachd.cli.parser import DEFAULT_SOCKET, build_parser
from attachd.errors import Code, Exit

if TYPE_CHECKING:
    from attachd.cli.commands import Outcome
    from attachd.cli.failure import Failure


def main(argv: Sequence[str] | None = None) -> int:
    """Run attachctl with ``argv`` (default: the process's own) and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _main(argv)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


def _main(argv: Sequence[str] | None) -> int:
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as stop:  # argparse has said all there is to say
        return _write(sys.stdout, "", int(stop.code or 0))
    outcome = _run(args)
    status = _write(sys.stdout, outcome.text, outcome.status)
    return _write(sys.stderr, outcome.message, status)


def _run(args: Namespace) -> Outcome:
    # Not at the top: --help shall not wait for them.
    from attachd.cli.client import Client  # noqa: PLC0415
    from attachd.cli.commands import COMMANDS  # noqa: PLC0415
    from attachd.cli.failure import Failure  # noqa: PLC0415

    client = Client(args.socket or os.environ.get("ATTACHD_SOCKET") or DEFAULT_SOCKET)
    try:
        return COMMANDS[args.command](args, client)
    except Failure as failure:
        return _told(failure, args.format)
    except Exception as exc:  # noqa: BLE001 - a traceback is for developers
        return _told(_unforeseen(exc), args.format)
    finally:
        client.close()


def _unforeseen(exc: Exception) -> Failure:
    from attachd.cli.failure import Failure  # noqa: PLC0415

    return Failure(
        Code.INTERNAL_ERROR,
        "attachctl failed in a way that was not foreseen.",
        status=Exit.NEEDS_ATTENTION,
        details=f"{type(exc).__name__}: {exc}",
        resolution="See what the daemon did: attachctl operation list",
    )


def _told(failure: Failure, style: str) -> Outcome:
    """An object on standard output for who asked for JSON, else words on standard error."""
    import json  # noqa: PLC0415

    from attachd.cli.commands import Outcome  # noqa: PLC0415
    from attachd.cli.output import printable  # noqa: PLC0415

    problem = {
        "code": str(failure.code),
        "brief": failure.brief,
        "details": failure.details,
        "resolution": failure.resolution,
    }
    if style == "json":
        return Outcome(text=json.dumps(problem, indent=2) + "\n", status=failure.status)
    lines = (f"{failure.code}: {failure.brief}", failure.details, failure.resolution)
    message = "".join(printable(f"{line}\n", keep="\n") for line in lines if line)
    return Outcome(message=message, status=failure.status)


def _write(stream: TextIO, text: str, status: int) -> int:
    """``status``, or needs-attention where the words found no reader but a full disk."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        _muffle(stream)
    except OSError as exc:
        _muffle(stream)
        if stream is sys.stdout:
            sys.stderr.write(f"attachctl: the output can't be written: {exc.strerror}\n")
        return Exit.NEEDS_ATTENTION
    return status


def _muffle(stream: TextIO) -> None:
    """What is left in the buffer goes nowhere, so that the interpreter's exit is silent."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
