"""FakeCinder: attachd's Cinder Protocol before Cinder's rules, in memory.

For the engine's tests. It behaves as ``attachd.cinder`` does in front of a real Cinder: its retries
are over when it raises, so a failure here is one that lasted, and a lost answer one that no
question could clear up.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from attachd.errors import AttachdError, Code, Refused, Unreachable, World
from attachd.model import (
    AttachFlow,
    Chap,
    CinderAttachment,
    Connection,
    Connector,
    Mode,
    Target,
    Volume,
)
from tests.fakes.cinder_rules import (
    AttachmentRow,
    CinderFaultError,
    CinderRules,
    NoSuchVolumeError,
    VolumeRow,
)

VERBS = frozenset(
    {
        "find_volume",
        "get_volume",
        "list_volumes",
        "list_attachments",
        "get_attachment",
        "create",
        "update",
        "complete",
        "delete",
        "begin_detaching",
        "roll_detaching",
        "settle_create",
        "settle_update",
        "settle_begin",
        "extend",
        "settle_extend",
        "reserve",
        "unreserve",
        "initialize_connection",
        "terminate_connection",
        "attach",
        "detach",
        "settle_status",
    }
)
OLD_VERBS = {
    "create": "reserve",
    "update": "initialize_connection",
    "complete": "attach",
    "delete": "detach",
}
"""What the old style's steps ask for in the place of the new one's verbs."""
ORPHAN_SECONDS = 60.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call that arrived: its verb, what it was about (an id or a reference), whose it was."""

    verb: str
    subject: str
    global_request_id: str | None


