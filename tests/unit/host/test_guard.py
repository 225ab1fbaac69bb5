from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from oslo_concurrency import lockutils
from oslo_config import cfg

from attachd.errors import AttachdError, Code
from attachd.host import brick
from attachd.host.guard import guard

SERVICE = "f4bf8a44-0c4a-4a9a-9d6d-0a5b7f1a8f55"


@pytest.fixture(autouse=True)
def lock_path(tmp_path: Path) -> Iterator[Path]:
    cfg.CONF.set_override("lock_path", str(tmp_path), group="oslo_concurrency")
    yield tmp_path
    cfg.CONF.clear_override("lock_path", group="oslo_concurrency")


@pytest.fixture(params=[True, False], ids=["manual-scan", "automatic-scan"])
def manual_scan(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    scans: bool = request.param
    monkeypatch.setattr(brick.initiator_utils, "ISCSI_SUPPORTS_MANUAL_SCAN", scans)
    return scans


@pytest.mark.parametrize("shared_targets", [True, False, None])
def test_who_waits_for_whom(manual_scan: bool, shared_targets: bool | None) -> None:
    needed = shared_targets is None or (shared_targets and not manual_scan)
    with guard(shared_targets=shared_targets, service_uuid=SERVICE, timeout=60):
        if not needed:
            with guard(shared_targets=shared_targets, service_uuid=SERVICE, timeout=0.1):
                return
        with (
            pytest.raises(AttachdError) as caught,
            guard(shared_targets=shared_targets, service_uuid=SERVICE, timeout=0.3),
        ):
            pytest.fail("two of one backend at once")
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    assert not caught.value.touched


def test_other_backends_go_on() -> None:
    with (
        guard(shared_targets=None, service_uuid=SERVICE, timeout=60),
        guard(shared_targets=None, service_uuid="another", timeout=0.1),
        guard(shared_targets=None, service_uuid=None, timeout=0.1),
    ):
        pass


def test_free_again_after_a_failure() -> None:
    with (
        pytest.raises(ValueError, match="inside"),
        guard(shared_targets=None, service_uuid=SERVICE, timeout=60),
    ):
        raise ValueError("inside")
    with guard(shared_targets=None, service_uuid=SERVICE, timeout=0.1):
        pass


def test_it_is_os_bricks_own_lock(lock_path: Path) -> None:
    """os-brick's guard_connection, in another process with the same lock path, holds it."""
    program = f"""
from oslo_config import cfg
from oslo_concurrency import lockutils
cfg.CONF.set_override("lock_path", {str(lock_path)!r}, group="oslo_concurrency")
from os_brick.initiator.utils import guard_connection
with guard_connection({{"shared_targets": None, "service_uuid": {SERVICE!r}}}):
    print("held", flush=True)
    input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as nova:
        assert nova.stdout is not None
        assert nova.stdin is not None
        assert nova.stdout.readline() == "held\n"
        with (
            pytest.raises(AttachdError),
            guard(shared_targets=None, service_uuid=SERVICE, timeout=0.3),
        ):
            pytest.fail("two of one backend at once")
        nova.stdin.write("\n")
        nova.stdin.flush()
        nova.wait(60)
        with guard(shared_targets=None, service_uuid=SERVICE, timeout=60):
            pass


def test_the_lock_of_the_whole_host_is_os_bricks(lock_path: Path) -> None:
    cfg.CONF.set_override("lock_path", str(lock_path), group="os_brick")
    try:
        held: list[bool] = []
        brick.exclusively(
            lambda: held.append(
                not lockutils.external_lock(
                    "connect_volume", "os-brick-", lock_path=str(lock_path)
                ).acquire(blocking=False)
            )
        )
    finally:
        cfg.CONF.clear_override("lock_path", group="os_brick")
    assert (lock_path / "os-brick-connect_volume").exists()
