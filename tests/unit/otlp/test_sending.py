"""Spans as they leave by OpenTelemetry's SDK, read by its own protocol's definitions."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from attachd import conf
from attachd.daemon import _exporter
from attachd.engine.engine import _run_of
from attachd.errors import AttachdError, Code
from attachd.otlp.sending import OtlpCollector, url_of_traces
from attachd.otlp.spans import Span
from tests.unit.bench import Bench
from tests.unit.otlp.backend import Backend

TRACE = 0x0CD33B46EFF64394B2346FDA90EE0B8B
ROOT = Span(
    name="attach",
    span_id=0x10,
    parent_id=None,
    started=1_700_000_000_000_000_000,
    ended=1_700_000_009_000_000_001,
    attributes={"attachd.volume.id": "v", "attachd.run": 2},
    links=(0x0F,),
)
STEP = Span(
    name="undo plug",
    span_id=0x11,
    parent_id=0x10,
    started=1_700_000_001_000_000_000,
    ended=1_700_000_002_000_000_000,
    attributes={"error.type": "guest-refused"},
    problem="guest-refused: The guest keeps the disk.",
)
REQUEST = Span(
    name="PUT /attachments/{id}",
    span_id=0x12,
    parent_id=0x11,
    started=1_700_000_001_100_000_000,
    ended=1_700_000_001_200_000_000,
    attributes={"http.response.status_code": 200},
    outgoing=True,
)


@pytest.fixture
def backend() -> Iterator[Backend]:
    before = set(threading.enumerate())
    with Backend() as backend:
        yield backend
    assert set(threading.enumerate()) <= before


@pytest.fixture
def collector(backend: Backend) -> Iterator[OtlpCollector]:
    collector = OtlpCollector(endpoint=backend.url, timeout=0.5)
    yield collector
    collector.close()


def test_ids_times_links_and_problems_arrive_as_they_are(
    backend: Backend, collector: OtlpCollector
) -> None:
    assert collector.send(TRACE, (ROOT, STEP, REQUEST))
    root, step, request = backend.spans(3)
    assert {span.trace for span in (root, step, request)} == {f"{TRACE:032x}"}
    assert [span.span for span in (root, step, request)] == [f"{n:016x}" for n in (16, 17, 18)]
    assert [span.parent for span in (root, step, request)] == ["", root.span, step.span]
    assert (root.started, root.ended) == (ROOT.started, ROOT.ended)
    assert root.links == (f"{0x0F:016x}",)
    assert root.attributes == {"attachd.volume.id": "v", "attachd.run": 2}
    assert (root.failed, step.failed, step.problem) == (False, True, STEP.problem)
    assert (step.kind, request.kind) == (1, 3)  # internal, client
    assert root.resource["service.name"] == "attachd"
    assert root.resource["host.name"]


def test_each_request_has_its_own_spans(backend: Backend, collector: OtlpCollector) -> None:
    assert collector.send(TRACE, (ROOT,))
    assert collector.send(TRACE + 1, (STEP,))
    assert [span.name for span in backend.spans(2)] == ["attach", "undo plug"]


def test_what_was_refused_can_be_told_again(backend: Backend, collector: OtlpCollector) -> None:
    backend.refuse = 1
    assert not collector.send(TRACE, (ROOT,))
    assert collector.send(TRACE, (ROOT,))
    (root,) = backend.spans(1)
    assert root.span == f"{ROOT.span_id:016x}"


def test_nobody_listens() -> None:
    with Backend() as backend:
        url = backend.url
    collector = OtlpCollector(endpoint=url, timeout=0.5)
    assert not collector.send(TRACE, (ROOT,))
    collector.close()


def test_a_collector_that_never_answers_is_not_waited_for(
    backend: Backend, collector: OtlpCollector
) -> None:
    backend.answers.clear()
    assert not collector.send(TRACE, (ROOT,))


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("http://c:4318/", "http://c:4318/v1/traces"),
        ("https://c/otlp", "https://c/otlp/v1/traces"),
        ("https://c/otlp/v1/traces", "https://c/otlp/v1/traces"),
    ],
)
def test_an_endpoint_is_a_base_as_everywhere(endpoint: str, url: str) -> None:
    assert url_of_traces(endpoint) == url


# --- asked for, or not --------------------------------------------------------------------------

WITHOUT_THE_EXTRA = """
import sys
for name in ("opentelemetry", "opentelemetry.sdk", "opentelemetry.context"):
    sys.modules[name] = None
from pathlib import Path
from attachd import conf
from attachd.daemon import _exporter
from attachd.errors import AttachdError
try:
    print(_exporter(conf.load([], files=[Path(sys.argv[1])]), None))
except AttachdError as exc:
    print(exc.code, exc.problem.resolution)
"""
IMPORTED = """
import sys
import attachd.daemon
print(sorted(name for name in sys.modules if name.startswith(("opentelemetry", "google"))))
"""


def run(script: str, *arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def configured(tmp_path: Path, *, endpoint: str | None) -> Path:
    file = tmp_path / "attachd.conf"
    file.write_text(f"[trace]\notlp_endpoint = {endpoint}\n" if endpoint else "")
    return file


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        (None, "None"),
        ("http://127.0.0.1:4318", "config-invalid Install attachd with its extra otlp"),
    ],
)
def test_a_missing_extra_is_told_at_the_start_where_it_is_asked_for(
    tmp_path: Path, endpoint: str | None, said: str
) -> None:
    assert run(WITHOUT_THE_EXTRA, configured(tmp_path, endpoint=endpoint)).startswith(said)


def test_the_sdk_is_not_imported_unasked() -> None:
    assert run(IMPORTED).strip() == "[]"


@pytest.mark.parametrize("endpoint", ["collector:4317", "grpc://collector:4317", "4318"])
def test_an_endpoint_is_a_url(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(AttachdError) as excinfo:
        conf.load([], files=[configured(tmp_path, endpoint=endpoint)])
    assert excinfo.value.code is Code.CONFIG_INVALID
    assert "[trace] otlp_endpoint" in excinfo.value.problem.details


@pytest.mark.usefixtures("guest")
def test_the_daemons_exporter_reads_the_journal_and_sends(
    tmp_path: Path, bench: Bench, volume: str, backend: Backend
) -> None:
    """As it is assembled."""
    config = conf.load([], files=[configured(tmp_path, endpoint=backend.url)])
    exporter = _exporter(config, bench.journal)
    assert exporter is not None
    (row,) = bench.journal.operations()
    exporter.start()
    exporter.rested(_run_of(row, row.state))
    root, *below = backend.spans(1)
    exporter.stop()
    assert (root.name, root.trace) == ("attach", row.operation_id.replace("-", ""))
    assert root.attributes["attachd.volume.id"] == volume
    assert {span.attributes.get("attachd.step") for span in below} >= {"create", "plug"}
