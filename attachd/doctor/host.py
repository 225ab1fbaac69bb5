"""The host's checks: KVM, iSCSI, multipath, LVM."""

from __future__ import annotations

import re
from functools import partial

from attachd.doctor.catalogue import Check, Fault
from attachd.doctor.examination import Examination, single
from attachd.doctor.findings import Finding, fine, unseen, wrong
from attachd.doctor.lvm_filter import scanned_device
from attachd.doctor.ports import Host
from attachd.model import Multipath
from attachd.vitals import FileStatus, InitiatorName, LvmScan

NAME_FILE = "/etc/iscsi/initiatorname.iscsi"
HOOK = "/etc/libvirt/hooks/qemu.d/attachd"

_EXECUTABLE = 0o100
_TICK_SECONDS = 2.0
"""By so much two clocks may tell one moment differently."""
_CLONED_SECONDS = 24 * 3600.0
"""The packages of an image may be unpacked in any order; a clone's machine id comes days later."""

# RFC 7143, 4.2.7
_NAME = re.compile(
    r"iqn\.\d{4}-\d{2}\.(?P<authority>[^:]+)(?P<own>:.+)?|eui\.[0-9A-Fa-f]{16}"
    r"|naa\.([0-9A-Fa-f]{16}|[0-9A-Fa-f]{32})"
)
# Domains that are for documentation (RFC 2606), reversed.
_DOCUMENTATION = re.compile(r"(com|net|org)\.example(\..*)?|example(\..*)?")
# Behind the colon, these tell no hosts apart; distributions put ":01" before their own part.
_NOBODYS = re.compile(r"(:01)?:(default|client|initiator|host|node|localhost|test)")
_NOTHING = re.compile(r"(:01)?:?")
# Where programs that make names begin them (iscsi-iname): what they made has a part of its own.
_MAKERS = frozenset(
    {"org.debian", "com.ubuntu", "com.redhat", "de.suse", "com.suse", "com.oracle", "com.cisco"}
    | {"org.open-iscsi", "com.open-iscsi"}
)
# Baked into ready-made images, by their issue trackers: every machine made of one has it.
_OF_IMAGES = frozenset({"iqn.2004-10.com.ubuntu:01:52c55542e014"})


def examinations(host: Host, *, multipath: Multipath) -> tuple[Examination, ...]:
    """All of them."""
    return (
        single(Check.LIBVIRT_HOOK, lambda: hook(host.status_as_root(HOOK))),
        single(Check.KVM, lambda: kvm(host.kvm())),
        single(Check.ISCSID, lambda: iscsid(host.iscsid_hindrance())),
        single(Check.INITIATOR_NAME, lambda: initiator_name(host.initiator_name())),
        single(Check.MULTIPATHD, partial(_look_at_multipathd, host, multipath)),
        single(Check.LVM_FILTER, lambda: lvm_filter(host.lvm_scan(), multipath=multipath)),
    )


def hook(status: FileStatus | None) -> Finding:
    """Is attachd's hook where libvirt looks for it?"""
    if status is None:
        return wrong(Fault.HOOK_MISSING, f"{HOOK} is missing.")
    if not status.mode & _EXECUTABLE:
        return wrong(Fault.HOOK_NOT_EXECUTABLE, f"{HOOK} has mode {status.mode:04o}.")
    return fine(Check.LIBVIRT_HOOK, f"{HOOK} is there.")


def kvm(present: bool) -> Finding:
    """Emulation works, too."""
    if not present:
        return wrong(Fault.KVM_MISSING, "There is no /dev/kvm.")
    return fine(Check.KVM, "/dev/kvm is there.")


def iscsid(hindrance: str | None) -> Finding:
    """It needn't run, but it must come when it is asked for."""
    if hindrance is not None:
        return wrong(Fault.ISCSID_UNAVAILABLE, hindrance)
    return fine(Check.ISCSID, "iscsid runs, or comes when it is asked for.")


def initiator_name(found: InitiatorName | None) -> Finding:
    """A name that other hosts may have, too, lets them in to this one's volumes."""
    if found is None or found.name is None:
        return wrong(Fault.INITIATOR_NAME_MISSING, f"{NAME_FILE} is missing, or names none.")
    form = _NAME.fullmatch(found.name)
    if form is None:
        return wrong(Fault.INITIATOR_NAME_INVALID, f"The name is {found.name!r}.")
    if found.name in _OF_IMAGES or _is_default(form["authority"], form["own"]):
        return wrong(Fault.INITIATOR_NAME_DEFAULT, f"The name is {found.name}.")
    if found.iscsid_since is not None and found.written_at > found.iscsid_since + _TICK_SECONDS:
        return wrong(
            Fault.INITIATOR_NAME_UNREAD,
            f"{NAME_FILE} ({found.name}) was written when iscsid ran already.",
        )
    if found.machine_id_at and found.written_at < found.machine_id_at - _CLONED_SECONDS:
        days = (found.machine_id_at - found.written_at) / 86400
        return wrong(
            Fault.INITIATOR_NAME_CLONED,
            f"{found.name} was written {days:.0f} days before this host got its machine id.",
        )
    return fine(Check.INITIATOR_NAME, f"{found.name} is this host's.")


def _is_default(authority: str | None, own: str | None) -> bool:
    if authority is None:
        return False  # eui and naa are a maker's numbers
    own = own or ""
    unfinished = authority in _MAKERS and _NOTHING.fullmatch(own)
    return bool(unfinished or _DOCUMENTATION.fullmatch(authority) or _NOBODYS.fullmatch(own))


def _look_at_multipathd(host: Host, mode: Multipath) -> Finding:
    if mode is Multipath.OFF:
        return fine(Check.MULTIPATHD, "[brick] multipath is off: each volume has one path.")
    return multipathd(mode, runs=host.multipathd_runs())


def multipathd(mode: Multipath, *, runs: bool) -> Finding:
    """Where paths are asked for, somebody must put them together."""
    if runs:
        return fine(Check.MULTIPATHD, f"multipathd runs ([brick] multipath is {mode}).")
    fault = Fault.MULTIPATHD_NOT_RUNNING
    if mode is Multipath.REQUIRE:
        fault = Fault.MULTIPATHD_REQUIRED
    return wrong(fault, f"multipathd doesn't run; [brick] multipath is {mode}.")


def lvm_filter(scan: LvmScan | None, *, multipath: Multipath) -> Finding:
    """The host's LVM must not find what a guest keeps on its volumes."""
    if scan is None:
        return fine(Check.LVM_FILTER, "There is no LVM on this host.")
    shown = f"global_filter = [{', '.join(scan.global_filter)}]"
    try:
        scanned = scanned_device(scan, mapped=multipath is not Multipath.OFF)
    except ValueError as exc:
        return unseen(Check.LVM_FILTER, str(exc), remedy="lvmconfig --validate")
    if scanned is not None:
        return wrong(Fault.LVM_SCANS_VOLUMES, f"{shown} lets LVM look at a volume on {scanned}.")
    if scan.devices_file:
        return fine(Check.LVM_FILTER, "LVM looks at the disks in its devices file only.")
    return fine(Check.LVM_FILTER, f"{shown} keeps LVM off the guests' volumes.")
