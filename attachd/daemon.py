"""The daemon: everything is assembled here, in one place, in the one order that works.

Root's part comes first and is short: os-brick's locks and the privileged helper (forked before any
thread starts, and before this module is imported, see ``host.privilege``), then the socket. Then
the process becomes its own user for good (law 10) and everything else is made. The main thread only
watches: signals, the helper's life, systemd's watchdog.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Callable, MutableMapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from oslo_config import cfg

from attachd.api import sockets
from attachd.api.app import create_app
from attachd.api.peers import GroupRule
from attachd.api.server import Server
from attachd.audit.auditor import Auditor
from attachd.audit.forgetting import Forgetting
from attachd.audit.repairer import Repairer
from attachd.audit.watch import Watch
from attachd.cinder.client import CinderClient
from attachd.cinder.retry import Retry
from attachd.cinder.session import (
    ATTACHMENTS_SINCE,
    MICROVERSION_MIN,
    CinderSession,
    load_auth,
    new_session,
)
from attachd.cinder.survey import CinderSurvey
from attachd.doctor import cinder as cinder_checks
from attachd.doctor import daemon as daemon_checks
from attachd.doctor import guests as guest_checks
from attachd.doctor import host as host_checks
from attachd.doctor.doctor import Doctor
from attachd.doctor.examination import Examination
from attachd.engine import kill_points
from attachd.engine.claims import Claims
from attachd.engine.engine import Engine
from attachd.engine.observers import Observer
from attachd.engine.turns import Turns
from attachd.errors import AttachdError, Code, World
from attachd.guest.guests import LibvirtGuests
from attachd.host import privilege
from attachd.host.host import Helper, IscsiHost
from attachd.host.privilege import PrivilegedHelper
from attachd.host.survey import HostSurvey
from attachd.journal.health import health_of
from attachd.journal.journal import Journal
from attachd.metrics.exposition import Metrics, application
from attachd.model import AttachFlow, Multipath
from attachd.otlp.exporter import Exporter, without_the_extra
from attachd.systemd import Notifier
from attachd.warming import Warming

LOG = logging.getLogger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_AUDITS_END = 10.0
"""Seconds that an audit under way has to end in."""
_DOCTORS_PATIENCE = 15.0
"""Seconds that Keystone and Cinder have for each of the doctor's questions."""
_SCRAPERS = 2
"""Threads for who reads the numbers over TCP."""
_NO_BODY = 1024
"""Bytes that come with a scrape at most; none are wanted (and 0 is no limit to cheroot)."""
_GLANCE_SECONDS = 5.0
"""How often the main thread looks whether the privileged helper lives."""


