"""The way into the lab's host: OpenSSH, with one connection that every command shares."""

import contextlib
import fcntl
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import IO

from labkit import vm
from labkit.image import Image
from labkit.progress import LabError, tail
from labkit.state import LabDir

CONNECT_SECONDS = 20
RETRY_SECONDS = 1.0


class Ssh:
    """Runs commands as root in the lab's host. A login takes seconds there, so it is shared."""

    def __init__(self, lab: LabDir, image: Image, port: int) -> None:
        self._lab = lab
        self._lock = lab.root / "ssh.lock"
        self._socket = lab.root / "ssh.sock"
        self._options = [
            *("-F", "none", "-p", str(port), "-l", "root", "-i", str(image.identity)),
            *("-o", f"ControlPath={self._socket}", "-o", "LogLevel=ERROR"),
            *("-o", f"UserKnownHostsFile={image.known_hosts}", "-o", "HostKeyAlias=attachd-lab"),
            *("-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"),
            *("-o", "PreferredAuthentications=publickey"),
            *("-o", f"ConnectTimeout={CONNECT_SECONDS}"),
            *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=12"),
        ]

    def connect(self, deadline: float) -> None:
        """Open the shared connection unless it is there; retry until the deadline.

        Who waits for a machine that has died meanwhile is told so at once.
        """
        with self._lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            while not self._connected():
                self.disconnect()
                opened = self._control("-o", "ControlMaster=yes", "-o", "ControlPersist=yes", "-fN")
                if opened.returncode == 0:
                    return
                if not vm.processes(self._lab):
                    raise LabError(f"QEMU ended\n{tail(self._lab.logs / 'qemu.log')}")
                if time.monotonic() > deadline:
                    raise LabError(f"the lab's host doesn't answer: {opened.stderr.strip()}")
                time.sleep(RETRY_SECONDS)

    def disconnect(self) -> None:
        """Close the shared connection, and end the process that holds it.

        If that was killed, its socket is still there: it would keep a new one from its place, and
        every command would begin with a complaint.
        """
        self._control("-O", "exit")
        self._socket.unlink(missing_ok=True)

    def call(
        self,
        argv: Sequence[str],
        *,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    ) -> str:
        """Run a command to its end, and return its output; a failure is an error."""
        done = subprocess.run(
            self._command(argv), stdin=stdin, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = (done.stdout + done.stderr).strip()
            raise LabError(f"{argv[0]} in the lab failed with status {done.returncode}\n{said}")
        return done.stdout

    def boot_id(self) -> str | None:
        """Return the id of the host's current boot, or None while it doesn't answer."""
        try:
            self.connect(time.monotonic())
            return self.call(["cat", "/proc/sys/kernel/random/boot_id"])
        except LabError:
            return None

    def pass_through(self, argv: Sequence[str]) -> int:
        """Run a command on this process's own stdin, stdout and stderr; return its status."""
        if argv:
            command = self._command(argv)
        else:
            terminal = ["-t"] if sys.stdin.isatty() else []
            command = ["ssh", *terminal, *self._options, "127.0.0.1"]
        with subprocess.Popen(command) as child:
            while True:
                # The terminal's Ctrl-C reaches ssh as well, and ssh decides what it means.
                with contextlib.suppress(KeyboardInterrupt):
                    status = child.wait()
                    break
        return status if status >= 0 else 128 - status

    def _command(self, argv: Sequence[str]) -> list[str]:
        return ["ssh", *self._options, "127.0.0.1", shlex.join(argv)]

    def _connected(self) -> bool:
        return self._control("-O", "check").returncode == 0

    def _control(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ssh", *words, *self._options, "127.0.0.1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
