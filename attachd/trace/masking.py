"""What may be kept of a request's or an answer's body: bounded, and nothing secret. Pure."""

from __future__ import annotations

import json
import re
from typing import Any, TypeAlias

MASK = "***"
LARGEST = 4096
"""Characters of JSON that are kept of a body."""

Json: TypeAlias = Any

_SECRET = re.compile(r"password|passwd|secret|token|username", re.IGNORECASE)


def kept(body: Json) -> Json:
    """The body with its secrets masked; a large one only in its size."""
    masked = _masked(body)
    size = len(json.dumps(masked, default=str))
    return masked if size <= LARGEST else {"omitted": f"{size} characters"}


def _masked(value: Json) -> Json:
    if isinstance(value, dict):
        return {
            str(key): MASK if _SECRET.search(str(key)) and each else _masked(each)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [_masked(each) for each in value]
    return value
