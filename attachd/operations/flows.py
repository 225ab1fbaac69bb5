"""What an attach and a detach say to Cinder: in the new style, and in the old one.

The steps are the same, and so is everything that they do on the host and in the guest:

| step | new: attachments | old: volume actions |
|---|---|---|
| create | POST the attachment: ``reserved`` | os-reserve: ``attaching`` |
| update | PUT the connector: ``attaching`` | os-initialize_connection |
| complete | os-complete: ``in-use`` | os-attach: ``in-use``, and there is an attachment |
| create's undo | DELETE it | os-terminate_connection, os-detach; or os-unreserve |
| delete | DELETE it | os-terminate_connection, os-detach |

In the new style whatever is ours has an id. In the old one a volume that is ``attaching`` is
nobody's by name, and os-unreserve acts on whoever reserved it (law 11). So it counts as ours only
where Cinder's own answer said so, and that was journalled (``record.reserved``); and only until
anything was begun that gives it back, and of which no outcome is known. Where that leaves open
whose it is, it is left alone, and an operator decides. An attachment that came since, of somebody
else, settles it: Cinder gives nobody one of a volume that we have reserved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from attachd.errors import AttachdError, Code
from attachd.model import (
    AttachFlow,
    AttachmentRecord,
    CinderAttachment,
    Connection,
    Mode,
)
from attachd.operations.ports import Cinder, Worlds
from attachd.operations.steps import Unanswered


class Flow(Protocol):
    """One style. What it learns of an attachment it returns with the record."""

    def create(self, record: AttachmentRecord) -> AttachmentRecord:
        """The volume is taken; done already: it is ours still, or worlds-disagree."""

    def update(self, record: AttachmentRecord, *, fresh: bool) -> Connection:
        """The volume is exported to this host; the connection, with its secrets.

        ``fresh``: this very run has created the attachment, and asks for the first time.
        """

    def complete(self, record: AttachmentRecord) -> AttachmentRecord:
        """The volume is ``in-use``."""

    def give_back(self, record: AttachmentRecord, *, exported: bool) -> None:
        """Undo all three, whichever came about. ``exported``: update may have had its effect."""

    def delete(self, record: AttachmentRecord) -> None:
        """The attachment goes. Gone already, or never there: nothing happens."""

    def fetch(self, record: AttachmentRecord) -> Connection | None:
        """The connection of what is attached, with its secrets; None: Cinder has it no more."""

    def is_ours(self, record: AttachmentRecord) -> bool:
        """Is what Cinder has of an attach under way still ours, and does it lead where it led?"""

    def is_given_up(self, record: AttachmentRecord) -> bool:
        """Does Cinder export what was attached to this host no more?"""

    def settle_attach(
        self, record: AttachmentRecord, unanswered: Mapping[str, Unanswered]
    ) -> AttachmentRecord:
        """Wait for what Cinder may still do of an attach for a caller that is gone."""

    def settle_detach(self, record: AttachmentRecord, unanswered: Mapping[str, Unanswered]) -> None:
        """The same of a detach, beside begin's."""


def flow_of(record: AttachmentRecord, worlds: Worlds) -> Flow:
    """The style in which a record is attached."""
    match record.flow:
        case AttachFlow.ATTACHMENTS:
            return Attachments(worlds)
        case AttachFlow.VOLUME_ACTIONS:
            return VolumeActions(worlds)


def find_attachment(cinder: Cinder, record: AttachmentRecord) -> CinderAttachment | None:
    """Cinder's attachment of a record, freshly; None: it has none, or none any more.

    In the old style without its connection. It is looked for among its volume's: an API of that
    age has no other way.
    """
    if record.attachment_id is None:
        return None
    if record.flow is AttachFlow.ATTACHMENTS:
        return cinder.get_attachment(record.attachment_id)
    for attachment in cinder.list_attachments(record.volume_id):
        if attachment.attachment_id == record.attachment_id:
            return attachment
    return None


