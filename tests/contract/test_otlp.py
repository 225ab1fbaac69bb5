"""A real collector (rotel, from PyPI) takes attachd's traces and hands them on.

What it hands on is read behind it, by OTLP's official definitions.
"""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from attachd.api.sockets import bind_tcp
from attachd.errors import AttachdError, Code
from attachd.model import OperationKind
from attachd.operations.tables import TABLES
from attachd.otlp.exporter import Exporter
from attachd.otlp.sending import OtlpCollector
from tests.unit.bench import PATIENCE, Bench
from tests.unit.otlp.backend import Backend, Received, until

_ROTEL = find_spec("rotel")
assert _ROTEL is not None, "rotel is missing: tools/setup installs it with the extra dev"
PROGRAM = Path(_ROTEL.origin or "").with_name("rotel-agent")


def free_addresses(count: int) -> list[str]:
    """Of this host, each another one."""
    with ExitStack() as held:
        sockets = [held.enter_context(bind_tcp("127.0.0.1:0", option="")) for _ in range(count)]
        return ["{}:{}".format(*sock.getsockname()) for sock in sockets]


@contextmanager
def collecting(address: str, backend: Backend, directory: Path) -> Iterator[None]:
    """A collector that listens at ``address``."""
    argv = [
        *(str(PROGRAM), "start", "--pid-file", str(directory / "pid")),
        *("--otlp-http-endpoint", address, "--otlp-grpc-endpoint", free_addresses(1)[0]),
        *("--exporter", "otlp", "--otlp-exporter-protocol", "http"),
        *("--otlp-exporter-endpoint", backend.url, "--batch-timeout", "50ms"),
    ]
    with (
        (directory / "log").open("a") as log,
        subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, cwd=directory) as process,
    ):
        try:
            until("the collector listens", lambda: process.poll() is None and listens(address))
            yield
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()


def listens(address: str) -> bool:
    try:
        urllib.request.urlopen(f"http://{address}/", timeout=PATIENCE).close()
    except urllib.error.HTTPError as refusal:
        refusal.close()
    except OSError:
        return False
    return True


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as backend:
        yield backend


@pytest.fixture
def address() -> str:
    """Where the collector listens, once it is there."""
    return free_addresses(1)[0]


@pytest.fixture
def traced(tmp_path: Path, address: str) -> Iterator[Bench]:
    """An engine whose operations are told to it; a guest web, a volume data."""
    bench = Bench(directory=tmp_path)
    exporter = Exporter(
        snapshot=lambda operation: bench.journal.snapshot(operation, exchanges=True),
        collector=OtlpCollector(endpoint=f"http://{address}", timeout=1),
        retry_interval=0.2,
    )
    bench.observers = (exporter,)
    bench.guests.add("web")
    bench.cinder.add_volume(name="data")
    bench.start()
    exporter.start()
    yield bench
    assert bench.engine.stop(PATIENCE)
    exporter.stop()
    bench.journal.close()


def traces(spans: list[Received]) -> dict[str, list[Received]]:
    found: dict[str, list[Received]] = {}
    for span in spans:
        found.setdefault(span.trace, []).append(span)
    return found


def test_a_collector_gets_a_trace_of_each_operation(
    traced: Bench, backend: Backend, address: str, tmp_path: Path
) -> None:
    with collecting(address, backend, tmp_path):
        attached = traced.attach("web", "data")
        traced.guests.fail_next("unplug", AttachdError(Code.GUEST_REFUSED, "No.", touched=False))
        kept = traced.detach("web", "data")
        assert kept.state == "undone"
        until("both came", lambda: len(traces(backend.spans(1))) == 2)
    by_trace = traces(backend.spans(1))

    attach = by_trace[attached.operation_id.replace("-", "")]
    (root,) = (span for span in attach if not span.parent)
    assert (root.name, root.failed) == ("attach", False)
    assert root.attributes["attachd.volume.id"] == attached.volume_id
    assert root.resource["service.name"] == "attachd"
    steps = sorted((s for s in attach if s.parent == root.span), key=lambda span: span.started)
    assert [s.name for s in steps] == [spec.name for spec in TABLES[OperationKind.ATTACH]]

    detach = by_trace[kept.operation_id.replace("-", "")]
    failed = {span.name: span.problem for span in detach if span.failed}
    assert failed == dict.fromkeys(("detach", "unplug"), "guest-refused: No.")


def test_what_came_to_rest_without_a_collector_is_told_when_it_is_there(
    traced: Bench, backend: Backend, address: str, tmp_path: Path
) -> None:
    assert traced.attach("web", "data").state == "done"
    assert traced.detach("web", "data").state == "done"
    with collecting(address, backend, tmp_path):
        until("both came", lambda: len(traces(backend.spans(1))) == 2)
    roots = [span.name for span in backend.spans(1) if not span.parent]
    assert sorted(roots) == ["attach", "detach"]