@dataclass(kw_only=True)
class _Scene:
    """What all views of one fake share: its rows, its past, and what shall go wrong next."""

    rules: CinderRules
    flow: AttachFlow = AttachFlow.ATTACHMENTS
    calls: list[Call] = field(default_factory=list)
    down: bool = False
    failures: dict[str, deque[AttachdError]] = field(default_factory=lambda: defaultdict(deque))
    lost_answers: dict[str, deque[AttachdError]] = field(default_factory=lambda: defaultdict(deque))
    interludes: dict[str, deque[Callable[[], object]]] = field(
        default_factory=lambda: defaultdict(deque)
    )
    orphans: dict[str, deque[BaseException]] = field(default_factory=lambda: defaultdict(deque))
    late: list[Callable[[], object]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class FakeCinder:
    """Fulfils ``attachd.operations.ports.Cinder``; thread-safe."""

    def __init__(
        self, *, scene: _Scene | None = None, global_request_id: str | None = None
    ) -> None:
        self._scene = scene or _Scene(rules=CinderRules())
        self._global_request_id = global_request_id

    def for_request(self, global_request_id: str) -> FakeCinder:
        """A view of the same Cinder; its calls are known by this id."""
        return FakeCinder(scene=self._scene, global_request_id=global_request_id)

    # --- for tests --------------------------------------------------------------------------

    @property
    def rules(self) -> CinderRules:
        """The volumes and attachments, to look at and to change."""
        return self._scene.rules

    @property
    def calls(self) -> list[Call]:
        """Every call so far, in order."""
        with self._scene.lock:
            return list(self._scene.calls)

    def configure(self, flow: AttachFlow) -> None:
        """How volumes are attached from now on."""
        self._scene.flow = flow

    def stop(self) -> None:
        """From now on every call fails as if Cinder's API were stopped."""
        self._scene.down = True

    def start(self) -> None:
        """Cinder's API is back."""
        self._scene.down = False

    def add_volume(self, **columns: Any) -> str:
        """Make a volume (columns of ``VolumeRow``), return its id."""
        return self.rules.add_volume(**columns).id

    def status(self, volume_id: str) -> str:
        """The volume's status."""
        return self.rules.volume(volume_id).status

    def fail_next(self, verb: str, error: AttachdError | None = None, *, times: int = 1) -> None:
        """The next ``times`` calls of ``verb`` raise ``error`` and do nothing.

        Without an error: Unreachable cinder-unavailable, nothing touched.
        """
        with self._scene.lock:
            self._scene.failures[self._verb(verb)].extend(
                [error or _unavailable(touched=False)] * times
            )

    def lose_answer_next(
        self, verb: str, error: AttachdError | None = None, *, times: int = 1
    ) -> None:
        """The next ``times`` calls of ``verb`` do their work, then raise ``error``.

        Without an error: Unreachable cinder-unavailable, touched.
        """
        with self._scene.lock:
            self._scene.lost_answers[self._verb(verb)].extend(
                [error or _unavailable(touched=True)] * times
            )

    def orphan_next(self, verb: str, error: BaseException) -> None:
        """The next ``verb`` raises ``error``, and has its effect only later.

        When it is waited for (``settle_...``), or else when :meth:`land` is called.
        """
        with self._scene.lock:
            self._scene.orphans[self._verb(verb)].append(error)

    def land(self) -> None:
        """What was put off happens now, if it still can."""
        with self._scene.lock:
            late, self._scene.late = self._scene.late, []
        for effect in late:
            with suppress(CinderFaultError), self.rules.lock:
                effect()

    def before_next(self, verb: str, interlude: Callable[[], object]) -> None:
        """Call ``interlude()`` when the next ``verb`` arrives: somebody else is faster."""
        with self._scene.lock:
            self._scene.interludes[self._verb(verb)].append(interlude)

    # --- the Protocol -----------------------------------------------------------------------

    def find_volume(self, reference: str) -> Volume:
        """By id, else by exact name."""
        with self._call("find_volume", reference):
            if reference.lower() in self.rules.volumes:
                return self._volume(self.rules.volume(reference))
            named = [
                row
                for row in self.rules.volumes_named(reference)
                if reference and row.name == reference
            ]
            if not named:
                raise Refused(Code.VOLUME_NOT_FOUND, f"Cinder has no volume {reference!r}.")
            if len(named) > 1:
                raise Refused(Code.VOLUME_AMBIGUOUS, f"Several volumes are named {reference!r}.")
            return self._volume(named[0])

    def get_volume(self, volume_id: str) -> Volume | None:
        """None: there is none."""
        with self._call("get_volume", volume_id):
            row = self.rules.volumes.get(volume_id.lower())
            return self._volume(row) if row else None

    def list_volumes(self, *, status: str, limit: int) -> tuple[Volume, ...]:
        """Those in a status, the newest first."""
        with self._call("list_volumes", status):
            rows = self.rules.volumes_in(status, limit=limit)
            return tuple(self._volume(row) for row in rows)

    def list_attachments(self, volume_id: str) -> tuple[CinderAttachment, ...]:
        """The volume's attachments, without connection."""
        with self._call("list_attachments", volume_id):
            rows = self.rules.attachments_of(volume_id)
            return tuple(_attachment(row, with_connection=False) for row in rows)

    def get_attachment(self, attachment_id: str) -> CinderAttachment | None:
        """None: there is none."""
        with self._call("get_attachment", attachment_id):
            row = self.rules.attachments.get(attachment_id)
            return _attachment(row) if row else None

    def create_attachment(
        self,
        volume_id: str,
        *,
        instance_id: str,
        prior_attachment_ids: Collection[str],
    ) -> CinderAttachment:
        """POST without a connector."""
        with self._call("create", volume_id):
            return _attachment(
                self._now_or_late("create", self.rules.create, volume_id, instance_id)
            )

    def update_attachment(
        self, attachment_id: str, connector: Connector, *, fresh: bool = False
    ) -> CinderAttachment:
        """PUT the connector; an attachment that has a connection is returned as it is."""
        with self._call("update", attachment_id):
            row = self.rules.attachment(attachment_id)
            if row.connection_info:
                return _attachment(row)
            update = self.rules.update
            return _attachment(self._now_or_late("update", update, attachment_id, connector))

    def settle_create(
        self,
        volume_id: str,
        *,
        instance_id: str,
        prior_attachment_ids: Collection[str],
        age: float,
    ) -> None:
        """What was put off shows."""
        self._settle("settle_create", volume_id, age)

    def settle_update(self, attachment_id: str, *, age: float) -> None:
        """What was put off shows."""
        self._settle("settle_update", attachment_id, age)

    def settle_begin(self, volume_id: str, *, age: float) -> None:
        """What was put off shows; Refused where there is no volume to look at."""
        self._settle("settle_begin", volume_id, age)

    def _settle(self, verb: str, subject: str, age: float) -> None:
        with self._call(verb, subject):
            if age >= ORPHAN_SECONDS:
                return
            self.land()
            if verb in ("settle_begin", "settle_extend"):
                self.rules.volume(subject)

    def complete_attachment(self, attachment_id: str) -> None:
        """os-complete."""
        with self._call("complete", attachment_id):
            self._now_or_late("complete", self.rules.complete, attachment_id)

    def delete_attachment(self, attachment_id: str) -> None:
        """DELETE; gone already: nothing happens."""
        with self._call("delete", attachment_id):
            if attachment_id in self.rules.attachments:
                self._now_or_late("delete", self._delete, attachment_id)

    def begin_detaching(self, volume_id: str, *, status: str | None = None) -> None:
        """os-begin_detaching."""
        with self._call("begin_detaching", volume_id):
            if status not in (None, "in-use"):
                raise AttachdError(Code.CINDER_REFUSED, f"It is {status}.", touched=False)
            self._now_or_late("begin_detaching", self.rules.begin_detaching, volume_id)

    def roll_detaching(self, volume_id: str) -> None:
        """os-roll_detaching."""
        with self._call("roll_detaching", volume_id):
            self._now_or_late("roll_detaching", self.rules.roll_detaching, volume_id)

    def extend_volume(self, volume_id: str, size_gib: int) -> None:
        """os-extend, and what became of it."""
        with self._call("extend", volume_id):
            row = self.rules.volume(volume_id)
            if row.size >= size_gib:
                return
            if row.status != "in-use":
                raise Refused(Code.CINDER_REFUSED, f"Volume {volume_id} is {row.status}.")
            self._now_or_late("extend", self.rules.extend, volume_id, size_gib)
            if row.size < size_gib:
                raise _not_extended(row)

    def settle_extend(self, volume_id: str, *, size_gib: int, age: float) -> None:
        """What was put off shows."""
        self._settle("settle_extend", volume_id, age)

    # --- the old style ----------------------------------------------------------------------

    def attach_flow(self) -> AttachFlow:
        """As configured."""
        return self._scene.flow

    def reserve(self, volume_id: str) -> None:
        """os-reserve, of an available volume only."""
        with self._call("reserve", volume_id):
            if (status := self.rules.volume(volume_id).status) != "available":
                raise Refused(Code.CINDER_REFUSED, f"The volume's status is {status}.")
            self._now_or_late("reserve", self.rules.reserve, volume_id)

    def unreserve(self, volume_id: str) -> None:
        """os-unreserve."""
        with self._call("unreserve", volume_id):
            self._now_or_late("unreserve", self.rules.unreserve, volume_id)

    def initialize_connection(self, volume_id: str, connector: Connector) -> Connection:
        """os-initialize_connection."""
        with self._call("initialize_connection", volume_id):
            initialize = self.rules.initialize_connection
            info = self._now_or_late("initialize_connection", initialize, volume_id, connector)
            return _read_connection({**info, **info["data"]})

    def terminate_connection(self, volume_id: str, connector: Connector) -> None:
        """os-terminate_connection; as the real client, of what was exported anew if need be."""
        with self._call("terminate_connection", volume_id):
            self._now_or_late("terminate_connection", self._terminate, volume_id, connector)

    def attach(
        self,
        volume_id: str,
        *,
        instance_id: str,
        mountpoint: str,
        mode: Mode,
        prior_attachment_ids: Collection[str],
    ) -> CinderAttachment:
        """os-attach."""
        with self._call("attach", volume_id):
            attach = self.rules.attach
            return _attachment(
                self._now_or_late("attach", attach, volume_id, instance_id, mode.value)
            )

    def detach(self, volume_id: str, attachment_id: str) -> None:
        """os-detach; gone already: nothing happens."""
        with self._call("detach", volume_id):
            if attachment_id in self.rules.attachments:
                self._now_or_late("detach", self.rules.detach, volume_id, attachment_id)

    def settle_status(self, volume_id: str, *, was: str, age: float) -> None:
        """What was put off shows; Refused where there is no volume to look at."""
        with self._call("settle_status", volume_id):
            if age < ORPHAN_SECONDS and self.rules.volume(volume_id).status == was:
                self.land()

    # --- inside -----------------------------------------------------------------------------

    def _verb(self, name: str) -> str:
        """The verb that a test means: by its name, or by its step's in the configured style."""
        if name not in VERBS:
            raise ValueError(f"{name!r} is none of {sorted(VERBS)}")
        if self._scene.flow is AttachFlow.VOLUME_ACTIONS:
            return OLD_VERBS.get(name, name)
        return name

    def _terminate(self, volume_id: str, connector: Connector) -> None:
        try:
            self.rules.terminate_connection(volume_id, connector)
        except NoSuchVolumeError:
            raise
        except CinderFaultError:
            self.rules.initialize_connection(volume_id, connector)
            self.rules.terminate_connection(volume_id, connector)

    def _delete(self, attachment_id: str) -> None:
        """As the real client: os-detach where Cinder fails for want of the export."""
        try:
            self.rules.delete(attachment_id, by_service=True)
        except CinderFaultError:
            volume_id = self.rules.attachment(attachment_id).volume_id
            if len(self.rules.attachments_of(volume_id)) > 1:
                raise
            self.rules.detach(volume_id, attachment_id)

    @contextmanager
    def _call(self, verb: str, subject: str) -> Iterator[None]:
        lost = self._arrive(
            Call(verb=verb, subject=subject, global_request_id=self._global_request_id)
        )
        try:
            with self.rules.lock:
                yield
        except CinderFaultError as exc:
            raise _refusal(exc) from exc
        if lost:
            raise lost

    def _now_or_late(self, verb: str, effect: Callable[..., T], *arguments: object) -> T:
        with self._scene.lock:
            error = _next(self._scene.orphans[verb])
            if error is not None:
                self._scene.late.append(partial(effect, *arguments))
        if error is not None:
            raise error
        return effect(*arguments)

    def _arrive(self, call: Call) -> AttachdError | None:
        """Raise the failure that is due; return what shall come in the answer's place."""
        scene = self._scene
        with scene.lock:
            scene.calls.append(call)
            interlude = _next(scene.interludes[call.verb])
            failure = _next(scene.failures[call.verb])
            if scene.down:
                failure = _unavailable(touched=False)
            lost = None if failure else _next(scene.lost_answers[call.verb])
        if interlude:
            interlude()
        if failure:
            raise failure
        return lost

    def _volume(self, row: VolumeRow) -> Volume:
        return Volume(
            volume_id=row.id,
            name=row.name or "",
            status=row.status,
            size_gib=row.size,
            encrypted=row.encrypted,
            multiattach=row.multiattach,
            shared_targets=row.shared_targets,
            service_uuid=row.service_uuid,
            attachment_ids=tuple(
                a.id for a in self.rules.attachments_of(row.id) if a.status == "attached"
            ),
            attachment_hosts={
                a.id: a.connector["host"]
                for a in self.rules.attachments_of(row.id)
                if a.status == "attached" and a.connector and "host" in a.connector
            },
        )


def _next(queue: deque[T]) -> T | None:
    return queue.popleft() if queue else None


def _unavailable(*, touched: bool) -> Unreachable:
    return Unreachable(
        Code.CINDER_UNAVAILABLE, "Cinder can't be reached.", world=World.CINDER, touched=touched
    )


def _not_extended(row: VolumeRow) -> AttachdError:
    """Still at it when its time is over; failed; or no room was found."""
    if row.status == "extending":
        return AttachdError(Code.DEADLINE_EXCEEDED, "It is still extending.", world=World.CINDER)
    return AttachdError(
        Code.CINDER_REFUSED, f"It is {row.status}.", touched=row.status == "error_extending"
    )


def _refusal(exc: CinderFaultError) -> Refused:
    if isinstance(exc, NoSuchVolumeError):
        return Refused(Code.VOLUME_NOT_FOUND, exc.message)
    return Refused(Code.CINDER_REFUSED, "Cinder refuses the request.", details=exc.message)


def _attachment(row: AttachmentRow, *, with_connection: bool = True) -> CinderAttachment:
    return CinderAttachment(
        attachment_id=row.id,
        volume_id=row.volume_id,
        instance_id=row.instance,
        status=row.status,
        connection=(
            _read_connection(row.connection_info)
            if with_connection and row.connection_info
            else None
        ),
    )


def _read_connection(info: Mapping[str, Any]) -> Connection:
    qos = info["qos_specs"] or {}
    return Connection(
        protocol=info["driver_volume_type"],
        targets=(
            Target(portal=info["target_portal"], iqn=info["target_iqn"], lun=info["target_lun"]),
        ),
        mode=Mode(info["access_mode"]),
        discard=info.get("discard", False),
        encrypted=info["encrypted"],
        iotune={key: int(text) for key, text in qos.items() if text.isdigit()},
        unreadable=tuple(key for key, text in qos.items() if not text.isdigit()),
        chap=Chap(username=info["auth_username"], password=info["auth_password"]),
    )
