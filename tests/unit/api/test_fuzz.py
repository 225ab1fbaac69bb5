"""schemathesis reads the API's own OpenAPI document, and sends what fits it and what doesn't.

Behind the API are the real engine and journal, between fakes of the worlds. Every answer must be
one that the document describes, none a server error, and none may tell of attachd's inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis.strategies import SearchStrategy
from schemathesis.generation import GenerationMode

from attachd.api import openapi
from attachd.api.app import create_app
from attachd.api.routes import Route
from tests.unit.bench import Bench
from tests.unit.doctor.practice import Practice

EXAMPLES = 30
"""Requests of each kind for each route; the same ones in every run."""

INSIDE = ("Traceback", ".py", "site-packages", "sqlite", "SELECT ", "auth_password")

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """An engine that has attached and detached before."""
    bench = Bench(directory=tmp_path_factory.mktemp("fuzzed"))
    bench.start()
    for name in ("web", "0"):
        bench.guests.add(name)
        bench.cinder.add_volume(name=name)
        assert bench.attach(name, name).state == "done"
    assert bench.detach("0", "0").state == "done"
    yield bench
    bench.stop()


@pytest.fixture(scope="module")
def schema(bench: Bench) -> Any:
    """The document as schemathesis understands it, and the application that serves it."""
    app = create_app(
        engine=bench.engine,
        auditor=bench.auditor,
        repairer=bench.repairer,
        doctor=Practice().doctor(),
        metrics=bench.metrics,
        authorise=lambda _peer: True,
    )
    return schemathesis.openapi.from_wsgi(openapi.PATH, app)


@pytest.fixture
def private(bench: Bench) -> tuple[str, ...]:
    """What no answer may hold: the CHAP passwords of all volumes, the journal's place."""
    passwords = [volume.chap_password for volume in bench.cinder.rules.volumes.values()]
    assert passwords
    return (*INSIDE, *passwords, str(bench.directory))


@pytest.mark.parametrize("route", openapi.ALL_ROUTES, ids=lambda route: route.name)
def test_what_fits_the_document(
    bench: Bench, schema: Any, private: tuple[str, ...], route: Route
) -> None:
    operation = schema[route.path][route.method]
    cases = operation.as_strategy()
    for parameters in _leading_somewhere(bench, route.path):
        cases |= operation.as_strategy(path_parameters=parameters)
    _send(cases, private)


@pytest.mark.parametrize(
    "route", [r for r in openapi.ALL_ROUTES if r.query or r.body], ids=lambda route: route.name
)
def test_what_does_not_fit_it(schema: Any, private: tuple[str, ...], route: Route) -> None:
    operation = schema[route.path][route.method]
    _send(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE), private)


def _leading_somewhere(bench: Bench, path: str) -> list[dict[str, str]]:
    """What a path's parameter may be so that there is something to answer about."""
    journal = bench.journal
    records = (*journal.live_attachments(), *journal.detached_attachments())
    known: dict[str, list[str | None]] = {
        "attachment_id": [record.attachment_id for record in records],
        "operation_id": [row.operation_id for row in journal.operations()[-3:]],
        "guest": ["web", "0"],
    }
    return [
        {name: value}
        for name, values in known.items()
        if f"{{{name}}}" in path
        for value in values
        if value
    ]


def _send(cases: SearchStrategy[Any], private: tuple[str, ...]) -> None:
    checks: Any = schemathesis.checks.CHECKS.get_by_names(CHECKS)

    @hypothesis.settings(
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=EXAMPLES,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=cases)
    def send(case: Any) -> None:
        answer = case.call_and_validate(checks=checks)
        assert not [word for word in private if word in answer.text], answer.text

    send()
