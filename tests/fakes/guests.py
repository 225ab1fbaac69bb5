"""FakeGuests: attachd's Guests Protocol before libvirt's and a guest kernel's rules, in memory.

A guest has a live XML while it runs and a persistent one unless it is transient; target names are
unique in each; each live disk has an alias, libvirt's own where nobody gave it one; a virtio disk
needs a free port of a running guest, a SCSI disk a unit; only the guest's own kernel lets go of a
live virtio disk, and a deaf one may follow the request much later, when nobody waits for it any
more.
"""

from __future__ import annotations

import string
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from attachd.errors import AttachdError, Code, Refused, Unreachable, World
from attachd.model import Bus, DiskSpec, Guest, GuestDisk, GuestState, Mode, disk_alias

METHODS = frozenset({"check", "find", "get", "all", "plug", "unplug", "resize"})
UNITS = 256
LISTENER_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call that arrived: the method, and what it was about."""

    method: str
    subject: str = ""


@dataclass(kw_only=True)
class _Domain:
    guest_id: str
    name: str
    state: GuestState
    persistent: bool
    ports: int
    nova_owned: bool
    deaf: bool = False
    live: dict[str, GuestDisk] = field(default_factory=dict)
    config: dict[str, GuestDisk] = field(default_factory=dict)
    saved: dict[str, GuestDisk] | None = None
    asked: set[str] = field(default_factory=set)  # aliases that the guest shall let go
    read_only: set[str] = field(default_factory=set)  # aliases
    sizes: dict[str, int] = field(default_factory=dict)  # by alias: what QEMU was told

    def documents(self) -> list[dict[str, GuestDisk]]:
        live = [self.live] if self.state.live else []
        return live + ([self.config] if self.persistent else [])

    def free(self, bus: Bus) -> int | None:
        if not self.state.live:
            return None
        used = sum(disk.bus == bus for disk in self.live.values())
        return (self.ports if bus is Bus.VIRTIO else UNITS) - used

    def view(self) -> Guest:
        return Guest(
            guest_id=self.guest_id,
            name=self.name,
            state=self.state,
            persistent=self.persistent,
            nova_owned=self.nova_owned,
            live_disks=tuple(self.live.values()),
            config_disks=tuple(self.config.values()),
            saved_disks=None if self.saved is None else tuple(self.saved.values()),
            free_slots={bus: self.free(bus) for bus in Bus},
        )


@dataclass(frozen=True, kw_only=True)
class _Failure:
    error: AttachdError
    after: bool


class FakeGuests:
    """See the module. ``unplug_timeout`` in seconds: how long an unplug waits for a deaf guest."""

    def __init__(self, *, unplug_timeout: float = 0.0) -> None:
        self.calls: list[Call] = []
        self.plugged: dict[tuple[str, str], DiskSpec] = {}
        """By guest and volume, as last plugged: what a GuestDisk doesn't tell."""
        self.unplug_timeout = unplug_timeout
        self._changed = threading.Condition()
        self._reachable = True
        self._domains: dict[str, _Domain] = {}
        self._failures: dict[str, deque[_Failure]] = {method: deque() for method in METHODS}
        self._orphans: dict[str, deque[AttachdError]] = {
            method: deque() for method in ("plug", "unplug", "resize")
        }
        self._late: list[tuple[str, Callable[[], object]]] = []  # by guest
        self._removed: list[Callable[[str, str], None]] = []
        self._stopped: list[Callable[[str], None]] = []
        self._came_back: list[Callable[[], None]] = []

    # --- arranging the world --------------------------------------------------------------

    def add(
        self,
        name: str,
        *,
        state: GuestState = GuestState.RUNNING,
        persistent: bool = True,
        ports: int = 4,
        nova_owned: bool = False,
    ) -> str:
        """Define a guest (or start a transient one); its id."""
        guest_id = str(uuid.uuid4())
        with self._changed:
            self._domains[guest_id] = _Domain(
                guest_id=guest_id,
                name=name,
                state=state,
                persistent=persistent,
                ports=ports,
                nova_owned=nova_owned,
            )
        return guest_id

    def start_guest(self, guest_id: str) -> None:
        """Start a shut-off guest: its live XML is made from the persistent one."""
        with self._changed:
            domain = self._domains[guest_id]
            domain.state = GuestState.RUNNING
            if domain.saved is not None:
                domain.live, domain.saved = domain.saved, None
            else:
                domain.live = {target: _aliased(disk) for target, disk in domain.config.items()}

    def destroy(self, guest_id: str) -> None:
        """Pull its plug: the live disks go without an event, a transient guest as a whole."""
        with self._changed:
            domain = self._domains[guest_id]
            domain.state = GuestState.SHUTOFF
            domain.live.clear()
            domain.asked.clear()
            domain.sizes.clear()
            if not domain.persistent:
                del self._domains[guest_id]
            self._changed.notify_all()
            listeners = tuple(self._stopped)
        for listener in listeners:
            _in_a_thread_of_its_own(partial(listener, guest_id))

    def save(self, guest_id: str) -> None:
        """virsh managedsave: it ends, and goes on with the same disks when it is started."""
        with self._changed:
            domain = self._domains[guest_id]
            domain.state = GuestState.SHUTOFF
            domain.saved, domain.live = domain.live, {}
            self._changed.notify_all()
            listeners = tuple(self._stopped)
        for listener in listeners:
            _in_a_thread_of_its_own(partial(listener, guest_id))

    def rename(self, guest_id: str, name: str) -> None:
        """virsh domrename."""
        with self._changed:
            self._domains[guest_id].name = name

    def undefine(self, guest_id: str) -> None:
        """Forget its persistent XML: a running guest becomes transient, any other is gone."""
        with self._changed:
            domain = self._domains[guest_id]
            domain.persistent = False
            domain.config.clear()
            if not domain.state.live:
                del self._domains[guest_id]
            self._changed.notify_all()

    def pause(self, guest_id: str) -> None:
        """A paused guest answers nothing until it is resumed."""
        with self._changed:
            self._domains[guest_id].state = GuestState.PAUSED
            self._domains[guest_id].deaf = True

    def resume(self, guest_id: str) -> None:
        """It runs again, and follows what it was asked for meanwhile."""
        with self._changed:
            self._domains[guest_id].state = GuestState.RUNNING
        self.hear(guest_id)

    def make_deaf(self, guest_id: str) -> None:
        """A guest without its hot-plug driver: it runs, and ignores every unplug."""
        with self._changed:
            self._domains[guest_id].deaf = True

    def hear(self, guest_id: str) -> None:
        """It answers again: pending unplugs happen now, and the listeners are told."""
        with self._changed:
            domain = self._domains[guest_id]
            domain.deaf = False
            aliases = self._let_go(domain)
        self._tell_removed(guest_id, aliases)

    def put_disk(
        self, guest_id: str, disk: GuestDisk, *, live: bool = True, config: bool = True
    ) -> None:
        """A disk of someone else's, or a lost half of one of ours."""
        with self._changed:
            domain = self._domains[guest_id]
            if live:
                domain.live[disk.target] = _aliased(disk)
            if config:
                domain.config[disk.target] = disk

    def drop_disk(
        self, guest_id: str, target: str, *, live: bool = False, config: bool = False
    ) -> None:
        """Someone else took a disk out behind attachd's back; no event."""
        with self._changed:
            domain = self._domains[guest_id]
            if live:
                domain.live.pop(target, None)
            if config:
                domain.config.pop(target, None)

    def go_away(self) -> None:
        """libvirt stops answering."""
        with self._changed:
            self._reachable = False
            self._changed.notify_all()

    def come_back(self) -> None:
        """libvirt answers again, and the listeners are told."""
        with self._changed:
            self._reachable = True
            listeners = tuple(self._came_back)
        for listener in listeners:
            _in_a_thread_of_its_own(listener)

    def fail_next(self, method: str, error: AttachdError, *, after: bool = False) -> None:
        """The next call of ``method`` raises ``error``; ``after``: when it has had its effect."""
        with self._changed:
            self._failures[method].append(_Failure(error=error, after=after))

    def orphan_next(self, method: str, error: AttachdError) -> None:
        """The next plug, unplug or resize raises ``error``; libvirt does it later.

        The next change of that guest queues behind it; or else it comes with :meth:`land`. Of an
        unplug that is the request to the guest: the persistent XML is another call's work.
        """
        with self._changed:
            self._orphans[method].append(error)

    def land(self, guest_id: str | None = None) -> None:
        """What was put off happens now: of one guest, or of all."""
        with self._changed:
            due = [late for late in self._late if guest_id in (None, late[0])]
            self._late = [late for late in self._late if late not in due]
        for _, effect in due:
            with suppress(AttachdError):
                effect()

    # --- the Protocol ---------------------------------------------------------------------

    def check(self) -> None:
        """See Guests."""
        self._arrive("check")

    def find(self, reference: str) -> Guest:
        """See Guests."""
        self._arrive("find", reference)
        with self._changed:
            by_id = [d for d in self._domains.values() if d.guest_id == reference.lower()]
            by_name = [d for d in self._domains.values() if d.name == reference]
            for domain in by_id or by_name:
                return domain.view()
        raise Refused(Code.GUEST_NOT_FOUND, "There is no such guest.", details=reference)

    def get(self, guest_id: str) -> Guest | None:
        """See Guests."""
        self._arrive("get", guest_id)
        with self._changed:
            domain = self._domains.get(guest_id)
            return domain.view() if domain else None

    def all(self) -> tuple[Guest, ...]:
        """See Guests."""
        self._arrive("all")
        with self._changed:
            return tuple(domain.view() for domain in self._domains.values())

    def plug(self, guest_id: str, disk: DiskSpec) -> None:
        """See Guests."""
        after = self._arrive("plug", disk.volume_id)
        self.land(guest_id)
        self._perhaps_later("plug", guest_id, partial(self._plug, guest_id, disk))
        self._plug(guest_id, disk)
        if after:
            raise after

    def _plug(self, guest_id: str, disk: DiskSpec) -> None:
        with self._changed:
            domain = self._domains.get(guest_id)
            if domain is None:
                raise AttachdError(
                    Code.GUEST_NOT_FOUND, "There is no such guest.", details=guest_id, touched=False
                )
            missing = [d for d in domain.documents() if not _has(d, disk)]
            if missing and domain.saved is not None:
                raise _saved(domain)
            self._check_room(domain, disk, missing)
            for document in missing:
                document[disk.target] = _as_guest_disk(disk)
            if missing:
                self.plugged[guest_id, disk.volume_id] = disk
            if disk.mode is Mode.RO:
                domain.read_only.add(disk.alias)

    def unplug(self, guest_id: str, volume_id: str, *, source: str | None = None) -> None:
        """See Guests."""
        after = self._arrive("unplug", volume_id)
        self.land(guest_id)
        self._perhaps_later("unplug", guest_id, partial(self._request, guest_id, volume_id, source))
        domain = self._request(guest_id, volume_id, source)
        if domain is not None:
            self._await_live_removal(domain, volume_id, source)
            with self._changed:
                for target in _targets(domain.config, volume_id, source):
                    del domain.config[target]
        if after:
            raise after

    def resize(
        self, guest_id: str, volume_id: str, size_bytes: int, *, source: str | None = None
    ) -> None:
        """See Guests."""
        after = self._arrive("resize", volume_id)
        self.land(guest_id)
        resize = partial(self._resize, guest_id, volume_id, size_bytes, source)
        self._perhaps_later("resize", guest_id, resize)
        resize()
        if after:
            raise after

    def _resize(self, guest_id: str, volume_id: str, size_bytes: int, source: str | None) -> None:
        """As QEMU: it doesn't grow what it opened read-only."""
        with self._changed:
            domain = self._domains.get(guest_id)
            if domain is None or not domain.state.live:
                return
            if not _targets(domain.live, volume_id, source):
                raise _refused("the live XML doesn't have the disk")
            if disk_alias(volume_id) in domain.read_only:
                raise _refused("Image is read-only")
            domain.sizes[disk_alias(volume_id)] = size_bytes

    def size_of(self, guest_id: str, volume_id: str) -> int | None:
        """For tests: what QEMU was told of the disk's new size; None: nothing since it has it."""
        with self._changed:
            return self._domains[guest_id].sizes.get(disk_alias(volume_id))

    def _request(self, guest_id: str, volume_id: str, source: str | None) -> _Domain | None:
        with self._changed:
            domain = self._domains.get(guest_id)
            if domain and _targets(domain.saved or {}, volume_id, source):
                raise _saved(domain)
            aliases = self._ask(domain, volume_id, source) if domain else []
        self._tell_removed(guest_id, aliases)
        return domain

    def on_disk_removed(self, listener: Callable[[str, str], None]) -> None:
        """See Guests."""
        self._removed.append(listener)

    def on_stopped(self, listener: Callable[[str], None]) -> None:
        """See Guests."""
        self._stopped.append(listener)

    def on_reachable(self, listener: Callable[[], None]) -> None:
        """See Guests."""
        self._came_back.append(listener)

    # --- the rules ------------------------------------------------------------------------

    def _arrive(self, method: str, subject: str = "") -> AttachdError | None:
        """Note the call; raise what is due before it, return what is due after it."""
        with self._changed:
            self.calls.append(Call(method=method, subject=subject))
            if not self._reachable:
                raise _unavailable(touched=False)
            if not self._failures[method]:
                return None
            failure = self._failures[method].popleft()
        if failure.after:
            return failure.error
        raise failure.error

    def _perhaps_later(self, method: str, guest_id: str, effect: Callable[[], object]) -> None:
        """Put the effect off and raise, where the next one of this method was orphaned."""
        with self._changed:
            if not self._orphans[method]:
                return
            self._late.append((guest_id, effect))
            raise self._orphans[method].popleft()

    def _check_room(
        self, domain: _Domain, disk: DiskSpec, missing: list[dict[str, GuestDisk]]
    ) -> None:
        if any(disk.target in document for document in missing):
            raise _refused(f"target {disk.target} already exists")
        if any(document is domain.live for document in missing) and domain.free(disk.bus) == 0:
            raise _refused("No more available PCI slots")
        if any(document is domain.live for document in missing) and self._is_locked(domain, disk):
            raise _refused('Failed to get "write" lock')

    def _is_locked(self, domain: _Domain, disk: DiskSpec) -> bool:
        """QEMU's own lock on the device: one writer, unless all share it."""
        for other in self._domains.values():
            for held in other.live.values():
                if other is domain or held.source != disk.source:
                    continue
                theirs = self.plugged.get((other.guest_id, held.serial or ""))
                if not (disk.shareable and theirs is not None and theirs.shareable):
                    return True
        return False

    def _ask(self, domain: _Domain, volume_id: str, source: str | None) -> list[str]:
        for target in _targets(domain.live, volume_id, source):
            disk = domain.live[target]
            domain.asked.add(disk.alias or "")
        return self._let_go(domain)

    def _let_go(self, domain: _Domain) -> list[str]:
        """SCSI disks go without the guest's consent, others unless it is deaf."""
        going = [
            (target, disk.alias or "")
            for target, disk in domain.live.items()
            if (disk.alias or "") in domain.asked and (disk.bus == Bus.SCSI or not domain.deaf)
        ]
        for target, alias in going:
            del domain.live[target]
            domain.asked.discard(alias)
            domain.sizes.pop(alias, None)
            domain.read_only.discard(alias)
        self._changed.notify_all()
        return [alias for _, alias in going]

    def _await_live_removal(self, domain: _Domain, volume_id: str, source: str | None) -> None:
        deadline = time.monotonic() + self.unplug_timeout
        with self._changed:
            self._changed.wait_for(
                lambda: not self._reachable or not _targets(domain.live, volume_id, source),
                timeout=max(deadline - time.monotonic(), 0.0),
            )
            if not self._reachable:
                raise _unavailable(touched=True)
            kept = _targets(domain.live, volume_id, source)
            if not kept:
                return
            if domain.persistent and source is None:
                domain.config.setdefault(kept[0], domain.live[kept[0]])
        raise AttachdError(
            Code.UNPLUG_TIMEOUT,
            "The guest was asked to let go of the disk, and didn't.",
            touched=False,
        )

    def _tell_removed(self, guest_id: str, aliases: list[str]) -> None:
        with self._changed:
            listeners = tuple(self._removed)
        for alias in aliases:
            for listener in listeners:
                _in_a_thread_of_its_own(partial(listener, guest_id, alias))


