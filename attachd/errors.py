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
from typing import Self


class Explained(StrEnum):
    """Words of ours, each with its meaning in one sentence, for the documentation."""

    meaning: str

    def __new__(cls, value: str, meaning: str = "") -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


class Code(Explained):
    """Permanent error codes."""

    # Not found, or not to be told apart: exit 3.
    GUEST_NOT_FOUND = "guest-not-found", "libvirt has no domain of this name or UUID."
    VOLUME_NOT_FOUND = (
        "volume-not-found",
        "Cinder has no volume of this name or UUID in a project that attachd sees.",
    )
    VOLUME_AMBIGUOUS = "volume-ambiguous", "Several volumes have this name: say the UUID."
    ATTACHMENT_NOT_FOUND = "attachment-not-found", "attachd has no attachment of this id."
    OPERATION_NOT_FOUND = "operation-not-found", "attachd has no operation of this id."
    # Refused before anything was touched: exit 4.
    PERMISSION_DENIED = "permission-denied", "The caller may not use the socket."
    ALREADY_ATTACHED = (
        "already-attached",
        "The guest has the volume already.",
    )
    NOT_ATTACHED = "not-attached", "attachd has no attachment of this volume to this guest."
    VOLUME_NOT_AVAILABLE = "volume-not-available", "Cinder's status of the volume doesn't allow it."
    VOLUME_ENCRYPTED = "volume-encrypted", "The volume is encrypted, which attachd can't attach."
    GUEST_BUSY = "guest-busy", "Another operation is at work on the guest, or waits for it."
    GUEST_SAVED = (
        "guest-saved",
        "The guest's memory is in a save image, and its disks with it: they can't be changed now.",
    )
    VOLUME_BUSY = "volume-busy", "Another operation is at work on the volume."
    NO_FREE_SLOT = "no-free-slot", "The guest has no room on the bus for one more disk."
    DEVICE_NAME_TAKEN = (
        "device-name-taken",
        "Another disk of the guest has the name that was asked for.",
    )
    DEVICE_NAME_INVALID = "device-name-invalid", "The bus has no such device name."
    SIZE_INVALID = "size-invalid", "The size isn't larger than the volume's own."
    NOVA_OWNED = "nova-owned", "The guest is Nova's, which alone may attach to it."
    PROTOCOL_UNSUPPORTED = (
        "protocol-unsupported",
        "Cinder offers the volume by another protocol than iSCSI.",
    )
    BUS_UNSUPPORTED = "bus-unsupported", "The disk's bus lets no disk come or go at run time."
    BAD_REQUEST = "bad-request", "The request isn't one of the API's."
    NOT_FOUND = "not-found", "The API has no such place."
    METHOD_NOT_ALLOWED = "method-not-allowed", "The API's place doesn't take this method."
    REQUEST_TOO_LARGE = "request-too-large", "The request's body is larger than any of the API's."
    REQUEST_ID_REUSED = "request-id-reused", "The request id was given to another request before."
    SHUTTING_DOWN = "shutting-down", "The daemon is stopping, and begins nothing new."
    TOO_MANY_REQUESTS = "too-many-requests", "As many callers as may wait for an answer already."
    # A world is out of reach, or says no.
    CINDER_UNAVAILABLE = (
        "cinder-unavailable",
        "Keystone or Cinder gives no answer, or none that is one.",
    )
    CINDER_REFUSED = "cinder-refused", "Cinder answered, and said no."
    LIBVIRT_UNAVAILABLE = "libvirt-unavailable", "libvirt gives no answer."
    ISCSI_UNAVAILABLE = (
        "iscsi-unavailable",
        "The host's iSCSI part can't be asked: iscsid, multipathd, the portal.",
    )
    JOURNAL_UNAVAILABLE = (
        "journal-unavailable",
        "The journal can't be read or written, or isn't sound.",
    )
    JOURNAL_FULL = "journal-full", "The journal's file system has no room for one more operation."
    # It failed on the way.
    CONNECT_FAILED = "connect-failed", "The host got no device of the volume."
    DISCONNECT_FAILED = "disconnect-failed", "The host's device couldn't be taken away."
    EXTEND_FAILED = "extend-failed", "The host's device didn't grow."
    WRONG_DEVICE = "wrong-device", "Another volume answers where this one should."
    GUEST_REFUSED = "guest-refused", "libvirt or QEMU said no."
    UNPLUG_TIMEOUT = (
        "unplug-timeout",
        "The guest was asked for the disk, and hasn't let go of it yet.",
    )
    STILL_IN_USE = (
        "still-in-use",
        "Something uses the device still, so that it can't be let go.",
    )
    DEADLINE_EXCEEDED = "deadline-exceeded", "It took longer than it may."
    WORLDS_DISAGREE = "worlds-disagree", "What was seen doesn't let anybody decide safely."
    WORLDS_AGREE = "worlds-agree", "There is nothing to do: the finding is gone."
    INTERRUPTED = "interrupted", "The daemon ended in the midst of it."
    # The program and its surroundings.
    CONFIG_INVALID = "config-invalid", "The configuration file has a mistake."
    STILL_RUNNING = "still-running", "It goes on; only the waiting ended."
    DAEMON_UNREACHABLE = "daemon-unreachable", "Nobody listens on the socket."
    INTERNAL_ERROR = "internal-error", "A mistake in attachd itself: the log tells more."


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
