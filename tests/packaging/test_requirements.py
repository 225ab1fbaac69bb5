"""What the Debian package carries is what pyproject.toml asks for, each with its hashes."""

from __future__ import annotations

import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.conftest import PROJECT

FROM_DEBIAN = "libvirt-python"
_PIN = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>\S+)(?P<rest>(?:.*\\\n)+.*)", re.MULTILINE)


def pinned() -> dict[str, str]:
    """Each name's version."""
    text = (PROJECT / "debian" / "requirements.txt").read_text()
    pins = list(_PIN.finditer(text))
    assert all("--hash=sha256:" in pin["rest"] for pin in pins)
    return {canonicalize_name(pin["name"]): pin["version"] for pin in pins}


def test_the_pins_are_what_the_project_asks_for() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(line) for line in project["dependencies"]]
    pins = pinned()
    for each in wanted:
        if each.name == FROM_DEBIAN:
            assert canonicalize_name(each.name) not in pins
            continue
        version = pins.get(canonicalize_name(each.name))
        assert version is not None, f"{each}: run make lock"
        assert each.specifier.contains(version), f"{each}, pinned to {version}: run make lock"
