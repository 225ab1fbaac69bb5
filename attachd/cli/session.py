"""One command: run it, write what it has to say; whatever happens becomes words and a status."""

from __future__ import annotations

import json
import sys
from argparse import Namespace

from attachd.cli.client import Client
from attachd.cli.commands import COMMANDS, Outcome
from attachd.cli.failure import Failure
from attachd.cli.parser import socket_path
from attachd.cli.writing import write
from attachd.errors import Code, Exit
from attachd.plain import printable


def run(args: Namespace) -> int:
    """Run the command that was parsed and return the exit status."""
    outcome = _outcome(args)
    status = write(sys.stdout, outcome.text, outcome.status)
    return write(sys.stderr, outcome.message, status)


def _outcome(args: Namespace) -> Outcome:
    client = Client(socket_path(args))
    try:
        return COMMANDS[args.command](args, client)
    except Failure as failure:
        return _told(failure, args.format)
    except Exception as exc:  # noqa: BLE001 - a traceback is for developers
        return _told(_unforeseen(exc), args.format)
    finally:
        client.close()


def _unforeseen(exc: Exception) -> Failure:
    return Failure(
        Code.INTERNAL_ERROR,
        "attachctl failed in a way that was not foreseen.",
        status=Exit.NEEDS_ATTENTION,
        details=f"{type(exc).__name__}: {exc}",
        resolution="See what the daemon did: attachctl operation list",
    )


def _told(failure: Failure, style: str) -> Outcome:
    """An object on standard output for who asked for JSON, else words on standard error."""
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
