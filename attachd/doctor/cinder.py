"""Keystone's and Cinder's checks: one login, one question to Cinder, and what both came to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from attachd.doctor.catalogue import Check, Fault
from attachd.doctor.examination import BarredError, Examination
from attachd.doctor.findings import Finding, failed, fine, wrong
from attachd.doctor.ports import Cinder
from attachd.errors import AttachdError
from attachd.model import AttachFlow
from attachd.vitals import CinderAnswer

SKEW_SECONDS = 30.0
"""More than NTP leaves, less than keystoneauth bears: it renews a token 120 s before its end."""

_CHECKS = (
    Check.KEYSTONE_LOGIN,
    Check.SERVICE_ROLE,
    Check.CINDER_API,
    Check.CINDER_MICROVERSION,
    Check.CLOCK,
)


def examination(new_survey: Callable[[], Cinder], *, attach_flow: AttachFlow | None) -> Examination:
    """All of them. ``attach_flow`` as configured; None: as Cinder offers."""

    def look() -> Iterator[Finding]:
        cinder = new_survey()
        try:
            login = cinder.login()
        except AttachdError as exc:
            yield failed(Fault.KEYSTONE_LOGIN_FAILED, exc)
            raise BarredError(Fault.KEYSTONE_LOGIN_FAILED) from exc
        yield keystone_login(login.roles)
        yield from roles(login.roles)
        try:
            answer = cinder.ask()
        except AttachdError as exc:
            yield failed(Fault.CINDER_UNAVAILABLE, exc)
            yield clock({"Keystone": login.skew})
            raise BarredError(Fault.CINDER_UNAVAILABLE) from exc
        yield fine(Check.CINDER_API, "Cinder answers.")
        yield microversion(answer, attach_flow=attach_flow)
        yield clock({"Keystone": login.skew, "Cinder": answer.skew})

    return Examination(checks=_CHECKS, look=look)


def keystone_login(granted: frozenset[str] | None) -> Finding:
    """It succeeded, or there is nothing to log in to."""
    if granted is None:
        return fine(Check.KEYSTONE_LOGIN, "[cinder] auth_type needs no Keystone.")
    return fine(Check.KEYSTONE_LOGIN, "Keystone takes the credentials.")


def roles(granted: frozenset[str] | None) -> list[Finding]:
    """Both are needed: admin to see everything, service to delete an attachment in use."""
    if granted is None:
        return [fine(Check.SERVICE_ROLE, "Without Keystone there are no roles.")]
    shown = f"The roles are {', '.join(sorted(granted)) or 'none'}."
    needed = (("admin", Fault.ADMIN_ROLE_MISSING), ("service", Fault.SERVICE_ROLE_MISSING))
    missing = [wrong(fault, shown) for role, fault in needed if role not in granted]
    return missing or [fine(Check.SERVICE_ROLE, shown)]


def microversion(answer: CinderAnswer, *, attach_flow: AttachFlow | None) -> Finding:
    """Is it enough for how volumes are attached?"""
    found = f"Cinder and attachd speak {answer.microversion}."
    if answer.new_style or attach_flow is AttachFlow.VOLUME_ACTIONS:
        return fine(Check.CINDER_MICROVERSION, found)
    if attach_flow is AttachFlow.ATTACHMENTS:
        return wrong(Fault.CINDER_TOO_OLD, found)
    return wrong(Fault.CINDER_OLD_STYLE, found)


def clock(skews: Mapping[str, float | None]) -> Finding:
    """Seconds by which each clock is ahead of this host's; None: it doesn't tell."""
    told = {whose: skew for whose, skew in skews.items() if skew is not None}
    off = [
        f"{whose}'s clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this host's."
        for whose, skew in told.items()
        if abs(skew) > SKEW_SECONDS
    ]
    if off:
        return wrong(Fault.CLOCK_SKEWED, " ".join(off))
    if not told:
        return fine(Check.CLOCK, "Neither Keystone nor Cinder told the time.")
    return fine(Check.CLOCK, f"This host's clock agrees with that of {' and '.join(told)}.")
