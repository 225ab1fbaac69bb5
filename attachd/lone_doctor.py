"""The doctor where no daemon answers: ``python -m attachd.lone_doctor WHY``, run by attachctl.

As root it becomes what the daemon would be: it forks a privileged helper of its own and drops to
the daemon's user, so that the same looks see the same. Anybody else sees only what doesn't depend
on who looks. WHY: what attachctl met at the socket. Its answer is that of GET /v1/doctor.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from oslo_config import cfg

from attachd import conf
from attachd.api.documents import diagnosis
from attachd.daemon import examinations, libvirt_guests
from attachd.doctor.catalogue import Check, Fault
from attachd.doctor.doctor import Doctor
from attachd.doctor.examination import Examination
from attachd.doctor.findings import Finding, failed, unseen, wrong
from attachd.errors import AttachdError
from attachd.host import privilege
from attachd.host.host import Helper
from attachd.host.units import Unit, ask_systemd

_SERVICE = "attachd.service"
_ROOT = 0

ANYBODYS = frozenset(
    {
        *(Check.SOCKET_GROUP, Check.KVM, Check.ISCSID, Check.LVM_FILTER),
        *(Check.KEYSTONE_LOGIN, Check.SERVICE_ROLE, Check.CINDER_API),
        *(Check.CINDER_MICROVERSION, Check.CLOCK),
    }
)
"""What looks the same to anybody who may read the configuration."""


class _NoHelper:
    """Who isn't root has none."""

    def alive(self) -> bool:
        """See PrivilegedHelper."""
        return False


def examine(why: str, *, files: Sequence[Path] | None = None) -> tuple[Finding, ...]:
    """Every check's findings; the first one is that the daemon is down.

    ``files``: of the configuration; None: where attachd's is.
    """
    down = daemon_down(why)
    try:
        config = conf.load([], files=files)
        helper = _become_the_daemon(config) if os.geteuid() == _ROOT else _NoHelper()
    except AttachdError as exc:
        rest = [check for check in Check if check not in (Check.DAEMON, Check.CONFIGURATION)]
        return (down, failed(Fault.CONFIG_INVALID, exc), *map(_without_configuration, rest))
    guests = libvirt_guests(config)
    looks: Iterable[Examination] = examinations(
        config, helper=helper, guests=guests, socket=Path(config.api.socket), running=False
    )
    if isinstance(helper, _NoHelper):
        looks = map(_as_anybody, looks)
    else:
        guests.start()
    return (down, *Doctor(examinations=looks).examine())


def daemon_down(why: str) -> Finding:
    """With what systemd says of the daemon's unit."""
    try:
        (unit,) = ask_systemd((_SERVICE,))
        said = _in_words(unit)
    except TimeoutError as exc:
        said = str(exc)
    return wrong(Fault.DAEMON_DOWN, f"{why} {said}".strip())


def _in_words(unit: Unit) -> str:
    if unit.load != "loaded":
        return f"To systemd {_SERVICE} is {unit.load}."
    result = f" ({unit.result})" if unit.result not in ("", "success") else ""
    return f"To systemd {_SERVICE} is {unit.active}{result}."


def _become_the_daemon(config: cfg.ConfigOpts) -> Helper:
    """As the daemon's start does, but for its socket, and making nothing that is missing."""
    # os-brick and oslo.privsep read oslo.config's process-wide object, and only that.
    privilege.configure_os_brick(cfg.CONF, lock_path=Path(config.host.lock_path))
    helper = privilege.fork_privileged_helper()
    privilege.drop_to(config.user)
    return helper


def _as_anybody(examination: Examination) -> Examination:
    if ANYBODYS.issuperset(examination.checks):
        return examination
    hidden = [
        unseen(check, "Only root can see it as the daemon would.", remedy="Run it as root.")
        for check in examination.checks
    ]
    return Examination(checks=examination.checks, look=lambda: hidden)


def _without_configuration(check: Check) -> Finding:
    why = "Without its configuration attachd isn't what it would be."
    return unseen(check, why, remedy="Mend the configuration first.")


def main() -> None:
    """Write the diagnosis to standard output; threads that hang don't hold up the end."""
    logging.disable()
    sys.stdout.write(json.dumps(diagnosis(examine(" ".join(sys.argv[1:])))) + "\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
