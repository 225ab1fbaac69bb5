"""Documents as text, in the formats of openstackclient: table, json, yaml, value, csv."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attachd.cli.table import records, table, terminal_room
from attachd.plain import printable, width

Row = Mapping[str, Any]


def rows(
    found: Sequence[Row],
    *,
    style: str,
    columns: Sequence[str],
    short: Sequence[str],
    spare: Sequence[str] = (),
) -> str:
    """A list. ``columns`` are those asked for; without any, tables and values have ``short``.

    ``spare``: columns that a table may leave out on a narrow terminal, where none were asked for.
    """
    if style in ("json", "yaml"):
        return _structured([_chosen(row, columns) for row in found], style)
    if style == "csv":
        return _separated(columns or short, found)
    names = columns or short
    cells = [[cell(row[name]) for name in names] for row in found]
    if style == "value":
        return "".join(" ".join(line) + "\n" for line in cells)
    return table(names, cells, room=terminal_room(), spare=() if columns else spare)


def fields(document: Row, *, style: str, columns: Sequence[str]) -> str:
    """One thing, field by field; ``columns`` are those asked for, none means all."""
    chosen = _chosen(document, columns)
    if style in ("json", "yaml"):
        return _structured(chosen, style)
    if style == "csv":
        return _separated(tuple(chosen), [chosen])
    cells = {name: cell(value) for name, value in chosen.items()}
    if style == "value":
        return "".join(f"{text}\n" for text in cells.values())
    room = terminal_room()
    drawn = table(("Field", "Value"), list(cells.items()))
    if room is not None and width(drawn.partition("\n")[0]) > room:
        return records(tuple(cells), [tuple(cells.values())], room=room)
    return drawn


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


def _separated(names: Sequence[str], found: Iterable[Row]) -> str:
    import csv  # noqa: PLC0415 - as above

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(
        ["" if row[name] is None else cell(row[name]) for name in names] for row in found
    )
    return text.getvalue()
