"""A run against a stored one: by ratios within each run, for no two machines are equally fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchkit.figures import Document

TOLERANCE = 0.25
"""A figure may be larger by this part of it: medians of five rounds vary that much."""

_VERBS = ("attach", "detach")


def _own(verb: str) -> Callable[[Document], float]:
    return lambda run: float(run[verb]["own_time"] / run[verb]["floor_own_time"])


def _overhead(verb: str) -> Callable[[Document], float]:
    return lambda run: float(run[verb]["overhead_ratio"])


def _cold(verb: str) -> Callable[[Document], float]:
    return lambda run: float(run["cold"][verb] / run[verb]["wall"])


def _command(name: str) -> Callable[[Document], float]:
    return lambda run: float(run["client"][name] / run["client"]["openstack_version"])


def _memory(process: str) -> Callable[[Document], float]:
    return lambda run: run["memory"][f"{process}_pss_kib"] / 1024


FIGURES: Mapping[str, Callable[[Document], float]] = {
    **{f"{verb}: own time / the plain process's": _own(verb) for verb in _VERBS},
    **{f"{verb}: part outside of the libraries": _overhead(verb) for verb in _VERBS},
    **{f"{verb}: first behind a start / a later one": _cold(verb) for verb in _VERBS},
    "many at once: wall / the highest bound": lambda r: float(
        r["parallel"]["wall"] / r["parallel"]["floor"]
    ),
    "idle: part of a processor": lambda r: float(r["parallel"]["idle"]["cpu"]),
    "idle with very many attached": lambda r: float(r["watched"]["cpu"]),
    "attachctl list / openstack --version": _command("list"),
    "attachctl list -f json / openstack --version": _command("list_json"),
    "attachctl --help / openstack --version": _command("help"),
    "daemon's PSS, MiB": _memory("daemon"),
    "privileged helper's PSS, MiB": _memory("helper"),
}
"""By what they are called; in all of them less is better."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One figure of two runs. None: that run didn't measure it."""

    figure: str
    stored: float | None
    now: float | None

    @property
    def is_worse(self) -> bool:
        """Beyond what chance does."""
        if self.stored is None or self.now is None:
            return False
        return self.now > self.stored * (1 + TOLERANCE)

    def __str__(self) -> str:
        values = "  ".join(_shown(value).rjust(8) for value in (self.stored, self.now))
        return f"{self.figure:<46}{values}  {self._verdict()}"

    def _verdict(self) -> str:
        if self.stored is None or self.now is None:
            return "not in both runs"
        if self.is_worse:
            return "WORSE"
        return "better" if self.now * (1 + TOLERANCE) < self.stored else "the same"


def compare(stored: Document, now: Document) -> list[Change]:
    """Every figure that either run has."""
    changes = [
        Change(figure=name, stored=_figure(figure, stored), now=_figure(figure, now))
        for name, figure in FIGURES.items()
    ]
    return [each for each in changes if (each.stored, each.now) != (None, None)]


def _figure(figure: Callable[[Document], float], run: Document) -> float | None:
    try:
        return figure(run)
    except (KeyError, TypeError, ZeroDivisionError):  # it wasn't measured: there, null, or 0
        return None


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
