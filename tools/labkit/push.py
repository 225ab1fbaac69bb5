"""A working tree's attachd, brought into the lab's host: its wheel, or its Debian package."""

import configparser
import shutil
import tarfile
import tempfile
from pathlib import Path

from labkit import outer, package, sources
from labkit.image import build_requirements
from labkit.progress import Argv, LabError, run_logged, step
from labkit.ssh import Ssh
from labkit.state import LabDir

PACKAGE = "attachd/__init__.py"
UNIT = "systemd/attachd.service"
INSTALLER = Path(__file__).with_name("install.sh")
PACKAGE_INSTALLER = Path(__file__).with_name("install-package.sh")
COMMAND = """\
#!/opt/attachd/bin/python3
import sys
from {module} import {function}
sys.exit({function}())
"""
REMOTE = "/var/tmp/attachd-push"


def missing(tree: Path) -> list[str]:
    """Return what the tree still lacks to be pushed; early in the project that is a lot."""
    return [name for name in (PACKAGE, "README.md", UNIT) if not (tree / name).exists()]


def fingerprint(tree: Path) -> str:
    """Return a name for all of the tree that a push of the wheel brings over."""
    return sources.fingerprint(tree, sources.WHEEL)


def package_fingerprint(tree: Path, version: str | None) -> str:
    """Return the same for a push of the package."""
    return f"deb-{package.fingerprint(tree, version)}"


def push(lab: LabDir, tree: Path, ssh: Ssh) -> None:
    """Build the tree's wheel, install it in the host, and start the service anew."""
    if lacking := missing(tree):
        raise LabError(f"nothing to push yet: {tree} has no {', '.join(lacking)}")
    with tempfile.TemporaryDirectory(dir=lab.work) as directory:
        payload = Path(directory) / "payload"
        payload.mkdir()
        wheel = _build_wheel(lab, tree, Path(directory))
        _unpack(wheel, payload)
        sources.copy(tree, sources.HOST_FILES, payload)
        _install(payload, INSTALLER, ssh)


def push_package(lab: LabDir, tree: Path, ssh: Ssh, version: str | None) -> None:
    """Build the tree's Debian package, and install it in the host instead of the wheel."""
    built = package.build(lab, tree, version)
    with tempfile.TemporaryDirectory(dir=lab.work) as directory:
        payload = Path(directory) / "payload"
        payload.mkdir()
        shutil.copy(built, payload)
        _install(payload, PACKAGE_INSTALLER, ssh)


def _install(payload: Path, installer: Path, ssh: Ssh) -> None:
    """Bring the payload into the host, and run the installer in it."""
    shutil.copy(installer, payload)
    archive = payload.with_suffix(".tar")
    with tarfile.open(archive, "w") as tar:
        tar.add(payload, arcname=".", filter=_as_root)
    with step("installing attachd in the lab"), archive.open("rb") as stream:
        unpack = f"rm -rf {REMOTE} && mkdir -m 0700 {REMOTE} && tar -C {REMOTE} -xf -"
        try:
            ssh.call(["sh", "-c", f"{unpack} && {REMOTE}/{installer.name}"], stdin=stream)
        except LabError as error:
            left = "What a killed test may have left in the host goes with: tools/lab reset"
            raise LabError(f"{error}\n{left}") from error


def _build_wheel(lab: LabDir, tree: Path, work: Path) -> Path:
    """Build from a copy: setuptools leaves its traces in the directory it builds from."""
    python = outer.python(lab, build_requirements(tree))
    log = lab.logs / "wheel.log"
    log.unlink(missing_ok=True)
    source = work / "source"
    sources.copy(tree, sources.WHEEL, source)
    with step("building attachd's wheel"):
        options: Argv = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", work]
        run_logged([python, "-m", "pip", "wheel", *options, source], log)
    (wheel,) = work.glob("*.whl")
    return wheel


def _unpack(wheel: Path, payload: Path) -> None:
    """Lay the wheel's content and its commands out as they belong into the host's Python.

    What it carries for the host itself comes from the tree.
    """
    site = payload / "site"
    shutil.unpack_archive(wheel, site, "zip")
    (data,) = site.glob("*.data")
    shutil.rmtree(data)
    (metadata,) = site.glob("*.dist-info")
    scripts = configparser.ConfigParser()
    scripts.read(metadata / "entry_points.txt")
    (payload / "bin").mkdir()
    for name, target in scripts["console_scripts"].items():
        module, _, function = target.partition(":")
        script = payload / "bin" / name
        script.write_text(COMMAND.format(module=module, function=function))


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
