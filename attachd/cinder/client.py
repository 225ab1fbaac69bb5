"""Cinder's verbs, as the operations use them: the new-style attachments, and detaching's two.

The old style's are in ``volume_actions``.

Each verb that changes something names the question by which Cinder tells whether it had its
effect (see ``retry``). Ids are UUIDs in Cinder; nothing else ever becomes part of a URL's path.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

import requests
import tenacity

from attachd.cinder.answers import read_attached, read_attachment, read_volume
from attachd.cinder.faults import Transient, safe_text
from attachd.cinder.retry import Landed, Retry
from attachd.cinder.session import ATTACHMENTS_SINCE, CinderSession
from attachd.cinder.volume_actions import VolumeActions
from attachd.cinder.wire import Answer, document
from attachd.errors import AttachdError, Code, Refused, World
from attachd.model import AttachFlow, CinderAttachment, Connector, Volume, is_uuid

LOG = logging.getLogger(__name__)
LONGEST_NAME = 255


class CinderClient(VolumeActions):
    """Fulfils ``attachd.operations.ports.Cinder``; any number of threads may share it.

    ``delete_timeout``: seconds that a deleted attachment has to disappear. ``orphan_timeout``:
    seconds that Cinder may go on with a request whose caller is gone. ``extend_timeout``: seconds
    that a volume may be ``extending``. All are looked for every ``poll_interval`` seconds.
    ``attach_flow``: how volumes are attached; None: as Cinder offers.
    """

    def __init__(
        self,
        *,
        session: CinderSession,
        retry: Retry,
        delete_timeout: float,
        orphan_timeout: float,
        extend_timeout: float,
        poll_interval: float = 1.0,
        attach_flow: AttachFlow | None = None,
        global_request_id: str | None = None,
    ) -> None:
        self._session = session
        self._retry = retry
        self._delete_timeout = delete_timeout
        self._orphan_timeout = orphan_timeout
        self._extend_timeout = extend_timeout
        self._poll_interval = poll_interval
        self._attach_flow = attach_flow
        self._global_request_id = global_request_id

    def for_request(self, global_request_id: str) -> CinderClient:
        """The same Cinder; each call carries this ``req-<uuid>`` in X-Openstack-Request-Id."""
        return CinderClient(
            session=self._session,
            retry=self._retry,
            delete_timeout=self._delete_timeout,
            orphan_timeout=self._orphan_timeout,
            extend_timeout=self._extend_timeout,
            poll_interval=self._poll_interval,
            attach_flow=self._attach_flow,
            global_request_id=global_request_id,
        )

    def warm(self) -> None:
        """Have a token that lives for a while, and Cinder's versions. Asked once; Unreachable."""
        self._session.microversion()

    def attach_flow(self) -> AttachFlow:
        """As configured, else the new style where Cinder offers it."""
        if self._attach_flow is not None:
            return self._attach_flow
        offered = self._retry.read(partial(self._session.offers, ATTACHMENTS_SINCE))
        return AttachFlow.ATTACHMENTS if offered else AttachFlow.VOLUME_ACTIONS

    # --- volumes ----------------------------------------------------------------------------

    def find_volume(self, reference: str) -> Volume:
        """By id, else by exact name, in every project.

        Raises Refused volume-not-found or volume-ambiguous, Unreachable cinder-unavailable.
        """
        volume = self.get_volume(reference)
        if volume is not None:
            return volume
        named = self._volumes_named(reference)
        if not named:
            raise _no_such_volume(reference)
        if len(named) > 1:
            raise Refused(
                Code.VOLUME_AMBIGUOUS,
                f"{len(named)} volumes are named {_quoted(reference)}.",
                details="Their ids: " + ", ".join(volume.volume_id for volume in named),
                resolution="Name the volume by its id.",
            )
        return named[0]

    def get_volume(self, volume_id: str) -> Volume | None:
        """None: Cinder answered that there is none, or it is no id at all."""
        return self._retry.read(partial(self._volume, volume_id))

    def _volume(self, volume_id: str) -> Volume | None:
        if not is_uuid(volume_id):
            return None
        answer = self._get(f"/volumes/{volume_id}")
        if answer is None:
            return None
        volume = read_volume(answer.at("volume"))
        _same(answer.at("volume").at("id"), volume_id)
        return volume

    def _volumes_named(self, name: str) -> list[Volume]:
        """Cinder's own filter may ignore case and accents; only the very same name counts."""
        if not 0 < len(name) <= LONGEST_NAME:
            return []
        answer = self._retry.read(
            partial(self._get, "/volumes/detail", {"all_tenants": "1", "name": name})
        )
        if answer is None:
            return []
        volumes = [read_volume(volume) for volume in answer.at("volumes").items()]
        return [volume for volume in volumes if volume.name == name]

    def list_volumes(self, *, status: str, limit: int) -> tuple[Volume, ...]:
        """Those in a status, of every project, the newest first; ``limit`` at most.

        Somebody waits for it to choose from: Cinder is asked once.
        """
        query = {
            "all_tenants": "1",
            "status": status,
            "sort": "created_at:desc",
            "limit": str(limit),
        }
        answer = self._get("/volumes/detail", query)
        self._session.require_full_sight()  # all_tenants is silently ignored for anybody else
        if answer is None:
            return ()
        volumes = (read_volume(volume) for volume in answer.at("volumes").items())
        return tuple(volume for volume in volumes if volume.status == status)

    def begin_detaching(self, volume_id: str, *, status: str | None = None) -> None:
        """os-begin_detaching: ``in-use`` becomes ``detaching``; Refused from any other status.

        The status is read first, where it isn't given as it was just now: after a lost answer
        ``detaching`` is ours only if it wasn't so before.
        """
        if status is None:
            status = self._retry.read(partial(self._status, volume_id))
        if status != "in-use":
            raise Refused(
                Code.CINDER_REFUSED,
                f"Volume {volume_id} can't be detached: its status is {safe_text(status)}.",
                resolution="A volume is detached while it is in-use.",
            )
        self._retry.change(
            partial(self._volume_action, volume_id, "os-begin_detaching"),
            landed=lambda: _done(self._status(volume_id) == "detaching"),
        )

    def roll_detaching(self, volume_id: str) -> None:
        """os-roll_detaching: ``detaching`` becomes ``in-use``; from ``in-use`` nothing happens."""
        self._retry.change(
            partial(self._volume_action, volume_id, "os-roll_detaching"),
            landed=lambda: _done(self._status(volume_id) != "detaching"),
        )

    def extend_volume(self, volume_id: str, size_gib: int) -> None:
        """os-extend of a volume in use (microversion 3.42), until it is ``in-use`` again.

        Cinder answers 202, ``extending``, and ends in ``in-use`` of the new size, in ``in-use`` of
        the old one (its scheduler found no room) or in ``error_extending``. So large already:
        nothing happens. While somebody else's extend is under way, its end is waited for.
        """
        before = self._extended(volume_id)
        if before.size_gib >= size_gib:
            return
        if before.status != "in-use":
            raise Refused(
                Code.CINDER_REFUSED,
                f"Volume {volume_id} can't be extended: its status is {safe_text(before.status)}.",
                resolution="A volume that is attached is extended while it is in-use.",
            )
        self._retry.change(
            partial(self._volume_action, volume_id, "os-extend", new_size=size_gib),
            landed=lambda: _done(_shows_extend(self._there(volume_id), size_gib)),
        )
        try:
            after = self._extended(volume_id)
        except AttachdError as exc:
            exc.touched = True  # Cinder is at it, whether it can be asked or not
            raise
        if after.size_gib < size_gib:
            raise _not_extended(after)

    def _extended(self, volume_id: str) -> Volume:
        """The volume once nobody extends it any more. Raises deadline-exceeded."""

        def rests() -> bool:
            return self._status(volume_id) != "extending"

        if not self._comes_true(rests, self._extend_timeout):
            raise AttachdError(
                Code.DEADLINE_EXCEEDED,
                f"Cinder is still extending volume {volume_id} after {self._extend_timeout:g} s.",
                resolution="See cinder-volume's log.",
                touched=False,
                world=World.CINDER,
            )
        return self._retry.read(partial(self._there, volume_id))

    def _status(self, volume_id: str) -> str:
        return self._there(volume_id).status

    def _there(self, volume_id: str) -> Volume:
        volume = self._volume(volume_id)
        if volume is None:
            raise _no_such_volume(volume_id)
        return volume

    def _volume_action(self, volume_id: str, action: str, **arguments: object) -> None:
        self._act(volume_id, action, **arguments)

    def _act(self, volume_id: str, action: str, **arguments: object) -> requests.Response:
        path = f"/volumes/{volume_id}/action"
        if (
            not is_uuid(volume_id)
            or (response := self._send("POST", path, {action: arguments})) is None
        ):
            raise _no_such_volume(volume_id)
        return response

    # --- attachments ------------------------------------------------------------------------

    def list_attachments(self, volume_id: str) -> tuple[CinderAttachment, ...]:
        """The volume's attachments, without connection."""
        return self._retry.read(partial(self._attachments, volume_id))

    def get_attachment(self, attachment_id: str) -> CinderAttachment | None:
        """None: Cinder answered that there is none, or it is no id at all."""
        return self._retry.read(partial(self._attachment, attachment_id))

    def create_attachment(
        self, volume_id: str, *, instance_id: str, prior_attachment_ids: Collection[str]
    ) -> CinderAttachment:
        """POST without a connector: the volume becomes ``reserved``.

        When the answer was lost, the one attachment of this volume and instance that isn't in
        ``prior_attachment_ids`` is ours; more than one is worlds-disagree (law 11).
        """
        return self._retry.change(
            partial(self._create, volume_id, instance_id),
            landed=partial(self._created, volume_id, instance_id, prior_attachment_ids),
        )

    def _create(self, volume_id: str, instance_id: str) -> CinderAttachment:
        attachment = {"volume_uuid": volume_id, "instance_uuid": instance_id, "connector": None}
        body = {"attachment": attachment}
        if not is_uuid(volume_id) or (response := self._send("POST", "/attachments", body)) is None:
            raise _no_such_volume(volume_id)
        return read_attachment(document(response, touched=True).at("attachment"))

    def _created(
        self, volume_id: str, instance_id: str, prior: Collection[str]
    ) -> Landed[CinderAttachment] | None:
        ours = [
            attachment
            for attachment in self._attachments(volume_id)
            if attachment.instance_id == instance_id and attachment.attachment_id not in prior
        ]
        if len(ours) > 1:
            raise AttachdError(
                Code.WORLDS_DISAGREE,
                f"Volume {volume_id} has {len(ours)} new attachments for one guest.",
                details="Their ids: " + ", ".join(found.attachment_id for found in ours),
                resolution="Delete those that nothing uses: openstack volume attachment delete.",
                world=World.CINDER,
            )
        return Landed(result=ours[0]) if ours else None

    def update_attachment(
        self, attachment_id: str, connector: Connector, *, fresh: bool = False
    ) -> CinderAttachment:
        """PUT the connector: the answer has a connection, and the volume is ``attaching``.

        The answer's ``status`` is the one from before the update: Cinder doesn't look again. An
        attachment that has a connection already is returned as it is: Cinder doesn't tell whose
        connector it carries, but nobody else is given this id. A ``fresh`` one, which the caller
        has just created, isn't looked at first.
        """
        already = None if fresh else self._retry.read(partial(self._connected, attachment_id))
        if already:
            return already.result
        return self._retry.change(
            partial(self._update, attachment_id, connector),
            landed=partial(self._connected, attachment_id),
        )

    def _update(self, attachment_id: str, connector: Connector) -> CinderAttachment:
        body = {"attachment": {"connector": dict(connector)}}
        response = self._send("PUT", f"/attachments/{attachment_id}", body)
        if response is None:
            raise _no_such_attachment(attachment_id)
        answer = document(response, touched=True).at("attachment")
        _same(answer.at("id"), attachment_id)
        attachment = read_attachment(answer)
        if attachment.connection is None:
            raise answer.at("connection_info").wrong("is empty")
        return attachment

    def _connected(self, attachment_id: str) -> Landed[CinderAttachment] | None:
        attachment = self._existing(attachment_id)
        return Landed(result=attachment) if attachment.connection else None

    # --- what nobody waits for any more -------------------------------------------------------

    def settle_create(
        self,
        volume_id: str,
        *,
        instance_id: str,
        prior_attachment_ids: Collection[str],
        age: float,
    ) -> None:
        """Wait until an orphaned create shows, or ``orphan_timeout`` has passed since."""
        created = partial(self._created, volume_id, instance_id, prior_attachment_ids)
        self._settle(lambda: created() is not None, age)

    def settle_update(self, attachment_id: str, *, age: float) -> None:
        """Wait until cinder-volume is done with it: then it isn't ``reserved`` any more.

        What it exported isn't read: it may be what attachd can't use.
        """

        def exported() -> bool:
            answer = self._get(f"/attachments/{attachment_id}")
            return answer is None or answer.at("attachment").at("status").text() != "reserved"

        self._settle(exported, age)

    def settle_begin(self, volume_id: str, *, age: float) -> None:
        """Wait until the volume isn't ``in-use`` any more."""
        self._settle(lambda: self._status(volume_id) != "in-use", age)

    def settle_extend(self, volume_id: str, *, size_gib: int, age: float) -> None:
        """Wait until the volume has the size, or something else became of it."""

        def ended() -> bool:
            volume = self._there(volume_id)
            at_work = volume.status in ("in-use", "extending")
            return volume.size_gib >= size_gib or not at_work

        self._settle(ended, age)

    def _settle(self, shows: Callable[[], bool], age: float) -> None:
        if age < self._orphan_timeout and not self._comes_true(shows, self._orphan_timeout - age):
            LOG.info("Cinder shows nothing of a request after %g s", self._orphan_timeout)

    def complete_attachment(self, attachment_id: str) -> None:
        """os-complete: the volume becomes ``in-use``. Done already: nothing happens."""
        self._retry.change(
            partial(self._complete, attachment_id),
            landed=lambda: _done(self._existing(attachment_id).status == "attached"),
        )

    def _complete(self, attachment_id: str) -> None:
        path = f"/attachments/{attachment_id}/action"
        body = {"os-complete": attachment_id}
        if not is_uuid(attachment_id) or self._send("POST", path, body) is None:
            raise _no_such_attachment(attachment_id)

    def delete_attachment(self, attachment_id: str) -> None:
        """DELETE and wait until Cinder says that it is gone. Gone already: nothing happens.

        Raises AttachdError deadline-exceeded when it is still there after ``delete_timeout``.
        """
        if not is_uuid(attachment_id):
            return
        try:
            gone = self._retry.change(
                partial(self._delete, attachment_id),
                landed=lambda: Landed(result=True) if self._is_gone(attachment_id) else None,
            )
        except Transient as exc:
            failed = exc.status == HTTPStatus.INTERNAL_SERVER_ERROR
            if not (failed and self._detached_instead(attachment_id)):
                raise
            gone = False
        if not gone:
            self._wait_until_gone(attachment_id)

    def _detached_instead(self, attachment_id: str) -> bool:
        """A delete that cinder-volume did, and cinder-api didn't wait for, fails for ever after.

        The export is gone, and LIO's driver fails to take it away again (Cinder 26, behind an RPC
        time-out). os-detach takes away what is there, and the attachment with it; but the volume's
        export as a whole, so only where nobody else has the volume. False: nor did that help.
        """
        try:
            attachment = self._attachment(attachment_id)
            if attachment is None:
                return True
            if len(self._attachments(attachment.volume_id)) > 1:
                return False
            LOG.warning("Attachment %s can't be deleted: its volume is detached", attachment_id)
            self._volume_action(attachment.volume_id, "os-detach", attachment_id=attachment_id)
        except AttachdError as exc:
            LOG.warning("Nor can the volume of attachment %s be detached: %s", attachment_id, exc)
            return False
        return True

    def _delete(self, attachment_id: str) -> bool:
        """Is it gone, by the answer? Cinder lists there what attachments the volume still has."""
        response = self._send("DELETE", f"/attachments/{attachment_id}")
        if response is None:
            return False
        try:
            left = document(response, touched=True).at("attachments").items()
            return all(each.at("id").text().lower() != attachment_id.lower() for each in left)
        except AttachdError:
            return False  # an answer in other words: it is looked for

    def _wait_until_gone(self, attachment_id: str) -> None:
        if not self._comes_true(partial(self._is_gone, attachment_id), self._delete_timeout):
            raise AttachdError(
                Code.DEADLINE_EXCEEDED,
                f"Cinder accepted to delete attachment {attachment_id}, and still has it after "
                f"{self._delete_timeout:g} s.",
                resolution="See cinder-volume's log.",
                world=World.CINDER,
            )

    def _comes_true(self, ask: Callable[[], bool], timeout: float) -> bool:
        """Ask now and then, for ``timeout`` seconds at most, at least once."""
        wait = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda true: not true),
            stop=tenacity.stop_after_delay(timeout),
            wait=tenacity.wait_fixed(self._poll_interval),
            retry_error_callback=lambda _: False,
        )
        answer: bool = wait(self._retry.read, ask)
        return answer

    def _is_gone(self, attachment_id: str) -> bool:
        return self._get(f"/attachments/{attachment_id}") is None

    def _existing(self, attachment_id: str) -> CinderAttachment:
        attachment = self._attachment(attachment_id)
        if attachment is None:
            raise _no_such_attachment(attachment_id)
        return attachment

    def _attachment(self, attachment_id: str) -> CinderAttachment | None:
        if not is_uuid(attachment_id):
            return None
        answer = self._get(f"/attachments/{attachment_id}")
        if answer is None:
            return None
        _same(answer.at("attachment").at("id"), attachment_id)
        return read_attachment(answer.at("attachment"))

    def _attachments(self, volume_id: str) -> tuple[CinderAttachment, ...]:
        if not self._session.offers(ATTACHMENTS_SINCE):
            return self._attachments_shown(volume_id)
        answer = self._get("/attachments", {"all_tenants": "1", "volume_id": volume_id})
        self._session.require_full_sight()  # all_tenants is silently ignored for anybody else
        if answer is None:
            return ()
        attachments = (read_attachment(item) for item in answer.at("attachments").items())
        return tuple(found for found in attachments if found.volume_id == volume_id)

    def _attachments_shown(self, volume_id: str) -> tuple[CinderAttachment, ...]:
        answer = self._get(f"/volumes/{volume_id}") if is_uuid(volume_id) else None
        return read_attached(answer.at("volume")) if answer else ()

    # --- requests ---------------------------------------------------------------------------

    def _get(self, path: str, query: Mapping[str, str] | None = None) -> Answer | None:
        """None: Cinder's own 404, to one who may see everything."""
        self._require_offered(path)
        response = self._session.exchange(
            "GET", path, query=query, global_request_id=self._global_request_id
        )
        if response.ok:
            return document(response, touched=False)
        self._session.require_full_sight()
        return None

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> requests.Response | None:
        """None: Cinder's own 404."""
        self._require_offered(path)
        response = self._session.exchange(
            method, path, body=body, global_request_id=self._global_request_id
        )
        return response if response.ok else None

    def _require_offered(self, path: str) -> None:
        if path.startswith("/attachments"):
            self._session.require(ATTACHMENTS_SINCE)


