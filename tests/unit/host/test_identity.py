from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from attachd.errors import AttachdError, Code, Unreachable
from attachd.host.brick import Execute, PrivsepTimeout, ProcessExecutionError
from attachd.host.identity import Identity, inquiry, inquiry_of_all
from attachd.host.sysfs import Sysfs
from attachd.model import Connection, HostDevice
from tests.unit.host.tree import (
    GIB,
    OTHER_WWN,
    WWN,
    Tree,
    connection,
    designator,
    page_83,
    target,
)


class Bench:
    """A tree, and devices that answer an INQUIRY with ``fresh``."""

    def __init__(self, root: Path) -> None:
        self.tree = Tree(root)
        self.fresh = {"/dev/sda": WWN}
        self.identity = self.proving(0.3)

    def proving(self, udev_timeout: float) -> Identity:
        return Identity(
            sysfs=Sysfs(root=self.tree.sys),
            inquire=lambda path: self.fresh[path],
            udev_timeout=udev_timeout,
            dev=self.tree.dev,
        )

    def identify(
        self,
        *,
        to: Connection | None = None,
        size_bytes: int = GIB,
        expected_wwn: str | None = None,
    ) -> HostDevice:
        return self.identity.identify(
            "/dev/sda", to or connection(), size_bytes=size_bytes, expected_wwn=expected_wwn
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    bench.tree.session(1)
    bench.tree.lun(1, 0, "sda")
    bench.tree.link("sda")
    return bench


@pytest.mark.parametrize("expected", [None, WWN])
def test_the_device_that_was_asked_for(bench: Bench, expected: str | None) -> None:
    device = bench.identify(expected_wwn=expected)
    assert device.path == str(bench.tree.dev / f"disk/by-id/wwn-0x{WWN[1:]}")
    assert (device.wwn, device.size_bytes) == (WWN, GIB)


def test_larger_than_the_volume_is_right(bench: Bench) -> None:
    assert bench.identify(size_bytes=GIB - 512).size_bytes == GIB


def test_another_path_to_the_same_lun_is_no_stranger(bench: Bench) -> None:
    bench.tree.session(2, portal="127.0.0.2:3260")
    bench.tree.lun(2, 0, "sdb")
    bench.fresh["/dev/sdb"] = WWN
    both = connection(target(), target(portal="127.0.0.2:3260"))
    assert bench.identify(to=both).wwn == WWN


def test_without_a_map_every_path_is_proven(bench: Bench) -> None:
    """udev's one name for them may lead to any, and to another one tomorrow."""
    bench.tree.session(2, portal="127.0.0.2:3260")
    bench.tree.lun(2, 0, "sdb")
    bench.fresh["/dev/sdb"] = OTHER_WWN
    with pytest.raises(AttachdError) as caught:
        bench.identify(to=connection(target(), target(portal="127.0.0.2:3260")))
    assert caught.value.code is Code.WRONG_DEVICE
    assert "sdb" in caught.value.problem.brief


def test_the_name_may_lead_to_any_proven_path(bench: Bench) -> None:
    bench.tree.session(2, portal="127.0.0.2:3260")
    bench.tree.lun(2, 0, "sdb")
    bench.fresh["/dev/sdb"] = WWN
    link = bench.tree.dev / f"disk/by-id/wwn-0x{WWN[1:]}"
    link.unlink()
    link.symlink_to("../../sdb")
    both = connection(target(), target(portal="127.0.0.2:3260"))
    assert bench.identify(to=both).path == str(link)


def other_session(bench: Bench) -> None:
    bench.tree.remove_lun("sda")
    bench.tree.session(2, iqn="iqn.other")
    bench.tree.lun(2, 0, "sda")


def other_lun(bench: Bench) -> None:
    bench.tree.remove_lun("sda")
    bench.tree.lun(1, 7, "sda")


def no_device(bench: Bench) -> None:
    bench.tree.remove_lun("sda")


def lun_replaced(bench: Bench) -> None:
    bench.fresh["/dev/sda"] = OTHER_WWN


def nameless(bench: Bench) -> None:
    bench.tree.remove_lun("sda")
    bench.tree.lun(1, 0, "sda", wwn=None)


def too_small(bench: Bench) -> None:
    bench.tree.remove_lun("sda")
    bench.tree.lun(1, 0, "sda", size=GIB - 512)


def twin(bench: Bench) -> None:
    bench.tree.session(2, iqn="iqn.other")
    bench.tree.lun(2, 0, "sdb")


def link_to_another(bench: Bench) -> None:
    link = bench.tree.dev / f"disk/by-id/wwn-0x{WWN[1:]}"
    link.unlink()
    link.symlink_to("../../sdz")
    (bench.tree.dev / "sdz").write_text("")


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (other_session, "iqn.other LUN 0"),
        (other_lun, "LUN 7"),
        (no_device, "none"),
        (lun_replaced, OTHER_WWN),
        (nameless, "none"),
        (too_small, str(GIB - 512)),
        (twin, "/dev/sdb"),
        (link_to_another, "sdz"),
    ],
)
def test_another_device(bench: Bench, spoil: Callable[[Bench], None], found: str) -> None:
    spoil(bench)
    with pytest.raises(AttachdError) as caught:
        bench.identify()
    assert caught.value.code is Code.WRONG_DEVICE
    assert not caught.value.touched
    assert found in caught.value.problem.details.partition("found")[2]


