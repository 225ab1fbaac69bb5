"""QEMU's machine protocol: as much of it as the lab needs."""

import json
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from labkit.progress import LabError

ANSWER_SECONDS = 60.0


class Qmp:
    """A connection to a running QEMU."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_SECONDS)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rw")
        self._lines.readline()
        self.execute("qmp_capabilities")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lines.close()
        self._socket.close()

    def execute(self, command: str, **arguments: object) -> Any:  # noqa: ANN401
        """Run one command and return its answer; events in between are of no interest."""
        self._lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._lines.flush()
        while line := self._lines.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise LabError(f"QEMU refused {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise LabError(f"QEMU ended during {command}")

    def save(self, target: Path, deadline: float) -> None:
        """Write the stopped machine's memory and devices to a file."""
        self.execute("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        self.execute("migrate", uri=f"exec:cat > '{target}'")
        while True:
            status = self.execute("query-migrate").get("status")
            if status == "completed":
                return
            if status in ("failed", "cancelled"):
                raise LabError(f"saving the machine's memory {status}")
            if time.monotonic() > deadline:
                raise LabError("saving the machine's memory took too long")
            time.sleep(0.1)

    def wait_loaded(self, deadline: float) -> None:
        """Wait until a saved machine is whole again, and let it run."""
        while self.execute("query-status")["status"] == "inmigrate":
            if time.monotonic() > deadline:
                raise LabError("loading the machine's memory took too long")
            time.sleep(0.1)
        self.execute("cont")