@dataclass(frozen=True)
class Attachments:
    """The new style: an attachment has an id from its first moment on."""

    worlds: Worlds

    def create(self, record: AttachmentRecord) -> AttachmentRecord:
        """POST without a connector: the volume becomes ``reserved``."""
        if record.attachment_id is not None:
            if self.worlds.cinder.get_attachment(record.attachment_id) is None:
                raise _lost(f"Cinder's attachment {record.attachment_id} was deleted by someone.")
            return record
        created = self.worlds.cinder.create_attachment(
            record.volume_id,
            instance_id=record.instance_id,
            prior_attachment_ids=record.prior_attachment_ids,
        )
        return replace(record, attachment_id=created.attachment_id)

    def update(self, record: AttachmentRecord, *, fresh: bool) -> Connection:
        """PUT the connector: the volume becomes ``attaching``, and is exported."""
        connector = {
            **self.worlds.host.connector(),
            "mountpoint": _mountpoint(record),
            "mode": record.mode.value,
        }
        attachment = self.worlds.cinder.update_attachment(_id(record), connector, fresh=fresh)
        if attachment.connection is None:
            raise AttachdError(
                Code.CINDER_REFUSED,
                f"Cinder's attachment {attachment.attachment_id} has no connection_info.",
                resolution="See cinder-volume's log for the export's failure.",
            )
        return attachment.connection

    def complete(self, record: AttachmentRecord) -> AttachmentRecord:
        """os-complete."""
        self.worlds.cinder.complete_attachment(_id(record))
        return record

    def give_back(self, record: AttachmentRecord, *, exported: bool) -> None:  # noqa: ARG002
        """Delete the attachment, which is the new style's unreserve, too."""
        attachment_id = record.attachment_id or self._created_unseen(record)
        if attachment_id is not None:
            self.worlds.cinder.delete_attachment(attachment_id)

    def _created_unseen(self, record: AttachmentRecord) -> str | None:
        """What a create whose answer never came has made: an unambiguous difference (law 11)."""
        listed = self.worlds.cinder.list_attachments(record.volume_id)
        made = _only([a for a in _new(record, listed) if a.instance_id == record.instance_id])
        return made.attachment_id if made else None

    def delete(self, record: AttachmentRecord) -> None:
        """Delete the attachment."""
        if record.attachment_id is not None:
            self.worlds.cinder.delete_attachment(record.attachment_id)

    def fetch(self, record: AttachmentRecord) -> Connection | None:
        """As Cinder keeps it."""
        attachment = find_attachment(self.worlds.cinder, record)
        return attachment.connection if attachment else None

    def is_ours(self, record: AttachmentRecord) -> bool:
        """Cinder never shows a connector again; but nobody else was ever given this id."""
        if record.connection is None:
            return False
        connection = self.fetch(record)
        return connection is not None and connection.targets == record.connection.targets

    def is_given_up(self, record: AttachmentRecord) -> bool:
        """No attachment, or one without a connection."""
        return self.fetch(record) is None

    def settle_attach(
        self, record: AttachmentRecord, unanswered: Mapping[str, Unanswered]
    ) -> AttachmentRecord:
        """A create, and an update that may be working in cinder-volume."""
        if (create := unanswered.get("create")) and not create.undoing:
            _settle_new_attachment(self.worlds.cinder, record, create.age)
        if (update := unanswered.get("update")) and record.attachment_id is not None:
            self.worlds.cinder.settle_update(record.attachment_id, age=update.age)
        return record

    def settle_detach(self, record: AttachmentRecord, unanswered: Mapping[str, Unanswered]) -> None:
        """A delete twice does no harm."""


