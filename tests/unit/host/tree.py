"""A /sys and a /dev in a temporary directory, laid out as the kernel and udev lay them out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from attachd.model import Connection, Target

IQN = "iqn.2010-10.org.openstack:volume-1"
WWN = "36001405aaaabbbbccccddddeeeeffff0"
OTHER_WWN = "36001405000011112222333344445555f"
GIB = 1024**3


def target(lun: int = 0, *, iqn: str = IQN, portal: str = "127.0.0.1:3260") -> Target:
    return Target(portal=portal, iqn=iqn, lun=lun)


def connection(*targets: Target) -> Connection:
    return Connection(protocol="iscsi", targets=targets or (target(),))


def designator(body: bytes, *, kind: int = 3, code_set: int = 1, association: int = 0) -> bytes:
    return bytes([code_set, association << 4 | kind, 0, len(body)]) + body


def page_83(*designators: bytes) -> bytes:
    body = b"".join(designators)
    return bytes([0, 0x83]) + len(body).to_bytes(2, "big") + body


class Tree:
    """``sys`` and ``dev`` below ``root``, and the kernel's ways to change them."""

    def __init__(self, root: Path) -> None:
        self.sys = root / "sys"
        self.dev = root / "dev"
        (self.sys / "block").mkdir(parents=True)
        (self.dev / "disk/by-id").mkdir(parents=True)

    def session(self, sid: int, iqn: str = IQN, *, portal: str = "127.0.0.1:3260") -> None:
        address, _, port = portal.rpartition(":")
        self._host(sid).mkdir(parents=True)
        session = self.sys / f"class/iscsi_session/session{sid}"
        session.mkdir(parents=True)
        (session / "device").symlink_to(self._host(sid))
        (session / "targetname").write_text(f"{iqn}\n")
        (session / "state").write_text("LOGGED_IN\n")
        connection = self.connection(sid)
        connection.mkdir(parents=True)
        for prefix in ("", "persistent_"):
            (connection / f"{prefix}address").write_text(f"{address.strip('[]')}\n")
            (connection / f"{prefix}port").write_text(f"{port}\n")

    def connection(self, sid: int) -> Path:
        """What the kernel tells of a session's one connection."""
        name = f"connection{sid}:0"
        return self._host(sid) / name / "iscsi_connection" / name

    def lun(self, sid: int, lun: int, name: str, *, wwn: str | None = WWN, size: int = GIB) -> Path:
        place = self._host(sid) / f"target{sid}:0:0/{sid}:0:0:{lun}"
        block = place / "block" / name
        (block / "holders").mkdir(parents=True)
        (block / "size").write_text(f"{size // 512}\n")
        (block / "device").symlink_to(os.path.relpath(place, block))
        if wwn is not None:
            (place / "vpd_pg83").write_bytes(page_83(designator(bytes.fromhex(wwn[1:]))))
        self._list(block)
        return place

    def link(self, name: str, *, wwn: str = WWN, prefix: str = "wwn-0x") -> Path:
        """udev's identity path."""
        identity = wwn[1:] if prefix == "wwn-0x" else wwn
        path = self.dev / f"disk/by-id/{prefix}{identity}"
        path.symlink_to(f"../../{name}")
        return path

    def grow(self, name: str, size: int) -> None:
        """The kernel was told to look again."""
        (self.sys / "block" / name / "size").write_text(f"{size // 512}\n")

    def map(
        self, name: str, *disks: str, title: str = "mpatha", uuid: str = f"mpath-{WWN}"
    ) -> None:
        """A device of device-mapper over others."""
        block = self.sys / "devices/virtual/block" / name
        for directory in ("dm", "slaves", "holders"):
            (block / directory).mkdir(parents=True)
        (block / "dm/uuid").write_text(f"{uuid}\n")
        (block / "dm/name").write_text(f"{title}\n")
        (block / "size").write_text(f"{GIB // 512}\n")
        self._list(block)
        for disk in disks:
            (block / "slaves" / disk).symlink_to(self.sys / "block" / disk)
            (self.sys / "block" / disk / "holders" / name).mkdir()

    def unmap(self, title: str) -> None:
        """By the name that device-mapper has for it."""
        for block in (self.sys / "block").glob("dm-*"):
            if (block / "dm/name").read_text().strip() == title:
                for disk in (block / "slaves").iterdir():
                    if disk.exists():
                        (self.sys / "block" / disk.name / "holders" / block.name).rmdir()
                shutil.rmtree(block.resolve())
                block.unlink()
                (self.dev / block.name).unlink()

    def down(self, sid: int) -> None:
        """The session is lost, and the kernel tries to get it back."""
        (self.sys / f"class/iscsi_session/session{sid}/state").write_text("FAILED\n")

    def remove_lun(self, name: str) -> None:
        place = (self.sys / "block" / name / "device").resolve()
        (self.sys / "block" / name).unlink()
        (self.dev / name).unlink()
        shutil.rmtree(place)

    def remove_session(self, sid: int) -> None:
        """Its devices go with it."""
        for block in list((self.sys / "block").iterdir()):
            if self._host(sid) in block.resolve().parents:
                self.remove_lun(block.name)
        shutil.rmtree(self.sys / f"class/iscsi_session/session{sid}")
        shutil.rmtree(self._host(sid))

    def _list(self, block: Path) -> None:
        """Where it is found: by a link to its place."""
        link = self.sys / "block" / block.name
        link.symlink_to(os.path.relpath(block, link.parent))
        (self.dev / block.name).write_text("")

    def _host(self, sid: int) -> Path:
        return self.sys / f"devices/platform/host{sid}/session{sid}"
