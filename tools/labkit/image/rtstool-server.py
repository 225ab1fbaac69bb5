#!/usr/bin/python3
"""Cinder's own tool for LIO, loaded once: each command is a fork of it.

The tool takes seconds to start on an emulated CPU, four times an attach, and its start isn't under
test. A connection carries the arguments, each ended by NUL; the answer is a line with the exit
status and the length of what was printed, then that, then what was printed on standard error.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import sys
import traceback

from cinder.cmd import rtstool

SOCKET = "/run/lab-rtstool.sock"


def run(argv: list[str]) -> tuple[int, str, str]:
    """Run one command; its exit status and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            sys.argv = ["cinder-rtstool", *argv]
            status = rtstool.main() or 0
        except SystemExit as exc:
            status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
        except BaseException:  # noqa: BLE001 - as the interpreter does with what nobody catches
            traceback.print_exc()
            status = 1
    return status, out.getvalue(), err.getvalue()


def serve(connection: socket.socket) -> None:
    """Answer one connection."""
    asked = b"".join(iter(lambda: connection.recv(65536), b""))
    status, out, err = run([argument.decode() for argument in asked.split(b"\0")[:-1]])
    printed = out.encode()
    connection.sendall(b"%d %d\n" % (status, len(printed)) + printed + err.encode())


def main() -> None:
    """Serve for ever."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    with contextlib.suppress(FileNotFoundError):
        os.unlink(SOCKET)  # noqa: PTH108
    with socket.socket(socket.AF_UNIX) as listening:
        os.umask(0o077)
        listening.bind(SOCKET)
        listening.listen()
        while True:
            connection, _ = listening.accept()
            with connection:
                if os.fork() == 0:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    serve(connection)
                    os._exit(0)


if __name__ == "__main__":
    main()
