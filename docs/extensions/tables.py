"""What these pages take from the program itself: its permanent words, and its steps.

```{attachd-words} attachd.errors Code
```

```{attachd-steps} attach
```

```{attachd-schemas}
```
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from attachd.api.schemas import COMPONENTS, Schema
from attachd.errors import Explained
from attachd.model import OperationKind
from attachd.operations.tables import TABLES
from attachd.story import words


class Words(SphinxDirective):
    """A definition list of an enumeration: each word with its meaning."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """The list."""
        module, name = self.arguments
        enumeration: type[Explained] = getattr(import_module(module), name)
        return [nodes.definition_list("", *map(_item, enumeration))]


class Steps(SphinxDirective):
    """The table of an operation's steps."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The table."""
        rows = [("step", "world", "what for", "undone by")]
        for spec in TABLES[OperationKind(self.arguments[0])]:
            name = f"{spec.name} (the pivot)" if spec.pivot else spec.name
            undo = words.aim(spec.name, undo=True) if spec.undoable else ""
            rows.append((name, str(spec.world), words.aim(spec.name, undo=False), undo))
        return [_table(rows)]


class Schemas(SphinxDirective):
    """What goes over the wire: each object with its fields."""

    def run(self) -> list[nodes.Node]:
        """A section an object."""
        return [
            section
            for name, schema in COMPONENTS.items()
            if schema.get("properties")
            for section in _section(name, schema)
        ]


def _section(name: str, schema: Schema) -> Iterator[nodes.Node]:
    yield nodes.rubric("", name)
    required = schema.get("required", ())
    yield _table(
        [
            ("field", "type", "required", "what it is"),
            *(
                (
                    field,
                    _type(each),
                    "yes" if field in required else "",
                    str(each.get("description", "")),
                )
                for field, each in schema["properties"].items()
            ),
        ]
    )


def _type(schema: Schema) -> str:
    """In words: a type, one of several values, another object."""
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    types = schema.get("type", "anything")
    return types if isinstance(types, str) else " or ".join(types)


def _item(word: Explained) -> nodes.definition_list_item:
    term = nodes.term("", "", nodes.literal("", word.value))
    meaning = nodes.definition("", nodes.paragraph("", word.meaning))
    return nodes.definition_list_item("", term, meaning)


def _table(rows: Sequence[tuple[str, ...]]) -> nodes.table:
    head, *body = map(_row, rows)
    columns = [nodes.colspec(colwidth=1) for _ in rows[0]]
    group = nodes.tgroup("", *columns, nodes.thead("", head), nodes.tbody("", *body))
    group["cols"] = len(columns)
    return nodes.table("", group)


def _row(cells: Iterable[str]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", cell)) for cell in cells))


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's own entry."""
    app.add_directive("attachd-words", Words)
    app.add_directive("attachd-steps", Steps)
    app.add_directive("attachd-schemas", Schemas)
    return {"parallel_read_safe": True}
