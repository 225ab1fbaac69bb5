"""Real targets on this host's own LIO, through configfs; for the contract tests in the lab.

Everything carries the prefix ``iqn.2026-01.test.attachd``, listens on a port of its own, and goes
with :meth:`Lio.close`. Nothing is saved: Cinder's targets beside it don't notice.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

CONFIGFS = Path("/sys/kernel/config/target")
PREFIX = "iqn.2026-01.test.attachd"
PORTAL = "127.0.0.1:3270"
_HBA = "fileio_970"


@dataclass(kw_only=True)
class Backstore:
    """A file as a LUN; ``wwn`` is what LIO makes of its serial."""

    name: str
    file: Path
    wwn: str

    @property
    def path(self) -> Path:
        """Its directory in configfs."""
        return CONFIGFS / "core" / _HBA / self.name


@dataclass(kw_only=True)
class LioTarget:
    """A target with one portal group; ``luns`` by number."""

    iqn: str
    luns: dict[int, Backstore] = field(default_factory=dict)

    @property
    def tpg(self) -> Path:
        """Its portal group's directory in configfs."""
        return CONFIGFS / "iscsi" / self.iqn / "tpgt_1"


def available() -> bool:
    """Has this machine an LIO and an open-iscsi for a test to use, as root?"""
    if os.geteuid() != 0 or not shutil.which("iscsiadm"):
        return False
    loaded = subprocess.run(["modprobe", "iscsi_target_mod"], capture_output=True, check=False)
    return loaded.returncode == 0 and CONFIGFS.is_dir()


class Lio:
    """Makes targets and takes them away again."""

    def __init__(self) -> None:
        self._files = tempfile.TemporaryDirectory(prefix="attachd-lio-", dir="/var/tmp")
        self._targets: list[LioTarget] = []
        self._backstores: list[Backstore] = []
        for fabric in ("iscsi", f"core/{_HBA}"):
            (CONFIGFS / fabric).mkdir(exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def target(
        self,
        *,
        chap: tuple[str, str] | None = None,
        mutual: tuple[str, str] | None = None,
        portals: Sequence[str] = (PORTAL,),
    ) -> LioTarget:
        """A target open to every initiator, or to those with these CHAP credentials.

        ``mutual``: those by which it proves itself to an initiator that asks for them.
        """
        target = LioTarget(iqn=f"{PREFIX}:{uuid.uuid4().hex[:12]}")
        target.tpg.mkdir(parents=True)
        self._targets.append(target)
        for attribute, value in (
            ("authentication", int(chap is not None)),
            ("generate_node_acls", 1),
            ("cache_dynamic_acls", 1),
            ("demo_mode_write_protect", 0),
        ):
            (target.tpg / "attrib" / attribute).write_text(str(value))
        if chap is not None:
            self.set_chap(target, *chap)
        if mutual is not None:
            (target.tpg / "auth/userid_mutual").write_text(mutual[0])
            (target.tpg / "auth/password_mutual").write_text(mutual[1])
        for portal in portals:
            self.open_portal(target, portal)
        (target.tpg / "enable").write_text("1")
        return target

    def set_chap(self, target: LioTarget, username: str, password: str) -> None:
        """Change the credentials behind everybody's back."""
        (target.tpg / "auth/userid").write_text(username)
        (target.tpg / "auth/password").write_text(password)

    def open_portal(self, target: LioTarget, portal: str = PORTAL) -> None:
        """Listen."""
        (target.tpg / "np" / portal).mkdir()

    def close_portal(self, target: LioTarget) -> None:
        """Refuse connections from now on."""
        (target.tpg / "np" / PORTAL).rmdir()

    def put(self, target: LioTarget, lun: int, *, size_bytes: int) -> Backstore:
        """Put a new backstore behind a LUN, in place of one that is there."""
        self.take(target, lun)
        backstore = self._backstore(size_bytes)
        directory = target.tpg / "lun" / f"lun_{lun}"
        directory.mkdir()
        (directory / "attachd").symlink_to(backstore.path)
        target.luns[lun] = backstore
        return backstore

    def grow(self, target: LioTarget, lun: int, *, size_bytes: int) -> None:
        """Make a LUN's backstore larger; LIO tells no initiator."""
        backstore = target.luns[lun]
        with backstore.file.open("r+b") as opened:
            opened.truncate(size_bytes)
        (backstore.path / "control").write_text(f"fd_dev_size={size_bytes}")

    def take(self, target: LioTarget, lun: int) -> None:
        """Take the LUN away; its backstore stays until the end."""
        if target.luns.pop(lun, None) is not None:
            directory = target.tpg / "lun" / f"lun_{lun}"
            (directory / "attachd").unlink()
            directory.rmdir()

    def close(self) -> None:
        """Take everything away."""
        for target in self._targets:
            (target.tpg / "enable").write_text("0")
            for lun in list(target.luns):
                self.take(target, lun)
            for portal in (target.tpg / "np").iterdir():
                portal.rmdir()
            target.tpg.rmdir()
            target.tpg.parent.rmdir()
        for backstore in self._backstores:
            backstore.path.rmdir()
        (CONFIGFS / "core" / _HBA).rmdir()
        self._files.cleanup()

    def _backstore(self, size_bytes: int) -> Backstore:
        serial = uuid.uuid4()
        file = Path(self._files.name) / serial.hex
        with file.open("wb") as opened:
            opened.truncate(size_bytes)
        backstore = Backstore(
            name=f"attachd-{serial.hex[:8]}", file=file, wwn=f"36001405{serial.hex[:25]}"
        )
        backstore.path.mkdir()
        self._backstores.append(backstore)
        (backstore.path / "control").write_text(f"fd_dev_name={file},fd_dev_size={size_bytes}")
        (backstore.path / "enable").write_text("1")
        (backstore.path / "wwn/vpd_unit_serial").write_text(str(serial))
        return backstore
