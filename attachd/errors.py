"""The error root: permanent codes, and errors that speak to three readers.

``brief`` is for the operator, ``details`` for whoever investigates, ``resolution`` says what to do
next, and ``code`` is for scripts: permanent, kebab-case. Foreign exceptions are translated at the
boundary of the room that met them, with ``from exc``.

Two questions decide what the engine does with an error, so each error answers them:

* ``touched``: may the failed call have changed anything? False only where that is certain.
* ``world``: which world was out of reach, so that the operation can go on when it is back.

"I could not look" (:class:`Unreachable`) is never "it is gone" (a ``None`` or an empty answer).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Code(StrEnum):
    """Permanent error codes."""

    # Not found, or not to be told apart: exit 3.
    GUEST_NOT_FOUND = "guest-not-found"
    VOLUME_NOT_FOUND = "volume-not-found"
    VOLUME_AMBIGUOUS = "volume-ambiguous"
    ATTACHMENT_NOT_FOUND = "attachment-not-found"
    OPERATION_NOT_FOUND = "operation-not-found"
    # Refused before anything was touched: exit 4.
    PERMISSION_DENIED = "permission-denied"
    ALREADY_ATTACHED = "already-attached"
    NOT_ATTACHED = "not-attached"
    VOLUME_NOT_AVAILABLE = "volume-not-available"
    VOLUME_ENCRYPTED = "volume-encrypted"
    GUEST_BUSY = "guest-busy"
    VOLUME_BUSY = "volume-busy"
    NO_FREE_SLOT = "no-free-slot"
    DEVICE_NAME_TAKEN = "device-name-taken"
    DEVICE_NAME_INVALID = "device-name-invalid"
    SIZE_INVALID = "size-invalid"
    NOVA_OWNED = "nova-owned"
    PROTOCOL_UNSUPPORTED = "protocol-unsupported"
    BUS_UNSUPPORTED = "bus-unsupported"
    BAD_REQUEST = "bad-request"
    NOT_FOUND = "not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    REQUEST_TOO_LARGE = "request-too-large"
    REQUEST_ID_REUSED = "request-id-reused"
    SHUTTING_DOWN = "shutting-down"
    TOO_MANY_REQUESTS = "too-many-requests"
    # A world is out of reach, or says no.
    CINDER_UNAVAILABLE = "cinder-unavailable"
    CINDER_REFUSED = "cinder-refused"
    LIBVIRT_UNAVAILABLE = "libvirt-unavailable"
    ISCSI_UNAVAILABLE = "iscsi-unavailable"
    JOURNAL_UNAVAILABLE = "journal-unavailable"
    JOURNAL_FULL = "journal-full"
    # It failed on the way.
    CONNECT_FAILED = "connect-failed"
    DISCONNECT_FAILED = "disconnect-failed"
    EXTEND_FAILED = "extend-failed"
    WRONG_DEVICE = "wrong-device"
    GUEST_REFUSED = "guest-refused"
    UNPLUG_TIMEOUT = "unplug-timeout"
    STILL_IN_USE = "still-in-use"
    DEADLINE_EXCEEDED = "deadline-exceeded"
    WORLDS_DISAGREE = "worlds-disagree"
    WORLDS_AGREE = "worlds-agree"
    INTERRUPTED = "interrupted"
    # The program and its surroundings.
    CONFIG_INVALID = "config-invalid"
    STILL_RUNNING = "still-running"
    DAEMON_UNREACHABLE = "daemon-unreachable"
    INTERNAL_ERROR = "internal-error"


class Exit(IntEnum):
    """Exit statuses of attachctl."""

    DONE = 0
    UNDONE = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    NEEDS_ATTENTION = 5
    UNREACHABLE = 6
    STILL_RUNNING = 7
    INTERRUPTED = 130


NOT_FOUND_CODES = frozenset(
    {
        Code.GUEST_NOT_FOUND,
        Code.VOLUME_NOT_FOUND,
        Code.VOLUME_AMBIGUOUS,
        Code.ATTACHMENT_NOT_FOUND,
        Code.OPERATION_NOT_FOUND,
        Code.NOT_FOUND,
    }
)


class World(StrEnum):
    """The four worlds in which an attachment stands."""

    CINDER = "cinder"
    HOST = "host"
    GUEST = "guest"
    JOURNAL = "journal"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What went wrong, as it is journalled, sent over HTTP and printed."""

    code: Code
    brief: str
    details: str = ""
    resolution: str = ""

    def __str__(self) -> str:
        return f"{self.code}: {self.brief}"


class AttachdError(Exception):
    """The root of every error attachd raises on purpose."""

    def __init__(
        self,
        code: Code,
        brief: str,
        *,
        details: str = "",
        resolution: str = "",
        touched: bool = True,
        world: World | None = None,
    ) -> None:
        self.problem = Problem(code=code, brief=brief, details=details, resolution=resolution)
        self.touched = touched
        self.world = world
        super().__init__(str(self.problem))

    @property
    def code(self) -> Code:
        """The permanent code."""
        return self.problem.code


class Refused(AttachdError):
    """A request that is refused while nothing has been touched."""

    def __init__(self, code: Code, brief: str, *, details: str = "", resolution: str = "") -> None:
        super().__init__(code, brief, details=details, resolution=resolution, touched=False)


class Unreachable(AttachdError):
    """A world could not be asked: nothing is known about what is in it.

    ``touched`` is False where the call certainly never left this process.
    """

    def __init__(
        self,
        code: Code,
        brief: str,
        *,
        world: World,
        touched: bool,
        details: str = "",
        resolution: str = "",
    ) -> None:
        super().__init__(
            code, brief, details=details, resolution=resolution, touched=touched, world=world
        )
