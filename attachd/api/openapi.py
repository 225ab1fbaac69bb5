"""The OpenAPI 3.1 document, made of the route table and the schemas.

``python -m attachd.api.openapi`` writes it to standard output.
"""

from __future__ import annotations

import json
import re
import sys
from importlib import metadata
from typing import Any

from attachd.api import problems, schemas
from attachd.api.routes import ROUTES, Call, Context, Parameter, Reply, Route

PATH = "/v1/openapi.json"


def document() -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ALL_ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "attachd",
            "version": metadata.version("attachd"),
            "summary": "Attaches Cinder volumes to libvirt guests, and takes them off again.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [
            {
                "url": "http://localhost",
                "description": "On the Unix socket /run/attachd/attachd.sock; the peer's "
                "credentials are checked.",
            }
        ],
        "paths": paths,
        "components": {
            "schemas": schemas.COMPONENTS,
            "responses": {
                "Problem": {
                    "description": "It was refused, or it failed.",
                    "content": {
                        problems.MEDIA_TYPE: {"schema": schemas.ref("ProblemDocument")},
                    },
                }
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "responses": {
            str(int(route.status)): {
                "description": route.status.phrase,
                "content": {
                    route.media_type.partition(";")[0]: {"schema": schemas.ref(route.answer)}
                },
            },
            "default": {"$ref": "#/components/responses/Problem"},
        },
    }
    parameters = [_path_parameter(name) for name in re.findall(r"\{(\w+)\}", route.path)]
    parameters += [_query_parameter(parameter) for parameter in route.query]
    if parameters:
        described["parameters"] = parameters
    if route.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas.ref(route.body)}},
        }
    return described


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query_parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "required": parameter.required,
        "schema": parameter.schema,
    }


def _serve(_context: Context, _call: Call) -> Reply:
    return Reply(document=document())


ALL_ROUTES = (
    *ROUTES,
    Route(
        method="GET",
        path=PATH,
        name="openapi",
        summary="This document.",
        handler=_serve,
        answer="OpenAPI",
    ),
)

if __name__ == "__main__":
    sys.stdout.write(json.dumps(document(), indent=2) + "\n")
