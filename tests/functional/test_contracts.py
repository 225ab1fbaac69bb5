"""The contract suites on the real things: they run inside the lab's host, as root."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

import pytest

from tests.functional.lab import Host, run_lab

CARRIED = ("attachd", "tests", "pyproject.toml")


@pytest.fixture(scope="module")
def place(host: Host) -> Iterator[str]:
    """A copy of the tree in the lab's host."""
    place = f"/root/contracts-{uuid.uuid4().hex[:8]}"
    host.do("mkdir", place)
    host.carry(place, CARRIED)
    yield place
    host.do("rm", "-r", place)


@pytest.mark.parametrize("suite", ["test_host.py", "test_guests.py"])
def test_the_contract_holds_on_the_real_thing(host: Host, place: str, suite: str) -> None:
    result = host.run(
        *("env", "-C", place, "/opt/attachd/bin/python", "-m", "pytest", "-q", "-m", "lab"),
        *("-p", "no:cacheprovider", f"tests/contract/{suite}"),
        timeout=1500,
    )
    assert result.status == 0, result.out[-6000:]
    passed = re.search(r"(\d+) passed", result.out)
    assert passed, result.out
    assert int(passed.group(1)) > 5
    assert "skipped" not in result.out.splitlines()[-1]


def test_the_lab_passes_on_standard_input(host: Host) -> None:
    assert host.do("cat", stdin="bytes\n") == "bytes\n"
    assert run_lab("ssh", "--", "sh", "-c", 'test "$1" = "a b"', "sh", "a b").status == 0
