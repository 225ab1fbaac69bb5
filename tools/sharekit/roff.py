"""A man page in the macros of man(7), as groff and mandoc read them without a warning.

It takes more than argparse-manpage offers: that has attachctl's options again at each command, no
place for what else a page needs, and nothing for attachd.conf(5).
"""

import os
import textwrap
from collections.abc import Iterable
from datetime import UTC, datetime

_LINE = 76
_ESCAPES = str.maketrans({"\\": r"\e", "-": r"\-", "~": r"\(ti", "^": r"\(ha"})


class Page:
    """Takes in plain words, in which what stands between `backticks` becomes bold."""

    def __init__(self, name: str, section: int, brief: str, *, version: str) -> None:
        self.name = name
        self.section = section
        self._lines = [
            f'.TH {escaped(name.upper())} {section} {_today()} "attachd {version}" "attachd"',
            ".nh",  # names of columns and options stay whole
            ".ad l",
        ]
        self.heading("NAME")
        self._lines.append(escaped(f"{name} - {brief}"))

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"

    def heading(self, title: str) -> None:
        """Begin a section."""
        self._lines.append(f".SH {escaped(title)}")

    def subheading(self, title: str) -> None:
        """Begin a part of a section."""
        self._lines += [".SS " + escaped(title).replace('"', r"\(dq")]

    def paragraph(self, *sentences: str) -> None:
        """Sentences that belong together; behind a heading and between paragraphs."""
        if not self._lines[-1].startswith((".SH", ".SS")):
            self._lines.append(".PP")
        self._lines += _filled(" ".join(sentences))

    def marked(self, text: str) -> None:
        """Text that is marked up already: a synopsis."""
        self._lines += _wrapped(text)

    def item(self, term: str, *sentences: str) -> None:
        """A term, as it is marked up (see ``bold``), and what there is to say of it."""
        self._lines += [".TP", term, *_filled(" ".join(sentences))]

    def items(self, described: Iterable[tuple[str, str]]) -> None:
        """Words to be typed, or names, each with its description."""
        for term, description in described:
            self.item(bold(term), description)

    def example(self, *lines: str) -> None:
        """Lines as they are."""
        self._lines += [".PP", ".RS 4", ".nf", *map(_safe, map(escaped, lines)), ".fi", ".RE"]

    def see_also(self, *pages: str) -> None:
        """Other pages, each as ``name(section)``."""
        self.heading("SEE ALSO")
        names = (page.rstrip(")").split("(") for page in pages)
        self._lines += _wrapped(", ".join(f"{bold(name)}({number})" for name, number in names))


def escaped(text: str) -> str:
    """Words as words: a hyphen stays what was typed, so that it can be copied."""
    return text.translate(_ESCAPES)


def sentence(words: str) -> str:
    """argparse's help begins small and has no full stop."""
    stop = "" if words.endswith((".", "?")) else "."
    return words[:1].upper() + words[1:] + stop


def bold(text: str) -> str:
    """To be typed as it is."""
    return f"\\fB{escaped(text)}\\fR".replace("'", r"\(aq")


def italic(text: str) -> str:
    """To be replaced by something."""
    return f"\\fI{escaped(text)}\\fR"


def _filled(text: str) -> list[str]:
    plain, *others = text.split("`")
    marked = escaped(plain)
    for number, part in enumerate(others):
        marked += escaped(part) if number % 2 else bold(part)
    return _wrapped(marked)


def _wrapped(marked: str) -> list[str]:
    lines = textwrap.wrap(marked, _LINE, break_long_words=False, break_on_hyphens=False)
    return [_safe(line) for line in lines]


def _safe(line: str) -> str:
    """A line that is no macro, whatever it begins with, and is followed by one space only."""
    before = r"\&" if line.startswith((".", "'")) else ""
    behind = r"\&" if line.endswith((".", "?", "!", ":")) else ""
    return before + line + behind


def _today() -> str:
    """The day of the build; a build that shall be the same every time sets it."""
    told = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(told), UTC) if told else datetime.now(UTC)
    return moment.date().isoformat()
