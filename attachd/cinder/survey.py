"""What the doctor asks of Keystone and Cinder, by attachd's own credentials and settings.

Everything is asked anew: what a token of an hour ago may do says nothing of the next login.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

from attachd.cinder.session import ATTACHMENTS_SINCE, CinderSession, speaks
from attachd.vitals import CinderAnswer, Login

_ROUNDED = 1.0
"""Seconds: a date in a header, and in a token, has no finer part."""

# As attachd looks for a volume by its name; nobody calls one so.
_QUESTION = {"all_tenants": "1", "name": "attachd-doctor"}


class CinderSurvey:
    """One examination's questions: a session of its own, made by ``new_session``."""

    def __init__(self, *, new_session: Callable[[], CinderSession]) -> None:
        self._session = new_session()

    def login(self) -> Login:
        """Log in to Keystone. Raises Unreachable cinder-unavailable."""
        asked = time.time()
        token = self._session.token()
        if token is None:
            return Login(roles=None, skew=None)
        skew = None if token.issued_at is None else skew_of(token.issued_at, asked, time.time())
        return Login(roles=token.roles, skew=skew)

    def ask(self) -> CinderAnswer:
        """Ask Cinder something. Raises Unreachable cinder-unavailable, Refused cinder-refused."""
        microversion = self._session.microversion()
        asked = time.time()
        response = self._session.exchange("GET", "/volumes/detail", query=_QUESTION)
        stamp = _timestamp(response.headers.get("Date", ""))
        skew = None if stamp is None else skew_of(stamp, asked, time.time())
        return CinderAnswer(
            microversion=microversion,
            new_style=speaks(microversion, ATTACHMENTS_SINCE),
            skew=skew,
        )


def skew_of(stamp: float, asked: float, answered: float) -> float:
    """Seconds by which another clock is ahead of this one; 0 where none can be told.

    ``stamp``: what it showed at some moment between ``asked`` and ``answered``, rounded down.
    """
    behind = stamp < asked - _ROUNDED
    return stamp - asked if behind else max(0.0, stamp - answered)


def _timestamp(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
