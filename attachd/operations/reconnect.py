"""Reconnect: the host's side of an attachment once more, before its guest starts.

The libvirt hook asks for it while libvirt holds the guest: so no step of it calls libvirt or waits
for anything that does, and only the volume is locked. The guest's XML names the device by its
identity; that the device is the one it was is proven by its recorded WWN.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from attachd.errors import AttachdError, Code, Refused, Unreachable, World
from attachd.model import (
    AttachmentRecord,
    AttachmentState,
    Connection,
    OperationKind,
)
from attachd.operations.housekeeping import Housekeeping
from attachd.operations.operation import Given
from attachd.operations.steps import Step, Unanswered, bind
from attachd.saga.history import StepSpec

LOG = logging.getLogger(__name__)

TABLE = (
    StepSpec(name="precheck", world=World.JOURNAL),
    StepSpec(name="fetch", world=World.CINDER),
    StepSpec(name="connect", world=World.HOST, undoable=True),
    StepSpec(name="identify", world=World.HOST),
)


class Reconnect(Housekeeping):
    """One reconnect. ``record`` is the attachment whose device shall be there."""

    kind = OperationKind.RECONNECT

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self._connection: Connection | None = None  # with secrets: never leaves this object
        self._kernel_path: str | None = None
        self._brings = False  # this run connects it: it wasn't there before

    @property
    def steps(self) -> tuple[Step, ...]:
        """The table, with what does and undoes each row."""
        return bind(
            TABLE,
            precheck=self._precheck,
            fetch=self._fetch,
            connect=(self._connect, self._disconnect),
            identify=self._identify,
        )

    # --- 0 precheck: touch nothing ----------------------------------------------------------

    def _precheck(self) -> None:
        if self.record is not None:
            return  # resumed
        record = self._asked_for()
        if record.shareable:
            # Another guest's operation may hold the volume: this guest's start is warned even so.
            self._has_device(record)
        self._claim_for(record, volume_only=True)
        self.record = self._asked_for()  # it may have been detached meanwhile
        self._is_there()

    def _is_there(self) -> bool:
        return self._has_device(self._known)

    def _has_device(self, record: AttachmentRecord) -> bool:
        """Is its device there (open-iscsi may have restored its session), proven by its WWN?

        Another one isn't ours to take away, as nobody knows who brought it: raises wrong-device.
        """
        if record.connection is None:
            return False
        wwns = set(self._worlds.host.wwns(record.connection))
        if wwns - {record.wwn}:
            raise Refused(
                Code.WRONG_DEVICE,
                f"Another volume's device is behind this one's LUN: WWN {', '.join(wwns)}.",
                resolution="Compare the target's exports with Cinder's volumes.",
            )
        return bool(wwns)

    def _asked_for(self) -> AttachmentRecord:
        record = self._live()
        if record and record.state is AttachmentState.ATTACHED and record.connection is not None:
            return record
        raise self._not_attached()

    # --- 1 fetch: the secrets are in no journal ----------------------------------------------

    def _fetch(self) -> None:
        """A device that is there needs no secrets: it is used even while Cinder can't be asked."""
        record = self._known
        try:
            connection = self._flow.fetch(record)
        except Unreachable as exc:
            if not self._is_there():
                raise
            LOG.info("Volume %s is there, and Cinder can't be asked: %s", record.volume_id, exc)
            return
        if connection is None:
            self._fence_off()  # the guest can't start with what Cinder may give to somebody else
            self._take_off_fenced()
            raise AttachdError(
                Code.WORLDS_DISAGREE,
                f"Cinder has no attachment of volume {record.volume_id} for this host any more.",
                resolution="See what the four worlds say: attachctl audit",
            )
        self._connection = connection
        self.record = replace(record, connection=_all_targets(record, connection))

    # --- 2 connect ----------------------------------------------------------------------------

    def _connect(self) -> None:
        """Also where its device is there: what an earlier call left behind is waited for first."""
        if self._connection is None:
            self._fetch()  # resumed behind it, or Cinder couldn't be asked
        record = self._known
        connection = self._connection or record.connection
        if connection is None:
            raise AssertionError("fetch leaves a connection")
        self._brings = not self._is_there()
        self._kernel_path = self._worlds.host.connect(
            record.volume_id, connection, mapped=record.mapped
        )
        if self._brings:
            # The QEMU that may have been asked to let go is no more: it had a device.
            self.record = replace(record, unplug_pending=False)

    def _disconnect(self) -> None:
        """Whatever this very run has brought goes; what was there before stays."""
        record = self._known
        if record.connection is not None and self._brings:
            self._worlds.host.disconnect(record.volume_id, record.connection, expected_wwn=None)

    # --- 3 identify: the guest must not start with another volume's device --------------------

    def _identify(self) -> None:
        record = self._known
        if self._kernel_path is None or record.connection is None:
            raise AssertionError("identify comes after connect")
        device = self._worlds.host.identify(
            self._kernel_path,
            record.connection,
            size_bytes=record.size_bytes,
            expected_wwn=record.wwn,
        )
        # /dev/sdb may be another's since; and multipathd may have taken the device for a map.
        sources = [record.source] if record.source else []
        if not self._worlds.host.leading_to(device, sources):
            raise AttachdError(
                Code.WRONG_DEVICE,
                f"The device is {device.path} now, and the guest's XML has {record.source}.",
                resolution="Detach the volume and attach it again.",
            )

    # --- after a crash ------------------------------------------------------------------------

    def settle(self, unanswered: Mapping[str, Unanswered]) -> None:
        """Let iscsid finish what nobody waits for any more."""
        record = self.record
        connect = unanswered.get("connect")
        if record is not None and record.connection is not None and connect and connect.orphaned:
            self._worlds.host.settle(record.volume_id, record.connection, age=connect.age)


def _all_targets(record: AttachmentRecord, fetched: Connection) -> Connection:
    """Without its secrets; no target is forgotten that a session may be left with.

    In the old style Cinder tells as many as this host asks for now.
    """
    known = record.connection.targets if record.connection else ()
    fewer = set(fetched.targets) < set(known)
    return replace(fetched, targets=known if fewer else fetched.targets).without_secrets()
