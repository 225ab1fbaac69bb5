"""Stages for the guest contract: the fake world, and real guests of a real libvirt.

A stage makes guests and disks, and does to them what others do behind attachd's back: the guest's
own kernel, an administrator with virsh, systemd. The real one needs root on a host with QEMU and a
guest kernel: the lab's host has them. Elsewhere the environment names them, see SURROUNDINGS.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import libvirt

from attachd.guest import LibvirtGuests
from attachd.model import Bus, DiskSpec, GuestDisk, GuestState, Mode
from attachd.operations.ports import Guests
from tests.fakes.guests import FakeGuests

PREFIX = "contract-"
BOOT_SECONDS = 240.0
PATIENT_SECONDS = 240.0
IMPATIENT_SECONDS = 15.0
RETRY_SECONDS = 8.0
SOURCE_BYTES = 8 * 1024**2


@dataclass(frozen=True)
class Surroundings:
    """Where the real stage finds what it needs."""

    uri: str
    domain_type: str
    kernel: Path
    initrd: Path
    control: str | None  # a program that takes stop, start, kill, hang, wake; None: systemctl


SURROUNDINGS = Surroundings(
    uri=os.environ.get("ATTACHD_TEST_LIBVIRT_URI", "qemu:///system"),
    domain_type=os.environ.get("ATTACHD_TEST_DOMAIN_TYPE", "kvm"),
    kernel=Path(os.environ.get("ATTACHD_TEST_KERNEL", "/usr/share/lab/vmlinuz")),
    initrd=Path(os.environ.get("ATTACHD_TEST_INITRD", "/usr/share/lab/guest.initrd")),
    control=os.environ.get("ATTACHD_TEST_LIBVIRTD"),
)


def eventually(what: str, holds: Callable[[], bool], seconds: float = PATIENT_SECONDS) -> None:
    """Wait until it holds, or fail."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)


class Stage(ABC):
    """What a test of the contract needs of a world."""

    guests: Guests

    @abstractmethod
    def impatient(self) -> Guests:
        """The same guests, asked by someone who doesn't wait long for an unplug."""

    @abstractmethod
    def new_guest(self, *, running: bool = True, persistent: bool = True, ports: int = 3) -> str:
        """A guest without disks; the id."""

    @abstractmethod
    def new_source(self) -> str:
        """The path of a block device that nobody uses."""

    @abstractmethod
    def pause(self, guest_id: str) -> None:
        """The guest answers nothing any more."""

    @abstractmethod
    def resume(self, guest_id: str) -> None:
        """It answers again, also what it was asked meanwhile."""

    @abstractmethod
    def destroy(self, guest_id: str) -> None:
        """Pull the guest's plug."""

    @abstractmethod
    def save(self, guest_id: str) -> None:
        """The guest ends, its memory saved with its disks (virsh managedsave)."""

    @abstractmethod
    def start(self, guest_id: str) -> None:
        """It is started, and goes on where it was saved."""

    @abstractmethod
    def drop_config(self, guest_id: str, disk: DiskSpec) -> None:
        """Someone takes the disk out of the persistent XML alone."""

    @abstractmethod
    def plug_by_hand(self, guest_id: str, disk: DiskSpec, *, config: bool = True) -> None:
        """Someone plugs the disk with virsh: into a running guest, with no serial and no alias."""

    @abstractmethod
    def grow(self, disk: DiskSpec, size_bytes: int) -> None:
        """The disk's device becomes larger."""

    @abstractmethod
    def seen_size(self, guest_id: str, disk: DiskSpec) -> int | None:
        """The disk's bytes, as QEMU gives them to the live guest; None: as when it got it."""

    @abstractmethod
    def take_libvirt_away(self) -> None:
        """Stop libvirt for good."""

    @abstractmethod
    def bring_libvirt_back(self) -> None:
        """Start it again."""

    def new_disk(
        self, target: str = "vda", *, bus: Bus = Bus.VIRTIO, mode: Mode = Mode.RW
    ) -> DiskSpec:
        """A disk of a new volume."""
        return DiskSpec(
            volume_id=str(uuid.uuid4()),
            source=self.new_source(),
            target=target,
            bus=bus,
            mode=mode,
        )


