"""The command line: every command with its arguments. Building it touches nothing.

``args.command`` names a function of attachd.cli.commands.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any, NoReturn

from attachd.story import FORMS as DRAWINGS

DEFAULT_SOCKET = "/run/attachd/attachd.sock"
LARGEST_SIZE = 2**31 - 1  # in GiB: what Cinder takes
_MOST_DIGITS = 10
FORMATS = ("table", "json", "yaml", "value", "csv")
USUAL_LIMIT = 100  # operations

COLUMNS = "columns: "
"""Behind a command's help."""

EXIT_STATUSES = {
    0: "done",
    1: "failed; everything was undone",
    2: "wrong usage",
    3: "not found, or ambiguous",
    4: "refused; nothing was touched",
    5: "needs attention: something is left",
    6: "the daemon can't be reached",
    7: "still running when --timeout ran out",
    130: "interrupted; what was begun goes on",
}

ATTACHMENT_COLUMNS = (
    "attachment_id",
    "volume_id",
    "volume_name",
    "guest_id",
    "guest_name",
    "device",
    "serial",
    "bus",
    "mode",
    "size_gib",
    "host_path",
    "wwn",
    "state",
    "operation_id",
    "guest_path",
    "persistent",
    "adopted",
)
OPERATION_COLUMNS = (
    "operation_id",
    "kind",
    "state",
    "guest",
    "volume",
    "guest_id",
    "guest_name",
    "volume_id",
    "volume_name",
    "request_id",
    "global_request_id",
    "created_at",
    "started_at",
    "finished_at",
    "attachment",
    "problem",
    "steps",
    "calls",
)
CONNECTOR_COLUMNS = (
    *("initiator", "ip", "host", "platform", "os_type", "multipath", "enforce_multipath"),
    "do_local_attach",
)
FINDING_COLUMNS = (
    "code",
    "brief",
    "says",
    "resolution",
    "attachment_id",
    "volume_id",
    "guest_id",
    "guest_name",
    "operation_id",
    "repair",
)

DIAGNOSIS_COLUMNS = ("severity", "check", "code", "found", "remedy")

_DETAILS = {
    "attach": "The guest may run or not. It finds the disk by its serial, which is the volume's "
    "id. Whatever fails on the way is undone.",
    "detach": "The guest lets go of the disk first. Nothing is deleted in Cinder before the device "
    "is proven gone. A guest that keeps its disk ends it with status 1 (unplug-timeout). It may "
    "let go later: then the detach is finished by itself.",
    "adopt": "Nothing but attachd's journal is changed. Cinder, the host and the guest must agree "
    "about the disk.",
    "release": "Its session and Cinder's attachment stay. From then on attachd neither checks nor "
    "reconnects nor detaches it: once stopped, the guest may not start any more. adopt takes it "
    "back while its device is there.",
    "extend": "It grows in Cinder, on this host, and in the running guest. What somebody extended "
    "in Cinder already is only brought to its guest.",
    "audit": "Compares Cinder, the host, the guests and the journal, and changes nothing unless it "
    "is told to repair.",
    "trace": "Who asked whom, when, for how long, what failed, and what was undone.",
    "operation_resume": "Do it when its cause is mended. An operation in any other state stays as "
    "it is.",
}
"""What a command's first sentence leaves open, by the command's function."""

_EPILOG = "exit status:\n" + "".join(
    f"{status:>5}  {meaning}\n" for status, meaning in EXIT_STATUSES.items()
)


