"""What the doctor hears of Keystone and Cinder, from a real HTTP server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from keystoneauth1 import noauth
from keystoneauth1.identity import generic

from attachd.cinder.session import MICROVERSION_MIN, CinderSession, new_session
from attachd.cinder.survey import CinderSurvey, skew_of
from attachd.doctor.ports import Cinder
from attachd.errors import AttachdError, Refused, Unreachable
from tests.fakes.cinder_http import CinderServer

HOUR = 3600.0
LEEWAY = 60.0
"""Seconds that this machine may be busy with other things."""

New = Callable[[], Cinder]


@pytest.fixture
def server() -> Iterator[CinderServer]:
    with CinderServer() as server:
        yield server


@pytest.fixture
def new(server: CinderServer) -> Iterator[New]:
    """Makes surveys; their connections are closed at the end."""
    sessions = []

    def make() -> CinderSurvey:
        auth = generic.Password(
            auth_url=server.auth_url,
            username="attachd",
            password="right",
            project_name="service",
            user_domain_id="default",
            project_domain_id="default",
        )
        sessions.append(new_session(auth=auth, timeout=30))
        return CinderSurvey(
            new_session=lambda: CinderSession(
                session=sessions[-1],
                region_name="RegionOne",
                interface="public",
                connect_timeout=10,
                request_timeout=30,
                query_timeout=30,
                microversion_min=MICROVERSION_MIN,
            )
        )

    yield make
    for session in sessions:
        session.session.close()


def test_a_login_tells_the_roles_and_the_time(new: New, server: CinderServer) -> None:
    server.roles = ("Admin", "service")
    login = new().login()
    assert (login.roles, login.skew) == (frozenset({"admin", "service"}), 0.0)


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_clocks_that_differ(new: New, server: CinderServer, ahead: float) -> None:
    server.clock, server.dated = ahead, True
    survey = new()
    login, answer = survey.login(), survey.ask()
    assert login.skew == pytest.approx(ahead, abs=LEEWAY)
    assert answer.skew == pytest.approx(ahead, abs=LEEWAY)


def test_each_survey_logs_in_anew(new: New, server: CinderServer) -> None:
    new().login()
    server.password = "another"
    with pytest.raises(Unreachable, match="refuses attachd's credentials") as caught:
        new().login()
    assert "right" not in str(caught.value.problem)


def test_a_keystone_that_is_away(new: New, server: CinderServer) -> None:
    server.stop()
    with pytest.raises(Unreachable, match="can't be reached"):
        new().login()


@pytest.mark.parametrize(
    ("offered", "spoken", "new_style"),
    [("3.71", "3.69", True), ("3.44", "3.44", True), ("3.43", "3.43", False)],
)
def test_what_cinder_speaks(
    new: New, server: CinderServer, offered: str, spoken: str, new_style: bool
) -> None:
    server.microversion = offered
    survey = new()
    survey.login()
    answer = survey.ask()
    assert (answer.microversion, answer.new_style, answer.skew) == (spoken, new_style, None)
    (asked,) = server.seen("list_volumes")
    assert asked.query["all_tenants"] == "1"


@pytest.mark.parametrize(("status", "kind"), [(503, Unreachable), (403, Refused)])
def test_a_cinder_that_does_not_answer(
    new: New, server: CinderServer, status: int, kind: type[AttachdError]
) -> None:
    server.fail("list_volumes", status)
    survey = new()
    survey.login()
    with pytest.raises(kind):
        survey.ask()


def test_a_cinder_without_keystone_has_no_roles() -> None:
    survey = CinderSurvey(
        new_session=lambda: CinderSession(
            session=new_session(auth=noauth.NoAuth(endpoint="http://127.0.0.1:1"), timeout=5),
            region_name=None,
            interface="public",
            connect_timeout=5,
            request_timeout=5,
        )
    )
    login = survey.login()
    assert (login.roles, login.skew) == (None, None)


@pytest.mark.parametrize(
    ("stamp", "skew"),
    [
        (100.0, 0.0),
        (99.0, 0.0),  # rounded down
        (98.5, -1.5),
        (102.0, 0.0),
        (103.5, 1.5),
        (40.0, -60.0),
    ],
)
def test_the_skew_is_what_the_answers_time_cannot_explain(stamp: float, skew: float) -> None:
    assert skew_of(stamp, 100.0, 102.0) == skew
