"""A real HTTP proxy between attachd and Cinder that fails on request; runs in the lab's host.

usage: faulty_proxy.py PORT UPSTREAM_PORT FAULTS     FAULTS: a file with one JSON object a line,
{"method", "path", "body", "times"} and "status", or "script" and "behind", or "rewrite" and
"ahead". The next ``times`` requests of the method whose path and body contain those texts are
answered with the status and never reach Cinder; or the shell script runs before Cinder is asked, or
behind its answer, while attachd waits; or what the answer's body has of the pattern rewrite[0]
becomes rewrite[1], and its date is so many seconds ahead. The number of each fault that is used,
from 0, is appended to FAULTS.used.
"""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

UNFORWARDED = {"connection", "transfer-encoding", "content-length", "host", "date", "server"}


class Faults:
    """The faults that are left."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._left: list[dict[str, Any]] = [
            json.loads(line) for line in file.read_text().splitlines()
        ]
        self._lock = threading.Lock()

    def due(self, method: str, path: str, body: str) -> dict[str, Any]:
        """The fault to be met, or an empty one."""
        with self._lock:
            for fault in self._left:
                asked = fault["method"] == method and fault["path"] in path
                if asked and fault["body"] in body and fault["times"] > 0:
                    fault["times"] -= 1
                    with self._file.with_suffix(".used").open("a") as used:
                        used.write(f"{self._left.index(fault)}\n")
                    return fault
        return {}


def run_script(fault: dict[str, Any]) -> None:
    """What a fault does to the host, if it does anything."""
    if "script" in fault:
        subprocess.run(["sh", "-c", fault["script"]], check=False)


def handler(upstream: int, faults: Faults) -> type[BaseHTTPRequestHandler]:
    """A handler class that forwards to a port of this host."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        _ahead = 0

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = faults.due(self.command, self.path, body.decode(errors="replace"))
            if "status" in fault:
                self._answer(fault["status"], [], b"{}")
                return
            behind = fault.get("behind", False)
            if not behind:
                run_script(fault)
            connection = http.client.HTTPConnection("127.0.0.1", upstream, timeout=600)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
            connection.request(self.command, self.path, body or None, headers)
            response = connection.getresponse()
            answer = response.read()
            connection.close()
            if behind:
                run_script(fault)
            pattern, replacement = fault.get("rewrite", ("$^", ""))
            answer = re.sub(pattern.encode(), replacement.encode(), answer)
            self._ahead = fault.get("ahead", 0)
            self._answer(response.status, response.getheaders(), answer)

        do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815 - http.server's names

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in UNFORWARDED:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string((timestamp or time.time()) + self._ahead)

        def log_message(self, *args: object) -> None:
            """Silence."""

    return Handler


if __name__ == "__main__":
    port, upstream_port, path = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    ThreadingHTTPServer(("127.0.0.1", port), handler(upstream_port, Faults(path))).serve_forever()
