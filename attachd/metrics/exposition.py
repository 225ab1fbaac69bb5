"""All numbers as Prometheus' text, and the little application that serves nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Info,
    Metric,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.registry import Collector

from attachd.metrics.audits import Audits
from attachd.metrics.standing import Journal, Standing
from attachd.metrics.work import Work

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

PATH = "/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The text form that every Prometheus reads."""


class Metrics:
    """Every number of this process, in a registry of its own."""

    def __init__(self, *, journal: Journal) -> None:
        self._registry = CollectorRegistry(auto_describe=True)
        self.work = Work(self._registry)
        self.audits = Audits(self._registry)
        self._registry.register(Standing(journal))
        Info("attachd_build", "Which attachd this is.", registry=self._registry).info(
            {"version": version("attachd")}
        )
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def text(self) -> str:
        """Each number as it is now, in Prometheus' text form."""
        return generate_latest(_WithoutCreated(self._registry)).decode()


class _WithoutCreated(Collector):
    """When each counter began: another series for each, and of no use in this text form.

    The library's own switch for that is one for the whole process.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric


def application(text: Callable[[], str]) -> WSGIApplication:
    """Serves /metrics to whoever asks, and nothing else."""

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        status, headers, body = _answer(environ, text)
        head = [("Content-Length", str(len(body))), *headers]
        start_response(f"{status.value} {status.phrase}", head)
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]

    return serve


def _answer(
    environ: WSGIEnvironment, text: Callable[[], str]
) -> tuple[HTTPStatus, list[tuple[str, str]], bytes]:
    if environ.get("PATH_INFO") != PATH:
        return _refusal(HTTPStatus.NOT_FOUND)
    if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
        return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", "GET, HEAD"))
    return HTTPStatus.OK, [("Content-Type", CONTENT_TYPE)], text().encode()


def _refusal(
    status: HTTPStatus, *headers: tuple[str, str]
) -> tuple[HTTPStatus, list[tuple[str, str]], bytes]:
    plain = ("Content-Type", "text/plain; charset=utf-8")
    return status, [plain, *headers], f"{status.phrase}: see {PATH}\n".encode()
