"""The machine the lab runs on: the programs it needs, installed by the lab itself."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from labkit.progress import Argv, LabError, run_logged, step
from labkit.state import LabDir

PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "ssh": "openssh-client",
    "mke2fs": "e2fsprogs",
    "zstd": "zstd",
    "unshare": "util-linux",
}
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where root's programs are; a user's PATH may lack them."""

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def privileged(argv: Argv) -> Argv:
    """Return a command that runs as root: through sudo where this process isn't."""
    return argv if os.geteuid() == 0 else ["sudo", *argv]


def install_missing(lab: LabDir) -> None:
    """Install what the lab needs and this machine lacks."""
    path = f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}"
    packages = [pkg for name, pkg in PROGRAMS.items() if shutil.which(name, path=path) is None]
    if not KEYRING.exists():
        packages.append("debian-archive-keyring")
    if not packages:
        return
    log = lab.logs / "apt.log"
    log.unlink(missing_ok=True)
    with step(f"installing {' '.join(packages)}"):
        _apt_install(packages, log)


def python(lab: LabDir, requirements: Sequence[str]) -> Path:
    """Return a Python of the lab's own that has pip and what builds wheels."""
    marker = lab.python / "complete"
    wanted = "\n".join(requirements)
    program = lab.python / "bin" / "python"
    if marker.exists() and marker.read_text() == wanted and _runs(program):
        return program
    log = lab.logs / "python.log"
    log.unlink(missing_ok=True)
    with step("making the lab's own Python"):
        shutil.rmtree(lab.python, ignore_errors=True)
        _make_venv(lab, log)
        run_logged([program, "-m", "pip", "install", "--quiet", *requirements], log)
        marker.write_text(wanted)
    return program


def _apt_install(packages: Sequence[str], log: Path) -> None:
    """Install, with the package lists as they are if that works: fetching them takes a while."""
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes"]
    install = privileged([*quiet, "install", "--no-install-recommends", *packages])
    try:
        run_logged(install, log)
    except LabError:
        run_logged(privileged([*quiet, "update"]), log)
        run_logged(install, log)


def _make_venv(lab: LabDir, log: Path) -> None:
    command: Argv = ["python3", "-m", "venv", lab.python]
    try:
        run_logged(command, log)
    except LabError:  # Debian's Python comes without ensurepip
        _apt_install(["python3-venv"], log)
        shutil.rmtree(lab.python, ignore_errors=True)
        run_logged(command, log)


def _runs(program: Path) -> bool:
    return program.exists() and not subprocess.run([program, "-c", ""], check=False).returncode
