"""The virtual machine: QEMU's process, its disks, and its saved states."""

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from labkit.image import Image, digest, prune
from labkit.progress import LabError, step, tail
from labkit.qmp import Qmp
from labkit.state import LabDir

CORES = 2
MEMORY_MIB = 4608
CINDER_SIZE = "40G"
DISKS = ("root", "cinder")
FORWARDED = (5000, 8776)
LOAD_SECONDS = 120.0
KILL_SECONDS = 60.0
TRIAL_SECONDS = 20.0
TRIAL_PASSED = "lab-trial: nested virtualisation"
# No transparent huge pages: under TCG's nested paging they cost time.
KERNEL_ARGUMENTS = (
    "transparent_hugepage=never console=ttyS0 quiet panic=-1 mitigations=off apparmor=0 audit=0 "
    "nowatchdog systemd.show_status=false systemd.ssh_auto=no selinux=0"
)
ACCELERATORS = {"kvm": "kvm", "tcg": "tcg,thread=multi,tb-size=1024"}
# What TCG emulates, less what costs guests of guests time or is new there.
PROCESSORS = {
    "kvm": "max",
    "tcg": "qemu64,+svm,+npt,+x2apic,+rdtscp,+lahf_lm,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16",
}


@dataclasses.dataclass(frozen=True)
class Saved:
    """A machine at rest: its two disks, and its memory if it was suspended."""

    path: Path

    @property
    def memory(self) -> Path:
        """Memory and devices; the file is there only when it is complete and fits the disks."""
        return self.path / "memory"

    def disk(self, name: str) -> Path:
        """Return one of the disks."""
        return self.path / f"{name}.qcow2"

    @property
    def has_disks(self) -> bool:
        """Whether the machine can at least be booted."""
        return all(self.disk(name).exists() for name in DISKS)


class Machine:
    """The lab's one virtual machine, with a given image and accelerator."""

    def __init__(self, lab: LabDir, image: Image, accelerator: str) -> None:
        self._lab = lab
        self._image = image
        self._accelerator = accelerator
        self.current = Saved(lab.machine)
        self.key = digest(
            part.encode() for part in (image.key, *self._hardware(), KERNEL_ARGUMENTS)
        )
        self.clean = Saved(lab.clean / self.key)

    def start_fresh(self, ssh_port: int) -> None:
        """Boot the untouched image; the disks written to become those of the clean state."""
        for old in (self.clean.path, self.current.path):
            shutil.rmtree(old, ignore_errors=True)
            old.mkdir()
        prune(self._lab.clean, keep=self.key)
        self._create("-b", self._image.root_disk, "-F", "raw", self.clean.disk("root"))
        self._create(self.clean.disk("cinder"), CINDER_SIZE)
        self._launch(self.clean, ssh_port)

    def start_clean(self, ssh_port: int) -> None:
        """Resume the clean state, on new disks over its own."""
        shutil.rmtree(self.current.path, ignore_errors=True)
        self.current.path.mkdir()
        for name in DISKS:
            self._create("-b", self.clean.disk(name), "-F", "qcow2", self.current.disk(name))
        self._resume(self.clean.memory, ssh_port)
        self.clean.path.touch()

    def start_suspended(self, ssh_port: int) -> None:
        """Resume where `suspend` stopped. The memory fits the disks only once: it is used up."""
        memory = self.current.path / "memory.resuming"
        self.current.memory.rename(memory)
        self._resume(memory, ssh_port)
        memory.unlink()

    def start_from_disk(self, ssh_port: int) -> None:
        """Boot from the disks as they are, as after a loss of power."""
        for memory in self.current.path.glob("memory*"):
            memory.unlink()
        self._launch(self.current, ssh_port)

    def save_clean(self) -> None:
        """Keep the machine that `start_fresh` started as the clean state; it goes on running."""
        partial = self.clean.path / "memory.partial"
        with step("saving the clean state"), self.qmp() as qmp:
            qmp.execute("stop")
            qmp.execute("transaction", actions=[self._continue_elsewhere(name) for name in DISKS])
            qmp.save(partial, time.monotonic() + LOAD_SECONDS)
            qmp.execute("cont")
        partial.rename(self.clean.memory)

    def suspend(self) -> None:
        """Write the machine to disk and end its process."""
        partial = self.current.path / "memory.partial"
        with step("suspending the machine"):
            with self.qmp() as qmp:
                qmp.execute("stop")
                qmp.save(partial, time.monotonic() + LOAD_SECONDS)
            kill(self._lab)
        partial.rename(self.current.memory)

    @contextlib.contextmanager
    def qmp(self) -> Iterator[Qmp]:
        """Talk to the running QEMU."""
        with Qmp(self._socket) as connection:
            yield connection

    @property
    def _socket(self) -> Path:
        return self._lab.root / "qmp.sock"

    def _create(self, *options: str | Path) -> None:
        create = [*self._image.program("qemu-img"), "create", "-q", "-f", "qcow2"]
        done = subprocess.run([*create, *options], capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"qemu-img failed: {done.stderr.strip()}")

    def _continue_elsewhere(self, name: str) -> dict[str, object]:
        data = {
            "device": name,
            "snapshot-file": str(self.current.disk(name)),
            "format": "qcow2",
        }
        return {"type": "blockdev-snapshot-sync", "data": data}

    def _hardware(self) -> list[str]:
        return [
            *("-machine", "q35", "-accel", ACCELERATORS[self._accelerator]),
            *("-cpu", PROCESSORS[self._accelerator]),
            *("-smp", str(CORES), "-m", str(MEMORY_MIB), "-nodefaults", "-display", "none"),
            *("-device", "virtio-blk-pci,drive=root"),
            *("-device", "virtio-blk-pci,drive=cinder"),
        ]

    def _resume(self, memory: Path, ssh_port: int) -> None:
        with step("resuming the machine"):
            self._launch(self.current, ssh_port, incoming=memory)
            with self.qmp() as qmp:
                qmp.wait_loaded(time.monotonic() + LOAD_SECONDS)

    def _launch(self, disks: Saved, ssh_port: int, incoming: Path | None = None) -> None:
        """Start QEMU; it leads a session of its own, so that Ctrl-C here doesn't reach it."""
        console = self._lab.logs / "console.log"
        if console.exists():  # a panic's last words
            console.rename(console.with_suffix(".log.1"))
        forwards = [f"hostfwd=tcp:127.0.0.1:{port}-:{port}" for port in FORWARDED]
        network = ["user", "model=virtio-net-pci", "restrict=on", *forwards]
        drives = []
        for name in DISKS:
            options = "if=none,format=qcow2,cache=writeback,discard=unmap,detect-zeroes=unmap"
            drives += ["-drive", f"id={name},file={disks.disk(name)},{options}"]
        command = [
            *self._image.program("qemu-system-x86_64"),
            *("-L", self._image.firmware, "-name", "attachd-lab", *self._hardware(), *drives),
            *("-global", "virtio-net-pci.romfile="),  # nothing boots from the network
            *("-nic", ",".join([*network, f"hostfwd=tcp:127.0.0.1:{ssh_port}-:22"])),
            *("-kernel", self._image.kernel, "-initrd", self._image.machine_initrd),
            *("-append", KERNEL_ARGUMENTS, "-serial", f"file:{console}"),
            *("-qmp", f"unix:{self._socket},server=on,wait=off"),
            *(("-incoming", f"exec:cat '{incoming}'") if incoming else ()),
        ]
        self._socket.unlink(missing_ok=True)
        log = self._lab.logs / "qemu.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=self._lab.root,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        while not self._socket.exists():
            if process.poll() is not None:
                raise LabError(f"QEMU ended with status {process.returncode}\n{tail(log)}")
            time.sleep(0.05)