def _in_a_thread_of_its_own(call: Callable[[], None]) -> None:
    """As libvirt's event thread does: a caller's locks are not the listener's."""
    thread = threading.Thread(target=call, name="fake-libvirt-events", daemon=True)
    thread.start()
    thread.join(LISTENER_SECONDS)


def _has(document: dict[str, GuestDisk], disk: DiskSpec) -> bool:
    for target in _targets(document, disk.volume_id):
        if document[target].source != disk.source:
            raise _refused("the disk is there already, but from another device")
        return True
    return False


def _targets(
    document: dict[str, GuestDisk], volume_id: str, source: str | None = None
) -> list[str]:
    return [
        target
        for target, disk in document.items()
        if disk.alias == f"ua-{volume_id}"
        or disk.serial == volume_id
        or (source is not None and disk.source == source)
    ]


def _aliased(disk: GuestDisk) -> GuestDisk:
    """As libvirt names a live disk that nobody has named: after its bus and its place there."""
    place = string.ascii_lowercase.index(disk.target[-1])
    return replace(disk, alias=disk.alias or f"{disk.bus}-disk{place}")


def _as_guest_disk(disk: DiskSpec) -> GuestDisk:
    return GuestDisk(
        target=disk.target,
        bus=disk.bus.value,
        serial=disk.serial,
        alias=disk.alias,
        source=disk.source,
        mode=disk.mode,
    )


def _refused(details: str) -> AttachdError:
    return AttachdError(
        Code.GUEST_REFUSED, "libvirt refused the disk.", details=details, touched=False
    )


def _saved(domain: _Domain) -> AttachdError:
    return AttachdError(Code.GUEST_SAVED, f"Guest {domain.name} is saved.", touched=False)


def _unavailable(*, touched: bool) -> Unreachable:
    return Unreachable(
        Code.LIBVIRT_UNAVAILABLE, "libvirt doesn't answer.", world=World.GUEST, touched=touched
    )
