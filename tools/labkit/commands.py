"""The lab: a whole OpenStack host in one virtual machine, to try attachd on."""

import argparse
import contextlib
import dataclasses
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

from labkit import image as images
from labkit import outer, readiness, vm
from labkit import push as pushing
from labkit.image import Image
from labkit.progress import LabError, note, step, tail
from labkit.ssh import Ssh
from labkit.state import LabDir, write_private

TREE = Path(__file__).resolve().parents[2]
WITH_DISKS = ("ready", "suspending", "suspended", "restarting")
"""The phases in which the machine's disks are worth booting from."""

SLOW_ANSWER_SECONDS = 120.0
REBOOT_SECONDS = 180.0
ATTACHD_SECONDS = 120.0
INTERRUPTED = 130


class Lab:
    """One lab as a command sees it: its directory, this tree, and what was recorded."""

    def __init__(self, directory: LabDir) -> None:
        self.directory = directory
        self.record = directory.read()

    def image(self) -> Image:
        """Return the image the machine runs."""
        if self.record.image_key is None:
            raise LabError("there is no lab yet: tools/lab up")
        return Image(self.record.image_key, self.directory.images / self.record.image_key)

    def machine(self) -> vm.Machine:
        """Return the machine as it was started."""
        return vm.Machine(self.directory, self.image(), self.record.accelerator or "tcg")

    def ssh(self) -> Ssh:
        """Return the way into the host."""
        return Ssh(self.directory, self.image(), self.record.ssh_port or 0)

    def running(self) -> bool:
        """Whether the machine runs and was ready once."""
        return self.record.phase == "ready" and bool(vm.processes(self.directory))

    def require_running(self) -> None:
        """Refuse a command that needs the machine."""
        if not self.running():
            raise LabError("the lab isn't up: tools/lab up")

    def update(self, **changes: object) -> None:
        """Record what became of the lab."""
        self.record = dataclasses.replace(self.record, **changes)  # type: ignore[arg-type]
        self.directory.write(self.record)

    def stop(self) -> None:
        """End the machine and the shared connection, and leave the disks as they are."""
        if self.record.image_key is not None:
            self.ssh().disconnect()
        vm.kill(self.directory)


def up(lab: Lab, _: argparse.Namespace) -> int:
    """Build what is missing, boot or resume, and wait until ready."""
    outer.install_missing(lab.directory)
    image = images.ensure(lab.directory, TREE)
    _bring_up(lab, image, keep=True)
    return 0


def reset(lab: Lab, _: argparse.Namespace) -> int:
    """Go back to the clean state of a first `up`, and up."""
    outer.install_missing(lab.directory)
    image = images.ensure(lab.directory, TREE)
    lab.stop()
    _bring_up(lab, image, keep=False)
    return 0


def _bring_up(lab: Lab, image: Image, *, keep: bool) -> None:
    """Make this image's machine run and be ready, with this tree's attachd.

    With `keep`, what was done in the lab since its clean state stays, if that is possible.
    """
    accelerator = vm.choose_accelerator(lab.directory, image)
    machine = vm.Machine(lab.directory, image, accelerator)
    same = keep and lab.record.state_key == machine.key
    if not (same and lab.running() and _answers(lab)):
        lab.stop()
        vm.require_free_ports()
        phase = lab.record.phase if same and machine.current.has_disks else "absent"
        lab.update(
            phase="restarting" if phase in WITH_DISKS else "starting",
            image_key=image.key,
            state_key=machine.key,
            accelerator=accelerator,
            ssh_port=vm.free_port(),
            pushed=lab.record.pushed if phase in WITH_DISKS else None,
        )
        _start(lab, machine, phase)
    write_private(lab.directory.clouds, image.clouds.read_text())
    lab.update(phase="ready")
    _push_if_changed(lab)
    _wait_for_attachd(lab)


def _answers(lab: Lab) -> bool:
    """Whether the running machine is ready; a busy one gets time to answer."""
    try:
        readiness.wait_ready(lab.image(), lab.ssh(), seconds=SLOW_ANSWER_SECONDS)
    except LabError as error:
        note(f"the running lab is of no use: {error}")
        return False
    return True


