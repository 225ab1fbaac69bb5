"""An operation's story, drawn from what the real worlds were asked."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from tests.functional import faults
from tests.functional.lab import Guest, Host, Worlds

FORMATS = {
    "text": r"^x complete\b.*FAILED",
    "mermaid": r"\AsequenceDiagram\n",
    "plantuml": r"\A@startuml\n",
    "seqdiag": r"\Aseqdiag \{\n",
    "svg": r"\A<\?xml|\A<svg",
}


def test_the_story_of_a_rolled_back_attach(
    host: Host, worlds: Worlds, guest: Guest, volume: str
) -> None:
    never = {"path": "/action", "body": "os-complete", "status": 409}
    with faults.cinder_that_fails(host, never):
        failed = host.attachctl("attach", guest.name, volume)
    assert failed.status == 1, failed.err
    (operation, *_) = host.api("operations")["operations"]
    assert operation["state"] == "undone"

    for name, beginning in FORMATS.items():
        drawn = host.attachctl("trace", operation["operation_id"], "--format", name)
        assert drawn.status == 0, drawn.err
        assert re.search(beginning, drawn.out, re.MULTILINE), drawn.out
        for participant in ("cinder-api", "os-brick", "libvirt", "guest"):
            assert participant in drawn.out
        if name == "svg":
            ElementTree.fromstring(drawn.out)  # noqa: S314 - it is attachd's own
    told = host.attachctl("trace", operation["operation_id"], "--requests")
    assert told.status == 0, told.err
    request_ids = re.findall(r"< HTTP 20\d, (req-[0-9a-f-]{36})", told.out)
    assert request_ids
    assert host.run("grep", "-rqF", request_ids[0], "/var/log/cinder").status == 0
    assert '"auth_password": "***"' in told.out
    worlds.assert_nothing_left(volume, guest)

    unknown = host.attachctl("trace", volume)
    assert (unknown.status, unknown.code) == (3, "operation-not-found")
