"""A real Prometheus scrapes the numbers, and judges the examples: the alerts and the dashboard.

It is Debian's or Ubuntu's, unpacked by tools/setup; without it these tests fail.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from attachd.api.server import Server
from attachd.api.sockets import bind_tcp
from attachd.metrics.exposition import application
from tests.unit.bench import Bench

PROJECT = Path(__file__).resolve().parents[2]
RULES = PROJECT / "etc" / "prometheus" / "attachd.rules.yml"
RULES_TEST = Path(__file__).parent / "attachd.rules.test.yml"
DASHBOARD = PROJECT / "etc" / "grafana" / "attachd.json"
PATIENCE = 120.0
WRITTEN = 4096.0
"""Bytes a second."""
_NAME = re.compile(r"\b(?:attachd|process|python|libvirt)_[a-z_]+\b|\bup\b")


def program(name: str) -> Path:
    found = Path(sys.prefix) / "bin" / name
    assert found.exists(), f"{found} is missing: tools/setup unpacks it"
    return found


def ask(url: str) -> Any:
    """What Prometheus' API answers."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as refusal:
        with refusal:
            raise AssertionError(f"{url}: {refusal.read().decode()}") from None


def answers(url: str) -> bool:
    """Is something there, and well?"""
    try:
        urllib.request.urlopen(url, timeout=60).close()
    except OSError:
        return False
    return True


def eventually(what: str, look: Callable[[], Any]) -> Any:
    """What is found, once anything is."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, f"it never came true that {what}"
        time.sleep(0.1)
    return found


# --- the examples -----------------------------------------------------------------------------


def expressions() -> dict[str, str]:
    """Every expression of the alerts and the dashboard, by its title."""
    rules = yaml.safe_load(RULES.read_text())["groups"]
    found = {rule["alert"]: rule["expr"] for group in rules for rule in group["rules"]}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            chosen = target["expr"].replace("$__rate_interval", "10s")
            title = f"{panel['title']} {target['refId']}"
            assert title not in found
            found[title] = chosen.replace("$instance", ".*")
    return found


@pytest.mark.parametrize("argv", [("check", "rules", RULES), ("test", "rules", RULES_TEST)])
def test_the_alerts_are_what_promtool_asks_for(argv: tuple[str | Path, ...]) -> None:
    done = subprocess.run(
        [program("promtool"), *argv], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_was_seen_to_fire() -> None:
    tests = yaml.safe_load(RULES_TEST.read_text())["tests"]
    firing = {
        name
        for test in tests
        for case in test["promql_expr_test"]
        for sample in case["exp_samples"]
        for name in re.findall(r'alertname="(\w+)"', sample["labels"])
    }
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    assert firing == {rule["alert"] for rule in group["rules"]}


def test_the_dashboards_panels_lie_side_by_side() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    places = {
        (x, y)
        for panel in panels
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    }
    assert len(places) == sum(p["gridPos"]["w"] * p["gridPos"]["h"] for p in panels)
    assert max(x for x, _ in places) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


# --- the real thing ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """An engine that has attached, failed to, detached, and audited: every number has a series."""
    bench = Bench(directory=tmp_path_factory.mktemp("scraped"))
    bench.start()
    bench.guests.add("web")
    for name in ("data", "logs"):
        bench.cinder.add_volume(name=name)
        assert bench.attach("web", name).state == "done"
    assert bench.detach("web", "logs").state == "done"
    assert bench.attach("web", "nothing").state == "refused"
    assert bench.metrics.audits.measured(bench.auditor.audit)() == ()
    yield bench
    bench.stop()


@pytest.fixture(scope="module")
def attachd(bench: Bench) -> Iterator[str]:
    """Where the daemon's listener serves them."""
    sock = bind_tcp("127.0.0.1:0", option="[metrics] listen")
    server = Server(
        application(bench.metrics.text), sock, threads=2, body_limit=1024, stop_timeout=1
    )
    server._server.expiration_interval = 0.05
    server.start()
    yield "{}:{}".format(*sock.getsockname())
    server.stop()


