"""What the operations ask of the worlds.

cinder/, host/ and guest/ each fulfil one of these; so do the fakes that the tests use, and one
contract suite holds both to the same rules. Every method raises only AttachdError: Unreachable
where the world could not be asked, and ``touched=False`` only where nothing can have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from attachd.model import (
    AttachFlow,
    AttachmentRecord,
    CinderAttachment,
    Connection,
    Connector,
    DevicesSeen,
    DiskSpec,
    Guest,
    HostDevice,
    HostSession,
    Mode,
    Volume,
)


class Cinder(Protocol):
    """Cinder's API, as one operation uses it. Retries and their questions are inside."""

    def for_request(self, global_request_id: str) -> Cinder:
        """The same Cinder; each call carries this ``req-<uuid>`` in X-Openstack-Request-Id."""

    def find_volume(self, reference: str) -> Volume:
        """By id, else by exact name.

        Raises Refused volume-not-found or volume-ambiguous, Unreachable cinder-unavailable.
        """

    def get_volume(self, volume_id: str) -> Volume | None:
        """None: Cinder answered that there is none."""

    def list_volumes(self, *, status: str, limit: int) -> tuple[Volume, ...]:
        """The volumes in a status, the newest first, ``limit`` at most. Asked once: no retries.

        Raises Unreachable cinder-unavailable.
        """

    def list_attachments(self, volume_id: str) -> tuple[CinderAttachment, ...]:
        """The volume's attachments, without connection."""

    def get_attachment(self, attachment_id: str) -> CinderAttachment | None:
        """None: Cinder answered that there is none."""

    def create_attachment(
        self, volume_id: str, *, instance_id: str, prior_attachment_ids: Collection[str]
    ) -> CinderAttachment:
        """POST without a connector: the volume becomes ``reserved``.

        When the answer was lost, the one attachment of this volume and instance that isn't in
        ``prior_attachment_ids`` is ours; more than one is worlds-disagree (law 11).
        """

    def update_attachment(
        self, attachment_id: str, connector: Connector, *, fresh: bool = False
    ) -> CinderAttachment:
        """PUT the connector: the answer has a connection, and the volume is ``attaching``.

        An attachment that carries this connector already is returned as it is.
        """

    def settle_create(
        self,
        volume_id: str,
        *,
        instance_id: str,
        prior_attachment_ids: Collection[str],
        age: float,
    ) -> None:
        """Wait until an orphaned create shows its effect, or can't have one any more.

        ``age``: seconds since it was asked for. Nobody waits for its answer: Cinder may still be at
        work on it. So for the other two.
        """

    def settle_update(self, attachment_id: str, *, age: float) -> None:
        """The same for an update: until cinder-volume has exported the volume, or never will.

        Cinder deletes a ``reserved`` attachment without cinder-volume: deleted while the export is
        under way, it would leave the export behind.
        """

    def settle_begin(self, volume_id: str, *, age: float) -> None:
        """The same for os-begin_detaching."""

    def complete_attachment(self, attachment_id: str) -> None:
        """os-complete: the volume becomes ``in-use``. Done already: nothing happens."""

    def delete_attachment(self, attachment_id: str) -> None:
        """DELETE and wait until Cinder says that it is gone. Gone already: nothing happens."""

    def begin_detaching(self, volume_id: str, *, status: str | None = None) -> None:
        """os-begin_detaching: ``in-use`` becomes ``detaching``; Refused from any other status.

        ``status``: the volume's, as it was read just now; None: it is read.
        """

    def roll_detaching(self, volume_id: str) -> None:
        """os-roll_detaching: ``detaching`` becomes ``in-use``; from ``in-use`` nothing happens."""

    def extend_volume(self, volume_id: str, size_gib: int) -> None:
        """os-extend of a volume ``in-use``, until it is so again with that size, or a larger one.

        So large already: nothing happens. Raises cinder-refused: with ``touched=False`` the volume
        certainly is as it was (any other status, a quota, no room); deadline-exceeded.
        """

    def settle_extend(self, volume_id: str, *, size_gib: int, age: float) -> None:
        """Wait until an orphaned os-extend has come to its end, or can't have an effect any more.

        See ``settle_create``. A backend may extend for longer than is waited here.
        """

    # --- the old style: Cinder's volume actions ---------------------------------------------

    def attach_flow(self) -> AttachFlow:
        """How a volume is to be attached from now on: as configured, or as Cinder offers."""

    def reserve(self, volume_id: str) -> None:
        """os-reserve: ``available`` becomes ``attaching``; Refused from any other status.

        Cinder doesn't say for whom. After a lost answer it counts as ours where the volume was
        ``available`` just before.
        """

    def unreserve(self, volume_id: str) -> None:
        """os-unreserve: ``attaching`` becomes what it was; from any other nothing happens.

        Whoever had reserved it: the caller has to know that it was the caller.
        """

    def initialize_connection(self, volume_id: str, connector: Connector) -> Connection:
        """os-initialize_connection: the volume is exported for the connector, again and again."""

    def terminate_connection(self, volume_id: str, connector: Connector) -> None:
        """os-terminate_connection: the export lets the connector in no more, again and again.

        Cinder unreserves an ``attaching`` volume with it.
        """

    def attach(
        self,
        volume_id: str,
        *,
        instance_id: str,
        mountpoint: str,
        mode: Mode,
        prior_attachment_ids: Collection[str],
    ) -> CinderAttachment:
        """os-attach: the volume becomes ``in-use``, and has the attachment that is returned.

        Done already: ``in-use`` again. Which one is ours is told as after ``create_attachment``.
        """

    def detach(self, volume_id: str, attachment_id: str) -> None:
        """os-detach: the attachment goes, and the volume's export as a whole. Gone: nothing."""

    def settle_status(self, volume_id: str, *, was: str, age: float) -> None:
        """Wait until the volume isn't ``was`` any more, or an orphan can't change it any more."""


