"""A scrape's text, as Prometheus reads it."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from tests.unit.bench import PATIENCE

Series = tuple[str, frozenset[tuple[str, str]]]


class Scrape:
    """Every series and its value."""

    def __init__(self, text: str) -> None:
        self.types: dict[str, str] = {}
        self.series: dict[Series, float] = {}
        for family in text_string_to_metric_families(text):
            self.types[family.name] = family.type
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self.series, f"{key} is there twice"
                self.series[key] = sample.value

    def value(self, name: str, **labels: str) -> float | None:
        """The value of one series; None: there is no such one."""
        return self.series.get((name, frozenset(labels.items())))

    def of(self, name: str) -> list[dict[str, str]]:
        """The labels of each series of this name, whatever its value."""
        return [dict(labels) for found, labels in self.series if found == name]

    def nonzero(self, name: str) -> list[tuple[dict[str, str], float]]:
        """The series of this name that aren't zero."""
        return [
            (dict(labels), value)
            for (found, labels), value in self.series.items()
            if found == name and value
        ]

    @property
    def names(self) -> set[str]:
        """The names of all series."""
        return {name for name, _ in self.series}


def once(text: Callable[[], str], true: Callable[[Scrape], bool]) -> Scrape:
    """The first scrape of which it is true: an operation's view shows its rest a moment sooner."""
    deadline = time.monotonic() + PATIENCE
    while not true(scrape := Scrape(text())):
        assert time.monotonic() < deadline, scrape.series
        time.sleep(0.01)
    return scrape
