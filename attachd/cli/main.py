"""The entry point: parse, and leave the rest to session.py, so that --help need not wait for it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from attachd.cli.parser import build_parser
from attachd.cli.writing import write

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run attachctl with ``argv`` (default: the process's own) and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        parser = build_parser()
        if "_ARGCOMPLETE" in os.environ:  # a shell asks: see completing.py
            from attachd.cli.completing import complete  # noqa: PLC0415 - see above

            complete(parser)
        args = parser.parse_args(argv)
        from attachd.cli.session import run  # noqa: PLC0415 - see above

        return run(args)
    except SystemExit as stop:  # argparse has said all there is to say
        return write(sys.stdout, "", int(stop.code or 0))
    except KeyboardInterrupt:
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