class Daemon:
    """The assembled parts, and their life from ready to stopped."""

    def __init__(
        self,
        *,
        journal: Journal,
        guests: LibvirtGuests,
        engine: Engine,
        auditor: Auditor,
        doctor: Doctor,
        watch: Watch,
        warming: Warming,
        servers: Sequence[Server],
        exporter: Exporter | None,
        helper: PrivilegedHelper,
        notifier: Notifier,
        shutdown_timeout: float,
    ) -> None:
        self._journal = journal
        self._guests = guests
        self._engine = engine
        self._auditor = auditor
        self._doctor = doctor
        self._watching = watch
        self._warming = warming
        self._servers = servers
        self._exporter = exporter
        self._helper = helper
        self._notifier = notifier
        self._shutdown_timeout = shutdown_timeout
        self._asked_to_stop = threading.Event()

    def run(self) -> int:
        """Serve until a signal comes, or until the privileged helper dies; the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)
        self._guests.start()
        if self._exporter is not None:
            self._exporter.start()
        try:
            self._engine.start()
            self._watching.start()
            self._warming.start()
            for server in self._servers:
                server.start()
            self._notifier.ready()
            LOG.info("attachd is ready")
            return self._watch()
        finally:
            self._notifier.stopping()
            self._stop()

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._asked_to_stop.set()

    def _watch(self) -> int:
        interval = min(self._notifier.watchdog_interval or _GLANCE_SECONDS, _GLANCE_SECONDS)
        while not self._asked_to_stop.wait(interval):
            if not self._helper.alive():
                LOG.error("The privileged helper died: attachd stops, to be started again whole")
                return 1
            self._notifier.alive()
        return 0

    def _stop(self) -> None:
        self._auditor.stop()
        self._doctor.stop()
        # Those who follow an operation see its end: the API goes down behind the engine.
        if not self._engine.stop(self._shutdown_timeout):
            LOG.warning("Operations are under way still: they are journalled and go on at start")
        self._watching.stop(0)
        self._warming.stop()
        for server in self._servers:
            server.stop()
        self._guests.stop()  # ends what an audit waits for, too
        self._watching.stop(_AUDITS_END)
        if self._exporter is not None:
            self._exporter.stop()
        self._journal.close()
        LOG.info("attachd stopped")


def assemble(
    config: cfg.ConfigOpts, environment: MutableMapping[str, str], *, helper: PrivilegedHelper
) -> Daemon:
    """Make the daemon from its configuration. As root, behind ``privilege.start_helper``.

    Raises AttachdError: config-invalid, journal-unavailable.
    """
    lock_path = Path(config.host.lock_path)
    state_path = Path(config.state_path)
    gid = sockets.group_id(config.api.group)
    listening = sockets.listening_socket(Path(config.api.socket), gid=gid, environ=environment)
    scraped = _scraped_socket(config)
    privilege.drop_to(config.user)
    _be_the_only_one(state_path)
    privilege.check_lock_directory(lock_path)
    privilege.keep_locks_shared(lock_path)

    journal = Journal(path=_journal_file(config), boot_id=_BOOT_ID.read_text().strip())
    metrics = Metrics(journal=journal)
    cinder = _cinder(config, asked_again=partial(metrics.work.asked_again, World.CINDER))
    guests = libvirt_guests(config, asked_again=partial(metrics.work.asked_again, World.GUEST))
    host = _host(config, helper)
    exporter = _exporter(config, journal)
    observers: list[Observer] = [metrics.work]
    if exporter is not None:
        observers.append(exporter)
    engine = Engine(
        journal=journal,
        claims=Claims(
            journal=journal, lock_path=_own_lock_path(config), timeout=config.lock_timeout
        ),
        cinder=cinder,
        host=host,
        guests=guests,
        workers=config.workers,
        turns=Turns(at_once=config.cinder.exports_at_once, timeout=config.lock_timeout),
        resume_interval=config.resume_interval,
        reached=kill_points.from_environment(environment),
        observers=observers,
    )
    auditor = Auditor(journal=journal, cinder=cinder, host=host, guests=guests)
    repairer = Repairer(audit=auditor.audit, engine=engine)
    doctor = Doctor(
        examinations=examinations(
            config,
            helper=helper,
            guests=guests,
            socket=Path(listening.getsockname()),
            running=True,
        )
    )
    app = create_app(
        engine=engine,
        auditor=auditor,
        repairer=repairer,
        doctor=doctor,
        metrics=metrics,
        authorise=GroupRule(gid=gid),
        body_limit=config.api.body_limit,
        long_polls=config.api.threads // 2,
    )
    servers = [Server(app, listening, threads=config.api.threads, body_limit=config.api.body_limit)]
    if scraped is not None:
        scrape = application(metrics.text)
        servers.append(
            Server(scrape, scraped, threads=_SCRAPERS, body_limit=_NO_BODY, name="metrics")
        )
    return Daemon(
        journal=journal,
        guests=guests,
        engine=engine,
        auditor=auditor,
        doctor=doctor,
        watch=Watch(
            audit=metrics.audits.measured(auditor.audit),
            fence=repairer.fence,
            forget=Forgetting(
                history=journal, most=config.keep_operations, days=config.keep_days
            ).forget,
            interval=config.audit_interval,
            helper=helper.cpu_seconds,
            idle=engine.is_idle,
        ),
        warming=Warming(things={"Cinder": cinder.warm, "the connector": host.warm}),
        servers=servers,
        exporter=exporter,
        helper=helper,
        notifier=Notifier(environment=environment),
        shutdown_timeout=config.shutdown_timeout,
    )


def _scraped_socket(config: cfg.ConfigOpts) -> socket.socket | None:
    address = config.metrics.listen
    return sockets.bind_tcp(address, option="[metrics] listen") if address else None


def examinations(
    config: cfg.ConfigOpts,
    *,
    helper: Helper,
    guests: LibvirtGuests,
    socket: Path,
    running: bool,
) -> tuple[Examination, ...]:
    """What the doctor looks at. ``running``: this process is the daemon itself."""
    host = HostSurvey(helper=helper)
    return (
        *daemon_checks.examinations(
            host,
            lambda: health_of(_journal_file(config)),
            socket=socket,
            group=config.api.group,
            lock_path=_own_lock_path(config),
            brick_lock_path=Path(config.host.lock_path),
            running=running,
        ),
        *guest_checks.examinations(guests, host),
        *host_checks.examinations(host, multipath=Multipath(config.brick.multipath)),
        cinder_checks.examination(
            lambda: CinderSurvey(new_session=lambda: _doctors_session(config)),
            attach_flow=_attach_flow(config),
        ),
    )


def _journal_file(config: cfg.ConfigOpts) -> Path:
    return Path(config.state_path) / "journal.db"


def _own_lock_path(config: cfg.ConfigOpts) -> Path:
    return Path(config.state_path) / "locks"


def _attach_flow(config: cfg.ConfigOpts) -> AttachFlow | None:
    configured = config.cinder.attach_flow
    return None if configured == "auto" else AttachFlow(configured)


def _cinder_session(
    config: cfg.ConfigOpts, *, microversion_min: str, patience: float = math.inf
) -> CinderSession:
    """``patience``: seconds that no answer to a question may take longer than."""
    options = config.cinder
    return CinderSession(
        session=new_session(
            auth=load_auth(config, "cinder"),
            timeout=min(options.auth_timeout, patience),
            cafile=options.cafile,
            insecure=options.insecure,
        ),
        region_name=options.region_name,
        interface=options.interface,
        connect_timeout=min(options.connect_timeout, patience),
        request_timeout=options.request_timeout,
        query_timeout=min(options.query_timeout, patience),
        microversion_min=microversion_min,
    )


def _doctors_session(config: cfg.ConfigOpts) -> CinderSession:
    """Whatever Cinder speaks, the doctor hears it, and judges by itself."""
    return _cinder_session(config, microversion_min=MICROVERSION_MIN, patience=_DOCTORS_PATIENCE)


def _cinder(
    config: cfg.ConfigOpts, *, asked_again: Callable[[], None] = lambda: None
) -> CinderClient:
    options = config.cinder
    attach_flow = _attach_flow(config)
    session = _cinder_session(
        config,
        microversion_min=(
            ATTACHMENTS_SINCE if attach_flow is AttachFlow.ATTACHMENTS else MICROVERSION_MIN
        ),
    )
    return CinderClient(
        session=session,
        retry=Retry(
            tries=options.retries + 1,
            deadline=options.retry_deadline,
            pause=options.retry_pause,
            asked_again=asked_again,
        ),
        delete_timeout=options.delete_timeout,
        orphan_timeout=options.orphan_timeout,
        extend_timeout=options.extend_timeout,
        attach_flow=attach_flow,
    )


def _host(config: cfg.ConfigOpts, helper: PrivilegedHelper) -> IscsiHost:
    options = config.host
    return IscsiHost(
        helper=helper,
        my_ip=options.my_ip,
        portal_timeout=options.portal_timeout,
        connect_timeout=options.connect_timeout,
        disconnect_timeout=options.disconnect_timeout,
        grace=options.grace,
        release_timeout=options.release_timeout,
        udev_timeout=options.udev_timeout,
        guard_timeout=options.guard_timeout,
        scan_attempts=options.scan_attempts,
        multipath=Multipath(config.brick.multipath),
    )


def libvirt_guests(
    config: cfg.ConfigOpts, *, asked_again: Callable[[], None] = lambda: None
) -> LibvirtGuests:
    """libvirt as configured; not started yet."""
    options = config.guest
    return LibvirtGuests(
        uri=options.uri,
        open_timeout=options.open_timeout,
        call_timeout=options.call_timeout,
        keepalive_interval=options.keepalive_interval,
        keepalive_count=options.keepalive_count,
        unplug_timeout=options.unplug_timeout,
        unplug_retry_interval=options.unplug_retry_interval,
        asked_again=asked_again,
    )


def _exporter(config: cfg.ConfigOpts, journal: Journal) -> Exporter | None:
    """None: nobody asks for traces. Raises config-invalid where attachd[otlp] is missing."""
    endpoint = config.trace.otlp_endpoint
    if not endpoint:
        return None
    try:
        from attachd.otlp.sending import OtlpCollector  # noqa: PLC0415 - an extra
    except ImportError as exc:
        raise without_the_extra(exc) from exc
    return Exporter(
        snapshot=partial(journal.snapshot, exchanges=True),
        collector=OtlpCollector(endpoint=endpoint),
    )


def _be_the_only_one(state_path: Path) -> None:
    """Hold a lock for the process's whole life: two daemons would undo each other's work."""
    try:
        descriptor = os.open(
            state_path / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise AttachdError(
            Code.JOURNAL_UNAVAILABLE,
            "Another attachd uses this state directory already.",
            details=str(state_path),
            resolution="Stop it first: systemctl stop attachd",
            touched=False,
        ) from exc
    except OSError as exc:
        raise AttachdError(
            Code.JOURNAL_UNAVAILABLE,
            "The state directory can't be used.",
            details=str(exc),
            resolution="Create it for the daemon's user (systemd-tmpfiles), or set [DEFAULT] "
            "state_path.",
            touched=False,
        ) from exc
