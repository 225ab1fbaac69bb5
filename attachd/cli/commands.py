"""What each command does. A command returns its outcome and prints nothing itself."""

from __future__ import annotations

import uuid
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from attachd.cli import output
from attachd.cli.client import Client, Reply, segment
from attachd.cli.failure import DaemonGone, Failure, status_of_refusal
from attachd.cli.follow import Deadline, Operation, follow, how_to_follow, submit
from attachd.cli.table import table, terminal_room
from attachd.errors import Code, Exit
from attachd.plain import printable

_SHORT_ATTACHMENT = ("attachment_id", "guest_name", "volume_id", "device", "state")
_LONG_ATTACHMENT = (
    *_SHORT_ATTACHMENT,
    "volume_name",
    "bus",
    "mode",
    "size_gib",
    "wwn",
    "host_path",
    "guest_id",
    "operation_id",
)
_SHORT_OPERATION = ("operation_id", "kind", "state", "guest", "volume", "created_at")
_SHORT_FINDING = ("code", "volume_id", "guest_name", "repair", "brief")
_SHORT_DIAGNOSIS = ("severity", "code", "found")
_NESTED = ("attachment", "problem", "steps", "calls")
_STEP_COLUMNS = ("name", "world", "direction", "state", "started_at", "seconds", "reason")
_SPARE_STEP_COLUMNS = ("started_at", "world")
_SPARE_OPERATION_COLUMNS = ("created_at",)

_PAGE = 100  # operations, or attachments, in one answer

_SEE_OPEN = "attachctl operation list --open\n"

_AUDIT_SECONDS = 600.0  # every world is looked at, and one may be slow
_DOCTOR_SECONDS = 180.0  # two examinations, one behind the other

_STATUS_OF_STATE = {"undone": Exit.UNDONE, "needs-attention": Exit.NEEDS_ATTENTION}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a command ended: ``text`` is for standard output, ``message`` for standard error."""

    text: str = ""
    message: str = ""
    status: Exit = Exit.DONE


def attach(args: Namespace, client: Client) -> Outcome:
    """attachctl attach"""
    body = {
        "guest": args.guest,
        "volume": args.volume,
        "bus": args.bus,
        "mode": args.mode,
        "override_nova": args.override_nova,
        "request_id": str(uuid.uuid4()),
    }
    if args.device is not None:
        body["device"] = args.device
    return _operate(
        args,
        client,
        lambda timeout: client.post("/v1/attachments", body, timeout=timeout),
        title=f"Attaching {args.volume} to {args.guest}",
        shown=lambda operation: _attached(operation, args),
    )


def _attached(operation: Operation, args: Namespace) -> str:
    """The attachment; for people with what its fields don't say by themselves."""
    attachment = operation["attachment"]
    text = _attachment(attachment, args)
    if args.format != "table" or args.column:
        return text
    hint = f"In the guest: {attachment['guest_path']} ({attachment['device']} is only a hint).\n"
    if not attachment["persistent"]:
        hint += "The guest is transient: it has the disk until it stops, and is detached then.\n"
    return text + printable(hint, keep="\n")


def detach(args: Namespace, client: Client) -> Outcome:
    """attachctl detach"""
    query = _guest_and_volume(args)
    return _operate(
        args,
        client,
        lambda timeout: client.delete("/v1/attachments", query, timeout=timeout),
        title=f"Detaching {args.volume} from {args.guest}",
        shown=lambda operation: _operation(operation, args),
    )


def extend(args: Namespace, client: Client) -> Outcome:
    """attachctl extend"""
    body = {**_guest_and_volume(args), "size_gib": args.size}
    return _operate(
        args,
        client,
        lambda timeout: client.post("/v1/attachments/extend", body, timeout=timeout),
        title=f"Extending {args.volume} of {args.guest} to {args.size} GiB",
        shown=lambda operation: _attachment(operation["attachment"], args),
    )


def adopt(args: Namespace, client: Client) -> Outcome:
    """attachctl adopt"""
    body = _guest_and_volume(args)
    return _operate(
        args,
        client,
        lambda timeout: client.post("/v1/attachments/adopt", body, timeout=timeout),
        title=f"Adopting {args.volume} of {args.guest}",
        shown=lambda operation: _attachment(operation["attachment"], args),
    )


