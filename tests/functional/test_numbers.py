"""What an attach and a detach leave for who looks later: numbers, and lines of the log."""

from __future__ import annotations

import json
from typing import Any

from tests.functional.lab import Guest, Host, Worlds
from tests.unit.metrics.scraped import Scrape

LISTEN = "127.0.0.1:9776"
CHANGING = {"POST", "PUT", "DELETE"}


def scraped(host: Host, *where: str) -> Scrape:
    return Scrape(host.do("curl", "-fsS", *where))


def lines_about(host: Host, field: str, value: str) -> list[dict[str, Any]]:
    """What journalctl has of it since the boot."""
    out = host.do("journalctl", "--boot", "--no-pager", "-o", "json", f"{field}={value}")
    return [json.loads(line) for line in out.splitlines()]


def test_an_attach_and_a_detach_are_counted_and_found_in_the_log(
    host: Host, worlds: Worlds, guest: Guest, volume: str
) -> None:
    with host.option("metrics", "listen", LISTEN):  # a new daemon counts from zero
        attached = host.attachctl("attach", guest.name, volume, "-f", "json")
        assert attached.status == 0, attached.err
        during = scraped(host, f"http://{LISTEN}/metrics")
        detached = host.attachctl("detach", guest.name, volume, "-f", "json")
        assert detached.status == 0, detached.err
        worlds.assert_nothing_left(volume, guest)
        after = [
            scraped(host, f"http://{LISTEN}/metrics"),
            scraped(host, "--unix-socket", "/run/attachd/attachd.sock", "http://attachd/metrics"),
        ]
        status = ("-s", "-o", "/dev/null", "-w", "%{http_code}")
        assert host.do("curl", *status, f"http://{LISTEN}/v1/attachments") == "404"

    infos = during.of("attachd_attachment_info")
    (info,) = (labels for labels in infos if labels["volume_id"] == volume)
    assert info["domain"] == guest.name
    assert info["attachment_id"] == attached.json["attachment_id"]
    assert info["state"] == "attached"
    for scrape in after:
        for kind in ("attach", "detach"):
            assert scrape.value("attachd_operations_total", kind=kind, outcome="done") == 1
            labels = {"kind": kind, "step": "precheck", "verb": "do"}
            assert scrape.value("attachd_step_duration_seconds_count", **labels) == 1
        assert volume not in {each["volume_id"] for each in scrape.of("attachd_attachment_info")}
        assert scrape.value("attachd_journal_readable") == 1
        assert scrape.nonzero("attachd_operations_open") == []
        assert {"process_resident_memory_bytes", "process_open_fds"} <= scrape.names

    operation = attached.json["operation_id"]
    lines = lines_about(host, "ATTACHD_OPERATION", operation)
    assert lines
    for line in lines:
        assert line["_SYSTEMD_UNIT"] == "attachd.service"
        assert line["SYSLOG_IDENTIFIER"] == "attachd"
        assert line["ATTACHD_GLOBAL_REQUEST_ID"] == f"req-{operation}"
    (done,) = (line for line in lines if line["MESSAGE"] == f"{operation}: attach is done")
    assert done["ATTACHD_VOLUME"] == volume
    assert done["ATTACHD_GUEST_NAME"] == guest.name
    assert done["ATTACHD_ATTACHMENT"] == attached.json["attachment_id"]

    asked = [
        line
        for line in lines
        if line["MESSAGE"].startswith("Cinder: ") and line["MESSAGE"].split()[1] in CHANGING
    ]
    request_ids = [line["ATTACHD_REQUEST_ID"] for line in asked]
    assert len(set(request_ids)) == len(request_ids) >= 3  # create, update, complete
    for request_id in (*request_ids, f"req-{operation}"):
        host.do("grep", "-rqF", request_id, "/var/log/cinder")

    about_volume = {line["__CURSOR"] for line in lines_about(host, "ATTACHD_VOLUME", volume)}
    assert {line["__CURSOR"] for line in asked} <= about_volume
    kinds = {line.get("ATTACHD_KIND") for line in lines_about(host, "ATTACHD_VOLUME", volume)}
    assert {"attach", "detach"} <= kinds
