"""The old style of attaching: Cinder's volume actions.

Unlike an attachment of the new style, a reservation has no id: after a lost answer ``attaching``
counts as ours only where the volume wasn't so just before. An export leaves nothing that could be
looked at, but may be asked for, and taken away, again and again.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from functools import partial
from http import HTTPStatus

import requests

from attachd.cinder.connection_info import read_old_connection
from attachd.cinder.faults import Transient, safe_text
from attachd.cinder.retry import Landed, Retry
from attachd.cinder.wire import document
from attachd.errors import AttachdError, Code, Refused, World
from attachd.model import CinderAttachment, Connection, Connector, Mode

LOG = logging.getLogger(__name__)


class VolumeActions(ABC):
    """The verbs; whoever inherits them says how Cinder is asked."""

    _retry: Retry

    @abstractmethod
    def _status(self, volume_id: str) -> str:
        """The volume's status. Raises volume-not-found."""

    @abstractmethod
    def _act(self, volume_id: str, action: str, **arguments: object) -> requests.Response:
        """POST a volume action. Raises volume-not-found."""

    @abstractmethod
    def _attachments(self, volume_id: str) -> tuple[CinderAttachment, ...]:
        """The volume's attachments."""

    @abstractmethod
    def _created(
        self, volume_id: str, instance_id: str, prior: Collection[str]
    ) -> Landed[CinderAttachment] | None:
        """The one new attachment of an instance."""

    @abstractmethod
    def _settle(self, shows: Callable[[], bool], age: float) -> None:
        """Wait until it shows, or can't any more."""

    # --- the volume is taken, and given back --------------------------------------------------

    def reserve(self, volume_id: str) -> None:
        """os-reserve: ``available`` becomes ``attaching``; Refused from any other status.

        Cinder would reserve a multiattach volume that somebody has, too; but whose its export is
        then, the old style can't tell.
        """
        status = self._retry.read(partial(self._status, volume_id))
        if status != "available":
            raise Refused(
                Code.CINDER_REFUSED,
                f"Volume {volume_id} can't be reserved: its status is {safe_text(status)}.",
                resolution="In the old style ([cinder] attach_flow) a volume is attached while it "
                "is available.",
            )
        self._change(volume_id, "os-reserve", lambda: self._status(volume_id) == "attaching")

    def unreserve(self, volume_id: str) -> None:
        """os-unreserve: ``attaching`` becomes what it was; from any other nothing happens."""
        self._change(volume_id, "os-unreserve", lambda: self._status(volume_id) != "attaching")

    def settle_status(self, volume_id: str, *, was: str, age: float) -> None:
        """Wait until the volume isn't ``was`` any more, or ``orphan_timeout`` has passed."""
        self._settle(lambda: self._status(volume_id) != was, age)

    # --- its export ---------------------------------------------------------------------------

    def initialize_connection(self, volume_id: str, connector: Connector) -> Connection:
        """os-initialize_connection: exported for the connector, again and again."""
        return self._retry.change(
            partial(self._initialize, volume_id, connector), landed=lambda: None
        )

    def _initialize(self, volume_id: str, connector: Connector) -> Connection:
        response = self._act(volume_id, "os-initialize_connection", connector=dict(connector))
        return read_old_connection(document(response, touched=True).at("connection_info"))

    def terminate_connection(self, volume_id: str, connector: Connector) -> None:
        """os-terminate_connection: the connector is let in no more, again and again.

        It ends with os-unreserve: what was ``attaching`` and isn't any more was terminated.
        """
        was_attaching = self._retry.read(partial(self._status, volume_id)) == "attaching"
        terminate = partial(
            self._change,
            volume_id,
            "os-terminate_connection",
            lambda: was_attaching and self._status(volume_id) != "attaching",
            connector=dict(connector),
        )
        try:
            terminate()
        except Transient as exc:
            if exc.status != HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            # LIO's driver fails where there is no target: exported anew, it can be taken away.
            LOG.warning("Volume %s is exported again, to be terminated: %s", volume_id, exc)
            self._initialize_for_the_end(volume_id, connector)
            terminate()

    def _initialize_for_the_end(self, volume_id: str, connector: Connector) -> None:
        try:
            self.initialize_connection(volume_id, connector)
        except AttachdError as exc:
            exc.touched = True  # terminate was tried
            raise

    # --- its attachment -----------------------------------------------------------------------

    def attach(
        self,
        volume_id: str,
        *,
        instance_id: str,
        mountpoint: str,
        mode: Mode,
        prior_attachment_ids: Collection[str],
    ) -> CinderAttachment:
        """os-attach: ``in-use``, with an attachment, whose id is looked for behind it.

        Cinder finds the attachment of the same instance again, and makes the volume ``in-use``.
        """
        found = partial(self._attached, volume_id, instance_id, prior_attachment_ids)
        self._change(
            volume_id,
            "os-attach",
            lambda: self._status(volume_id) == "in-use" and found() is not None,
            instance_uuid=instance_id,
            mountpoint=mountpoint,
            mode=mode.value,
        )
        try:
            attachment = self._retry.read(found)
        except AttachdError as exc:
            exc.touched = True
            raise
        if attachment is None:
            raise AttachdError(
                Code.WORLDS_DISAGREE,
                f"Cinder attached volume {volume_id}, and has no attachment of it.",
                resolution="See cinder-volume's log.",
                world=World.CINDER,
            )
        return attachment

    def _attached(
        self, volume_id: str, instance_id: str, prior: Collection[str]
    ) -> CinderAttachment | None:
        found = self._created(volume_id, instance_id, prior)
        return found.result if found and found.result.status == "attached" else None

    def detach(self, volume_id: str, attachment_id: str) -> None:
        """os-detach: the attachment and the volume's whole export go. Gone already: nothing.

        Cinder would set the volume's status anew for one that is gone, whoever has it by now.
        """

        def is_gone() -> bool:
            listed = self._attachments(volume_id)
            return all(attachment.attachment_id != attachment_id for attachment in listed)

        if not self._retry.read(is_gone):
            self._change(volume_id, "os-detach", is_gone, attachment_id=attachment_id)

    def _change(
        self, volume_id: str, action: str, is_done: Callable[[], bool], **arguments: object
    ) -> None:
        def act() -> None:
            self._act(volume_id, action, **arguments)

        self._retry.change(act, landed=lambda: Landed(result=None) if is_done() else None)