class Host(Protocol):
    """This host's block devices, through os-brick."""

    def check(self) -> None:
        """Raise Unreachable iscsi-unavailable where no connect could succeed (iscsid masked)."""

    def connector(self) -> Connector:
        """The connector's properties, read once and kept until they change."""

    def guard(
        self, *, shared_targets: bool | None, service_uuid: str | None, wait: bool = True
    ) -> AbstractContextManager[None]:
        """The backend's guard (law 5), from update to complete and around a disconnect.

        Raises deadline-exceeded, nothing touched: at once where it isn't to ``wait``.
        """

    def connect(self, volume_id: str, connection: Connection, *, mapped: bool | None = None) -> str:
        """Log in, find the LUN's device, return its kernel path (/dev/sdX, or a map's /dev/dm-N).

        ``mapped``: with a multipath map, or without; None: as the configuration says.
        Portals are probed first. It returns or raises only when nothing goes on behind it; a
        connect that outlives its deadline and its grace raises Unreachable deadline-exceeded, and
        ``disconnect`` of the volume then waits for it first.
        """

    def identify(
        self, device: str, connection: Connection, *, size_bytes: int, expected_wwn: str | None
    ) -> HostDevice:
        """Law 2: session, portal, LUN, fresh VPD page 0x83 against sysfs, size, recorded WWN.

        Raises wrong-device.
        """

    def leading_to(self, device: HostDevice, paths: Iterable[str]) -> frozenset[str]:
        """Those of these paths under /dev that lead to the device, by whatever name."""

    def disconnect(
        self,
        volume_id: str,
        connection: Connection,
        *,
        expected_wwn: str | None,
        given_up: bool = False,
    ) -> None:
        """Flush, delete the LUN's device, log out where no other LUN uses the session, prove it.

        ``given_up``: Cinder has no attachment of it any more; a device whose session is dead needs
        not to answer then. It never will.

        Touches no device whose fresh WWN isn't ``expected_wwn`` (where one is given). Gone
        already: nothing happens. Raises disconnect-failed, still-in-use, wrong-device.
        """

    def silent(self, connection: Connection) -> bool:
        """Is there a device of the LUN that can't answer, since its session is down?"""

    def check_extend(self) -> None:
        """Raise Unreachable iscsi-unavailable where no extend could succeed (no lsscsi)."""

    def extend(
        self, volume_id: str, connection: Connection, *, expected_wwn: str, size_bytes: int
    ) -> int | None:
        """Rescan the LUN's devices; the bytes of the smallest; None: there is no device.

        Touches no device whose fresh WWN isn't ``expected_wwn``. So large already: nothing happens.
        Raises wrong-device, extend-failed (smaller than ``size_bytes`` still).
        """

    def sizes(self, connection: Connection) -> tuple[int, ...]:
        """The bytes of each device of the LUN, as the kernel knows them; none: there is no device.

        The kernel learns of a LUN that grew when it is told to look again: see ``extend``.
        """

    def settle(self, volume_id: str, connection: Connection, *, age: float) -> None:
        """Wait until an orphaned connect shows its session, or can't have one any more.

        ``age``: seconds since its caller certainly was dead. iscsid finishes its login all the
        same.
        """

    def paths(self, connection: Connection) -> tuple[str, ...]:
        """The kernel path of each device of the LUN that is there; none is brought."""

    def wwns(self, connection: Connection) -> tuple[str, ...]:
        """The WWN of each device of the LUN, by a fresh INQUIRY; none: there is no device.

        Raises Unreachable where a device doesn't answer.
        """

    def look_at(self, connections: Sequence[Connection]) -> tuple[DevicesSeen | None, ...]:
        """``wwns`` and ``sizes`` of each, by one look at all. None: it has to be asked by itself.

        Cheap where there are many. Raises Unreachable where there is no looking at all.
        """

    def sessions(self) -> tuple[HostSession, ...]:
        """Every iSCSI session of this host, whoever made it."""

    def present(self, connection: Connection, *, session_shared: bool = False) -> bool:
        """Is any session with, or device of, this LUN on the host? A fresh look (law 3).

        ``session_shared``: other LUNs may use the session; one without a device is no trace then,
        as another volume may be coming or going just now.
        """