def _same(answered: Answer, asked: str) -> None:
    if answered.text().lower() != asked.lower():
        raise answered.wrong("is not the one that was asked for")


def _shows_extend(volume: Volume, size_gib: int) -> bool:
    """It was ``in-use`` and smaller before: what it is now, the lost request has made of it."""
    return volume.size_gib >= size_gib or volume.status in ("extending", "error_extending")


def _not_extended(volume: Volume) -> AttachdError:
    failed = volume.status != "in-use"
    return AttachdError(
        Code.CINDER_REFUSED,
        f"Cinder did not extend volume {volume.volume_id}: it is {safe_text(volume.status)}, and "
        f"has {volume.size_gib} GiB still.",
        details="" if failed else "Its scheduler found no room for it, perhaps.",
        resolution="See cinder-volume's log. When its backend is well: openstack volume set "
        f"--state in-use {volume.volume_id}."
        if failed
        else "See cinder-scheduler's log, or openstack volume message list.",
        touched=failed,
    )


def _done(is_done: bool) -> Landed[None] | None:
    return Landed(result=None) if is_done else None


def _quoted(reference: str) -> str:
    return repr(safe_text(reference))


def _no_such_volume(reference: str) -> Refused:
    return Refused(
        Code.VOLUME_NOT_FOUND,
        f"Cinder has no volume {_quoted(reference)}.",
        resolution="See openstack volume list --all-projects.",
    )


def _no_such_attachment(attachment_id: str) -> Refused:
    return Refused(
        Code.CINDER_REFUSED,
        f"Cinder has no attachment {_quoted(attachment_id)} any more.",
        resolution="Somebody else deleted it; see cinder-api's log.",
    )
