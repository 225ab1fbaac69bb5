"""The floor: attach and detach in one plain process, as little as the three libraries allow.

The same calls to Cinder, os-brick and libvirt as attachd's, and nothing else: no journal, no locks
of its own, no proof of the device, no undo. It runs in the lab's host as root, with attachd's
Python and attachd's credentials; it imports nothing of attachd. A request is a line of JSON, and so
is its answer: ``{"do": "attach" | "detach", "guest", "volume"}`` gets ``{"wall", "own"}``, and
``{"do": "cinder", "pairs": [[GUEST, VOLUME], ...]}`` what Cinder alone needs to attach all of them
at once (and takes them off again). Seconds.
"""

from __future__ import annotations

import configparser
import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import libvirt
from keystoneauth1 import service_token, session
from keystoneauth1.exceptions import HttpServerError
from keystoneauth1.identity import v3
from openstack.connection import Connection
from oslo_config import cfg
from oslo_service import backend

backend.init_backend(backend.BackendType.THREADING)

import os_brick  # noqa: E402
from os_brick import privileged  # noqa: E402
from os_brick.initiator import connector  # noqa: E402

CONF = "/etc/attachd/attachd.conf"
LOCK_PATH = "/var/lib/attachd/locks"
MICROVERSION = "3.59"
ALIAS = "ua-floor"
SECONDS_TO_LET_GO = 300
DISK = """\
<disk type='block' device='disk'>
  <driver name='qemu' type='raw' cache='none' io='native'/>
  <source dev='{path}'/>
  <target dev='vdz' bus='virtio'/>
  <serial>{volume}</serial>
  <alias name='{alias}'/>
</disk>"""


class Stopwatch:
    """How long all of it took, and how much of that was not attachd's to shorten."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._theirs = 0.0

    @contextmanager
    def theirs(self) -> Iterator[None]:
        """One of Cinder's changes, or os-brick's connect or disconnect."""
        began = time.monotonic()
        yield
        self._theirs += time.monotonic() - began

    def read(self) -> dict[str, float]:
        """All of it, and what is left for whoever calls."""
        wall = time.monotonic() - self._began
        return {"wall": wall, "own": wall - self._theirs}


class Plain:
    """Everything that is made once and kept: sessions, connections, the connector's properties."""

    def __init__(self) -> None:
        self._block = self._cinder()
        cfg.CONF([], project="floor", default_config_files=[], default_config_dirs=[])
        cfg.CONF.set_default("lock_path", LOCK_PATH, group="oslo_concurrency")
        os_brick.setup(cfg.CONF)
        privileged.default.set_client_mode(False)  # it is root itself
        self._iscsi = connector.InitiatorConnector.factory("ISCSI", None, use_multipath=False)
        self._properties = connector.get_connector_properties(None, "127.0.0.1", False, False)
        self._let_go = threading.Event()
        libvirt.virEventRegisterDefaultImpl()
        self._libvirt = libvirt.open("qemu:///system")
        self._libvirt.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, self._removed, None
        )
        threading.Thread(target=self._events, daemon=True).start()
        self._attached: dict[str, tuple[str, dict[str, Any], str]] = {}

    @staticmethod
    def _cinder() -> Any:  # noqa: ANN401
        conf = configparser.ConfigParser(interpolation=None)
        conf.read(CONF)
        options = conf["cinder"]
        auth = v3.Password(
            auth_url=options["auth_url"],
            username=options["username"],
            password=options["password"],
            project_name=options["project_name"],
            user_domain_name="Default",
            project_domain_name="Default",
        )
        both = service_token.ServiceTokenAuthWrapper(user_auth=auth, service_auth=auth)
        block = Connection(session=session.Session(auth=both)).block_storage
        block.default_microversion = MICROVERSION
        return block

    def _events(self) -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    def _removed(self, _connection: object, _domain: object, alias: str, _opaque: object) -> None:
        if alias == ALIAS:
            self._let_go.set()

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        answer = self._block.request(path, method, json=body, raise_exc=True)
        return dict(answer.json()) if answer.content else {}

    # --- Cinder ---------------------------------------------------------------------------------

    def _create(self, guest: str, volume: str) -> str:
        asked = {"volume_uuid": volume, "instance_uuid": self._uuid(guest), "mode": "rw"}
        return str(self._ask("POST", "/attachments", {"attachment": asked})["attachment"]["id"])

    def _update(self, attachment: str) -> dict[str, Any]:
        asked = {"attachment": {"connector": {**self._properties, "mountpoint": "/dev/vdz"}}}
        answer = self._ask("PUT", f"/attachments/{attachment}", asked)
        return dict(answer["attachment"]["connection_info"])

    def _complete(self, attachment: str) -> None:
        self._ask("POST", f"/attachments/{attachment}/action", {"os-complete": attachment})

    def _uuid(self, guest: str) -> str:
        return str(self._libvirt.lookupByName(guest).UUIDString())

    # --- the verbs ------------------------------------------------------------------------------

    def attach(self, guest: str, volume: str) -> dict[str, float]:
        """Create, update, connect, plug, complete."""
        watch = Stopwatch()
        with watch.theirs():
            attachment = self._create(guest, volume)
        with watch.theirs():
            connection = self._update(attachment)
        with watch.theirs():
            path = str(self._iscsi.connect_volume(connection)["path"])
        flags = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
        disk = DISK.format(path=path, volume=volume, alias=ALIAS)
        self._libvirt.lookupByName(guest).attachDeviceFlags(disk, flags)
        with watch.theirs():
            self._complete(attachment)
        self._attached[volume] = (attachment, connection, path)
        return watch.read()

    def detach(self, guest: str, volume: str) -> dict[str, float]:
        """Begin, unplug and wait for the guest, disconnect, delete."""
        attachment, connection, path = self._attached.pop(volume)
        watch = Stopwatch()
        with watch.theirs():
            self._ask("POST", f"/volumes/{volume}/action", {"os-begin_detaching": {}})
        domain = self._libvirt.lookupByName(guest)
        disk = DISK.format(path=path, volume=volume, alias=ALIAS)
        self._let_go.clear()
        domain.detachDeviceFlags(disk, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        if not self._let_go.wait(SECONDS_TO_LET_GO):
            raise TimeoutError(f"{guest} kept its disk")
        domain.detachDeviceFlags(disk, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
        with watch.theirs():
            self._iscsi.disconnect_volume(connection, {"type": "block", "path": path})
        with watch.theirs():
            self._ask("DELETE", f"/attachments/{attachment}")
        return watch.read()

    def cinder(self, pairs: list[tuple[str, str]]) -> dict[str, float]:
        """What Cinder needs to attach all of them at once; nothing is connected."""
        watch = Stopwatch()
        with ThreadPoolExecutor(len(pairs)) as pool:
            made = list(pool.map(lambda pair: self._in_cinder(*pair), pairs))
        taken = watch.read()
        for attachment in made:
            self._ask("DELETE", f"/attachments/{attachment}")
        return taken

    def _in_cinder(self, guest: str, volume: str) -> str:
        attachment = self._create(guest, volume)
        try:
            self._update(attachment)
        except HttpServerError:
            # Its own time for an answer was over, and it goes on exporting: asked again it waits.
            self._update(attachment)
        self._complete(attachment)
        return attachment


def main() -> int:
    """Answer until nobody asks any more."""
    plain = Plain()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        verb = asked.pop("do")
        print(json.dumps(getattr(plain, verb)(**asked)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