class Parser(argparse.ArgumentParser):
    """argparse that asks "did you mean", and takes no abbreviation that a later option breaks."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - argparse's own
        super().__init__(allow_abbrev=False, **options)

    def _check_value(self, action: argparse.Action, value: Any) -> None:  # noqa: ANN401
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as exc:
            guess = _closest(str(value), [str(choice) for choice in action.choices or ()])
            message = f"invalid choice: {value!r}{guess}" if guess else exc.message
            raise argparse.ArgumentError(action, message) from None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401
        """Unknown options are an error of the command that they were given to."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            self.error(f"unrecognized arguments: {' '.join(unknown)}{_closest(unknown[0], known)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Exit 2; what was typed may hold what a terminal would obey."""
        from attachd.plain import printable  # noqa: PLC0415 - not needed for --help

        super().error(printable(message))


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_arguments: object) -> NoReturn:
        from importlib import metadata  # noqa: PLC0415 - only who asks pays for it

        print(f"attachctl {metadata.version('attachd')}")
        parser.exit()


def socket_path(args: argparse.Namespace) -> str:
    """Where the daemon is to be found: as was said, else as the environment says."""
    said: str | None = getattr(args, "socket", None)
    return said or os.environ.get("ATTACHD_SOCKET") or DEFAULT_SOCKET


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(
        prog="attachctl",
        description="Attach Cinder volumes to libvirt guests, and take them off again.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version")
    _add_socket(parser, default=None)
    commands = _commands(parser)

    attach = _command(commands, "attach", "attach a volume to a guest", ATTACHMENT_COLUMNS)
    _add_guest_and_volume(attach)
    attach.add_argument(
        "--device", metavar="NAME", help="name of the disk, such as vdc; default: the next free"
    )
    attach.add_argument(
        "--bus", choices=("virtio", "scsi"), default="virtio", help="of the disk; default: virtio"
    )
    attach.add_argument(
        "--mode", choices=("rw", "ro"), default="rw", help="may the guest write? default: rw"
    )
    attach.add_argument(
        "--override-nova",
        action="store_true",
        help="even to a guest that Nova owns; a reboot by Nova takes such a disk away",
    )
    _add_waiting(attach)

    detach = _command(commands, "detach", "take a volume off a guest", OPERATION_COLUMNS)
    _add_guest_and_volume(detach)
    _add_waiting(detach)

    adopt = _command(
        commands, "adopt", "take over a disk that another hand plugged", ATTACHMENT_COLUMNS
    )
    _add_guest_and_volume(adopt)
    _add_waiting(adopt)

    release = _command(
        commands,
        "release",
        "forget an attachment: the guest keeps its disk, attachd has nothing to do with it",
        OPERATION_COLUMNS,
    )
    _add_guest_and_volume(release)
    _add_waiting(release)

    extend = _command(
        commands, "extend", "extend an attached volume, and tell its guest", ATTACHMENT_COLUMNS
    )
    _add_guest_and_volume(extend)
    extend.add_argument("size", metavar="SIZE", type=_gibibytes, help="its new size in GiB")
    _add_waiting(extend)

    listing = _command(commands, "list", "what is attached", ATTACHMENT_COLUMNS)
    listing.add_argument("--guest", metavar="GUEST", help="to this guest only")
    listing.add_argument(
        "--limit", metavar="N", type=_number, help="the first N by guest and device; default: all"
    )
    listing.add_argument("--long", action="store_true", help="more columns in a table")

    show = _command(commands, "show", "one attachment", ATTACHMENT_COLUMNS)
    show.add_argument("attachment", metavar="ATTACHMENT", help="its id")

    reconnect = _command(
        commands,
        "reconnect",
        "bring back a guest's devices before it starts; for libvirt's hook: 0 but with --strict",
        OPERATION_COLUMNS,
    )
    reconnect.add_argument("guest", metavar="GUEST", help="libvirt name or UUID")
    reconnect.add_argument(
        "--timeout", metavar="S", type=_seconds, default=120.0, help="wait no longer; default: 120"
    )
    reconnect.add_argument(
        "--strict",
        action="store_true",
        help="exit 5 where a device may be another volume's: the guest must not start",
    )

    disconnect = _command(
        commands,
        "disconnect",
        "take an ended guest's devices off the host; for libvirt's hook, and always 0",
        OPERATION_COLUMNS,
    )
    disconnect.add_argument("guest", metavar="GUEST", help="libvirt name or UUID")

    audit = _command(commands, "audit", "do the four worlds agree? 0: yes, 5: no", FINDING_COLUMNS)
    audit.add_argument(
        "--repair", action="store_true", help="do what is safe about it, then look again"
    )
    audit.add_argument(
        "--dry-run", action="store_true", help="only say what --repair would do (column repair)"
    )

    _command(commands, "doctor", "is this host fit? 0: yes, 5: no", DIAGNOSIS_COLUMNS)

    _command(
        commands, "connector", "what Cinder is told of this host (os-brick's)", CONNECTOR_COLUMNS
    )
    _add_trace(commands)
    _add_operation(commands)
    return parser


def _add_trace(commands: argparse._SubParsersAction[Parser]) -> None:
    trace = _bare_command(commands, "trace", "the drawn story of an operation, on standard output")
    trace.add_argument("operation", metavar="OPERATION", help="its id")
    trace.add_argument(
        "-f",
        "--format",
        metavar="LANGUAGE",
        choices=DRAWINGS,
        default=DRAWINGS[0],
        help=f"of the drawing: {_default_first(DRAWINGS)}",
    )
    trace.add_argument(
        "--requests", action="store_true", help="with every request to Cinder and its answer"
    )
    _add_socket(trace, default=argparse.SUPPRESS)


def _add_operation(commands: argparse._SubParsersAction[Parser]) -> None:
    operation = commands.add_parser(
        "operation", help="what attachd does and did", description="What attachd does and did."
    )
    operations = _commands(operation)
    listed = _command(
        operations, "list", "the operations, newest first", OPERATION_COLUMNS, "operation_list"
    )
    listed.add_argument("--open", action="store_true", help="those without their end only")
    listed.add_argument(
        "--limit",
        metavar="N",
        type=_number,
        default=USUAL_LIMIT,
        help=f"the newest N only; default: {USUAL_LIMIT}",
    )
    shown = _command(
        operations, "show", "one operation and its steps", OPERATION_COLUMNS, "operation_show"
    )
    shown.add_argument("operation", metavar="OPERATION", help="its id")
    resumed = _command(
        operations,
        "resume",
        "go on with an operation that needs attention",
        OPERATION_COLUMNS,
        "operation_resume",
    )
    resumed.add_argument("operation", metavar="OPERATION", help="its id")
    _add_waiting(resumed)


def _commands(parser: Parser) -> argparse._SubParsersAction[Parser]:
    return parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)


def _command(
    commands: argparse._SubParsersAction[Parser],
    name: str,
    description: str,
    columns: Sequence[str],
    command: str | None = None,
) -> Parser:
    parser = _bare_command(commands, name, description, command)
    parser.epilog = COLUMNS + ", ".join(columns)
    parser.add_argument(
        "-f",
        "--format",
        metavar="FORMAT",
        choices=FORMATS,
        default=FORMATS[0],
        help=f"form of the output: {_default_first(FORMATS)}",
    )
    parser.add_argument(
        "-c",
        "--column",
        metavar="COLUMN",
        action="append",
        default=[],
        choices=columns,
        help="show this column; may be given more than once",
    )
    parser.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="no progress, and no output of an attach, extend or detach that went well",
    )
    _add_socket(parser, default=argparse.SUPPRESS)
    return parser


def _default_first(choices: Sequence[str]) -> str:
    return f"{choices[0]} (default), {', '.join(choices[1:])}"


def _bare_command(
    commands: argparse._SubParsersAction[Parser],
    name: str,
    description: str,
    command: str | None = None,
) -> Parser:
    """A command whose output is no table."""
    sentences = [description[0].upper() + description[1:] + ".", _DETAILS.get(command or name, "")]
    parser = commands.add_parser(
        name, help=description, description=" ".join(filter(None, sentences))
    )
    parser.set_defaults(command=command or name)
    return parser


def _add_socket(parser: Parser, *, default: str | None) -> None:
    parser.add_argument(
        "--socket",
        metavar="PATH",
        default=default,
        help=f"the daemon's socket; default: $ATTACHD_SOCKET, else {DEFAULT_SOCKET}",
    )


def _add_guest_and_volume(parser: Parser) -> None:
    parser.add_argument("guest", metavar="GUEST", help="libvirt name or UUID")
    parser.add_argument("volume", metavar="VOLUME", help="Cinder name or UUID")


def _add_waiting(parser: Parser) -> None:
    parser.add_argument(
        "--no-wait", action="store_true", help="print the operation, and don't wait for its end"
    )
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=_seconds,
        help="stop waiting after S seconds, with status 7; the operation goes on",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds < float("inf"):  # nor is NaN
        raise argparse.ArgumentTypeError(f"not a number of seconds: {text!r}")
    return seconds


def _gibibytes(text: str) -> int:
    size = _whole(text)
    if not 0 < size <= LARGEST_SIZE:
        raise argparse.ArgumentTypeError(f"not a whole number of GiB: {text!r}")
    return size


def _number(text: str) -> int:
    number = _whole(text)
    if not number:
        raise argparse.ArgumentTypeError(f"not a number above 0: {text!r}")
    return number


def _whole(text: str) -> int:
    """The whole number that it is; 0 for anything else."""
    plain = text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS
    return int(text) if plain else 0


def _closest(word: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - not needed where all is well

    close = get_close_matches(word.partition("=")[0], known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
