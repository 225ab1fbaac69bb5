"""Ends of os-brick's calls, translated at the room's boundary.

os-brick's own text is never repeated: it quotes command lines, and a password stands on one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from attachd.errors import AttachdError, Code, Unreachable, World
from attachd.host import brick
from attachd.host.brick import ProcessExecutionError
from attachd.host.commands import (
    LOGIN_SECONDS,
    NO_ISCSID,
    NO_SESSION,
    CallEndedError,
    HelperLostError,
    LoginRefusedError,
    NotOursError,
)

_BRIEFS = {
    Code.CONNECT_FAILED: "The volume's device did not appear on this host.",
    Code.DISCONNECT_FAILED: "The volume's device could not be removed from this host.",
    Code.EXTEND_FAILED: "This host's kernel could not be told that the volume's device grew.",
}


@contextmanager
def asking(brief: str) -> Iterator[None]:
    """A question to os-brick or to a command that wasn't answered: iscsi-unavailable, ``brief``.

    A privileged helper that dies meanwhile is an OSError of oslo.privsep's.
    """
    try:
        yield
    except (CallEndedError, ProcessExecutionError, brick.FailedToDropPrivileges, OSError) as exc:
        raise Unreachable(
            Code.ISCSI_UNAVAILABLE,
            brief,
            details=type(exc).__name__,
            resolution="The daemon's log says which command failed.",
            world=World.HOST,
            touched=False,
        ) from exc


def translated(
    failure: BaseException, code: Code, *, login_status: int | str | None
) -> AttachdError:
    """What ended a call of os-brick, in our words: ``code`` where nothing is known better.

    ``login_status`` is that of the last failed login.
    """
    ours = failure.error if isinstance(failure, NotOursError) else failure
    if isinstance(ours, AttachdError):
        return ours
    if isinstance(failure, HelperLostError):
        return helper_lost(touched=True)
    if isinstance(failure, LoginRefusedError):
        return _login_refused()
    if isinstance(failure, CallEndedError):
        return _stopped(code)
    if login_status == NO_ISCSID or iscsid_is_starting(failure):
        return _iscsid_out_of_reach()
    return AttachdError(
        code,
        _BRIEFS[code],
        details=_details(failure, login_status),
        resolution="See that the storage backend answers: iscsiadm -m session -P 3.",
    )


def iscsid_is_starting(failure: BaseException) -> bool:
    """Did iscsiadm find no iscsid, or one that hasn't read the kernel's sessions yet?"""
    return (
        isinstance(failure, ProcessExecutionError)
        and failure.exit_code in (NO_ISCSID, NO_SESSION)
        and "iscsiadm" in str(failure.cmd)
    )


def _details(failure: BaseException, login_status: int | str | None) -> str:
    if isinstance(failure, ProcessExecutionError):
        return f"A command ended with {failure.exit_code}; the daemon's log has more."
    if login_status:
        return f"iscsiadm's login ended with {login_status}."
    return f"os-brick: {type(failure).__name__}"


def helper_lost(*, touched: bool) -> Unreachable:
    """The privileged helper is dead, and with it every way to the host's devices."""
    return Unreachable(
        Code.ISCSI_UNAVAILABLE,
        "attachd's privileged helper is gone.",
        resolution="attachd ends and is started again by systemd; the work then goes on.",
        world=World.HOST,
        touched=touched,
    )


def iscsid_silent() -> Unreachable:
    """A login was given up that iscsid may yet finish."""
    return Unreachable(
        Code.DEADLINE_EXCEEDED,
        "iscsid did not answer a login.",
        details=f"iscsiadm was stopped after {LOGIN_SECONDS:g} s; iscsid may finish the login yet.",
        resolution="systemctl status iscsid.service",
        world=World.HOST,
        touched=True,
    )


def _login_refused() -> AttachdError:
    return AttachdError(
        Code.CONNECT_FAILED,
        "The target refused the login.",
        details="The credentials that Cinder gave are not, or no longer, those of the target.",
        resolution="Look at the backend's CHAP settings and its access list for this host.",
    )


def _stopped(code: Code) -> AttachdError:
    return AttachdError(
        Code.DEADLINE_EXCEEDED,
        "The host's part did not end in time.",
        details=f"It was stopped ({code}).",
        resolution="See that the storage backend answers: iscsiadm -m session -P 3.",
    )


def _iscsid_out_of_reach() -> Unreachable:
    return Unreachable(
        Code.ISCSI_UNAVAILABLE,
        "iscsiadm could not reach iscsid.",
        resolution="systemctl status iscsid.service",
        world=World.HOST,
        touched=True,
    )
