"""IscsiVolumes over a tree, with a small open-iscsi and os-brick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attachd.host.brick import Execute
from attachd.host.holders import Holders
from attachd.host.identity import Identity
from attachd.host.iscsi import IscsiVolumes
from attachd.host.multipath import Maps
from attachd.host.sysfs import Sysfs
from attachd.model import Connection, Multipath
from tests.unit.host.open_iscsi import FakeBrick, OpenIscsi
from tests.unit.host.tree import OTHER_WWN, WWN, Tree, connection, target

VOLUME = "11111111-2222-3333-4444-555555555555"


class Bench:
    """IscsiVolumes over a tree; the storage exports LUN 0 and 1, its portal is a real socket."""

    def __init__(self, root: Path, portal: str) -> None:
        self.portal = portal
        self.tree = Tree(root)
        self.iscsi = OpenIscsi(tree=self.tree)
        self.fresh = {"/dev/sda": WWN, "/dev/sdb": OTHER_WWN}
        self.alive = True
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.behaviour: dict[str, Any] = {}
        self.multipath = Multipath.OFF
        self.multipathd = True
        self.volumes = self.with_timeouts()

    def with_timeouts(self, *, connect: float = 60, grace: float = 60) -> IscsiVolumes:
        sysfs = Sysfs(root=self.tree.sys)
        return IscsiVolumes(
            sysfs=sysfs,
            identity=Identity(
                sysfs=sysfs, inquire=self.fresh.__getitem__, udev_timeout=1, dev=self.tree.dev
            ),
            execute=self.iscsi,
            helper_alive=lambda: self.alive,
            make_connector=self.brick,
            exclusively=lambda function: function(),
            portal_timeout=10,
            connect_timeout=connect,
            disconnect_timeout=60,
            grace=grace,
            holders=Holders(sysfs=sysfs, release_timeout=0.1),
            maps=Maps(mode=self.multipath, running=lambda: self.multipathd, timeout=0.3),
        )

    def brick(self, execute: Execute, multipath: bool) -> FakeBrick:
        return FakeBrick(
            execute=execute,
            iscsi=self.iscsi,
            luns={0: "sda", 1: "sdb"},
            calls=self.calls,
            multipath=multipath,
            **self.behaviour,
        )

    def connection(self, lun: int = 0) -> Connection:
        return connection(target(lun, portal=self.portal))

    def connect(self, lun: int = 0) -> str:
        return self.volumes.connect(VOLUME, self.connection(lun))

    def disconnect(self, lun: int = 0, *, expected_wwn: str | None = WWN) -> None:
        self.volumes.disconnect(VOLUME, self.connection(lun), expected_wwn=expected_wwn)

    @property
    def left(self) -> list[str]:
        """What is on the host."""
        devices = [path.name for path in (self.tree.sys / "block").iterdir()]
        return devices + [iqn for _, iqn in [*self.iscsi.sessions, *self.iscsi.records]]
