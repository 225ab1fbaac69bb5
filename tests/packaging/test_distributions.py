"""The sdist has all of the tree, the wheel what a host needs; both are fit for an index."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

from tests.packaging.conftest import PROJECT, Distributions

LARGEST_WHEEL = 512 * 1024
MADE_BY_SETUPTOOLS = ("PKG-INFO", "setup.cfg", "attachd.egg-info")
FOR_THE_HOST = {
    "attachd.conf.sample": "etc/attachd.conf.sample",
    "libvirt/hooks/qemu.d/attachd": "etc/libvirt/hooks/qemu.d/attachd",
}


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_the_sdist_has_what_git_has(distributions: Distributions) -> None:
    with tarfile.open(distributions.sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive if member.isfile()}
    own = {name for name in files if not name.startswith(MADE_BY_SETUPTOOLS)}
    assert own == distributions.tree, "MANIFEST.in is behind the tree"


def test_the_wheel_has_the_package_and_nothing_of_the_house(distributions: Distributions) -> None:
    names = names_in(distributions.wheel)
    roots = {name.partition("/")[0] for name in names}
    (version,) = {root for root in roots if root.endswith(".dist-info")}
    assert roots == {"attachd", version, version.replace(".dist-info", ".data")}
    package = {name for name in distributions.tree if name.startswith("attachd/")}
    assert {name for name in names if name.startswith("attachd/")} == package
    assert f"{version}/licenses/LICENSE" in names
    assert distributions.wheel.stat().st_size < LARGEST_WHEEL


def test_the_wheel_carries_what_a_host_needs(distributions: Distributions) -> None:
    """The units, the hook and the sample, below share/attachd, as they are in the tree."""
    units = {name for name in distributions.tree if name.startswith("systemd/")}
    wanted = {**FOR_THE_HOST, **{name: name for name in units}}
    with zipfile.ZipFile(distributions.wheel) as archive:
        carried = {
            name.partition("/data/share/attachd/")[2]: archive.read(name)
            for name in archive.namelist()
            if ".data/" in name
        }
    assert carried == {name: (PROJECT / source).read_bytes() for name, source in wanted.items()}


def test_what_an_index_shows(distributions: Distributions) -> None:
    metadata = metadata_of(distributions.wheel)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "Programming Language :: Python :: 3.13" in metadata.get_all("Classifier", [])
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "twine", "check", "--strict"),
            *(distributions.sdist, distributions.wheel),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_it_installs_and_its_client_needs_nothing_else(
    distributions: Distributions, tmp_path: Path
) -> None:
    """Without one dependency there: attachctl tells its usage, and what it is."""
    environment = tmp_path / "environment"
    python = [sys.executable, "-m"]
    install = ["pip", "--python", str(environment), "install", "--quiet", "--no-index", "--no-deps"]
    for words in (
        ["venv", "--without-pip", str(environment)],
        [*install, str(distributions.wheel)],
    ):
        subprocess.run([*python, *words], check=True, timeout=300)
    assert {"attachd", "attachctl"} <= {path.name for path in (environment / "bin").iterdir()}
    hook = environment / "share/attachd/libvirt/hooks/qemu.d/attachd"
    assert hook.stat().st_mode & 0o111
    for option, said in (("--help", "usage: attachctl"), ("--version", "attachctl 0.")):
        done = subprocess.run(
            [environment / "bin" / "attachctl", option], capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith(said)
