"""The engine's views as JSON documents: the one place that chooses what goes on the wire.

Fields are chosen by name, never dumped: what is added to a record stays inside until it is asked
for here. tests hold each document against its schema.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attachd.api import problems
from attachd.audit.findings import Finding
from attachd.doctor import findings as doctor
from attachd.engine.views import CallView, Event, OperationView, StepView
from attachd.errors import Problem
from attachd.model import AttachmentRecord, Guest, Volume


def attachment(record: AttachmentRecord) -> dict[str, Any]:
    """An attachment; ``attachment_id`` is null until Cinder has given one."""
    return {
        "attachment_id": record.attachment_id,
        "volume_id": record.volume_id,
        "volume_name": record.volume_name,
        "guest_id": record.guest_id,
        "guest_name": record.guest_name,
        "device": record.device,
        "serial": record.serial,
        "bus": str(record.bus),
        "mode": str(record.mode),
        "size_gib": record.size_gib,
        "host_path": record.host_path,
        "wwn": record.wwn,
        "state": str(record.state),
        "operation_id": record.operation_id,
        "guest_path": record.guest_path,
        "persistent": record.persistent,
        "adopted": record.adopted,
    }


def guest(found: Guest) -> dict[str, Any]:
    """A guest of libvirt's."""
    return {
        "guest_id": found.guest_id,
        "guest_name": found.name,
        "state": str(found.state),
        "persistent": found.persistent,
        "nova_owned": found.nova_owned,
    }


def volume(found: Volume) -> dict[str, Any]:
    """A volume of Cinder's."""
    return {
        "volume_id": found.volume_id,
        "volume_name": found.name,
        "status": found.status,
        "size_gib": found.size_gib,
        "encrypted": found.encrypted,
        "multiattach": found.multiattach,
    }


def operation(view: OperationView) -> dict[str, Any]:
    """An operation: what was asked for, what it stands for, and how far it is."""
    return {
        "operation_id": view.operation_id,
        "kind": str(view.kind),
        "state": str(view.state),
        "guest": view.request.guest,
        "volume": view.request.volume,
        "guest_id": view.guest_id,
        "guest_name": view.guest_name,
        "volume_id": view.volume_id,
        "volume_name": view.volume_name,
        "request_id": view.request.request_id,
        "global_request_id": view.global_request_id,
        "created_at": view.created_at,
        "started_at": view.started_at,
        "finished_at": view.finished_at,
        "attachment": None if view.attachment is None else attachment(view.attachment),
        "problem": _problem(view.problem),
        "steps": [_step(step) for step in view.steps],
        "calls": [_call(call) for call in view.calls],
    }


def event(happened: Event) -> dict[str, Any]:
    """One event of an operation."""
    return {
        "seq": happened.seq,
        "step": happened.step,
        "direction": happened.direction,
        "phase": happened.phase,
        "state": happened.state,
        "reason": happened.reason,
        "at": happened.at,
    }


def finding(found: Finding) -> dict[str, Any]:
    """One finding of an audit."""
    return {
        "code": str(found.code),
        "brief": found.brief,
        "says": {str(world): words for world, words in found.says.items()},
        "resolution": found.resolution,
        "attachment_id": found.attachment_id,
        "volume_id": found.volume_id,
        "guest_id": found.guest_id,
        "guest_name": found.guest_name,
        "operation_id": found.operation_id,
        "repair": None if found.repair is None else str(found.repair),
    }


def diagnosis(found: Sequence[doctor.Finding]) -> dict[str, Any]:
    """What the doctor found, and what it comes to."""
    return {
        "fit": doctor.is_fit(found),
        "findings": [
            {
                "severity": str(finding.severity),
                "check": str(finding.check),
                "code": finding.code,
                "found": finding.found,
                "remedy": finding.remedy,
            }
            for finding in found
        ],
    }


def _step(step: StepView) -> dict[str, Any]:
    return {
        "name": step.name,
        "world": step.world,
        "direction": step.direction,
        "state": step.state,
        "reason": step.reason,
        "started_at": step.started_at,
        "finished_at": step.finished_at,
        "offset": step.offset,
        "seconds": step.seconds,
        "problem": _problem(step.problem),
    }


def _call(call: CallView) -> dict[str, Any]:
    return {
        "library": call.library,
        "name": call.name,
        "started": call.started,
        "ended": call.ended,
        "outcome": call.outcome,
        "request": None if call.exchange is None else dict(vars(call.exchange)),
    }


def _problem(problem: Problem | None) -> dict[str, Any] | None:
    return None if problem is None else problems.fields(problem)
