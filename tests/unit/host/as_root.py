"""Root's commands, run for real by whoever runs the tests, as os-brick's helper would run them."""

from __future__ import annotations

import subprocess

from attachd.host.brick import ProcessExecutionError


class RealCommands:
    """The room's ``execute``; ``ran`` has the commands, ``denied`` the paths that fail for all."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, ...]] = []
        self.denied: set[str] = set()

    def __call__(self, *command: str, **options: object) -> tuple[str, str]:
        """Raises ProcessExecutionError as os-brick's does."""
        assert options["run_as_root"] is True
        assert isinstance(options["timeout"], float)
        self.ran.append(command)
        if refused := self.denied.intersection(command):
            raise ProcessExecutionError(
                exit_code=1, stderr=f"cannot access '{refused.pop()}': Permission denied"
            )
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as exc:
            raise ProcessExecutionError(description=str(exc)) from exc
        if done.returncode:
            raise ProcessExecutionError(
                stdout=done.stdout,
                stderr=done.stderr,
                exit_code=done.returncode,
                cmd=" ".join(command),
            )
        return done.stdout, done.stderr


class Helper:
    """The privileged helper's life."""

    def __init__(self) -> None:
        self.living = True

    def alive(self) -> bool:
        return self.living
