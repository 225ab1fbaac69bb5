"""A small open-iscsi and os-brick over a tree: node records, logins, logouts, removals.

``OpenIscsi`` runs the commands (it is the room's ``execute``) and ``FakeBrick`` the calls, as far
as the room relies on them; both change the tree as the kernel would.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from attachd.host.brick import Execute, ProcessExecutionError
from attachd.host.commands import NO_RECORDS, NO_SESSION
from tests.unit.host.tree import WWN, Tree

Place = tuple[str, str]
"""Portal and IQN."""


@dataclass(kw_only=True)
class OpenIscsi:
    """``records`` are the node records, ``sessions`` the tree's session numbers."""

    tree: Tree
    records: set[Place] = field(default_factory=set)
    sessions: dict[Place, int] = field(default_factory=dict)
    opened_by: list[str] = field(default_factory=list)
    openers: dict[str, list[str]] = field(default_factory=dict)
    """Of a device by its path, beside ``opened_by``, which are every device's."""
    claimed: bool = False
    login_failures: list[ProcessExecutionError] = field(default_factory=list)
    starting: int = 0
    """So many logouts find an iscsid that doesn't know its sessions yet."""
    busy_maps: int = 0
    """So many flushes of a map fail."""
    deaf: bool = False
    ran: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(self, *command: str, **options: object) -> tuple[str, str]:
        """Run a command."""
        self.ran.append(command)
        match command:
            case ("iscsiadm", "-m", "node"):
                return self._list_records(options["check_exit_code"])
            case ("iscsiadm", "-m", "session", "-r", sid, "--logout"):
                self._log_out_of(int(sid))
            case ("iscsiadm", "-m", "node", "-T", iqn, "-p", portal, *verb):
                self._node((portal, iqn), tuple(verb))
            case (_, "-I", "-S", _, path):
                opened_by = self.opened_by + self.openers.get(path, [])
                first = "claimed" if self.claimed else "unclaimed"
                return "\0".join([first, *opened_by]), ""
            case ("multipath", "-f", title) if self.busy_maps:
                self.busy_maps -= 1
                raise ProcessExecutionError(exit_code=1, cmd=f"multipath -f {title}")
            case ("multipath", "-f", title):
                self.tree.unmap(title)
        return "", ""

    def log_in(self, place: Place) -> None:
        """A session in the tree."""
        if place not in self.sessions:
            self.sessions[place] = max(self.sessions.values(), default=0) + 1
            self.tree.session(self.sessions[place], place[1], portal=place[0])

    def _list_records(self, accepted: object) -> tuple[str, str]:
        assert isinstance(accepted, list)
        if not self.records and NO_RECORDS not in accepted:
            raise ProcessExecutionError(exit_code=NO_RECORDS)
        return "".join(f"{portal},1 {iqn}\n" for portal, iqn in sorted(self.records)), ""

    def _node(self, place: Place, verb: tuple[str, ...]) -> None:
        match verb:
            case ("--op", "new"):
                self.records.add(place)
            case ("--op", "delete"):
                self.records.discard(place)
            case ("--login",):
                if self.login_failures:
                    raise self.login_failures.pop(0)
                self.log_in(place)
            case ("--logout",) if self.starting:
                self.starting -= 1
                raise ProcessExecutionError(exit_code=NO_SESSION, cmd="iscsiadm")
            case ("--logout",) if place in self.sessions:
                self._log_out_of(self.sessions[place])

    def _log_out_of(self, sid: int) -> None:
        if not self.deaf:
            self.tree.remove_session(sid)
            self.sessions = {place: s for place, s in self.sessions.items() if s != sid}


