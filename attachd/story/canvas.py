"""Shapes of an SVG drawing. Text is monospaced, so that its width is known without a browser."""

from __future__ import annotations

from xml.etree import ElementTree as ET

FONT = "'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace"
SIZE = 12.0
LINE = 15.0

# Of a character, to the font's size: no common monospaced font has more than 0.61, but who draws
# it may round up.
_ADVANCE = 0.65
_HEAD = 7.0


def breadth(text: str, *, size: float = SIZE) -> float:
    """How wide it is at the most: another script's glyphs may take twice the room."""
    cells = sum(1 if char.isascii() else 2 for char in text)
    return cells * size * _ADVANCE


class Layer:
    """Shapes on top of those of earlier layers."""

    def __init__(self, drawing: ET.Element) -> None:
        self._group = ET.SubElement(drawing, "g")

    def rect(
        self,
        x: float,
        y: float,
        *,
        width: float,
        height: float,
        fill: str,
        stroke: str = "none",
        radius: float = 0.0,
    ) -> None:
        """A rectangle."""
        self._add(
            "rect",
            x=_number(x),
            y=_number(y),
            width=_number(width),
            height=_number(height),
            rx=_number(radius),
            fill=fill,
            stroke=stroke,
        )

    def line(
        self, x1: float, y1: float, x2: float, y2: float, *, colour: str, dashes: str = ""
    ) -> None:
        """A straight line."""
        self._path(f"M {_number(x1)} {_number(y1)} L {_number(x2)} {_number(y2)}", colour, dashes)

    def loop(self, x: float, y: float, *, out: float, down: float, colour: str) -> None:
        """An arrow from a lifeline back to itself."""
        far, low = _number(x + out), _number(y + down)
        self._path(f"M {_number(x)} {_number(y)} H {far} V {low} H {_number(x + 1)}", colour, "")
        self.head(x, y + down, leftwards=True, colour=colour)

    def head(self, x: float, y: float, *, leftwards: bool, colour: str) -> None:
        """An arrow's head with its tip at (x, y)."""
        back = x + _HEAD if leftwards else x - _HEAD
        points = ((x, y), (back, y - _HEAD / 2), (back, y + _HEAD / 2))
        listed = " ".join(f"{_number(px)},{_number(py)}" for px, py in points)
        self._add("polygon", points=listed, fill=colour)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        colour: str,
        anchor: str = "start",
        size: float = SIZE,
        bold: bool = False,
    ) -> None:
        """One line of text; ``y`` is its baseline."""
        element = self._add("text", x=_number(x), y=_number(y), fill=colour)
        element.text = text
        if anchor != "start":
            element.set("text-anchor", anchor)
        if size != SIZE:
            element.set("font-size", _number(size))
        if bold:
            element.set("font-weight", "bold")

    def _path(self, way: str, colour: str, dashes: str) -> None:
        element = self._add("path", d=way, stroke=colour, fill="none")
        if dashes:
            element.set("stroke-dasharray", dashes)

    def _add(self, name: str, **attributes: str) -> ET.Element:
        return ET.SubElement(self._group, name, attributes)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
