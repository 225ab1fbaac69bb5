"""What the host's LVM looks at, by its own word (lvmconfig)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass

from attachd.errors import Code, Unreachable, World

DEVICES_FILES = "/etc/lvm/devices"
_SBIN = "/usr/sbin:/sbin"  # not on every user's PATH
_SECONDS = 20


@dataclass(frozen=True, kw_only=True)
class LvmConfig:
    """The section ``devices``, as far as it says what is scanned."""

    global_filter: tuple[str, ...]
    use_devicesfile: bool
    devicesfile: str


def lvm_config() -> LvmConfig | None:
    """None: there is no LVM on this host. Raises Unreachable where it can't be asked."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), _SBIN))
    program = shutil.which("lvmconfig", path=path)
    if program is None:
        return None
    try:
        asked = subprocess.run(
            (program, "--typeconfig", "full", "devices"),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
        return parse_devices(asked.stdout)
    except (subprocess.SubprocessError, OSError, ValueError) as exc:
        said = (getattr(exc, "stderr", None) or str(exc)).strip().splitlines()
        raise Unreachable(
            Code.ISCSI_UNAVAILABLE,
            "LVM doesn't say what it scans.",
            details=said[-1] if said else type(exc).__name__,
            resolution="See what is wrong with its configuration: lvmconfig --validate",
            world=World.HOST,
            touched=False,
        ) from exc


def parse_devices(shown: str) -> LvmConfig:
    """lvmconfig's answer. An LVM before 2.03.12 knows of no devices file. Raises ValueError."""
    settings = dict(line.strip().split("=", 1) for line in shown.splitlines() if "=" in line)
    patterns = json.loads(settings["global_filter"]) if "global_filter" in settings else []
    return LvmConfig(
        # A single one stands without brackets.
        global_filter=(patterns,) if isinstance(patterns, str) else tuple(map(str, patterns)),
        use_devicesfile=settings.get("use_devicesfile", "0") == "1",
        devicesfile=json.loads(settings.get("devicesfile", '"system.devices"')),
    )
