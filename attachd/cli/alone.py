"""What attachctl doctor does where no daemon answers: a process of its own looks around.

It is the daemon's program with the daemon's libraries, and the client imports none of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from attachd.cli.failure import DaemonGone, Failure
from attachd.errors import Exit

_SECONDS = 180.0


def examine_alone(gone: DaemonGone) -> dict[str, Any]:
    """The same document as the daemon's. Raises a Failure where that process fails, too."""
    # -I: what lies in the current directory, or in the environment, isn't attachd's.
    argv = (sys.executable, "-I", "-m", "attachd.lone_doctor", f"{gone.details}.")
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS, check=False)
        document = json.loads(done.stdout)
    except subprocess.TimeoutExpired as exc:
        raise _beside(gone, f"looking around took longer than {_SECONDS:g} s") from exc
    except (OSError, ValueError) as exc:
        said = done.stderr.strip().splitlines() if isinstance(exc, ValueError) else []
        raise _beside(gone, said[-1] if said else str(exc)) from exc
    if not isinstance(document, dict):
        raise _beside(gone, "its answer is no diagnosis")
    return document


def _beside(gone: DaemonGone, why: str) -> Failure:
    return Failure(
        gone.code,
        gone.brief,
        status=Exit.UNREACHABLE,
        details=f"{gone.details}\nNor can attachctl look around by itself: {why}",
        resolution=gone.resolution,
    )
