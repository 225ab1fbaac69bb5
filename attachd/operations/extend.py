"""Extend: an attached volume grows in Cinder, on the host, in the guest, while it is used.

Cinder can't shrink a volume: from the moment that it has grown this goes only forward. What fails
behind that needs attention and can be resumed; until then the attachment stands, the guest sees
the old size, and nobody is kept off the volume (``OperationKind.yields``). Every step asks what is
left to do, so an extend also finishes what somebody else began in Cinder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from attachd.errors import AttachdError, Code, Refused, World
from attachd.model import (
    AttachmentRecord,
    AttachmentState,
    Connection,
    Guest,
    Mode,
    OperationKind,
    Volume,
)
from attachd.operations import references
from attachd.operations.flows import flow_of
from attachd.operations.housekeeping import Housekeeping
from attachd.operations.operation import Given
from attachd.operations.steps import Step, Unanswered, bind
from attachd.saga.history import StepSpec
from attachd.saga.resumption import Sighting

TABLE = (
    StepSpec(name="precheck", world=World.JOURNAL),
    StepSpec(name="cinder-extend", world=World.CINDER, pivot=True),
    StepSpec(name="host-extend", world=World.HOST),
    StepSpec(name="resize", world=World.GUEST),
    StepSpec(name="remember", world=World.JOURNAL),
)


class Extend(Housekeeping):
    """One extend. ``record`` is the attachment whose volume grows."""

    kind = OperationKind.EXTEND

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self._volume_bytes: int | None = None  # Cinder's size; true only within this run
        self._device_bytes: int | None = None  # the host's device's, which may be larger

    @property
    def steps(self) -> tuple[Step, ...]:
        """The table, with what does each row."""
        verbs = {
            "precheck": self._precheck,
            "cinder-extend": self._extend_in_cinder,
            "host-extend": self._extend_on_host,
            "resize": self._resize,
            "remember": self._remember,
        }
        return bind(TABLE, **verbs)

    # --- 0 precheck: touch nothing ----------------------------------------------------------

    def _precheck(self) -> None:
        if self.record is not None:
            return  # resumed
        self._claim_for(self._asked_for())
        record = self._asked_for()  # it may have been detached, and attached anew, meanwhile
        _refuse_unsettled(record)
        volume = self._volume(record)
        sizes = self._worlds.host.sizes(_connection_of(record))
        self._refuse_size(record, volume, sizes)
        self._refuse_status(volume, record)
        self._refuse_guest(record, has_device=bool(sizes))
        if sizes:
            self._worlds.host.check_extend()
        self.record = record

    def _asked_for(self) -> AttachmentRecord:
        record = references.attached(self._request, self._worlds)
        if record is None:
            raise self._not_attached()
        return record

    def _volume(self, record: AttachmentRecord) -> Volume:
        volume = self._worlds.cinder.get_volume(record.volume_id)
        if volume is None:
            raise AttachdError(
                Code.VOLUME_NOT_FOUND,
                f"Cinder has no volume {record.volume_id} any more.",
                resolution="See what the four worlds say: attachctl audit",
                touched=False,
            )
        return volume

    def _refuse_size(
        self, record: AttachmentRecord, volume: Volume, sizes: tuple[int, ...]
    ) -> None:
        """Cinder can't shrink; and where every world has the size, there is nothing to do."""
        asked = self._request.size_gib
        name = volume.name or volume.volume_id
        if asked is not None and asked < volume.size_gib:
            raise Refused(
                Code.SIZE_INVALID,
                f"Volume {name} has {volume.size_gib} GiB already, and Cinder can't shrink it.",
                resolution=f"Ask for {volume.size_gib} GiB or more.",
            )
        if asked is not None and asked > volume.size_gib:
            return
        if not is_behind(record, volume, sizes):
            raise Refused(
                Code.WORLDS_AGREE if asked is None else Code.SIZE_INVALID,
                f"Volume {name} has {volume.size_gib} GiB already, and its guest knows.",
                resolution="Ask for more.",
            )

    def _refuse_status(self, volume: Volume, record: AttachmentRecord) -> None:
        """Cinder acts on whoever's volume it is: it must be ours, and in nobody else's work."""
        if volume.status != "in-use":
            raise Refused(
                Code.VOLUME_NOT_AVAILABLE,
                f"Volume {volume.name or volume.volume_id} is {volume.status}, not in-use.",
                resolution=f"See why: openstack volume show {volume.volume_id}",
            )
        if flow_of(record, self._worlds).is_given_up(record):
            raise _disagree(f"Cinder has no attachment of volume {volume.volume_id} for this host.")

    def _refuse_guest(self, record: AttachmentRecord, *, has_device: bool) -> None:
        guest = self._worlds.guests.get(record.guest_id)
        if guest is None:
            raise _disagree(f"libvirt has no guest {record.guest_name} any more.")
        if not guest.state.live:
            return
        if not has_device:
            raise _disagree("The guest runs, and the host has no device of the volume.")
        if not any(record.has(disk) for disk in guest.live_disks):
            raise _disagree("The disk isn't in the guest's live XML.")
        if not is_resizable(record, guest):
            raise Refused(
                Code.GUEST_REFUSED,
                "QEMU resizes no read-only disk while its guest runs.",
                resolution=f"Shut guest {record.guest_name} down first.",
            )

    # --- 1 extend in Cinder: from here on only forward ---------------------------------------

    def _extend_in_cinder(self) -> None:
        asked = self._request.size_gib
        if asked is not None and not self._is_gone():
            self._worlds.cinder.extend_volume(self._known.volume_id, asked)

    # --- 2 extend on the host: its kernel learns the size ------------------------------------

    def _extend_on_host(self) -> None:
        """Whoever extended it, and to whatever size: what Cinder says now counts."""
        if self._is_gone():
            return
        record = self._known
        if record.wwn is None:
            raise AssertionError("precheck wants a WWN")
        self._volume_bytes = self._volume(record).size_bytes
        with self._worlds.host.guard(
            shared_targets=record.shared_targets, service_uuid=record.service_uuid
        ):
            self._device_bytes = self._worlds.host.extend(
                record.volume_id,
                _connection_of(record),
                expected_wwn=record.wwn,
                size_bytes=self._volume_bytes,
            )

    # --- 3 resize: the guest learns it -------------------------------------------------------

    def _resize(self) -> None:
        """A guest that isn't live needs no device, and learns the size when it starts."""
        if self._is_gone():
            return
        record = self._known
        if self._device_bytes is not None:
            self._worlds.guests.resize(
                record.guest_id, record.volume_id, self._device_bytes, source=record.adopted_path
            )
            return
        guest = self._worlds.guests.get(record.guest_id)
        if guest is not None and guest.state.live:
            raise _disagree("The guest runs, and the host has no device of the volume.")

    # --- 4 remember --------------------------------------------------------------------------

    def _remember(self) -> None:
        if self._volume_bytes is not None:
            self.record = replace(self._known, size_bytes=self._volume_bytes)

    # --- after a crash, and after a rest -----------------------------------------------------

    def _is_gone(self) -> bool:
        """Was it detached, or released, while this rested? Then nothing is left to do.

        One that was fenced meanwhile is extended no further.
        """
        record = self._known
        if not record.state.live:
            return True
        if record.state is not AttachmentState.ATTACHED:
            raise _disagree(f"The attachment of volume {record.volume_id} is {record.state} now.")
        return False

    def settle(self, unanswered: Mapping[str, Unanswered]) -> None:
        """Let Cinder finish what nobody waits for any more (libvirt queues it)."""
        asked, record = self._request.size_gib, self.record
        extend = unanswered.get("cinder-extend")
        if record is not None and asked is not None and extend:
            self._worlds.cinder.settle_extend(record.volume_id, size_gib=asked, age=extend.age)

    def look(self) -> Sighting:
        """Look at Cinder, freshly. One that is still at it, or failed, decides nothing."""
        return Sighting(
            guest_holds_disk=False, attachment_is_ours=False, volume_has_grown=self._has_grown()
        )

    def _has_grown(self) -> bool:
        asked, record = self._request.size_gib, self.record
        if asked is None or record is None or not record.state.live:
            return True
        volume = self._volume(record)
        if volume.size_gib >= asked:
            return True
        if volume.status == "extending":
            raise AttachdError(
                Code.DEADLINE_EXCEEDED,
                f"Cinder is still extending volume {record.volume_id}.",
                resolution="See cinder-volume's log.",
                world=World.CINDER,
            )
        if volume.status == "error_extending":
            raise AttachdError(
                Code.CINDER_REFUSED,
                f"Cinder failed to extend volume {record.volume_id}: it is error_extending.",
                resolution="See cinder-volume's log. When its backend is well: openstack volume "
                f"set --state in-use {record.volume_id}.",
            )
        return False


def is_behind(record: AttachmentRecord, volume: Volume, sizes: tuple[int, ...]) -> bool:
    """Is Cinder's volume larger than what was handed on? ``sizes``: of the host's devices."""
    return any(size < volume.size_bytes for size in (record.size_bytes, *sizes))


def is_resizable(record: AttachmentRecord, guest: Guest) -> bool:
    """Could QEMU be told? It resizes no disk that it opened read-only."""
    own = record.connection.mode if record.connection else Mode.RW
    return not guest.state.live or Mode.RO not in (record.mode, own)


def _refuse_unsettled(record: AttachmentRecord) -> None:
    if record.state is not AttachmentState.ATTACHED or record.wwn is None:
        raise Refused(
            Code.NOT_ATTACHED,
            f"The attachment of volume {record.volume_id} is {record.state}.",
            resolution="See what the four worlds say: attachctl audit",
        )


def _connection_of(record: AttachmentRecord) -> Connection:
    if record.connection is None:
        raise AssertionError("what is attached has a connection")
    return record.connection


def _disagree(brief: str) -> AttachdError:
    return AttachdError(
        Code.WORLDS_DISAGREE,
        brief,
        resolution="See what the four worlds say: attachctl audit",
        touched=False,
    )
