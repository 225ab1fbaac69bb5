"""Writes the API's own OpenAPI document to where the page of the API takes it from."""

from __future__ import annotations

import json
from typing import Any

from sphinx.application import Sphinx

from attachd.api.openapi import document
from tests.pages import PROJECT

PLACE = PROJECT / "build" / "openapi.json"


def _write(_app: Sphinx) -> None:
    whole = document()
    for methods in whole["paths"].values():
        for described in methods.values():
            # The same for all, and the page says so; the directive takes numbers only.
            del described["responses"]["default"]
    PLACE.parent.mkdir(exist_ok=True)
    PLACE.write_text(json.dumps(whole), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's own entry."""
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True}
