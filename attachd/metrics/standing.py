"""What stands, as the journal has it at the moment of the scrape."""

from __future__ import annotations

import logging
from collections import Counter as Count
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Protocol

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from attachd.errors import AttachdError, World
from attachd.journal.rows import OperationRow
from attachd.model import AttachmentRecord, AttachmentState, OperationKind, OperationState

LOG = logging.getLogger(__name__)

_OPEN = tuple(state for state in OperationState if state.open)
_LIVE = tuple(state for state in AttachmentState if state.live)
_ATTACHMENT = (
    "attachment_id",
    "volume_id",
    "guest_id",
    "domain",
    "device",
    "bus",
    "mode",
    "state",
)


class Journal(Protocol):
    """What is read of the journal."""

    def operations(self, *, open_only: bool) -> Sequence[OperationRow]:
        """The newest first."""

    def live_attachments(self) -> Sequence[AttachmentRecord]:
        """Every record that is neither detached nor released."""


class Standing(Collector):
    """Open operations and attachments. A journal that can't be read is a number, too."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def describe(self) -> Iterable[Metric]:
        """The registry would scrape to learn the names: this is what there is when all is empty."""
        return self._families((), ())

    def collect(self) -> Iterator[Metric]:
        """One family of gauges after the other."""
        readable = GaugeMetricFamily(
            "attachd_journal_readable",
            "1: the journal could be read. 0: it couldn't, and what it says is missing here.",
        )
        try:
            operations = self._journal.operations(open_only=True)
            attachments = self._journal.live_attachments()
        except AttachdError as exc:
            LOG.warning("The journal can't be read for a scrape: %s", exc)
            readable.add_metric((), 0)
            yield readable
            return
        readable.add_metric((), 1)
        yield readable
        yield from self._families(operations, attachments)

    def _families(
        self, operations: Sequence[OperationRow], attachments: Sequence[AttachmentRecord]
    ) -> Iterator[Metric]:
        yield _open(operations)
        yield _oldest(operations)
        yield _waiting(operations)
        yield _attachments(attachments)
        yield _unplug_pending(attachments)
        yield _info(attachments)


def _open(operations: Sequence[OperationRow]) -> Metric:
    family = GaugeMetricFamily(
        "attachd_operations_open",
        "Operations that haven't come to their end, those in need of attention among them.",
        labels=("kind", "state"),
    )
    count = Count((row.request.kind, row.state) for row in operations)
    for kind in OperationKind:
        for state in _OPEN:
            family.add_metric((kind.value, state.value), count[kind, state])
    return family


def _oldest(operations: Sequence[OperationRow]) -> Metric:
    family = GaugeMetricFamily(
        "attachd_operations_open_oldest_timestamp_seconds",
        "When the oldest open operation of this state was asked for, in Unix time.",
        labels=("state",),
    )
    for state in _OPEN:
        asked = [_unix(row.created_at) for row in operations if row.state is state]
        if asked:
            family.add_metric((state.value,), min(asked))
    return family


def _waiting(operations: Sequence[OperationRow]) -> Metric:
    family = GaugeMetricFamily(
        "attachd_operations_waiting",
        "Operations that go on by themselves when this world answers again.",
        labels=("world",),
    )
    count = Count(row.waiting_for for row in operations)
    for world in World:
        family.add_metric((world.value,), count[world])
    return family


def _attachments(attachments: Sequence[AttachmentRecord]) -> Metric:
    family = GaugeMetricFamily(
        "attachd_attachments", "Attachments of this host's guests.", labels=("state",)
    )
    count = Count(record.state for record in attachments)
    for state in _LIVE:
        family.add_metric((state.value,), count[state])
    return family


def _unplug_pending(attachments: Sequence[AttachmentRecord]) -> Metric:
    return GaugeMetricFamily(
        "attachd_attachments_unplug_pending",
        "Attachments whose guest was asked to let go of its disk, and may still do so.",
        value=sum(record.unplug_pending for record in attachments),
    )


def _info(attachments: Sequence[AttachmentRecord]) -> Metric:
    """``domain`` and ``volume_id`` (there: ``serial``) are what libvirt's exporters know it by."""
    family = GaugeMetricFamily(
        "attachd_attachment_info",
        "1 for each attachment, to be joined with what others measure of its domain or volume.",
        labels=_ATTACHMENT,
    )
    for record in attachments:
        values = (
            record.attachment_id or "",
            record.volume_id,
            record.guest_id,
            record.guest_name,
            record.device,
            record.bus.value,
            record.mode.value,
            record.state.value,
        )
        family.add_metric(values, 1)
    return family


def _unix(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
