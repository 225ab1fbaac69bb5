"""When the lab is ready: its services are asked themselves, from outside where that is quicker."""

import json
import time
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from labkit.image import Image
from labkit.progress import LabError, step
from labkit.ssh import Ssh

BOOT_SECONDS = 900.0
PAUSE_SECONDS = 1.0
REQUEST_SECONDS = 60.0
UNITS = (
    *("mariadb", "rabbitmq-server", "keystone", "cinder-api", "cinder-scheduler"),
    *("cinder-volume", "rtslib-fb-targetctl", "iscsid.socket", "libvirtd"),
)
CINDER_SERVICES = {"cinder-scheduler", "cinder-volume"}


class NotReadyError(Exception):
    """Not ready yet; the message says what is missing."""


def wait_ready(image: Image, ssh: Ssh, *, seconds: float = BOOT_SECONDS) -> None:
    """Wait until everything in the lab answers, but for attachd."""
    deadline = time.monotonic() + seconds
    with step("waiting for the host"):
        ssh.connect(deadline)
    with step("waiting for Keystone and Cinder"):
        _until(deadline, lambda: _check_cinder(image))
    with step("waiting for the host's services"):
        _until(deadline, lambda: _check_units(ssh, UNITS))
        _until(deadline, lambda: _check_libvirt(ssh))


def wait_active(ssh: Ssh, units: Sequence[str], seconds: float) -> None:
    """Wait until these units are active."""
    _until(time.monotonic() + seconds, lambda: _check_units(ssh, units))


def _until(deadline: float, check: Callable[[], None]) -> None:
    while True:
        try:
            return check()
        except NotReadyError as missing:
            if time.monotonic() > deadline:
                raise LabError(f"the lab doesn't get ready: {missing}") from missing
            time.sleep(PAUSE_SECONDS)


def _check_cinder(image: Image) -> None:
    """Let Cinder list its services: that takes Keystone, the database and RabbitMQ as well."""
    auth = json.loads(image.clouds.read_text())["clouds"]["lab"]["auth"]
    domain = {"name": "Default"}
    user = {"name": auth["username"], "domain": domain, "password": auth["password"]}
    request = {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": auth["project_name"], "domain": domain}},
        }
    }
    token, answer = _request(f"{auth['auth_url']}/auth/tokens", body=request)
    project = answer["token"]["project"]["id"]
    url = f"http://127.0.0.1:8776/v3/{project}/os-services"
    services = _request(url, token=token)[1]["services"]
    up = {service["binary"] for service in services if service["state"] == "up"}
    if missing := CINDER_SERVICES - up:
        raise NotReadyError(f"{', '.join(sorted(missing))} not up yet")


def _request(url: str, token: str | None = None, body: object = None) -> tuple[str | None, Any]:
    headers = {"Content-Type": "application/json", **({"X-Auth-Token": token} if token else {})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers)  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=REQUEST_SECONDS) as answer:
            return answer.headers.get("X-Subject-Token"), json.load(answer)
    except (OSError, ValueError) as error:
        raise NotReadyError(f"{url}: {error}") from error


def _check_units(ssh: Ssh, units: Sequence[str]) -> None:
    _succeeds(ssh, ["systemctl", "is-active", *units])


def _check_libvirt(ssh: Ssh) -> None:
    _succeeds(ssh, ["virsh", "--quiet", "list"])


def _succeeds(ssh: Ssh, argv: Sequence[str]) -> None:
    try:
        ssh.call(argv)
    except LabError as error:
        raise NotReadyError(str(error)) from error