@pytest.fixture(scope="module")
def libvirt_exporter() -> Iterator[str]:
    """As much of one as the dashboard asks for: vda of the guest web is written to."""
    began = time.monotonic()

    class Exporter(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            labels = '{domain="web",target_device="vda"}'
            written = (time.monotonic() - began) * WRITTEN
            for name, value in (("read", 0.0), ("write", written)):
                line = f"libvirt_domain_block_stats_{name}_bytes_total{labels} {value}\n"
                self.wfile.write(line.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Exporter) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def prometheus(
    attachd: str, libvirt_exporter: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A Prometheus that scrapes both, and has the alerts; where its API is."""
    directory = tmp_path_factory.mktemp("prometheus")
    targets = {"attachd": attachd, "libvirt": libvirt_exporter}
    configuration = {
        # What a scrape may take, too: a busy machine needs a moment.
        "global": {"scrape_interval": "2s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [target]}]}
            for job, target in targets.items()
        ],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    with bind_tcp("127.0.0.1:0", option="the test's") as sock:
        address = "{}:{}".format(*sock.getsockname())
    log = directory / "log"
    argv = [
        str(program("prometheus")),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with (
        log.open("w") as stream,
        subprocess.Popen(argv, stdout=stream, stderr=subprocess.STDOUT, cwd=directory) as process,
    ):
        try:
            eventually("Prometheus is ready", lambda: answers(f"http://{address}/-/ready"))
            yield f"http://{address}/api/v1"
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()
    assert process.returncode == 0, log.read_text()


@pytest.fixture(scope="module")
def query(prometheus: str) -> Callable[[str], list[dict[str, Any]]]:
    """Asks Prometheus for an expression, once it has scraped both a few times."""

    def query(expression: str) -> list[dict[str, Any]]:
        parameters = urllib.parse.urlencode({"query": expression})
        result: list[dict[str, Any]] = ask(f"{prometheus}/query?{parameters}")["result"]
        return result

    def scraped() -> bool:
        return len(query("count_over_time(up[1m]) >= 3 and up == 1")) == 2

    try:
        eventually("Prometheus scrapes both", scraped)
    except AssertionError:
        targets = ask(f"{prometheus}/targets?state=active")["activeTargets"]
        said = [(target["scrapeUrl"], target["lastError"]) for target in targets]
        raise AssertionError(f"Prometheus does not scrape: {said}") from None
    return query


def value(found: list[dict[str, Any]]) -> float:
    """Of the one series that was found."""
    (series,) = found
    return float(series["value"][1])


def test_it_scrapes_what_happened(query: Callable[[str], list[dict[str, Any]]]) -> None:
    ended = 'attachd_operations_total{{job="attachd",kind="{}",outcome="{}"}}'
    assert value(query(ended.format("attach", "done"))) == 2
    assert value(query(ended.format("attach", "refused"))) == 1
    assert value(query(ended.format("detach", "done"))) == 1
    assert value(query('attachd_attachments{state="attached"}')) == 1
    assert value(query("sum(attachd_operations_open)")) == 0
    (info,) = query("attachd_attachment_info")
    assert (info["metric"]["domain"], info["metric"]["device"]) == ("web", "vda")


def test_it_takes_every_number_for_what_it_is(prometheus: str, query: object) -> None:
    """Counters, gauges and histograms, each with its help."""
    metadata = ask(f"{prometheus}/metadata")
    own = {name: about[0] for name, about in metadata.items() if name.startswith("attachd_")}
    assert own["attachd_operations_total"]["type"] == "counter"
    assert own["attachd_step_duration_seconds"]["type"] == "histogram"
    assert own["attachd_attachment_info"]["type"] == "gauge"
    assert not [name for name, about in own.items() if not about["help"]]


def test_promtool_has_nothing_against_the_numbers_names(bench: Bench) -> None:
    done = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=bench.metrics.text(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_alerts_are_loaded_and_quiet(
    prometheus: str, query: Callable[[str], list[dict[str, Any]]]
) -> None:
    def evaluated() -> list[dict[str, Any]]:
        groups = ask(f"{prometheus}/rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return [] if any(rule["health"] == "unknown" for rule in rules) else rules

    rules = eventually("each alert was evaluated", evaluated)
    assert {rule["health"] for rule in rules} == {"ok"}
    assert [rule["name"] for rule in rules if rule["state"] != "inactive"] == []
    assert len(rules) == len(yaml.safe_load(RULES.read_text())["groups"][0]["rules"])


@pytest.mark.parametrize("title", expressions())
def test_an_example_asks_for_what_there_is(
    prometheus: str, query: Callable[[str], list[dict[str, Any]]], title: str
) -> None:
    """Prometheus understands it, and knows every name in it."""
    expression = expressions()[title]
    query(expression)
    names = set(_NAME.findall(expression))
    assert names, expression
    for name in names:
        # The oldest open operation is announced, and has a value while there is one.
        family = re.sub("_(bucket|sum|count)$", "", name)
        announced = ask(f"{prometheus}/metadata?metric={family}")
        assert announced or query(f"count({name})"), f"there is no {name}"


def test_a_volumes_traffic_is_found_by_its_attachment(
    bench: Bench, query: Callable[[str], list[dict[str, Any]]]
) -> None:
    writes = next(e for e in expressions().values() if "write_bytes" in e)

    def measured() -> list[dict[str, Any]]:
        return [
            series
            for series in query(writes)
            if float(series["value"][1]) == pytest.approx(WRITTEN, rel=0.5)
        ]

    (series,) = eventually("its traffic is what is written", measured)
    (record,) = bench.journal.live_attachments()
    assert series["metric"] == {
        "host": "127.0.0.1",
        "domain": "web",
        "volume_id": record.volume_id,
    }
