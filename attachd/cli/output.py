"""Documents as text, in the four formats of openstackclient: table, json, yaml, value."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attachd.plain import printable, width

Row = Mapping[str, Any]


def rows(found: Sequence[Row], *, style: str, columns: Sequence[str], short: Sequence[str]) -> str:
    """A list. ``columns`` are those asked for; without any, tables and values have ``short``."""
    if style in ("json", "yaml"):
        return _structured([_chosen(row, columns) for row in found], style)
    names = columns or short
    cells = [[cell(row[name]) for name in names] for row in found]
    if style == "value":
        return "".join(" ".join(line) + "\n" for line in cells)
    return table(names, cells)


def fields(document: Row, *, style: str, columns: Sequence[str]) -> str:
    """One thing, field by field; ``columns`` are those asked for, none means all."""
    chosen = _chosen(document, columns)
    if style in ("json", "yaml"):
        return _structured(chosen, style)
    if style == "value":
        return "".join(f"{cell(value)}\n" for value in chosen.values())
    return table(("Field", "Value"), [[name, cell(value)] for name, value in chosen.items()])


def table(names: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Columns between bars. Never wrapped: a line stays a line for grep."""
    widths = [max(map(width, column)) for column in zip(names, *lines, strict=True)]
    rule = "+" + "".join("-" * (room + 2) + "+" for room in widths) + "\n"
    body = "".join(_line(line, widths) for line in lines)
    return rule + _line(names, widths) + rule + body + (rule if body else "")


def cell(value: object) -> str:
    """A value on one line, with nothing in it that a terminal would obey."""
    text = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return printable(text)


def _chosen(document: Row, columns: Sequence[str]) -> dict[str, Any]:
    return {name: document[name] for name in columns or document}


def _structured(value: object, style: str) -> str:
    if style == "json":
        return json.dumps(value, indent=2) + "\n"
    import yaml  # noqa: PLC0415 - only who asks for YAML pays for it

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def _line(line: Iterable[str], widths: Iterable[int]) -> str:
    padded = (
        f" {text}{' ' * (room - width(text))} |" for text, room in zip(line, widths, strict=True)
    )
    return "|" + "".join(padded) + "\n"