@dataclass(frozen=True)
class VolumeActions:
    """The old style: the volume's own verbs, and an attachment only when all is done."""

    worlds: Worlds

    def create(self, record: AttachmentRecord) -> AttachmentRecord:
        """os-reserve: the volume becomes ``attaching``."""
        if record.reserved or record.attachment_id is not None:
            if not self._is_held(record):
                raise _lost(f"Volume {record.volume_id} is reserved for this attach no more.")
            return record
        self.worlds.cinder.reserve(record.volume_id)
        return replace(record, reserved=True)

    def update(self, record: AttachmentRecord, *, fresh: bool) -> Connection:  # noqa: ARG002
        """os-initialize_connection: the volume is exported."""
        connector = self.worlds.host.connector()
        connection = self.worlds.cinder.initialize_connection(record.volume_id, connector)
        if record.connection and record.connection.targets != connection.targets:
            raise _lost(f"Cinder exports volume {record.volume_id} somewhere else than before.")
        return connection

    def complete(self, record: AttachmentRecord) -> AttachmentRecord:
        """os-attach: from now on there is an attachment, and its id tells it from any other."""
        modes = (record.mode, record.connection.mode if record.connection else None)
        attachment = self.worlds.cinder.attach(
            record.volume_id,
            instance_id=record.instance_id,
            mountpoint=_mountpoint(record),
            mode=Mode.RO if Mode.RO in modes else Mode.RW,
            prior_attachment_ids=record.prior_attachment_ids,
        )
        return replace(record, attachment_id=attachment.attachment_id, reserved=False)

    def give_back(self, record: AttachmentRecord, *, exported: bool) -> None:
        """What os-attach made goes as in a detach; else the reservation, if it is ours."""
        cinder = self.worlds.cinder
        volume = cinder.get_volume(record.volume_id)
        if volume is None:
            return  # and with it went all that could be given back
        listed = cinder.list_attachments(record.volume_id)
        if ours := self._ours(record, listed):
            self._take_away(record, ours, listed)
        elif volume.status == "attaching":
            self._give_reservation_back(record, listed, exported=exported)
        elif volume.status == "available" and exported:
            self._terminate(record)  # somebody reset the status, or a crash was faster

    def _give_reservation_back(
        self, record: AttachmentRecord, listed: tuple[CinderAttachment, ...], *, exported: bool
    ) -> None:
        if _new(record, listed):
            return  # it is theirs, then, and ours never came about
        if not record.reserved:
            raise _whose_is_it(record)
        if exported:
            self._terminate(record)  # with which Cinder unreserves the volume
        else:
            self.worlds.cinder.unreserve(record.volume_id)

    def delete(self, record: AttachmentRecord) -> None:
        """os-terminate_connection, os-detach."""
        listed = self.worlds.cinder.list_attachments(record.volume_id)
        ours = next((a for a in listed if a.attachment_id == record.attachment_id), None)
        if ours is not None:
            self._take_away(record, ours, listed)

    def _take_away(
        self,
        record: AttachmentRecord,
        ours: CinderAttachment,
        listed: tuple[CinderAttachment, ...],
    ) -> None:
        """os-detach takes the volume's export as a whole: never where somebody else has it, too.

        Then only the record goes. Cinder takes the export away with the last of them.
        """
        if len(listed) > 1:
            self.worlds.cinder.delete_attachment(ours.attachment_id)
            return
        self._terminate(record)
        self.worlds.cinder.detach(record.volume_id, ours.attachment_id)

    def _terminate(self, record: AttachmentRecord) -> None:
        self.worlds.cinder.terminate_connection(record.volume_id, self.worlds.host.connector())

    def fetch(self, record: AttachmentRecord) -> Connection | None:
        """Cinder keeps none: it is asked to export the volume to this host once more."""
        if find_attachment(self.worlds.cinder, record) is None:
            return None
        return self.worlds.cinder.initialize_connection(
            record.volume_id, self.worlds.host.connector()
        )

    def is_ours(self, record: AttachmentRecord) -> bool:
        """Where it leads is asked for by update, which is done once more on the way forward."""
        return record.connection is not None and self._is_held(record)

    def _is_held(self, record: AttachmentRecord) -> bool:
        """Is the volume reserved for us, or attached by us?"""
        listed = self.worlds.cinder.list_attachments(record.volume_id)
        if ours := self._ours(record, listed):
            return ours.status == "attached"
        volume = self.worlds.cinder.get_volume(record.volume_id)
        attaching = volume is not None and volume.status == "attaching"
        return attaching and record.reserved and not _new(record, listed)

    def _ours(
        self, record: AttachmentRecord, listed: tuple[CinderAttachment, ...]
    ) -> CinderAttachment | None:
        """What os-attach made: known by its id, or an unambiguous difference (law 11).

        One that failed on the way names no instance.
        """
        if record.attachment_id is not None:
            return next((a for a in listed if a.attachment_id == record.attachment_id), None)
        return _only(
            [
                attachment
                for attachment in _new(record, listed)
                if attachment.instance_id == record.instance_id
                or (attachment.instance_id is None and attachment.status in _HALF_DONE)
            ]
        )

    def is_given_up(self, record: AttachmentRecord) -> bool:
        """No attachment."""
        return find_attachment(self.worlds.cinder, record) is None

    def settle_attach(
        self, record: AttachmentRecord, unanswered: Mapping[str, Unanswered]
    ) -> AttachmentRecord:
        """Whatever may come late; of update nothing shows, so all of its time is waited for.

        What gave the reservation back, and has no outcome, leaves none that is surely ours.
        """
        cinder, create = self.worlds.cinder, unanswered.get("create")
        if create and create.undoing and create.failed_with is None:
            record = replace(record, reserved=False)
        if create and not create.undoing:
            cinder.settle_status(record.volume_id, was="available", age=create.age)
        elif create and not record.reserved:
            cinder.settle_status(record.volume_id, was="attaching", age=create.age)
        update = unanswered.get("update")
        if update and update.failed_with not in _ANSWERED:
            cinder.settle_status(record.volume_id, was="attaching", age=update.age)
        if complete := unanswered.get("complete"):
            _settle_new_attachment(cinder, record, complete.age)
        return record

    def settle_detach(self, record: AttachmentRecord, unanswered: Mapping[str, Unanswered]) -> None:
        """An os-detach that comes late sets the status anew, whoever has the volume by then."""
        if delete := unanswered.get("delete"):
            self.worlds.cinder.settle_status(record.volume_id, was="detaching", age=delete.age)


