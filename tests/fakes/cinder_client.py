"""The real client in front of the HTTP fake, with patience measured in fractions of a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from keystoneauth1.identity import generic

from attachd.cinder.client import CinderClient
from attachd.cinder.retry import Retry
from attachd.cinder.session import (
    ATTACHMENTS_SINCE,
    MICROVERSION_MIN,
    CinderSession,
    new_session,
)
from attachd.model import AttachFlow
from tests.fakes.cinder_http import CinderServer

TRIES = 3


@contextmanager
def client_of(
    server: CinderServer,
    *,
    password: str = "right",  # noqa: S107
    region_name: str | None = "RegionOne",
    request_timeout: float = 30,
    query_timeout: float = 30,
    delete_timeout: float = 30,
    orphan_timeout: float = 30,
    extend_timeout: float = 30,
    attach_flow: AttachFlow | None = AttachFlow.ATTACHMENTS,
) -> Iterator[CinderClient]:
    """A client with a session of its own; its connections are closed at the end."""
    auth = generic.Password(
        auth_url=server.auth_url,
        username="attachd",
        password=password,
        project_name="service",
        user_domain_id="default",
        project_domain_id="default",
    )
    session = new_session(auth=auth, timeout=30)
    try:
        yield CinderClient(
            session=CinderSession(
                session=session,
                region_name=region_name,
                interface="public",
                connect_timeout=10,
                request_timeout=request_timeout,
                query_timeout=query_timeout,
                microversion_min=(
                    ATTACHMENTS_SINCE if attach_flow is AttachFlow.ATTACHMENTS else MICROVERSION_MIN
                ),
            ),
            retry=Retry(tries=TRIES, deadline=60, pause=0.01),
            delete_timeout=delete_timeout,
            orphan_timeout=orphan_timeout,
            extend_timeout=extend_timeout,
            poll_interval=0.01,
            attach_flow=attach_flow,
        )
    finally:
        session.session.close()
