"""What this process did: it counts from zero, as Prometheus expects of a counter."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from attachd.engine.observers import OperationRun, StepRun
from attachd.errors import World
from attachd.model import OperationKind, OperationState
from attachd.saga.history import Happening

_OUTCOMES = tuple(state for state in OperationState if state.resting)
_DIRECTIONS = {Happening.RESUME_FORWARD: "forward", Happening.RESUME_BACK: "back"}
_STEP_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_OPERATION_SECONDS = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
RETRYING = (World.CINDER, World.GUEST)
"""The worlds that attachd itself asks again: os-brick's own tries on the host it can't see."""


class Work:
    """Fulfils :class:`attachd.engine.observers.Observer`.

    Each series of few values is there from the start: Prometheus sees no rise to one from nothing.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._operations = Counter(
            "attachd_operations_total",
            "Operations that came to rest: done, refused, undone, or in need of attention.",
            ("kind", "outcome"),
            registry=registry,
        )
        self._operation_seconds = Histogram(
            "attachd_operation_duration_seconds",
            "From the request accepted to the operation's rest, of those never interrupted.",
            ("kind", "outcome"),
            buckets=_OPERATION_SECONDS,
            registry=registry,
        )
        self._step_seconds = Histogram(
            "attachd_step_duration_seconds",
            "How long a step took, or (verb undo) its undo, whatever its outcome.",
            ("kind", "step", "verb"),
            buckets=_STEP_SECONDS,
            registry=registry,
        )
        self._step_failures = Counter(
            "attachd_step_failures_total",
            "Steps, and undos of steps, that failed, by the code of their error.",
            ("kind", "step", "verb", "code"),
            registry=registry,
        )
        self._retries = Counter(
            "attachd_retries_total",
            "Requests that were made again: to Cinder, or to a guest that keeps a disk.",
            ("world",),
            registry=registry,
        )
        self._resumed = Counter(
            "attachd_recovery_resumed_total",
            "Interrupted operations that went on, forward or back, after a look at the worlds.",
            ("kind", "direction"),
            registry=registry,
        )
        self._recovered = Counter(
            "attachd_recovery_ended_total",
            "Interrupted operations that came to rest again, by how.",
            ("kind", "outcome"),
            registry=registry,
        )
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        for kind in OperationKind:
            for outcome in _OUTCOMES:
                self._operations.labels(kind.value, outcome.value)
                self._recovered.labels(kind.value, outcome.value)
            for direction in _DIRECTIONS.values():
                self._resumed.labels(kind.value, direction)
        for world in RETRYING:
            self._retries.labels(world.value)

    def step_ran(self, run: StepRun) -> None:
        """A step ended, one way or the other."""
        step = (run.kind.value, run.step, run.verb.value)
        self._step_seconds.labels(*step).observe(run.seconds)
        if run.code is not None:
            self._step_failures.labels(*step, run.code.value).inc()

    def resumed(self, kind: OperationKind, happening: Happening) -> None:
        """An interrupted operation goes forward or back."""
        self._resumed.labels(kind.value, _DIRECTIONS[happening]).inc()

    def rested(self, run: OperationRun) -> None:
        """An operation came to rest. One that waits on, as before, is no news."""
        attention = OperationState.NEEDS_ATTENTION
        if run.before is attention and run.state is attention:
            return
        outcome = (run.kind.value, run.state.value)
        self._operations.labels(*outcome).inc()
        if run.resumed:
            self._recovered.labels(*outcome).inc()
        if run.seconds is not None:
            self._operation_seconds.labels(*outcome).observe(run.seconds)

    def asked_again(self, world: World) -> None:
        """A request is made once more."""
        self._retries.labels(world.value).inc()
