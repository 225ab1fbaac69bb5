"""The OpenAPI document: whole, well-formed, and about the very routes that there are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from attachd.api import openapi, schemas
from attachd.api.app import create_app
from tests.fakes.engine import FakeEngine
from tests.unit.serving import ask


def test_it_is_served(served: Path) -> None:
    answer = ask(served, "GET", "/v1/openapi.json")

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.document == openapi.document()


def test_it_can_be_dumped() -> None:
    dumped = subprocess.run(
        [sys.executable, "-m", "attachd.api.openapi"], capture_output=True, check=True
    )
    assert json.loads(dumped.stdout) == openapi.document()


def test_every_route_of_the_application_is_in_it_and_none_else() -> None:
    app = create_app(
        engine=FakeEngine(),
        auditor=FakeEngine(),
        repairer=FakeEngine(),
        doctor=FakeEngine(),
        metrics=FakeEngine(),
        authorise=lambda _peer: True,
    )
    served = {
        (re.sub(r"<(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if method != "HEAD"
    }
    described = {
        (path, method)
        for path, methods in openapi.document()["paths"].items()
        for method in methods
    }
    assert served == described


def test_every_reference_leads_somewhere_and_nothing_is_left_over() -> None:
    document = openapi.document()
    used = {value for key, value in walk(document) if key == "$ref"}

    for reference in used:
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
    components = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert components <= used


@pytest.mark.parametrize("name", schemas.COMPONENTS)
def test_every_schema_is_one(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schemas.COMPONENTS[name])


def test_every_operation_is_described_once() -> None:
    operations = [
        operation
        for methods in openapi.document()["paths"].values()
        for operation in methods.values()
    ]
    names = [operation["operationId"] for operation in operations]

    assert len(set(names)) == len(names)
    for operation in operations:
        assert operation["summary"].endswith(".")
        assert "default" in operation["responses"]
        assert {"200", "202"} & set(operation["responses"])


def test_each_path_names_its_parameters() -> None:
    for path, methods in openapi.document()["paths"].items():
        for operation in methods.values():
            named = [p["name"] for p in operation.get("parameters", []) if p["in"] == "path"]
            assert named == re.findall(r"\{(\w+)\}", path)


def walk(value: object) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner)
