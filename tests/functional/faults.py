"""Real parts, broken on purpose for a while, and mended again."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.functional.lab import Host, eventually

CINDER_PORT = 8776
PROXY_PORT = 18776
LIBVIRT = ("libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket", "libvirtd.service")
ISCSID = ("iscsid.socket", "iscsid.service")


@contextmanager
def cinder_that_fails(host: Host, *faults: dict[str, Any]) -> Iterator[None]:
    """attachd's requests to Cinder go through the faulty proxy; each fault must be met."""
    tag = uuid.uuid4().hex[:8]
    place, unit, table = f"/run/faulty-{tag}", f"faulty-{tag}", f"faulty_{tag}"
    lines = "\n".join(
        json.dumps({"method": "POST", "path": "", "body": "", "times": 1, **fault})
        for fault in faults
    )
    source = (Path(__file__).parent / "faulty_proxy.py").read_text()
    host.do("mkdir", place)
    host.do("sh", "-c", f"cat > {place}/proxy.py", stdin=source)
    host.do("sh", "-c", f"cat > {place}/faults", stdin=lines)
    host.do(
        *("systemd-run", "--quiet", "--unit", unit, "python3", f"{place}/proxy.py"),
        *(str(PROXY_PORT), str(CINDER_PORT), f"{place}/faults"),
    )
    try:
        eventually(
            "the proxy answers",
            lambda: host.run("curl", "-s", f"http://127.0.0.1:{PROXY_PORT}/").status == 0,
        )
        host.script(
            f"nft add table ip {table}\n"
            f"nft add chain ip {table} output '{{ type nat hook output priority -100; }}'\n"
            f"nft add rule ip {table} output meta skuid attachd tcp dport {CINDER_PORT} "
            f"redirect to :{PROXY_PORT}\n"
        )
        # A connection that attachd keeps open wouldn't be concerned.
        host.do("ss", "--kill", "--tcp", "dport", "=", f":{CINDER_PORT}")
        yield
        used = host.run("cat", f"{place}/faults.used").out
        assert used, "no fault was ever met"
    finally:
        host.run("nft", "delete", "table", "ip", table)
        host.run("systemctl", "stop", unit)
        host.run("rm", "-r", place)


@contextmanager
def packets(host: Host, port: int, verdict: str) -> Iterator[None]:
    """TCP to a port of this host is met with ``drop`` or ``reject`` for a while."""
    table = f"packets_{uuid.uuid4().hex[:8]}"
    answer = "reject with tcp reset" if verdict == "reject" else "drop"
    host.script(
        f"nft add table inet {table}\n"
        f"nft add chain inet {table} input '{{ type filter hook input priority 0; }}'\n"
        f"nft add rule inet {table} input tcp dport {port} {answer}\n"
    )
    try:
        yield
    finally:
        host.do("nft", "delete", "table", "inet", table)


@contextmanager
def after_each_export(host: Host, script: str) -> Iterator[None]:
    """A shell script runs in the host after each of Cinder's exports, with ``$IQN`` set.

    It stands behind cinder-rtstool, the program by which Cinder makes its LIO targets, when that
    has let in this host's initiator: what attachd then connects to is what the script made of it.
    """
    tool = "/usr/bin/cinder-rtstool"
    host.do("mv", tool, f"{tool}.real")
    wrapper = f"""#!/bin/sh
{tool}.real "$@"
status=$?
if [ "$1" = add-initiator ] && [ $status = 0 ]; then
    IQN=$2
    export IQN
    sh -eu >/run/after-export.log 2>&1 <<'END'
{script}
END
fi
exit $status
"""
    host.do("sh", "-c", f"cat > {tool} && chmod 755 {tool}", stdin=wrapper)
    try:
        yield
        assert host.run("test", "-e", "/run/after-export.log").status == 0, "nothing was exported"
    finally:
        host.do("mv", f"{tool}.real", tool)
        host.run("rm", "-f", "/run/after-export.log")