@dataclass(kw_only=True)
class FakeBrick:
    """os-brick's connector; ``luns`` are what the storage exports, each by the first portal.

    With ``multipath`` it connects the LUN of every portal as sda, sdb ..., and dm-0 is their map,
    where ``maps`` says so.

    ``hold`` is waited for where ``wait_at`` says; ``removes`` False: a disconnect removes nothing.
    """

    execute: Execute
    iscsi: OpenIscsi
    luns: Mapping[int, str]
    calls: list[tuple[str, dict[str, Any]]]
    hold: threading.Event | None = None
    wait_at: str = ""
    removes: bool = True
    grown: int | None = None
    """What the storage says of a LUN's size; None: what it has said before."""
    failure: Exception | None = None
    multipath: bool = False
    maps: bool = True
    map_uuid: str = f"mpath-{WWN}"

    def connect_volume(self, properties: dict[str, Any], /) -> dict[str, str]:
        """Log in and find the LUN; wait and fail as told."""
        self.calls.append(("connect", properties))
        self._wait("lock")
        if self.multipath:
            return self._connect_all(properties)
        place = (properties["target_portals"][0], properties["target_iqns"][0])
        node = ("iscsiadm", "-m", "node", "-T", place[1], "-p", place[0])
        self.execute(*node, "--op", "new", run_as_root=True)
        self.execute(*node, "--login", run_as_root=True)
        self._wait("login")
        if self.failure:
            raise self.failure
        lun = properties["target_luns"][0]
        self.iscsi.tree.lun(self.iscsi.sessions[place], lun, self.luns[lun])
        self._wait("end")
        return {"type": "block", "path": f"/dev/{self.luns[lun]}"}

    def _connect_all(self, properties: dict[str, Any]) -> dict[str, str]:
        disks = []
        places = zip(properties["target_portals"], properties["target_iqns"], strict=True)
        for name, place in zip(("sda", "sdb", "sdc"), places, strict=False):
            node = ("iscsiadm", "-m", "node", "-T", place[1], "-p", place[0])
            self.execute(*node, "--op", "new", run_as_root=True)
            self.execute(*node, "--login", run_as_root=True)
            self.iscsi.tree.lun(self.iscsi.sessions[place], properties["target_luns"][0], name)
            disks.append(name)
        if not self.maps:
            return {"type": "block", "path": f"/dev/{disks[0]}"}
        self.iscsi.tree.map("dm-0", *disks, uuid=self.map_uuid)
        self.execute("multipath", "-C", "dm-0", run_as_root=True)
        return {"type": "block", "path": "/dev/dm-0", "multipath_id": WWN}

    def _remove_all(self) -> None:
        for block in sorted((self.iscsi.tree.sys / "block").glob("dm-*")):
            title = (block / "dm/name").read_text().strip()
            self.execute("multipath", "-f", title, run_as_root=True)
        for block in sorted((self.iscsi.tree.sys / "block").glob("sd*")):
            delete = f"/sys/block/{block.name}/device/delete"
            self.execute("tee", "-a", delete, process_input="1", run_as_root=True)
            self.iscsi.tree.remove_lun(block.name)

    def disconnect_volume(self, properties: dict[str, Any], info: dict[str, str], /) -> None:
        """Flush and remove the device it is told of; log out where no other is left."""
        self.calls.append(("disconnect", {**properties, **info}))
        self._wait("lock")
        if self.failure:
            raise self.failure
        if not self.removes:
            return
        if self.multipath:
            self._remove_all()
        elif info:
            self.execute("blockdev", "--flushbufs", info["path"], run_as_root=True)
            name = info["path"].removeprefix("/dev/")
            delete = f"/sys/block/{name}/device/delete"
            self.execute("tee", "-a", delete, process_input="1", run_as_root=True)
            self.iscsi.tree.remove_lun(name)
        for place in zip(properties["target_portals"], properties["target_iqns"], strict=True):
            node = ("iscsiadm", "-m", "node", "-T", place[1], "-p", place[0])
            if not list((self.iscsi.tree.sys / "block").iterdir()):
                self.execute(*node, "--logout", run_as_root=True)
                self.execute(*node, "--op", "delete", run_as_root=True)

    def extend_volume(self, properties: dict[str, Any], /) -> int | None:
        """Find the device by lsscsi, and have the kernel look again."""
        self.calls.append(("extend", properties))
        self._wait("lock")
        self.execute("lsscsi")
        if self.failure:
            raise self.failure
        name = self.luns[properties["target_luns"][0]]
        rescan = "/sys/bus/scsi/drivers/sd/1:0:0:0/rescan"
        self.execute("tee", "-a", rescan, process_input="1", run_as_root=True)
        if self.grown is not None:
            self.iscsi.tree.grow(name, self.grown)
        return self.grown

    def _wait(self, place: str) -> None:
        while self.hold is not None and place == self.wait_at and not self.hold.wait(0.02):
            if place == "login":
                # os-brick's loop runs commands while it waits.
                self.execute("iscsiadm", "-m", "session", run_as_root=True)