def test_a_name_that_another_session_gets_while_it_is_asked(bench: Bench) -> None:
    def exchanged(_: str) -> str:
        other_session(bench)
        return WWN

    identity = Identity(
        sysfs=Sysfs(root=bench.tree.sys), inquire=exchanged, udev_timeout=0.3, dev=bench.tree.dev
    )
    with pytest.raises(AttachdError) as caught:
        identity.identify("/dev/sda", connection(), size_bytes=GIB, expected_wwn=None)
    assert caught.value.code is Code.WRONG_DEVICE
    assert "/dev/sda" in caught.value.problem.brief


def test_not_the_recorded_wwn(bench: Bench) -> None:
    with pytest.raises(AttachdError) as caught:
        bench.identify(expected_wwn=OTHER_WWN)
    assert caught.value.code is Code.WRONG_DEVICE
    assert WWN in caught.value.problem.details
    assert OTHER_WWN in caught.value.problem.details


def test_the_identity_path_is_waited_for(bench: Bench) -> None:
    link = bench.tree.dev / f"disk/by-id/wwn-0x{WWN[1:]}"
    link.unlink()
    bench.identity = bench.proving(30)
    udev = threading.Timer(0.5, lambda: link.symlink_to("../../sda"))
    udev.start()
    try:
        assert bench.identify().path == str(link)
    finally:
        udev.join()


def test_without_a_wwn_link_the_scsi_link_will_do(bench: Bench) -> None:
    (bench.tree.dev / f"disk/by-id/wwn-0x{WWN[1:]}").unlink()
    link = bench.tree.link("sda", prefix="scsi-")
    assert bench.identify().path == str(link)


def test_udev_never_comes(bench: Bench) -> None:
    (bench.tree.dev / f"disk/by-id/wwn-0x{WWN[1:]}").unlink()
    with pytest.raises(AttachdError) as caught:
        bench.identify()
    assert caught.value.code is Code.CONNECT_FAILED
    assert not caught.value.touched


def test_names_that_lead_to_the_device(bench: Bench, tmp_path: Path) -> None:
    by_path = bench.tree.dev / "disk/by-path"
    by_path.mkdir()
    (by_path / "ip-127.0.0.1").symlink_to("../../sda")
    (by_path / "another").symlink_to("../../sdz")
    elsewhere = tmp_path / "nfs"
    elsewhere.symlink_to(bench.tree.dev / "sda")
    device = bench.identify()
    leading = {device.path, str(bench.tree.dev / "sda"), str(by_path / "ip-127.0.0.1")}
    others = {str(by_path / "another"), str(by_path / "gone"), str(elsewhere), "disk.qcow2"}
    assert bench.identity.leading_to(device, leading | others) == leading


def test_a_device_that_does_not_answer_is_not_another_one() -> None:
    def execute(*_command: str, **_options: object) -> tuple[str, str]:
        raise ProcessExecutionError(exit_code=1)

    with pytest.raises(Unreachable) as caught:
        inquiry(execute)("/dev/sda")
    assert not caught.value.touched


def test_a_helper_that_dies_meanwhile_is_no_answer() -> None:
    def execute(*_: str, **__: object) -> tuple[str, str]:
        raise OSError("Premature eof waiting for privileged process")

    with pytest.raises(Unreachable):
        inquiry(execute)("/dev/sda")


def test_the_inquiry_asks_the_device_as_root() -> None:
    asked: list[tuple[tuple[str, ...], dict[str, object]]] = []

    def execute(*command: str, **options: object) -> tuple[str, str]:
        asked.append((command, options))
        return f"{WWN}\n", ""

    assert inquiry(execute)("/dev/sda") == WWN
    ((command, options),) = asked
    assert command[-1] == "--device=/dev/sda"
    assert options["run_as_root"]


# --- many at once ------------------------------------------------------------------------------


def _printing(text: str, asked: list[tuple[str, ...]]) -> Execute:
    def execute(*command: str, **options: object) -> tuple[str, str]:
        assert options["run_as_root"] is True
        asked.append(command)
        return text, ""

    return execute


def test_many_are_asked_by_one_process() -> None:
    asked: list[tuple[str, ...]] = []
    naa, t10 = page_83(designator(bytes.fromhex(WWN[1:]))), page_83(designator(b"x", kind=1))
    told = f"{naa.hex()} /dev/sda\n{t10.hex()} /dev/sdc\n"
    found = inquiry_of_all(_printing(told, asked))(["/dev/sda", "/dev/sdb", "/dev/sdc"])
    assert found == {"/dev/sda": WWN}
    ((*_, first, second, third),) = asked
    assert [first, second, third] == ["/dev/sda", "/dev/sdb", "/dev/sdc"]


def test_none_are_asked_by_no_process() -> None:
    asked: list[tuple[str, ...]] = []
    assert inquiry_of_all(_printing("", asked))([]) == {}
    assert asked == []


def _failing(error: Exception) -> Execute:
    def execute(*command: str, **options: object) -> tuple[str, str]:
        raise error

    return execute


@pytest.mark.parametrize(
    "execute",
    [
        _printing("Traceback\n", []),
        _failing(ProcessExecutionError(exit_code=1)),
        _failing(PrivsepTimeout()),
        _failing(BrokenPipeError()),
    ],
    ids=["no-answer", "failed", "stuck", "helper-lost"],
)
def test_where_that_fails_each_is_to_be_asked_by_itself(execute: Execute) -> None:
    assert inquiry_of_all(execute)(["/dev/sda"]) == {}