def require_free_ports(*, patience: float = 5) -> None:
    """Refuse to start a machine whose ports someone listens on for longer than `patience` seconds.

    A machine that was just suspended may take a moment to give them up.
    """
    deadline = time.monotonic() + patience
    for port in FORWARDED:
        while error := _listening_error(port):
            if time.monotonic() > deadline:
                raise LabError(
                    f"port {port} of 127.0.0.1 is taken (by another lab?): {error.strerror}"
                ) from error
            time.sleep(0.1)


def _listening_error(port: int) -> OSError | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error
    return None


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def processes(lab: LabDir) -> list[int]:
    """Return the lab's QEMU processes, known by their socket: a recorded pid could be anyone's."""
    marker = f"unix:{lab.root / 'qmp.sock'},".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if any(word.startswith(marker) for word in words):
                    found.append(int(entry.name))
    return found


def kill(lab: LabDir) -> None:
    """End the machine's process at once, as a loss of power would, and wait until it is gone."""
    pids = processes(lab)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + KILL_SECONDS
    while left := [pid for pid in pids if not _has_ended(pid)]:
        if time.monotonic() > deadline:
            raise LabError(f"process {left[0]} doesn't die: is its disk out of reach?")
        time.sleep(0.05)


def _has_ended(pid: int) -> bool:
    """Has it closed its files, too? A dying process loses its memory, and so its name, before."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        threads = len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208 - names are enough
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX" and threads == 1


def choose_accelerator(lab: LabDir, image: Image) -> str:
    """Return kvm if it boots this very kernel, and offers nested virtualisation to it; else tcg.

    That /dev/kvm is there says little: in some sandboxes it can't run a stock kernel. The answer
    holds until this machine reboots.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    cache = lab.root / "accelerator"
    if cache.exists():
        known_boot, _, known = cache.read_text().partition(" ")
        if known_boot == boot:
            return known
    accelerator = "kvm" if _kvm_boots(image) else "tcg"
    cache.write_text(f"{boot} {accelerator}")
    return accelerator


def _kvm_boots(image: Image) -> bool:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    command = [
        *image.program("qemu-system-x86_64"),
        *("-L", image.firmware, "-machine", "q35", "-accel", "kvm", "-cpu", "max", "-m", "512"),
        *("-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"),
        *("-kernel", image.kernel, "-initrd", image.guest_initrd),
        *("-append", "console=ttyS0 quiet panic=-1"),
    ]
    with step("trying whether KVM works here"):
        try:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TRIAL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as over:
            return TRIAL_PASSED.encode() in (over.stdout or b"")
    return False
