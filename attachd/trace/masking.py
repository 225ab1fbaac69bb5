"""What may be kept of a text, or of a request's or an answer's body: nothing secret. Pure."""

from __future__ import annotations

import json
import re
from typing import Any, TypeAlias

MASK = "***"
LARGEST = 4096
"""Characters of JSON that are kept of a body."""

Json: TypeAlias = Any

_NAME = re.compile(r"password|passwd|secret|token|username", re.IGNORECASE)
_SECRET = re.compile(
    r"""(?ix)
    (   --\S*(?:password|secret|token)\s+
    |   \w*(?:password|passwd|secret|token)["']?\s*[=:]\s*["']?
    )
    [^\s"',}]+"""
)


def without_secrets(text: str) -> str:
    """The text without what looks like a secret: errors have been seen to quote command lines."""
    return _SECRET.sub(rf"\1{MASK}", text)


def kept(body: Json) -> Json:
    """The body with its secrets masked; a large one only in its size."""
    masked = _masked(body)
    size = len(json.dumps(masked, default=str))
    return masked if size <= LARGEST else {"omitted": f"{size} characters"}


def _masked(value: Json) -> Json:
    if isinstance(value, dict):
        return {
            str(key): MASK if _NAME.search(str(key)) and each else _masked(each)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [_masked(each) for each in value]
    return without_secrets(value) if isinstance(value, str) else value
