"""What waits to be told to the collector, and the thread that tells it."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from attachd.engine.observers import OperationRun, StepRun
from attachd.engine.patience import Patience
from attachd.errors import AttachdError, Code
from attachd.model import OperationKind
from attachd.otlp.spans import Snapshot, Span, spans_of, trace_id
from attachd.periodic import Periodic
from attachd.saga.history import Happening

LOG = logging.getLogger(__name__)

MOST_WAITING = 1000
"""Operations. Behind a collector that stays away the oldest of them are forgotten."""
RETRY_SECONDS = 30.0
_LAST_SECONDS = 5.0
_COLLECTOR = "collector"


class Collector(Protocol):
    """Where spans go."""

    def send(self, trace: int, spans: Sequence[Span]) -> bool:
        """Tell them; False where they weren't taken, and may be told again."""

    def close(self) -> None:
        """Nothing more is told; who waits for an answer waits no longer."""


class Exporter:
    """Fulfils :class:`attachd.engine.observers.Observer`: each rest is told between start and stop.

    ``snapshot`` reads an operation from the journal, in this object's own thread.
    """

    def __init__(
        self,
        *,
        snapshot: Callable[[str], Snapshot],
        collector: Collector,
        retry_interval: float = RETRY_SECONDS,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._snapshot = snapshot
        self._collector = collector
        self._most = most_waiting
        self._lock = threading.Lock()
        self._waiting: deque[str] = deque()
        self._forgotten = 0
        self._told: dict[str, int] = {}  # of open operations: the last event that was told
        self._away = False
        self._patience = Patience(first=retry_interval)
        self._periodic = Periodic(
            name="otlp",
            interval=retry_interval,
            look=self._tell_all,
            failing="A trace can't be told now",
        )

    def start(self) -> None:
        """Begin to tell what comes to rest."""
        self._periodic.start()

    def stop(self) -> None:
        """Tell what still waits, within a few seconds; what can't be told by then is forgotten."""
        deadline = time.monotonic() + _LAST_SECONDS
        if self._periodic.stop(_LAST_SECONDS) and not self._away:
            try:
                self._tell_all(deadline=deadline)
            except AttachdError as exc:
                LOG.warning("The last traces can't be told: %s", exc)
        self._collector.close()

    # --- the engine's observer ----------------------------------------------------------------

    def step_ran(self, run: StepRun) -> None:
        """The journal has it."""

    def resumed(self, kind: OperationKind, happening: Happening) -> None:
        """The journal has it."""

    def rested(self, run: OperationRun) -> None:
        """It is told soon, by another thread."""
        with self._lock:
            if run.operation_id in self._waiting:
                return
            if len(self._waiting) == self._most:
                self._waiting.popleft()
                self._forgotten += 1
            self._waiting.append(run.operation_id)
        self._periodic.wake()

    # --- its own thread -----------------------------------------------------------------------

    def _tell_all(self, *, deadline: float = math.inf) -> None:
        if self._away and not self._patience.is_over(_COLLECTOR):
            return
        while time.monotonic() < deadline and (operation_id := self._next()) is not None:
            told = False
            try:
                told = self._tell(operation_id)
            finally:
                if not told:
                    self._put_back(operation_id)
            if not told:
                self._is_away()
                return
            self._is_there()

    def _tell(self, operation_id: str) -> bool:
        snapshot = self._snapshot(operation_id)
        row, events = snapshot[:2]
        spans = spans_of(snapshot, after=self._told.get(operation_id, 0))
        if spans and not self._collector.send(trace_id(operation_id), spans):
            return False
        if row.state.open and events:
            self._told[operation_id] = events[-1].seq
        else:
            self._told.pop(operation_id, None)
        return True

    def _next(self) -> str | None:
        """Taken out: what rests once more while it is told, is told once more."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def _put_back(self, operation_id: str) -> None:
        with self._lock:
            if operation_id not in self._waiting:
                self._waiting.appendleft(operation_id)

    def _is_away(self) -> None:
        if not self._away:
            LOG.warning("The collector takes no traces: up to %d wait for it", self._most)
            self._away = True
            self._patience.is_over(_COLLECTOR)  # begins the first pause

    def _is_there(self) -> None:
        if self._away:
            self._away = False
            self._patience.forget()
            LOG.info("The collector takes traces again; %d were forgotten", self._forgotten)
            self._forgotten = 0


def without_the_extra(exc: ImportError) -> AttachdError:
    """[trace] otlp_endpoint is set, and OpenTelemetry isn't there."""
    return AttachdError(
        Code.CONFIG_INVALID,
        "[trace] otlp_endpoint needs OpenTelemetry's SDK, which isn't installed.",
        details=str(exc),
        resolution="Install attachd with its extra otlp, in its tree: /opt/attachd/bin/pip install "
        "'.[otlp]'. The Debian package doesn't have it. Or leave the option out.",
        touched=False,
    )