class Records(Protocol):
    """The journal's records of attachments, as an operation's own world."""

    def live_attachments(self) -> tuple[AttachmentRecord, ...]:
        """Every record that is neither detached nor released."""

    def reserve(self, record: AttachmentRecord) -> None:
        """Write a new record and bind it to its operation; the same one again changes nothing.

        Raises Refused device-name-taken or already-attached.
        """

    def detached_attachments(self) -> tuple[AttachmentRecord, ...]:
        """Every record of what was detached and not released since, the newest last."""

    def superseded(self, operation_id: str, volume_id: str) -> bool:
        """Was anything else asked for with this volume behind this operation, and not refused?"""

    def forget(self, record_id: str) -> None:
        """The attach of this record was undone: it is live no more. Gone already: nothing."""


class Guests(Protocol):
    """libvirt's domains."""

    def check(self) -> None:
        """Raise Unreachable libvirt-unavailable where libvirt doesn't answer."""

    def find(self, reference: str) -> Guest:
        """By UUID, else by name. Raises Refused guest-not-found."""

    def get(self, guest_id: str) -> Guest | None:
        """None: libvirt answered that there is no such domain."""

    def all(self) -> tuple[Guest, ...]:
        """Every domain, defined or running."""

    def plug(self, guest_id: str, disk: DiskSpec) -> None:
        """Into the live XML where the guest is live, and the persistent one where it has one.

        Completes what is missing of either. Raises guest-refused.
        """

    def unplug(self, guest_id: str, volume_id: str, *, source: str | None = None) -> None:
        """Out of the live XML, acknowledged by the guest, then out of the persistent one; proven.

        Gone already, or no such guest any more: nothing happens. Raises unplug-timeout with
        ``touched=False`` when the guest kept the disk and it is whole in both XMLs.

        ``source``: of a disk that another hand plugged. It is found by that, too, and stays where
        it was when the guest keeps it, which may be the live XML alone.
        """

    def resize(
        self, guest_id: str, volume_id: str, size_bytes: int, *, source: str | None = None
    ) -> None:
        """Tell a live guest its disk's new size, which the device has already.

        A guest that isn't live, or is gone, learns it when it starts: nothing happens. Raises
        guest-refused. ``source``: as for ``unplug``.
        """

    def on_disk_removed(self, listener: Callable[[str, str], None]) -> None:
        """Call ``listener(guest_id, alias)`` on every DEVICE_REMOVED, in the event thread."""

    def on_stopped(self, listener: Callable[[str], None]) -> None:
        """Call ``listener(guest_id)`` on the end of every guest, in the event thread."""

    def on_reachable(self, listener: Callable[[], None]) -> None:
        """Call ``listener()`` each time a connection to libvirt comes (back) to life."""


@dataclass(frozen=True, kw_only=True)
class Worlds:
    """All four, as one operation works on them."""

    cinder: Cinder
    host: Host
    guests: Guests
    records: Records
