"""All numbers as one text; over TCP that text and nothing else."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version

import pytest

from attachd.api.server import Server
from attachd.api.sockets import bind_tcp
from attachd.errors import AttachdError, Code
from attachd.metrics.exposition import application
from tests.unit.bench import Bench
from tests.unit.metrics.scraped import Scrape


@pytest.fixture
def url(bench: Bench) -> Iterator[str]:
    """Where the numbers of the bench's engine are served."""
    sock = bind_tcp("127.0.0.1:0", option="[metrics] listen")
    server = Server(
        application(bench.metrics.text), sock, threads=2, body_limit=1024, stop_timeout=1
    )
    server._server.expiration_interval = 0.05
    address, port = sock.getsockname()
    server.start()
    yield f"http://{address}:{port}"
    server.stop()


def ask(url: str, method: str = "GET") -> tuple[int, str, bytes]:
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.headers["Content-Type"], refusal.read()


@pytest.mark.usefixtures("volume")
def test_the_numbers_are_served_over_tcp(url: str) -> None:
    status, content_type, body = ask(f"{url}/metrics")
    assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert Scrape(body.decode()).value("attachd_attachments", state="attached") == 1
    assert ask(f"{url}/metrics", "HEAD") == (200, content_type, b"")


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/", "GET", 404),
        ("/v1/attachments", "GET", 404),
        ("/v1/attachments", "POST", 404),
        ("/metrics/", "GET", 404),
        ("/metrics", "POST", 405),
        ("/metrics", "DELETE", 405),
    ],
)
def test_and_nothing_else(url: str, path: str, method: str, status: int) -> None:
    assert ask(url + path, method)[0] == status


@pytest.mark.parametrize(
    "address", ["127.0.0.1:99999", "192.0.2.1:9776", "no.such.host.invalid:1", "127.0.0.1"]
)
def test_an_address_that_cannot_be_had_is_the_options_fault(address: str) -> None:
    with pytest.raises(AttachdError) as excinfo:
        bind_tcp(address, option="[metrics] listen")
    problem = excinfo.value.problem
    assert (problem.code, excinfo.value.touched) == (Code.CONFIG_INVALID, False)
    assert address in problem.brief
    assert "[metrics] listen" in problem.resolution


def test_an_address_that_is_taken(url: str) -> None:
    with pytest.raises(AttachdError, match="can't listen"):
        bind_tcp(url.removeprefix("http://"), option="[metrics] listen")


def test_ipv6() -> None:
    with bind_tcp("[::1]:0", option="[metrics] listen") as sock:
        assert sock.family == socket.AF_INET6


def test_what_the_process_takes_is_there(bench: Bench) -> None:
    scrape = Scrape(bench.metrics.text())
    assert scrape.of("attachd_build_info") == [{"version": version("attachd")}]
    assert {
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_start_time_seconds",
        "python_gc_collections_total",
        "python_info",
    } <= scrape.names
    assert not [name for name in scrape.names if name.endswith("_created")]


def test_two_daemons_in_a_process_share_nothing(bench: Bench) -> None:
    first, metrics = bench.metrics, type(bench.metrics)
    bench.guests.add("web")
    bench.cinder.add_volume(name="data")
    bench.attach("web", "data")
    other = Scrape(metrics(journal=bench.journal).text())
    assert other.nonzero("attachd_step_duration_seconds_count") == []
    assert Scrape(first.text()).nonzero("attachd_step_duration_seconds_count")
