"""The worlds as the doctor sees them: all of them well, until a test breaks one.

A host keeps the real one's rules: without its helper it answers nothing that only root may see.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from attachd.errors import AttachdError, Code, Unreachable, World
from attachd.host.failures import helper_lost
from attachd.model import Bus, Guest, GuestState
from attachd.vitals import (
    CinderAnswer,
    FileStatus,
    InitiatorName,
    JournalHealth,
    LibvirtVersions,
    LockSharing,
    Login,
    LvmScan,
    Neighbour,
)

GROUP_ID = 990
SOCKET = Path("/run/attachd/attachd.sock")
LOCKS = Path("/var/lib/attachd/locks")


def a_guest(
    name: str = "web",
    *,
    virtio: int | None = 6,
    state: GuestState = GuestState.RUNNING,
    nova_owned: bool = False,
) -> Guest:
    return Guest(
        guest_id=f"id-of-{name}",
        name=name,
        state=state,
        persistent=True,
        nova_owned=nova_owned,
        free_slots={Bus.VIRTIO: virtio, Bus.SCSI: 256},
    )


def no_answer(world: World, code: Code = Code.ISCSI_UNAVAILABLE) -> Unreachable:
    return Unreachable(
        code, "It doesn't answer.", world=world, touched=False, resolution="Look after it."
    )


@dataclass
class FakeHostSurvey:
    """A host like the lab's."""

    helper: str | None = "0"
    has_kvm: bool = True
    hindrance: str | None = None
    name: InitiatorName | None = field(
        default_factory=lambda: InitiatorName(
            name="iqn.1993-08.org.debian:01:a6a4d4f7356f", written_at=2e9, machine_id_at=1.9e9
        )
    )
    multipathd: bool = False
    lvm: LvmScan | None = field(
        default_factory=lambda: LvmScan(
            global_filter=("a|^/dev/vdb$|", "r|.*|"), devices_file=False, local_disks=frozenset()
        )
    )
    others: tuple[Neighbour, ...] = ()
    sharing: tuple[LockSharing, ...] = ()
    unwritable: Path | None = None
    brick_problem: Path | AttachdError | None = None
    groups: dict[str, int] = field(default_factory=lambda: {"attachd": GROUP_ID})
    files: dict[str, FileStatus] = field(
        default_factory=lambda: {
            str(SOCKET): FileStatus(owner=0, group=GROUP_ID, mode=0o660),
            "/etc/libvirt/hooks/qemu.d/attachd": FileStatus(owner=0, group=0, mode=0o755),
        }
    )

    def helper_uid(self) -> str:
        return self._root()

    def kvm(self) -> bool:
        return self.has_kvm

    def iscsid_hindrance(self) -> str | None:
        return self.hindrance

    def initiator_name(self) -> InitiatorName | None:
        self._root()
        return self.name

    def multipathd_runs(self) -> bool:
        self._root()
        return self.multipathd

    def lvm_scan(self) -> LvmScan | None:
        return self.lvm

    def neighbours(self) -> tuple[Neighbour, ...]:
        return self.others

    def lock_sharing(self, lock_path: Path) -> tuple[LockSharing, ...]:
        assert lock_path == LOCKS
        self._root()
        return self.sharing

    def unwritable_lock(self, directory: Path, *files: str) -> Path | None:
        assert (directory, files) == (LOCKS, ("guest-*", "volume-*"))
        return self.unwritable

    def unusable_brick_lock(self, directory: Path) -> Path | None:
        if isinstance(self.brick_problem, AttachdError):
            raise self.brick_problem
        return self.brick_problem

    def group_id(self, name: str) -> int | None:
        return self.groups.get(name)

    def status(self, path: Path) -> FileStatus | None:
        return self.files.get(str(path))

    def status_as_root(self, path: str) -> FileStatus | None:
        self._root()
        return self.files.get(path)

    def _root(self) -> str:
        if self.helper is None:
            raise helper_lost(touched=False)
        return self.helper


@dataclass
class FakeLibvirt:
    """libvirt and its guests; ``raises``: it doesn't answer."""

    libvirt: tuple[int, int, int] = (11, 3, 0)
    qemu: tuple[int, int, int] | None = (10, 0, 3)
    guests: tuple[Guest, ...] = ()
    raises: AttachdError | None = None

    def versions(self) -> LibvirtVersions:
        self._raise()
        return LibvirtVersions(libvirt=self.libvirt, qemu=self.qemu)

    def all(self) -> tuple[Guest, ...]:
        self._raise()
        return self.guests

    def _raise(self) -> None:
        if self.raises:
            raise self.raises


@dataclass
class FakeCinderSurvey:
    """Keystone and Cinder; Cinder isn't asked before Keystone gave a token."""

    roles: frozenset[str] | None = frozenset({"admin", "service", "member"})
    microversion: str = "3.71"
    new_style: bool = True
    keystones_skew: float | None = 0.0
    cinders_skew: float | None = None
    login_fails: AttachdError | None = None
    cinder_fails: AttachdError | None = None
    logged_in: bool = False

    def login(self) -> Login:
        if self.login_fails:
            raise self.login_fails
        self.logged_in = True
        return Login(roles=self.roles, skew=self.keystones_skew)

    def ask(self) -> CinderAnswer:
        assert self.logged_in
        if self.cinder_fails:
            raise self.cinder_fails
        return CinderAnswer(
            microversion=self.microversion, new_style=self.new_style, skew=self.cinders_skew
        )


@dataclass
class FakeJournalHealth:
    """journal.db."""

    health: JournalHealth = field(default_factory=lambda: JournalHealth(there=True))

    def __call__(self) -> JournalHealth:
        return self.health