_HALF_DONE = frozenset({"attaching", "error_attaching"})
_ANSWERED = frozenset({Code.PROTOCOL_UNSUPPORTED, Code.VOLUME_ENCRYPTED, Code.WORLDS_DISAGREE})
"""What update makes of an answer: nothing of it is under way any more."""


def _settle_new_attachment(cinder: Cinder, record: AttachmentRecord, age: float) -> None:
    cinder.settle_create(
        record.volume_id,
        instance_id=record.instance_id,
        prior_attachment_ids=record.prior_attachment_ids,
        age=age,
    )


def _new(record: AttachmentRecord, listed: tuple[CinderAttachment, ...]) -> list[CinderAttachment]:
    return [a for a in listed if a.attachment_id not in record.prior_attachment_ids]


def _only(ours: list[CinderAttachment]) -> CinderAttachment | None:
    if len(ours) > 1:
        raise AttachdError(
            Code.WORLDS_DISAGREE,
            f"Volume {ours[0].volume_id} has several new attachments of this guest.",
            details=", ".join(attachment.attachment_id for attachment in ours),
            resolution="Delete those that no one uses: openstack volume attachment delete",
        )
    return ours[0] if ours else None


def _mountpoint(record: AttachmentRecord) -> str:
    return f"/dev/{record.device}"


def _id(record: AttachmentRecord) -> str:
    if record.attachment_id is None:
        raise AssertionError("this step comes after create")
    return record.attachment_id


def _lost(brief: str) -> AttachdError:
    return AttachdError(Code.WORLDS_DISAGREE, brief, resolution="Attach the volume again.")


def _whose_is_it(record: AttachmentRecord) -> AttachdError:
    """Unreserved, a volume that somebody else attaches just now could be attached twice."""
    return AttachdError(
        Code.WORLDS_DISAGREE,
        f"Volume {record.volume_id} is attaching, and Cinder doesn't say for whom.",
        details="It may be reserved for this attach, whose outcome isn't known, or for somebody "
        "else's.",
        resolution="If nobody else is attaching it: openstack volume set --state available "
        f"{record.volume_id}",
        touched=False,
    )
