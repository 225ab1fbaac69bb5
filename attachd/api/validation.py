"""Requests from outside become trusted values here, or a BadRequest that says what is wrong.

What a caller sent is never quoted back at length: the messages name the field and the rule.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from itertools import islice
from typing import Any, Protocol

import jsonschema
from cheroot.errors import MaxSizeExceeded

from attachd.api import schemas
from attachd.api.problems import BadRequest

_MOST_COMPLAINTS = 5
_QUOTED = 40
_INTEGER = re.compile(r"[0-9]{1,15}")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_BOOLEANS = {"true": True, "false": False}
_RULES = {
    "type": "{where} must be of type {rule}",
    "enum": "{where} must be one of {rule}",
    "minLength": "{where} must not be empty",
    "maxLength": "{where} must not be longer than {rule} characters",
    "not": "{where} must not contain control characters",
    "minimum": "{where} must be at least {rule}",
    "maximum": "{where} must be at most {rule}",
}


class Readable(Protocol):
    """A request's body, as the WSGI server hands it over: it ends where the body ends."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes."""


class Checker:
    """Holds a value against one schema."""

    def __init__(self, schema: schemas.Schema) -> None:
        self._validator = jsonschema.Draft202012Validator(
            {**schema, "components": {"schemas": schemas.COMPONENTS}}
        )

    def check(self, value: object, *, brief: str) -> None:
        """Raise BadRequest naming the first few rules that ``value`` breaks."""
        errors = list(islice(self._validator.iter_errors(value), _MOST_COMPLAINTS))
        if errors:
            raise BadRequest(brief, details="; ".join(_complaint(error) for error in errors))


def read_body(stream: Readable, *, length: int | None, limit: int) -> bytes:
    """The whole body; ``length`` is what Content-Length promised, None where it is chunked.

    Never holds more than ``limit`` bytes and one more. Raises BadRequest (request-too-large too).
    """
    if length is not None and length > limit:
        raise _too_large(limit)
    try:
        body = stream.read(limit + 1)
    except TimeoutError as exc:
        raise BadRequest(
            "The request's body didn't arrive in time.", status=HTTPStatus.REQUEST_TIMEOUT
        ) from exc
    except ConnectionError as exc:
        raise BadRequest("The request's body broke off.") from exc
    except (MaxSizeExceeded, OSError) as exc:
        # Of what is left, cheroot reports a chunk above its limit as a bare OSError.
        raise _too_large(limit) from exc
    except ValueError as exc:
        raise BadRequest("The request's body isn't in well-formed chunks.") from exc
    if len(body) > limit:
        raise _too_large(limit)
    if length is not None and len(body) < length:
        raise BadRequest("The request's body is shorter than its Content-Length.")
    return body


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is. Raises BadRequest; a field given twice is refused, too."""
    try:
        value = json.loads(
            body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
        # Half a surrogate pair can be escaped in JSON, but never stored or sent on as UTF-8.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as exc:
        raise BadRequest(
            "The request's body isn't well-formed JSON.", details=_reason(exc)
        ) from exc
    if not isinstance(value, dict):
        raise BadRequest("The request's body must be a JSON object.")
    return value


def read_query(
    given: Mapping[str, Sequence[str]], known: Mapping[str, schemas.Schema]
) -> dict[str, Any]:
    """The query's parameters in their schemas' types, not yet held against them.

    What isn't of its type stays a string, for the schema to refuse.
    """
    repeated = [name for name, values in given.items() if len(values) > 1 and name in known]
    if repeated:
        raise BadRequest("A parameter of the query is given twice.", details=_quoted(repeated))
    return {
        name: _coerce(values[0], known.get(name, {}).get("type")) for name, values in given.items()
    }


def _coerce(value: str, kind: object) -> object:
    if kind == "boolean":
        return _BOOLEANS.get(value, value)
    if kind == "integer" and _INTEGER.fullmatch(value):
        return int(value)
    if kind == "number" and _NUMBER.fullmatch(value):
        return float(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field is given twice")
    return found


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")


def _reason(exc: Exception) -> str:
    if isinstance(exc, UnicodeDecodeError):
        return "It isn't UTF-8."
    if isinstance(exc, UnicodeEncodeError):
        return "It has half a surrogate pair."
    if isinstance(exc, RecursionError):
        return "It is nested too deeply."
    return f"{exc}"[:200]


def _complaint(error: jsonschema.ValidationError) -> str:
    """The rule that was broken, in words; jsonschema's own would quote the caller's value."""
    if error.validator == "required":
        return error.message  # it names nothing but the schema's own field
    if error.validator == "additionalProperties":
        schema: Any = error.schema
        given: Any = error.instance
        return f"unknown: {_quoted(set(given) - set(schema['properties']))}"
    where = ".".join(str(part) for part in error.absolute_path) or "the request"
    rule: Any = error.validator_value
    if isinstance(rule, list):
        rule = ", ".join(rule)
    return _RULES.get(str(error.validator), "{where} breaks a rule").format(where=where, rule=rule)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(ascii(name[:_QUOTED]) for name in sorted(names)[:_MOST_COMPLAINTS])


def _too_large(limit: int) -> BadRequest:
    return BadRequest(
        "The request's body is too large.",
        details=f"At most {limit} bytes are read.",
        status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    )
