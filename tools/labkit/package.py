"""attachd's Debian package, built in a bare Debian of the release it is for, without a network.

What it takes is kept: the Debian for as long as debian/control asks for the same, the wheels that
the package carries for as long as debian/requirements.txt is the same, and the packages themselves.
"""

import re
import shutil
import tempfile
from pathlib import Path

from labkit import debian, outer, sources
from labkit.image import digest, prune, remove_tree
from labkit.progress import Argv, LabError, run_logged, step
from labkit.state import LabDir

SCRIPT = Path(__file__).with_name("build-package.sh")
REHEARSAL = Path(__file__).with_name("rehearse-package.sh")
FOR_THE_REHEARSAL = ("passwd", "systemd")
"""What only the package's installation needs in the Debian that it is built in."""
_VERSION = re.compile(r"^Version: .*$", re.MULTILINE)


def fingerprint(tree: Path, version: str | None) -> str:
    """Return a name for the package of this tree."""
    parts = (sources.fingerprint(tree, sources.PACKAGE), version or "")
    return digest([SCRIPT.read_bytes(), *(part.encode() for part in parts)])


def build(lab: LabDir, tree: Path, version: str | None = None) -> Path:
    """Return the tree's package; with `version`, as if debian/changelog had that."""
    lab.create()
    with lab.packaging():
        kept = lab.packages / fingerprint(tree, None)
        if not kept.exists():
            outer.install_missing(lab)
            for left in lab.scratch.iterdir():  # by a build that was killed
                remove_tree(left)
            _build(lab, tree, kept)
            prune(lab.packages, keep=kept.name)
        kept.touch()
        (package,) = kept.glob("*.deb")
        if version is None:
            return package
        renamed = lab.packages / fingerprint(tree, version)
        if not renamed.exists():
            _rename(lab, package, version, renamed)
        (package,) = renamed.glob("*.deb")
        return package


def rehearse(lab: LabDir, tree: Path, old: Path, new: Path, journal: Path) -> None:
    """Install, upgrade, remove and purge the package in a Debian that is thrown away.

    `journal`: one that has a volume attached to a guest named web. Raises LabError where a step
    fails, or where anything is left.
    """
    log = lab.logs / "rehearsal.log"
    log.unlink(missing_ok=True)
    with lab.packaging():
        place = Path(tempfile.mkdtemp(dir=lab.scratch))
        try:
            command: Argv = ["bash", REHEARSAL, _builder(lab, tree), place, old, new, journal]
            run_logged(outer.privileged([*debian.NAMESPACES, *command]), log)
        finally:
            remove_tree(place)


def _builder(lab: LabDir, tree: Path) -> Path:
    """Return the directory of a Debian with what the build needs."""
    packages = [*_build_depends(tree), *FOR_THE_REHEARSAL]
    builder = lab.builders / digest([debian.SUITE.encode(), *(name.encode() for name in packages)])
    if builder.exists():
        return builder
    for old in lab.builders.iterdir():
        remove_tree(old)
    log = lab.logs / "builder.log"
    log.unlink(missing_ok=True)
    partial = builder.with_name("partial")
    with step("making a Debian that builds packages"):
        debian.bootstrap(packages, partial, variant="essential", scratch=lab.scratch, log=log)
    partial.rename(builder)
    return builder


def _build_depends(tree: Path) -> list[str]:
    """Return the names in debian/control's Build-Depends; the build itself checks the versions."""
    control = (tree / "debian" / "control").read_text()
    (field,) = re.findall(r"^Build-Depends:\s*((?:.*\n )*.*)", control, re.MULTILINE)
    names = [part.split()[0] for part in field.split(",") if part.strip()]
    return ["debhelper" if name == "debhelper-compat" else name for name in names]


def _wheels(lab: LabDir, tree: Path, builder: Path) -> Path:
    """Return the directory of the wheels that the package carries, for the builder's Python."""
    requirements = tree / "debian" / "requirements.txt"
    wheels = lab.wheels / digest([builder.name.encode(), requirements.read_bytes()])
    if wheels.exists():
        return wheels
    for old in lab.wheels.iterdir():
        remove_tree(old)
    log = lab.logs / "wheels.log"
    log.unlink(missing_ok=True)
    partial = wheels.with_name("partial")
    python = debian.python(builder, builder / "usr/lib/python3/dist-packages")
    options: Argv = ["--quiet", "--only-binary", ":all:", "--require-hashes", "--no-deps"]
    with step("downloading what the package carries"):
        command: Argv = [*python, "-m", "pip", "download", *options]
        run_logged([*command, "--dest", partial, "--requirement", requirements], log)
    partial.rename(wheels)
    return wheels


def _build(lab: LabDir, tree: Path, kept: Path) -> None:
    builder = _builder(lab, tree)
    wheels = _wheels(lab, tree, builder)
    log = lab.logs / "package.log"
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=lab.scratch) as directory:
        payload = Path(directory)
        out = payload / "out"
        out.mkdir()
        sources.copy(tree, sources.PACKAGE, payload / "tree")
        shutil.copytree(wheels, payload / "wheels")
        try:
            with step("building attachd's package"):
                command: Argv = [*debian.NAMESPACES, "bash", SCRIPT, builder, payload]
                run_logged(outer.privileged(command), log)
        finally:
            remove_tree(payload / "tree")  # what the build made there is root's
        if not list(out.glob("*.deb")):
            raise LabError(f"the build made no package: {log}")
        out.rename(kept)


def _rename(lab: LabDir, package: Path, version: str, kept: Path) -> None:
    """Make the same package of another version: to be upgraded to."""
    log = lab.logs / "package.log"
    with tempfile.TemporaryDirectory(dir=lab.scratch) as directory:
        content = Path(directory) / "content"
        out = Path(directory) / "out"
        out.mkdir()
        run_logged(["dpkg-deb", "--raw-extract", package, content], log)
        control = content / "DEBIAN" / "control"
        control.write_text(_VERSION.sub(f"Version: {version}", control.read_text()))
        options: Argv = ["--root-owner-group", "-Zzstd"]
        run_logged(["dpkg-deb", *options, "--build", content, out], log)
        out.rename(kept)
