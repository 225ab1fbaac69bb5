"""What a plug makes of each answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from attachd.errors import AttachdError, Code, Unreachable
from attachd.guest.domains import Layer
from attachd.guest.failures import refused
from attachd.guest.plugging import Plugging
from attachd.model import Bus, DiskSpec, Mode
from tests.unit.guest.domains_xml import OUR_DISK, UUID, VOLUME, scsi
from tests.unit.guest.scripted_domains import ScriptedDomains, lost

DISK = DiskSpec(
    volume_id=VOLUME,
    source="/dev/disk/by-id/wwn-0x6001405f",
    target="vdb",
    bus=Bus.VIRTIO,
    mode=Mode.RW,
)
SCSI_DISK = replace(DISK, bus=Bus.SCSI, target="sda")
NO = ("libvirt refused the disk.", "because")


@pytest.fixture
def domains() -> ScriptedDomains:
    return ScriptedDomains()


def plug(domains: ScriptedDomains, disk: DiskSpec = DISK) -> None:
    Plugging(domains=domains).plug(UUID, disk)


def fails(domains: ScriptedDomains, disk: DiskSpec = DISK) -> AttachdError:
    with pytest.raises(AttachdError) as caught:
        plug(domains, disk)
    return caught.value


@pytest.mark.parametrize(
    ("layers", "present", "log"),
    [
        ((Layer.LIVE, Layer.CONFIG), (), ["attach disk 3"]),
        ((Layer.LIVE, Layer.CONFIG), (Layer.LIVE,), ["attach disk 2"]),
        ((Layer.LIVE, Layer.CONFIG), (Layer.CONFIG,), ["attach disk 1"]),
        ((Layer.LIVE, Layer.CONFIG), (Layer.LIVE, Layer.CONFIG), []),
        ((Layer.LIVE,), (), ["attach disk 1"]),
        ((Layer.CONFIG,), (), ["attach disk 2"]),
    ],
)
def test_only_what_is_missing(
    domains: ScriptedDomains,
    layers: tuple[Layer, ...],
    present: tuple[Layer, ...],
    log: list[str],
) -> None:
    domains.documents = {layer: [OUR_DISK] if layer in present else [] for layer in layers}
    plug(domains)
    assert domains.log == log
    assert all(len(devices) == 1 for devices in domains.documents.values())


def test_refused_and_nothing_there(domains: ScriptedDomains) -> None:
    domains.attaches.append(refused(*NO, touched=True))
    error = fails(domains)
    assert (error.code, error.touched) == (Code.GUEST_REFUSED, False)
    assert error.problem.details == "because"


def test_refused_but_half_of_it_is_there(domains: ScriptedDomains) -> None:
    class Half(ScriptedDomains):
        def attach(self, guest_id: str, xml: str, layers: Layer) -> None:
            super().attach(guest_id, xml, Layer.LIVE)
            raise refused(*NO, touched=True)

    assert fails(Half()).touched
    assert not domains.log


def test_refused_because_an_earlier_call_had_just_done_it() -> None:
    class Done(ScriptedDomains):
        def attach(self, guest_id: str, xml: str, layers: Layer) -> None:
            super().attach(guest_id, xml, layers)
            raise refused(*NO, touched=True)

    plug(Done())


def test_taken_but_not_there() -> None:
    class Ignores(ScriptedDomains):
        def attach(self, guest_id: str, xml: str, layers: Layer) -> None:
            pass

    error = fails(Ignores())
    assert (error.code, error.touched) == (Code.GUEST_REFUSED, True)


@pytest.mark.parametrize("touched", [True, False])
def test_out_of_reach_in_the_call(domains: ScriptedDomains, touched: bool) -> None:
    domains.attaches.append(lost(touched=touched))
    error = fails(domains)
    assert isinstance(error, Unreachable)
    assert error.touched == touched


def test_out_of_reach_before_and_after_the_call(domains: ScriptedDomains) -> None:
    domains.reads.append(lost(touched=False))
    assert not fails(domains).touched
    domains.reads.extend([None, lost(touched=False)])
    assert fails(domains).touched


def test_another_device_under_the_volumes_name(domains: ScriptedDomains) -> None:
    domains.documents[Layer.CONFIG].append(OUR_DISK.replace("6001405f", "60014050"))
    error = fails(domains)
    assert (error.code, error.touched) == (Code.GUEST_REFUSED, False)
    assert not domains.log


def test_a_scsi_disk_brings_its_controller(domains: ScriptedDomains) -> None:
    plug(domains, SCSI_DISK)
    assert domains.log == ["attach controller 3", "attach disk 3"]


def test_a_scsi_disk_takes_the_controller_that_is_there(domains: ScriptedDomains) -> None:
    for layer in (Layer.LIVE, Layer.CONFIG):
        domains.documents[layer].append(scsi(0))
    plug(domains, SCSI_DISK)
    assert domains.log == ["attach disk 3"]
    assert 'unit="1"' in domains.documents[Layer.LIVE][-1]


@pytest.mark.parametrize("error", [refused(*NO, touched=True), lost(touched=False)])
def test_a_controller_that_was_added_has_touched_the_guest(error: AttachdError) -> None:
    class NoDisk(ScriptedDomains):
        def attach(self, guest_id: str, xml: str, layers: Layer) -> None:
            if xml.startswith("<disk"):
                raise error
            super().attach(guest_id, xml, layers)

    assert fails(NoDisk(), SCSI_DISK).touched
