"""The house keeps its direction: imports run downwards only, and each library has its room."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "attachd"

# From the top down: a room may import from the rooms in later rows, and from itself.
STOREYS = (
    ("__main__", "lone_doctor"),
    ("daemon",),
    ("api", "metrics", "otlp"),
    ("audit", "doctor"),
    ("engine",),
    ("operations",),
    ("cinder", "host", "guest", "journal"),
    ("logs", "warming"),
    ("saga", "conf", "systemd", "trace", "periodic", "portal"),
    ("model", "story", "vitals"),
    ("errors", "plain"),
)
HEIGHT = {room: -row for row, rooms in enumerate(STOREYS) for room in rooms}
OUTER_LIBRARIES = {
    "openstack": {"cinder"},
    "keystoneauth1": {"cinder", "conf"},
    "os_brick": {"host"},
    "libvirt": {"guest"},
    "flask": {"api"},
    "cheroot": {"api"},
    "sqlite3": {"journal"},
    "prometheus_client": {"metrics"},
    "opentelemetry": {"otlp"},
}
CLIENT_MAY_IMPORT = {"errors", "plain", "story"}

FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_rooms(file: Path) -> set[str]:
    parts = [name.split(".") for name in imports_of(file) if name.startswith("attachd.")]
    return {part[1] for part in parts} - {"__version__"}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_run_downwards(file: Path) -> None:
    room = room_of(file)
    if room == "__init__":
        assert not own_rooms(file)
        return
    if room == "cli":
        assert own_rooms(file) <= CLIENT_MAY_IMPORT | {"cli"}
        return
    for other in own_rooms(file) - {room}:
        assert HEIGHT[other] < HEIGHT[room], f"{room} imports {other}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_each_outer_library_has_its_room(file: Path) -> None:
    for name in imports_of(file):
        rooms = OUTER_LIBRARIES.get(name.split(".")[0])
        assert rooms is None or room_of(file) in rooms, f"{room_of(file)} imports {name}"


def test_the_plan_does_no_io() -> None:
    for file in (PACKAGE / "saga").glob("*.py"):
        roots = {name.split(".")[0] for name in imports_of(file)}
        assert roots <= {"__future__", "attachd", "collections", "dataclasses", "enum"}, file
