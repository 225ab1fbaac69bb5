"""Cinder's volumes and attachments, read once from its JSON into the model."""

from __future__ import annotations

from attachd.cinder.connection_info import read_connection
from attachd.cinder.wire import Answer
from attachd.model import CinderAttachment, Volume


def read_volume(volume: Answer) -> Volume:
    """A volume as GET /volumes/{id} shows it; a volume may have no name.

    ``attachment_ids`` has the completed attachments only: Cinder shows no others there.
    """
    name = volume.get("name")
    multiattach = volume.get("multiattach")
    shared_targets = volume.get("shared_targets")
    service_uuid = volume.get("service_uuid")
    return Volume(
        volume_id=volume.at("id").text(),
        name=name.text() if name else "",
        status=volume.at("status").text(),
        size_gib=volume.at("size").integer(),
        encrypted=volume.at("encrypted").flag(),
        multiattach=multiattach.flag() if multiattach else False,
        shared_targets=shared_targets.flag() if shared_targets else None,
        service_uuid=service_uuid.text() if service_uuid else None,
        attachment_ids=tuple(
            attachment.at("attachment_id").text() for attachment in volume.at("attachments").items()
        ),
        attachment_hosts={
            attachment.at("attachment_id").text(): host.text()
            for attachment in volume.at("attachments").items()
            if (host := attachment.get("host_name")) is not None
        },
    )


def read_attached(volume: Answer) -> tuple[CinderAttachment, ...]:
    """The completed attachments that GET /volumes/{id} shows: all that an old API tells of them."""
    volume_id = volume.at("id").text()
    found = []
    for attachment in volume.at("attachments").items():
        server = attachment.get("server_id")
        found.append(
            CinderAttachment(
                attachment_id=attachment.at("attachment_id").text(),
                volume_id=volume_id,
                instance_id=server.text() if server else None,
                status="attached",
            )
        )
    return tuple(found)


def read_attachment(attachment: Answer) -> CinderAttachment:
    """An attachment; without a connection while Cinder hasn't got a connector for it."""
    instance = attachment.get("instance")
    info = attachment.get("connection_info")
    return CinderAttachment(
        attachment_id=attachment.at("id").text(),
        volume_id=attachment.at("volume_id").text(),
        instance_id=instance.text() if instance else None,
        status=attachment.at("status").text(),
        connection=read_connection(info) if info and info.value != {} else None,
    )