def release(args: Namespace, client: Client) -> Outcome:
    """attachctl release"""
    body = _guest_and_volume(args)
    return _operate(
        args,
        client,
        lambda timeout: client.post("/v1/attachments/release", body, timeout=timeout),
        title=f"Releasing {args.volume} of {args.guest}",
        shown=lambda operation: _operation(operation, args),
    )


def list_(args: Namespace, client: Client) -> Outcome:
    """attachctl list"""
    query: dict[str, object] = {} if args.guest is None else {"guest": args.guest}
    found = _attachments(client, query, args.limit)
    short = _LONG_ATTACHMENT if args.long else _SHORT_ATTACHMENT
    return Outcome(text=output.rows(found, style=args.format, columns=args.column, short=short))


def _attachments(
    client: Client, query: dict[str, object], limit: int | None
) -> list[dict[str, Any]]:
    """The first ``limit`` attachments, page by page; None: all of them."""
    found: list[dict[str, Any]] = []
    page = dict(query)
    while limit is None or len(found) < limit:
        if limit is not None:
            page["limit"] = min(_PAGE, limit - len(found))
        answer = client.get("/v1/attachments", page).document
        found += answer["attachments"]
        if answer.get("next") is None:
            break
        page["after"] = answer["next"]
    return found


def show(args: Namespace, client: Client) -> Outcome:
    """attachctl show"""
    found = client.get(f"/v1/attachments/{segment(args.attachment)}").document
    return Outcome(text=_attachment(found, args))


def operation_list(args: Namespace, client: Client) -> Outcome:
    """attachctl operation list"""
    query = {"open": "true"} if args.open else {}
    return Outcome(text=_operations(_newest(client, query, args.limit), args))


def _newest(client: Client, query: dict[str, str], limit: int) -> list[Operation]:
    """``limit`` operations, or as many as there are; page by page."""
    found: list[Operation] = []
    while len(found) < limit:
        size = min(_PAGE, limit - len(found))
        page = {**query, "limit": size}
        if found:
            page["before"] = found[-1]["operation_id"]
        found += (more := client.get("/v1/operations", page).document["operations"])
        if len(more) < size:
            break
    return found


def operation_show(args: Namespace, client: Client) -> Outcome:
    """attachctl operation show"""
    found = client.get(f"/v1/operations/{segment(args.operation)}").document
    text = _operation(found, args)
    if args.format == "table" and not args.column:
        text += _problem_and_steps(found)
    return Outcome(text=text)


def operation_resume(args: Namespace, client: Client) -> Outcome:
    """attachctl operation resume"""
    target = f"/v1/operations/{segment(args.operation)}"
    so_far = client.get(f"{target}/events").document["events"]
    return _operate(
        args,
        client,
        lambda timeout: client.post(f"{target}/resume", timeout=timeout),
        title=f"Resuming operation {args.operation}",
        shown=lambda operation: _operation(operation, args),
        after=so_far[-1]["seq"] if so_far else 0,
    )


def trace(args: Namespace, client: Client) -> Outcome:
    """attachctl trace"""
    from attachd.story.drawing import draw  # noqa: PLC0415 - only who draws pays for it
    from attachd.story.telling import tell  # noqa: PLC0415

    target = f"/v1/operations/{segment(args.operation)}"
    operation = client.get(target).document
    events = client.get(f"{target}/events").document["events"]
    story = tell(operation, events, requests=args.requests)
    return Outcome(text=draw(story, args.format, columns=terminal_room()))


def connector(args: Namespace, client: Client) -> Outcome:
    """attachctl connector"""
    found = client.get("/v1/connector").document
    # Which properties there are is os-brick's affair.
    known = {**dict.fromkeys(args.column), **found}
    return Outcome(text=output.fields(known, style=args.format, columns=args.column))


def reconnect(args: Namespace, client: Client) -> Outcome:
    """attachctl reconnect: a guest without its volumes is for QEMU to refuse.

    With --strict it isn't 0 where a device may be there that is another volume's: QEMU can't know.
    """
    deadline = Deadline(args.timeout)
    begun: list[Operation] = []
    ended: list[Operation] = []
    message = ""
    try:
        target = f"/v1/guests/{segment(args.guest)}/reconnect"
        # A daemon that is just being started anew answers in time, perhaps.
        answer = submit(lambda timeout: client.post(target, timeout=timeout), deadline=deadline)
        begun = answer["operations"]
        for operation in begun:
            ended.append(follow(client, operation["operation_id"], deadline=deadline, tell=None))
    except KeyboardInterrupt:
        return _interrupted(None)
    except Failure as failure:
        message = f"{failure}\n"
    problems = (operation["problem"] for operation in ended)
    message += "".join(f"{p['code']}: {p['brief']}\n" for p in problems if p)
    dangerous = any(map(_may_leave_anothers_device, (*begun[len(ended) :], *ended)))
    return Outcome(
        text=_operations(ended, args),
        message=printable(message, keep="\n"),
        status=Exit.NEEDS_ATTENTION if args.strict and dangerous else Exit.DONE,
    )