class FakeStage(Stage):
    """In memory."""

    def __init__(self) -> None:
        self.fake = FakeGuests(unplug_timeout=PATIENT_SECONDS)
        self.guests = self.fake
        self._sources = 0

    def impatient(self) -> Guests:
        self.fake.unplug_timeout = 0.1
        return self.fake

    def new_guest(self, *, running: bool = True, persistent: bool = True, ports: int = 3) -> str:
        state = GuestState.RUNNING if running else GuestState.SHUTOFF
        name = f"{PREFIX}{uuid.uuid4().hex[:8]}"
        return self.fake.add(name, state=state, persistent=persistent, ports=ports)

    def new_source(self) -> str:
        self._sources += 1
        return f"/dev/disk/by-id/wwn-{self._sources}"

    def pause(self, guest_id: str) -> None:
        self.fake.pause(guest_id)

    def resume(self, guest_id: str) -> None:
        self.fake.resume(guest_id)

    def destroy(self, guest_id: str) -> None:
        self.fake.destroy(guest_id)

    def save(self, guest_id: str) -> None:
        self.fake.save(guest_id)

    def start(self, guest_id: str) -> None:
        self.fake.start_guest(guest_id)

    def drop_config(self, guest_id: str, disk: DiskSpec) -> None:
        self.fake.drop_disk(guest_id, disk.target, config=True)

    def plug_by_hand(self, guest_id: str, disk: DiskSpec, *, config: bool = True) -> None:
        plain = GuestDisk(
            target=disk.target, bus=disk.bus.value, source=disk.source, mode=disk.mode
        )
        self.fake.put_disk(guest_id, plain, config=config)

    def grow(self, disk: DiskSpec, size_bytes: int) -> None:
        """Of devices the fake knows nothing."""

    def seen_size(self, guest_id: str, disk: DiskSpec) -> int | None:
        return self.fake.size_of(guest_id, disk.volume_id)

    def take_libvirt_away(self) -> None:
        self.fake.go_away()

    def bring_libvirt_back(self) -> None:
        self.fake.come_back()


@dataclass
class IdleGuests:
    """Running guests that a test left as it got them: a boot takes long under emulation."""

    directory: Path  # of their consoles
    _idle: dict[int, list[str]] = field(default_factory=dict)
    _ports: dict[str, int] = field(default_factory=dict)
    _fresh: dict[str, tuple[str, str]] = field(default_factory=dict)

    def take(self, ports: int) -> str | None:
        """One with so many root ports, if there is any."""
        idle = self._idle.get(ports)
        return idle.pop() if idle else None

    def note(self, guest_id: str, ports: int) -> None:
        """Remember how a guest looks that has just booted."""
        self._ports[guest_id] = ports
        self._fresh[guest_id] = _both_documents(guest_id)

    def give_back(self, guest_id: str) -> None:
        """Keep it if it was noted, and looks as it did; else remove it."""
        try:
            as_it_was = self._fresh.get(guest_id) == _both_documents(guest_id)
        except libvirt.libvirtError:
            as_it_was = False
        if as_it_was:
            self._idle.setdefault(self._ports[guest_id], []).append(guest_id)
        else:
            _remove(guest_id)

    def close(self) -> None:
        """Remove them all."""
        for idle in self._idle.values():
            for guest_id in idle:
                _remove(guest_id)


def _both_documents(guest_id: str) -> tuple[str, str]:
    """A running guest's XML, live and persistent."""
    with _connection() as connection:
        domain = connection.lookupByUUIDString(guest_id)
        if domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
            return "", ""
        return domain.XMLDesc(), domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)


def _remove(guest_id: str) -> None:
    for act in ("destroy", "undefine"):
        with contextlib.suppress(libvirt.libvirtError), _connection() as connection:
            getattr(connection.lookupByUUIDString(guest_id), act)()


