"""What is in the lab's host: `up` leaves a package of the tree there, a push brings the wheel."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
from labkit import commands, package
from labkit import push as pushing
from labkit.progress import LabError
from labkit.state import LabDir


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was brought into the host; there is none."""
    pushed: list[str] = []

    def bring(name: str) -> Callable[..., None]:
        def brought(_lab: object, _tree: object, _ssh: object, version: str | None = None) -> None:
            pushed.append(f"{name} {version}" if version else name)

        return brought

    monkeypatch.setattr(pushing, "push", bring("wheel"))
    monkeypatch.setattr(pushing, "push_package", bring("package"))
    monkeypatch.setattr(commands.Lab, "running", lambda _lab: True)
    return pushed


@pytest.fixture
def lab(tmp_path: Path) -> commands.Lab:
    """A lab that runs, with nothing of attachd in it."""
    directory = LabDir(tmp_path)
    directory.create()
    lab = commands.Lab(directory)
    lab.update(phase="ready", image_key="image", ssh_port=1)
    return lab


def test_up_leaves_the_trees_package_where_it_is(lab: commands.Lab, pushed: list[str]) -> None:
    commands.push(lab, argparse.Namespace(deb=""))
    commands._push_if_changed(lab)
    assert pushed == ["package"]
    commands.push(lab, argparse.Namespace(deb=None))
    commands._push_if_changed(lab)
    assert pushed == ["package", "wheel"]


def test_a_package_of_another_version_is_not_the_trees(
    lab: commands.Lab, pushed: list[str]
) -> None:
    commands.push(lab, argparse.Namespace(deb="0.1.0-1+1"))
    commands._push_if_changed(lab)
    assert pushed == ["package 0.1.0-1+1", "wheel"]


def test_a_push_that_fails_leaves_the_host_unknown(
    lab: commands.Lab, pushed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise LabError("it can't be reached")

    commands.push(lab, argparse.Namespace(deb=""))
    monkeypatch.setattr(pushing, "push_package", fail)
    with pytest.raises(LabError):
        commands.push(lab, argparse.Namespace(deb="0.1.0-1+1"))
    commands._push_if_changed(lab)
    assert pushed == ["package", "wheel"]


@pytest.mark.parametrize("name", ["debian/rules", "attachd/model.py", "systemd/attachd.socket"])
def test_a_package_is_known_by_all_that_it_is_built_from(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.parent.mkdir()
    file.write_text("one")
    before = package.fingerprint(tmp_path, None)
    assert package.fingerprint(tmp_path, None) == before
    assert package.fingerprint(tmp_path, "2") != before
    file.write_text("two")
    assert package.fingerprint(tmp_path, None) != before