def _may_leave_anothers_device(operation: Operation) -> bool:
    """Was a fenced device not taken off, or another volume's found?"""
    if operation["kind"] == "disconnect":
        return bool(operation["state"] != "done")
    problem = operation["problem"]
    return bool(problem) and problem["code"] in ("wrong-device", "worlds-disagree")


def disconnect(args: Namespace, client: Client) -> Outcome:
    """attachctl disconnect: libvirt's hook doesn't wait for it, and nothing may depend on it."""
    begun: list[Operation] = []
    message = ""
    try:
        begun = client.post(f"/v1/guests/{segment(args.guest)}/disconnect").document["operations"]
    except Failure as failure:
        message = f"{failure}\n"
    return Outcome(
        text=_operations(begun, args),
        message=printable(message, keep="\n"),
    )


def audit(args: Namespace, client: Client) -> Outcome:
    """attachctl audit"""
    message = ""
    if args.repair and not args.dry_run:
        try:
            message = _repair(client)
        except KeyboardInterrupt:
            return _interrupted(None)
    findings = client.get("/v1/audit", timeout=_AUDIT_SECONDS).document["findings"]
    text = output.rows(findings, style=args.format, columns=args.column, short=_SHORT_FINDING)
    if args.format == "table" and not args.column:
        text = "".join(map(_in_full, findings)).removeprefix("\n") or "The four worlds agree.\n"
    return Outcome(
        text=text, message=message, status=Exit.NEEDS_ATTENTION if findings else Exit.DONE
    )


def _repair(client: Client) -> str:
    """Begin what is safe and see it to its end; what came of each."""
    begun = client.post("/v1/audit/repair", timeout=_AUDIT_SECONDS).document["operations"]
    lines = []
    for operation in begun:
        operation_id = operation["operation_id"]
        ended = follow(client, operation_id, deadline=Deadline(None), tell=None)
        problem = ended["problem"]
        why = f" ({problem['code']}: {problem['brief']})" if problem else ""
        about = f"volume {ended['volume']}, guest {ended['guest_name'] or ended['guest']}"
        lines.append(f"{ended['kind']} of {about}: {ended['state']}{why}\n")
    return printable("".join(lines), keep="\n")


def doctor(args: Namespace, client: Client) -> Outcome:
    """attachctl doctor"""
    try:
        diagnosis = client.get("/v1/doctor", timeout=_DOCTOR_SECONDS).document
    except DaemonGone as gone:
        from attachd.cli.alone import examine_alone  # noqa: PLC0415 - only where nobody answers

        diagnosis = examine_alone(gone)
    findings = diagnosis["findings"]
    if args.format == "table" and not args.column:
        text = "".join(map(_in_brief, findings)) + _verdict(findings, fit=diagnosis["fit"])
    else:
        text = output.rows(findings, style=args.format, columns=args.column, short=_SHORT_DIAGNOSIS)
    return Outcome(text=text, status=Exit.DONE if diagnosis["fit"] else Exit.NEEDS_ATTENTION)


def _guest_and_volume(args: Namespace) -> dict[str, str]:
    """One request: sent again with the same id it is the same one."""
    return {"guest": args.guest, "volume": args.volume, "request_id": str(uuid.uuid4())}


COMMANDS: dict[str, Callable[[Namespace, Client], Outcome]] = {
    "attach": attach,
    "detach": detach,
    "adopt": adopt,
    "release": release,
    "extend": extend,
    "list": list_,
    "show": show,
    "operation_list": operation_list,
    "operation_show": operation_show,
    "operation_resume": operation_resume,
    "trace": trace,
    "audit": audit,
    "doctor": doctor,
    "connector": connector,
    "reconnect": reconnect,
    "disconnect": disconnect,
}


