"""The Debian package: what is in it, and that it comes, is upgraded and goes without a trace."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from labkit import package
from labkit.state import LabDir
from packaging.utils import canonicalize_name

from attachd.journal.journal import Journal
from attachd.model import AttachmentState, OperationKind, Request
from attachd.saga.history import Entry, Happening
from tests.packaging.conftest import PROJECT
from tests.packaging.test_requirements import pinned
from tests.unit.records import a_record

pytestmark = pytest.mark.deb

LARGEST = 40 * 1024 * 1024
ENVIRONMENT = "usr/lib/attachd"
CONFFILES = ["/etc/attachd/attachd.conf", "/etc/libvirt/hooks/qemu.d/attachd"]
PLACES = (
    *("etc/attachd/", "etc/libvirt/hooks/qemu.d/", f"{ENVIRONMENT}/"),
    *("usr/bin/attachctl", "usr/sbin/attachd"),
    *("usr/lib/systemd/system/", "usr/lib/sysusers.d/", "usr/lib/tmpfiles.d/"),
    *("usr/share/doc/attachd/", "usr/share/lintian/overrides/", "usr/share/man/"),
    *("usr/share/bash-completion/completions/", "usr/share/zsh/vendor-completions/"),
    "usr/share/fish/vendor_completions.d/",
)


@dataclass(frozen=True)
class Deb:
    """A built package, read."""

    path: Path
    fields: dict[str, str]
    files: dict[str, tarfile.TarInfo]
    contents: dict[str, bytes]

    def mode(self, name: str) -> str:
        """The file's permissions, in octal."""
        return f"{self.files[name].mode:o}"


@pytest.fixture(scope="module")
def lab() -> LabDir:
    return LabDir.from_environment()


@pytest.fixture(scope="module")
def deb(lab: LabDir) -> Deb:
    path = package.build(lab, PROJECT)
    control = subprocess.check_output(["dpkg-deb", "--field", path], text=True)
    archive = subprocess.check_output(["dpkg-deb", "--fsys-tarfile", path])
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {member.name.removeprefix("./"): member for member in tar if not member.isdir()}
        small = [name for name in files if not name.startswith(ENVIRONMENT)]
        contents = {name: taken.read() for name in small if (taken := tar.extractfile(files[name]))}
    fields = dict(re.findall(r"^(\S+): (.*)$", control, re.MULTILINE))
    return Deb(path=path, fields=fields, files=files, contents=contents)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal by which a volume is attached to the guest web."""
    path = tmp_path / "journal.db"
    journal = Journal(path=path, boot_id="boot-1")
    request = Request(kind=OperationKind.ATTACH, guest="web", volume="data", request_id="r1")
    journal.accept("operation-1", request)
    intent = Entry(happening=Happening.DO_INTENT, step="reserve")
    record = a_record(state=AttachmentState.ATTACHED)
    journal.append("operation-1", intent, reason="next", record=record)
    journal.close()
    return path


def test_its_version_and_what_it_needs(deb: Deb) -> None:
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert deb.fields["Version"].rpartition("-")[0] == version
    depends = deb.fields["Depends"]
    minor = re.search(r"python3 \(>= 3\.(\d+)~\)", depends)
    assert minor, depends
    assert f"python3 (<< 3.{int(minor[1]) + 1})" in depends, "its environment is for one Python"
    assert {"python3-libvirt", "open-iscsi", "lsscsi"} <= set(re.findall(r"[\w-]+", depends))
    assert deb.path.stat().st_size < LARGEST


def test_everything_is_in_its_place_and_roots(deb: Deb) -> None:
    strays = [name for name in deb.files if not name.startswith(PLACES)]
    assert strays == []
    assert {(f.uid, f.gid) for f in deb.files.values()} == {(0, 0)}
    assert deb.files["usr/sbin/attachd"].linkname == "../lib/attachd/bin/attachd"
    assert deb.files["usr/bin/attachctl"].linkname == "../lib/attachd/bin/attachctl"


def test_the_host_gets_what_the_tree_has(deb: Deb) -> None:
    units = PROJECT / "systemd"
    expected = {
        "etc/attachd/attachd.conf": PROJECT / "etc/attachd.conf.sample",
        "etc/libvirt/hooks/qemu.d/attachd": PROJECT / "etc/libvirt/hooks/qemu.d/attachd",
    }
    for path in (path for path in units.rglob("*") if path.is_file()):
        name = str(path.relative_to(units))
        own = (
            "usr/lib" if name.startswith(("sysusers.d", "tmpfiles.d")) else "usr/lib/systemd/system"
        )
        expected[f"{own}/{name}"] = path
    for name, path in expected.items():
        text = path.read_text().replace("/opt/attachd/bin/attachd", "/usr/sbin/attachd")
        assert deb.contents[name].decode() == text, name


def test_conffiles_and_modes(deb: Deb) -> None:
    conffiles = subprocess.check_output(["dpkg-deb", "--info", deb.path, "conffiles"], text=True)
    assert sorted(conffiles.split()) == CONFFILES
    assert deb.mode("etc/attachd/attachd.conf") == "640", "it has passwords"
    assert deb.mode("etc/libvirt/hooks/qemu.d/attachd") == "755"
    assert {deb.mode(f"{ENVIRONMENT}/bin/{name}") for name in ("attachd", "attachctl")} == {"755"}


def test_the_environment_is_the_pinned_one(deb: Deb) -> None:
    """Each package in its pinned version, none beside them, all as bytecode, no tests."""
    names = [name for name in deb.files if name.startswith(f"{ENVIRONMENT}/lib")]
    found = {
        match[1]: match[2]
        for name in names
        if (match := re.search(r"site-packages/([^/]+)-([^-/]+)\.dist-info/METADATA$", name))
    }
    own = found.pop("attachd")
    assert deb.fields["Version"].startswith(f"{own}-")
    assert {canonicalize_name(name): version for name, version in found.items()} == pinned()
    modules = [name for name in names if name.endswith(".py") and not name.endswith("/libvirt.py")]
    compiled = {re.sub(r"__pycache__/(.*)\.cpython-\d+\.pyc$", r"\1.py", name) for name in names}
    assert [name for name in modules if name not in compiled] == []
    assert not [name for name in names if "/tests/" in name]


def test_it_comes_is_upgraded_and_goes_without_a_trace(
    lab: LabDir, deb: Deb, journal: Path
) -> None:
    """What a volume is attached by stays; it isn't removed meanwhile; a purge leaves nothing."""
    upgraded = package.build(lab, PROJECT, f"{deb.fields['Version']}+1")
    package.rehearse(lab, PROJECT, deb.path, upgraded, journal)