def _start(lab: Lab, machine: vm.Machine, phase: str) -> None:
    """Start the machine by the quickest way that is left; a way that fails leads to the next."""
    port = lab.record.ssh_port or 0
    ways: list[tuple[str, Callable[[int], None]]] = []
    if phase == "suspended" and machine.current.memory.exists():
        ways.append(("resuming the suspended lab", machine.start_suspended))
    if phase in WITH_DISKS:
        ways.append(("booting the lab from its disks", machine.start_from_disk))
    if machine.clean.memory.exists():
        ways.append(("resuming the clean state", machine.start_clean))
    for title, start in ways:
        note(title)
        try:
            if start == machine.start_clean and phase in WITH_DISKS:
                note("what was done in the lab since its clean state is lost")
                lab.update(phase="starting")
            start(port)
            _after_start(lab, resumed=start != machine.start_from_disk)
        except (LabError, OSError) as error:
            note(f"{title} failed: {error}")
            lab.stop()
        else:
            return
        if start == machine.start_from_disk:
            lab.update(pushed=None)
    lab.update(phase="starting")
    with step("booting the image for the first time"):
        machine.start_fresh(port)
    _after_start(lab, resumed=False)
    lab.ssh().call(["sh", "-c", "sync; echo 3 >/proc/sys/vm/drop_caches; sleep 2"])
    lab.ssh().disconnect()
    machine.save_clean()
    _after_start(lab, resumed=True)


def _after_start(lab: Lab, *, resumed: bool) -> None:
    ssh = lab.ssh()
    if resumed:
        with step("waiting for the host"):
            ssh.connect(time.monotonic() + readiness.BOOT_SECONDS)
            # The machine slept; tokens and Cinder's heartbeats live by the clock.
            ssh.call(["date", "--utc", "--set", f"@{time.time():.3f}"])
    try:
        readiness.wait_ready(lab.image(), ssh)
    except LabError as error:
        raise LabError(f"{error}\n{tail(lab.directory.logs / 'console.log')}") from error


def _wait_for_attachd(lab: Lab) -> None:
    if lab.record.pushed is not None:
        readiness.wait_active(lab.ssh(), ["attachd"], ATTACHD_SECONDS)


def _push_if_changed(lab: Lab) -> None:
    if lacking := pushing.missing(TREE):
        note(f"attachd isn't installed: this tree has no {', '.join(lacking)}")
        return
    current = (pushing.fingerprint(TREE), pushing.package_fingerprint(TREE, None))
    if lab.record.pushed not in current:
        _push(lab)
    lab.update(tree=str(TREE))


def _push(lab: Lab) -> None:
    fingerprint = pushing.fingerprint(TREE)
    lab.update(pushed=None)
    pushing.push(lab.directory, TREE, lab.ssh())
    lab.update(pushed=fingerprint, tree=str(TREE))


def push(lab: Lab, options: argparse.Namespace) -> int:
    """Build the working tree's wheel, install it, and restart the service."""
    lab.require_running()
    if options.deb is None:
        _push(lab)
        return 0
    version = options.deb or None
    fingerprint = pushing.package_fingerprint(TREE, version)
    lab.update(pushed=None)
    pushing.push_package(lab.directory, TREE, lab.ssh(), version)
    lab.update(pushed=fingerprint, tree=str(TREE))
    return 0


def down(lab: Lab, _: argparse.Namespace) -> int:
    """Suspend the lab to disk; the next `up` goes on from there."""
    if lab.running():
        lab.ssh().disconnect()
        lab.update(phase="suspending")
        lab.machine().suspend()
        lab.update(phase="suspended")
    lab.stop()
    return 0


def destroy(lab: Lab, _: argparse.Namespace) -> int:
    """Remove the lab and all it built."""
    lab.stop()
    left = [path for path in lab.directory.root.iterdir() if path.suffix != ".lock"]
    for path in sorted(left, key=Path.is_dir):  # the record first: without it there is no lab
        images.remove_tree(path)
    return 0