def _in_full(finding: dict[str, Any]) -> str:
    """A finding for people: what each world says, and what to do."""
    lines = [f"{finding['code']}: {finding['brief']}"]
    lines += [f"  {world}: {words}" for world, words in finding["says"].items()]
    lines += [finding["resolution"]] if finding["resolution"] else []
    lines += [f"Safe to do: {finding['repair']} (attachctl audit --repair)"] * bool(
        finding["repair"]
    )
    return "\n" + "".join(printable(f"{line}\n", keep="\n") for line in lines)


def _in_brief(finding: dict[str, Any]) -> str:
    """A finding for people; what to do about it stands below."""
    text = printable(f"{finding['severity']:8} {finding['code']}: {finding['found']}") + "\n"
    if finding["remedy"]:
        text += printable(f"{'':8} -> {finding['remedy']}") + "\n"
    return text


def _verdict(findings: list[dict[str, Any]], *, fit: bool) -> str:
    severities = [finding["severity"] for finding in findings]
    named = (("failure", "failures"), ("unknown", "unknown"), ("warning", "warnings"))
    counted = ", ".join(
        f"{number} {one if number == 1 else many}"
        for one, many in named
        if (number := severities.count(one))
    )
    return f"This host is {'fit' if fit else 'not fit'}{f' ({counted})' if counted else ''}.\n"


def _operate(
    args: Namespace,
    client: Client,
    send: Callable[[float], Reply],
    *,
    title: str,
    shown: Callable[[Operation], str],
    after: int = 0,
) -> Outcome:
    """Send a request and see its operation through; news behind number ``after`` are told."""
    from attachd.cli.progress import progress  # noqa: PLC0415 - lists have none

    deadline = Deadline(args.timeout)
    operation_id = None
    try:
        operation = submit(send, deadline=deadline)
        operation_id = operation["operation_id"]
        if args.no_wait:
            return Outcome(text=_operation(operation, args))
        with progress(title, quiet=args.quiet) as tell:
            operation = follow(client, operation_id, after=after, deadline=deadline, tell=tell)
    except KeyboardInterrupt:
        return _interrupted(operation_id)
    if operation["state"] != "done":
        raise _failure(operation)
    return Outcome(text="" if args.quiet else shown(operation))


def _interrupted(operation_id: str | None) -> Outcome:
    if operation_id is None:
        message = "Interrupted. What was begun, if anything, goes on: " + _SEE_OPEN
    else:
        message = f"Interrupted. Operation {operation_id} goes on. {how_to_follow(operation_id)}\n"
    return Outcome(message=message, status=Exit.INTERRUPTED)


def _failure(operation: Operation) -> Failure:
    problem = operation["problem"] or {"code": Code.INTERNAL_ERROR, "brief": "It failed."}
    code = problem["code"]
    advice = [problem.get("resolution", "")]
    if operation["state"] != "refused":  # a refused one has no steps to look at
        advice.append(how_to_follow(operation["operation_id"]))
    return Failure(
        code,
        problem["brief"],
        status=_STATUS_OF_STATE.get(operation["state"]) or status_of_refusal(code),
        details=problem.get("details", ""),
        resolution="\n".join(filter(None, advice)),
    )


def _attachment(document: dict[str, Any], args: Namespace) -> str:
    return output.fields(document, style=args.format, columns=args.column)


def _operations(found: Sequence[Operation], args: Namespace) -> str:
    return output.rows(
        found,
        style=args.format,
        columns=args.column,
        short=_SHORT_OPERATION,
        spare=_SPARE_OPERATION_COLUMNS,
    )


def _operation(document: Operation, args: Namespace) -> str:
    columns = args.column
    if not columns and args.format in ("table", "value", "csv"):
        columns = [name for name in document if name not in _NESTED]
    return output.fields(document, style=args.format, columns=columns)


def _problem_and_steps(operation: Operation) -> str:
    text = ""
    if operation["problem"]:
        problem = operation["problem"]
        lines = (f"{problem['code']}: {problem['brief']}", problem["details"])
        text += "\n" + "".join(printable(f"{line}\n", keep="\n") for line in lines if line)
    if operation["steps"]:
        cells = [[output.cell(step[name]) for name in _STEP_COLUMNS] for step in operation["steps"]]
        text += "\n" + table(_STEP_COLUMNS, cells, room=terminal_room(), spare=_SPARE_STEP_COLUMNS)
    return text
