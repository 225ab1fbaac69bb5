"""A value in Cinder's JSON together with the path at which it stood.

What is missing or of the wrong type is refused by its path. The value itself is never quoted in an
error or a ``repr``: some of them are passwords.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import requests

from attachd.cinder import faults
from attachd.errors import AttachdError


@dataclass(frozen=True, kw_only=True)
class Answer:
    """``touched`` says whether the call that was answered may have changed anything.

    Each reader raises AttachdError cinder-refused when the value isn't what it asks for.
    """

    value: object = field(repr=False)
    path: str
    touched: bool

    def at(self, key: str) -> Answer:
        """The attribute ``key``, which has to be there and not null."""
        found = self.get(key)
        if found is None:
            raise faults.malformed(self._below(key), "is missing", touched=self.touched)
        return found

    def get(self, key: str) -> Answer | None:
        """The attribute ``key``; None where it is missing or null."""
        if not isinstance(self.value, dict):
            raise self.wrong("is not an object")
        value = self.value.get(key)
        if value is None:
            return None
        return Answer(value=value, path=self._below(key), touched=self.touched)

    def text(self) -> str:
        """The value, a string."""
        if not isinstance(self.value, str):
            raise self.wrong("is not a string")
        return self.value

    def integer(self) -> int:
        """The value, an integer (JSON's true and false aren't)."""
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            raise self.wrong("is not an integer")
        return self.value

    def flag(self) -> bool:
        """The value, true or false."""
        if not isinstance(self.value, bool):
            raise self.wrong("is not a boolean")
        return self.value

    def items(self) -> tuple[Answer, ...]:
        """The elements of the value, a list."""
        if not isinstance(self.value, list):
            raise self.wrong("is not a list")
        return tuple(
            Answer(value=item, path=f"{self.path}[{index}]", touched=self.touched)
            for index, item in enumerate(self.value)
        )

    def wrong(self, problem: str) -> AttachdError:
        """The error that says what is wrong with this value: "is not an integer"."""
        return faults.malformed(self.path, problem, touched=self.touched)

    def _below(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def document(response: requests.Response, *, touched: bool) -> Answer:
    """The whole body of an answer, parsed."""
    try:
        value = response.json()
    except (ValueError, RecursionError) as exc:
        raise faults.malformed("the body", "is not JSON", touched=touched) from exc
    return Answer(value=value, path="", touched=touched)