def status(lab: Lab, options: argparse.Namespace) -> int:
    """Say what the lab is doing, and whose attachd is in it."""
    pids = vm.processes(lab.directory)
    record = lab.record
    phase = "stopped" if record.phase == "ready" and not pids else record.phase
    answer = {
        "state": phase,
        "running": bool(pids),
        "ready": lab.running(),
        "tree": record.tree,
        "attachd": record.pushed,
        "accelerator": record.accelerator,
        "image": record.image_key,
        "pid": pids[0] if pids else None,
        "ssh_port": record.ssh_port if pids else None,
        "directory": str(lab.directory.root),
    }
    if options.json:
        text = json.dumps(answer, indent=2)
    else:
        lines = (f"{name:12} {'-' if value is None else value}" for name, value in answer.items())
        text = "\n".join(lines)
    with contextlib.suppress(BrokenPipeError):  # of `lab status | head`
        print(text, flush=True)
    return 0


def ssh(lab: Lab, options: argparse.Namespace) -> int:
    """Run a command as root in the lab's host, or log in."""
    return _in_host(lab, _argv(options.command))


def guest(lab: Lab, options: argparse.Namespace) -> int:
    """Create, use and delete guests: see `lab guest create --help`."""
    return _in_host(lab, ["lab-guest", *options.command])


def _in_host(lab: Lab, argv: list[str]) -> int:
    lab.require_running()
    way = lab.ssh()
    way.connect(time.monotonic() + readiness.BOOT_SECONDS)
    return way.pass_through(argv)


def reboot(lab: Lab, _: argparse.Namespace) -> int:
    """Reboot the host in order, and return when it is ready."""
    lab.require_running()
    way = lab.ssh()
    way.connect(time.monotonic() + readiness.BOOT_SECONDS)
    before = way.boot_id()
    with step("rebooting the host"):
        way.call(["systemctl", "reboot", "--no-block"])
        deadline = time.monotonic() + REBOOT_SECONDS
        while way.boot_id() in (None, before):
            if time.monotonic() > deadline:
                raise LabError("the host doesn't come back")
            time.sleep(1)
    _after_start(lab, resumed=False)
    _wait_for_attachd(lab)
    return 0


def crash(lab: Lab, _: argparse.Namespace) -> int:
    """Kill the machine as a loss of power would, boot it again, and return when it is ready."""
    lab.require_running()
    lab.stop()
    with step("booting after the crash"):
        lab.machine().start_from_disk(lab.record.ssh_port or 0)
        _after_start(lab, resumed=False)
        _wait_for_attachd(lab)
    return 0


def _argv(words: list[str]) -> list[str]:
    return words[1:] if words[:1] == ["--"] else words


Command = Callable[[Lab, argparse.Namespace], int]
CHANGING: tuple[Command, ...] = (up, down, reset, destroy, reboot, crash, push)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="lab", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function in (*CHANGING, status, ssh, guest):
        name = function.__name__
        command = commands.add_parser(
            name, help=function.__doc__, description=function.__doc__, add_help=name != "guest"
        )
        command.set_defaults(function=function)
        if function is status:
            command.add_argument("--json", action="store_true", help="print it as JSON")
        if function is push:
            command.add_argument(
                "--deb",
                nargs="?",
                const="",
                metavar="VERSION",
                help="the Debian package instead of the wheel; VERSION: not its changelog's",
            )
        if function in (ssh, guest):
            command.add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args()


def main() -> int:
    """Run one command; errors are one message each."""
    options = parse()
    run: Command = options.function
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        directory = LabDir.from_environment()
        if run in CHANGING:
            with directory.changing(str(TREE)):
                return run(Lab(directory), options)
        if run is status:  # even while another command takes its time
            return status(Lab(directory), options)
        with directory.using():
            return run(Lab(directory), options)
    except (LabError, OSError) as error:
        note(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        note("interrupted")
        return INTERRUPTED
