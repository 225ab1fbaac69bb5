"""The image: a Debian with OpenStack and all else the lab needs, keyed by what goes into it."""

import dataclasses
import hashlib
import shutil
import subprocess
import tomllib
from collections.abc import Iterable
from pathlib import Path

from labkit import debian, outer
from labkit.progress import Argv, run_logged, step
from labkit.state import LabDir

ROOT_SIZE = "8G"
TEST_REQUIREMENTS = ("pytest>=8.4", "pytest-timeout>=2.4", "hypothesis>=6.140")
FROM_DEBIAN = "libvirt-python"
"""It has no wheels, so the image takes Debian's build of it."""
KEPT_BUILDS = 2
SOURCES = Path(__file__).resolve().parent / "image"
BUILDERS = (Path(__file__), Path(debian.__file__))


@dataclasses.dataclass(frozen=True)
class Image:
    """A built image; the files of its directory never change."""

    key: str
    path: Path

    @property
    def root_disk(self) -> Path:
        """The host's root file system, raw."""
        return self.path / "root.img"

    @property
    def kernel(self) -> Path:
        """The kernel of the host and of its guests."""
        return self.path / "vmlinuz"

    @property
    def machine_initrd(self) -> Path:
        """What mounts the host's root disk."""
        return self.path / "machine.initrd"

    @property
    def guest_initrd(self) -> Path:
        """The whole of a guest; the accelerator is tried with it."""
        return self.path / "guest.initrd"

    def program(self, name: str) -> Argv:
        """Return how to run the image's qemu-img or qemu-system-x86_64 on the outer machine.

        So the same QEMU runs the lab everywhere, whatever distribution is there.
        """
        qemu = self.path / "qemu"
        return [qemu / "lib" / "loader", "--library-path", qemu / "lib", qemu / name]

    @property
    def firmware(self) -> Path:
        """Where that QEMU finds its BIOS."""
        return self.path / "qemu" / "share"

    @property
    def clouds(self) -> Path:
        """The image's clouds.yaml, with the passwords of this build."""
        return self.path / "clouds.yaml"

    @property
    def identity(self) -> Path:
        """The private key that root of the lab's host accepts."""
        return self.path / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The host's own key, under the name attachd-lab."""
        return self.path / "known_hosts"


def dependencies(tree: Path) -> list[str]:
    """Return what attachd of this tree needs at run time."""
    project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
    return sorted(project["dependencies"])


def digest(parts: Iterable[bytes]) -> str:
    """Return a short name for some content."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(b"%d:" % len(part))
        whole.update(part)
    return whole.hexdigest()[:16]


def files_below(root: Path) -> list[bytes]:
    """Return the names, modes and contents of all files below a directory, in a fixed order."""
    parts = []
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            mode = path.stat().st_mode & 0o111
            parts += [str(path.relative_to(root)).encode(), b"%o" % mode, path.read_bytes()]
    return parts


def image_key(tree: Path) -> str:
    """Return the key of the image that this tree wants."""
    wanted = (ROOT_SIZE, *dependencies(tree), *TEST_REQUIREMENTS)
    builders = [path.read_bytes() for path in BUILDERS]
    return digest([*builders, *files_below(SOURCES), *(word.encode() for word in wanted)])


def ensure(lab: LabDir, tree: Path) -> Image:
    """Return this tree's image; build it when there is none yet."""
    key = image_key(tree)
    image = Image(key, lab.images / key)
    if not image.path.exists():
        remove_tree(lab.work)
        lab.work.mkdir()
        _build(lab, tree, image)
        prune(lab.images, keep=key)
    image.path.touch()
    return image


def prune(directory: Path, keep: str) -> None:
    """Keep the newest builds (working trees take turns with a lab), and drop the rest."""
    builds = sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for build in [path for path in builds if path.name != keep][KEPT_BUILDS - 1 :]:
        remove_tree(build)


def remove_tree(path: Path) -> None:
    """Remove what a build left, which belongs to root."""
    subprocess.run(outer.privileged(["rm", "-rf", "--one-file-system", path]), check=True)


def _build(lab: LabDir, tree: Path, image: Image) -> None:
    log = lab.logs / "image.log"
    log.unlink(missing_ok=True)
    root = lab.work / "root"
    payload = lab.work / "payload"
    result = lab.work / "image"
    result.mkdir()
    shutil.copytree(SOURCES, payload)
    keygen: Argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab"]
    run_logged([*keygen, "-f", result / "id_ed25519"], log)
    shutil.copy(result / "id_ed25519.pub", payload / "authorized_key")
    base = _base(lab, log)
    with step("unpacking Debian"):
        root.mkdir()
        run_logged(outer.privileged(["tar", "-C", root, "--numeric-owner", "-xf", base]), log)
    _download_wheels(tree, root, payload, log)
    with step("configuring OpenStack in it"):
        assemble: Argv = [*debian.NAMESPACES, "bash", payload / "assemble.sh", root, payload]
        run_logged(outer.privileged(assemble), log)
    with step("making the root disk"):
        disk = result / "root.img"
        run_logged(["truncate", "-s", ROOT_SIZE, disk], log)
        fill: Argv = ["mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=1", "-d", root, disk]
        run_logged(outer.privileged(fill), log)
    owner = f"{result.stat().st_uid}:{result.stat().st_gid}"
    run_logged(outer.privileged(["chown", "-R", owner, payload / "out"]), log)
    for path in (payload / "out").iterdir():
        path.rename(result / path.name)
    remove_tree(root)
    result.rename(image.path)


def _download_wheels(tree: Path, root: Path, payload: Path, log: Path) -> None:
    """Fetch attachd's dependencies with the image's Python: it installs them without a network."""
    wanted = [*dependencies(tree), *TEST_REQUIREMENTS]
    (payload / "requirements.txt").write_text("\n".join(wanted) + "\n")
    fetched = [line for line in wanted if not line.startswith(FROM_DEBIAN)]
    (pip,) = root.glob("usr/share/python-wheels/pip-*.whl")
    options: Argv = ["--quiet", "--only-binary", ":all:", "--dest", payload / "wheels"]
    with step("downloading attachd's dependencies"):
        python = debian.python(root, pip)
        run_logged([*python, "-m", "pip", "download", *options, *fetched], log)


def build_requirements(tree: Path) -> list[str]:
    """Return what building this tree's wheel needs."""
    requires = tomllib.loads((tree / "pyproject.toml").read_text())["build-system"]["requires"]
    return [*requires, "wheel"]


def _base(lab: LabDir, log: Path) -> Path:
    """Return the archive of the bare packages; it outlives changes of the configuration."""
    packages = (SOURCES / "packages.txt").read_text().split()
    key = digest([debian.SUITE.encode(), *(name.encode() for name in packages)])
    base = lab.bases / f"{key}.tar"
    if base.exists():
        return base
    partial = lab.work / "base.tar"
    with step("installing Debian and OpenStack's packages"):
        debian.bootstrap(packages, partial, variant="minbase", scratch=lab.work, log=log)
    for old in lab.bases.iterdir():
        remove_tree(old)
    partial.rename(base)
    return base