@contextlib.contextmanager
def _connection() -> Iterator[libvirt.virConnect]:
    connection = libvirt.open(SURROUNDINGS.uri)
    try:
        yield connection
    finally:
        connection.close()


@dataclass
class LibvirtStage(Stage):
    """Real domains with a kernel that acknowledges unplugs, and loop devices as their disks."""

    directory: Path
    idle: IdleGuests
    guests: LibvirtGuests = field(init=False)
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _sources: int = 0

    def __enter__(self) -> LibvirtStage:
        self.directory.chmod(0o755)
        self.guests = self._started(PATIENT_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # --- attachd's side -------------------------------------------------------------------

    def impatient(self) -> Guests:
        return self._started(IMPATIENT_SECONDS)

    def expecting_answers(self, *, within: float = IMPATIENT_SECONDS) -> Guests:
        """The same guests, asked by someone who soon takes a call for unanswered."""
        return self._started(PATIENT_SECONDS, call_timeout=within)

    def _started(self, unplug_timeout: float, *, call_timeout: float = 120.0) -> LibvirtGuests:
        guests = LibvirtGuests(
            uri=SURROUNDINGS.uri,
            open_timeout=60,
            call_timeout=call_timeout,
            keepalive_interval=3,
            keepalive_count=3,
            unplug_timeout=unplug_timeout,
            unplug_retry_interval=RETRY_SECONDS,
        )
        guests.start()
        self._stack.callback(guests.stop)
        return guests

    # --- guests ---------------------------------------------------------------------------

    def new_guest(
        self,
        *,
        running: bool = True,
        persistent: bool = True,
        ports: int = 3,
        devices: str = "",
    ) -> str:
        plain = running and persistent and not devices
        if plain and (idle := self.idle.take(ports)):
            self._stack.callback(self.idle.give_back, idle)
            return idle
        guest_id = self._boot(running, persistent, ports, devices)
        if plain:
            self.idle.note(guest_id, ports)
        return guest_id

    def _boot(self, running: bool, persistent: bool, ports: int, devices: str) -> str:
        name = f"{PREFIX}{uuid.uuid4().hex[:8]}"
        console = self.idle.directory / f"{name}.console"
        xml = self._domain_xml(name, console, ports, devices)
        with _connection() as connection:
            if persistent:
                domain = connection.defineXML(xml)
                if running:
                    domain.create()
            else:
                domain = connection.createXML(xml)
            guest_id: str = domain.UUIDString()
        self._stack.callback(self.idle.give_back, guest_id)
        if running:
            eventually(
                f"{name} boots",
                lambda: "Run /init as init process" in console.read_text(errors="replace"),
                BOOT_SECONDS,
            )
        return guest_id

    def new_source(self) -> str:
        self._sources += 1
        image = self.directory / f"disk-{self._sources}"
        with image.open("wb") as file:
            file.truncate(SOURCE_BYTES)
        device = _output("losetup", "--find", "--show", str(image)).strip()
        self._stack.callback(_output, "losetup", "--detach", device)
        return device

    def pause(self, guest_id: str) -> None:
        with self.domain(guest_id) as domain:
            domain.suspend()

    def resume(self, guest_id: str) -> None:
        with self.domain(guest_id) as domain:
            domain.resume()

    def destroy(self, guest_id: str) -> None:
        with self.domain(guest_id) as domain:
            domain.destroy()

    def save(self, guest_id: str) -> None:
        with self.domain(guest_id) as domain:
            domain.managedSave()
        self._stack.callback(self._forget_memory, guest_id)

    def _forget_memory(self, guest_id: str) -> None:
        with contextlib.suppress(libvirt.libvirtError), self.domain(guest_id) as domain:
            if domain.hasManagedSaveImage():
                domain.managedSaveRemove()

    def start(self, guest_id: str) -> None:
        with self.domain(guest_id) as domain:
            domain.create()

    def drop_config(self, guest_id: str, disk: DiskSpec) -> None:
        with self.domain(guest_id) as domain:
            domain.detachDeviceAlias(disk.alias, libvirt.VIR_DOMAIN_AFFECT_CONFIG)

    def plug_by_hand(self, guest_id: str, disk: DiskSpec, *, config: bool = True) -> None:
        read_only = "<readonly/>" if disk.mode is Mode.RO else ""
        xml = (
            "<disk type='block' device='disk'><driver name='qemu' type='raw'/>"
            f"<source dev='{disk.source}'/><target dev='{disk.target}' bus='{disk.bus}'/>"
            f"{read_only}</disk>"
        )
        layers = libvirt.VIR_DOMAIN_AFFECT_LIVE
        layers |= libvirt.VIR_DOMAIN_AFFECT_CONFIG if config else 0
        with self.domain(guest_id) as domain:
            domain.attachDeviceFlags(xml, layers)

    def grow(self, disk: DiskSpec, size_bytes: int) -> None:
        image = _output("losetup", "--noheadings", "--output", "BACK-FILE", disk.source).strip()
        os.truncate(image, size_bytes)
        _output("losetup", "--set-capacity", disk.source)

    def seen_size(self, guest_id: str, disk: DiskSpec) -> int | None:
        with self.domain(guest_id) as domain:
            size: int = domain.blockInfo(disk.target)[0]
        return None if size == SOURCE_BYTES else size

    def xml(self, guest_id: str, *, config: bool = False) -> str:
        """The guest's XML, seen by other eyes than attachd's."""
        with self.domain(guest_id) as domain:
            return str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE if config else 0))

    @contextlib.contextmanager
    def domain(self, guest_id: str) -> Iterator[libvirt.virDomain]:
        """The domain, through a connection of the stage's own."""
        with _connection() as connection:
            yield connection.lookupByUUIDString(guest_id)

    @contextlib.contextmanager
    def frozen(self, guest_id: str) -> Iterator[None]:
        """The guest's QEMU answers nobody, libvirt neither."""
        pid = self._qemu(guest_id)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def _qemu(self, guest_id: str) -> int:
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (directory / "cmdline").read_bytes()
                if b"qemu" in command and guest_id.encode() in command:
                    return int(directory.name)
        raise AssertionError(f"no QEMU runs {guest_id}")

    def _domain_xml(self, name: str, console: Path, ports: int, devices: str) -> str:
        root_ports = "<controller type='pci' model='pcie-root-port'/>" * ports
        return f"""
            <domain type='{SURROUNDINGS.domain_type}'>
              <name>{name}</name>
              <memory unit='MiB'>160</memory>
              <vcpu>1</vcpu>
              <os>
                <type arch='x86_64' machine='q35'>hvm</type>
                <kernel>{SURROUNDINGS.kernel}</kernel>
                <initrd>{SURROUNDINGS.initrd}</initrd>
                <cmdline>console=ttyS0 mitigations=off</cmdline>
              </os>
              <features><acpi/></features>
              <devices>
                <controller type='pci' model='pcie-root'/>
                {root_ports}
                <controller type='usb' model='none'/>
                {devices}
                <serial type='file'><source path='{console}'/></serial>
                <memballoon model='none'/>
              </devices>
            </domain>"""

    # --- the daemon -----------------------------------------------------------------------

    def take_libvirt_away(self) -> None:
        self._stack.callback(self.bring_libvirt_back)
        self.control("stop")

    def bring_libvirt_back(self) -> None:
        self.control("start")
        eventually("libvirt is back", self._libvirt_answers)

    def control(self, verb: str) -> None:
        """stop, start, kill, hang or wake the libvirt daemon."""
        if SURROUNDINGS.control:
            _output(SURROUNDINGS.control, verb)
            return
        service = "libvirtd.service"
        sockets = ("libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket")
        arguments = {
            "stop": ("stop", *sockets, service),
            "start": ("start", *sockets, service),
            "kill": ("kill", "--signal=KILL", service),
            "hang": ("kill", "--signal=STOP", service),
            "wake": ("kill", "--signal=CONT", service),
        }
        _output("systemctl", *arguments[verb])

    def _libvirt_answers(self) -> bool:
        try:
            with _connection():
                return True
        except libvirt.libvirtError:
            return False


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout
