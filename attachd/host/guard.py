"""The backend's guard (law 5): os-brick's rule and os-brick's lock, with a deadline.

Where volumes share a target, a connect on a host whose iSCSI scans automatically would find LUNs
that are being taken away: such operations go one at a time. The lock is the same as that of
os-brick's ``guard_connection``, so it holds against Nova too where they share a lock path; that
function itself waits without a bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import tenacity
from oslo_concurrency import lockutils

from attachd.errors import AttachdError, Code, World
from attachd.host import brick
from attachd.host.polling import rising

_PREFIX = "os-brick-"
# Cinder didn't say which service: then all such backends share one guard.
_UNKNOWN_SERVICE = "unknown-service"


@contextmanager
def guard(
    *, shared_targets: bool | None, service_uuid: str | None, timeout: float
) -> Iterator[None]:
    """Hold the guard of the volume's backend, where it needs one.

    Raises deadline-exceeded, nothing touched, when it isn't had within ``timeout`` seconds; 0 asks
    once.
    """
    with ExitStack() as held:
        if _needed(shared_targets):
            _take(held, service_uuid or _UNKNOWN_SERVICE, timeout=timeout)
        yield


def _needed(shared_targets: bool | None) -> bool:
    """Unknown: always. Shared: unless open-iscsi scans only what it is told to."""
    if shared_targets is None:
        return True
    # Read anew each time: os-brick learns it at its first login.
    return shared_targets and not brick.initiator_utils.ISCSI_SUPPORTS_MANUAL_SCAN


def _take(held: ExitStack, name: str, *, timeout: float) -> None:
    attempt = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(lockutils.AcquireLockFailedException),
        stop=tenacity.stop_after_delay(timeout),
        wait=rising,
        reraise=True,
    )
    try:
        attempt(
            lambda: held.enter_context(
                lockutils.lock(name, _PREFIX, external=True, blocking=False, do_log=False)
            )
        )
    except lockutils.AcquireLockFailedException as exc:
        raise AttachdError(
            Code.DEADLINE_EXCEEDED,
            "Another operation holds the storage backend.",
            details=f"The lock {_PREFIX}{name} was not free within {timeout:g} s.",
            resolution="Try again when the backend's other operations are through.",
            touched=False,
            world=World.HOST,
        ) from exc
