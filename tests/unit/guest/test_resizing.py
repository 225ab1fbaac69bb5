"""What a resize makes of each answer."""

from __future__ import annotations

import pytest

from attachd.errors import AttachdError, Code, Unreachable
from attachd.guest.domains import Layer
from attachd.guest.failures import refused
from attachd.guest.resizing import Resizing
from tests.unit.guest.domains_xml import OUR_DISK, UUID, VOLUME
from tests.unit.guest.scripted_domains import ScriptedDomains, lost

SIZE = 2 * 1024**3
TOLD = f"resize vdb {SIZE}"


@pytest.fixture
def domains() -> ScriptedDomains:
    domains = ScriptedDomains()
    for layer in (Layer.LIVE, Layer.CONFIG):
        domains.documents[layer].append(OUR_DISK)
    return domains


def resize(domains: ScriptedDomains) -> None:
    Resizing(domains=domains).resize(UUID, VOLUME, SIZE, source=None)


def fails(domains: ScriptedDomains) -> AttachdError:
    with pytest.raises(AttachdError) as caught:
        resize(domains)
    return caught.value


def test_a_live_disk_is_told_by_its_target(domains: ScriptedDomains) -> None:
    resize(domains)
    assert domains.log == [TOLD]


def test_no_live_guest_is_not_told(domains: ScriptedDomains) -> None:
    del domains.documents[Layer.LIVE]
    resize(domains)
    domains.exists = False
    resize(domains)
    assert domains.log == []


def test_a_disk_that_is_not_there(domains: ScriptedDomains) -> None:
    domains.remove(Layer.LIVE)
    error = fails(domains)
    assert (error.code, error.touched) == (Code.GUEST_REFUSED, False)
    assert domains.log == []


def test_a_refusal_is_told_in_libvirts_words(domains: ScriptedDomains) -> None:
    domains.resizes.append(refused("No.", "Image is read-only", touched=True))
    error = fails(domains)
    assert error.code is Code.GUEST_REFUSED
    assert error.problem.details == "Image is read-only"


def test_a_guest_that_ended_meanwhile_learns_it_when_it_starts(domains: ScriptedDomains) -> None:
    def end() -> None:
        del domains.documents[Layer.LIVE]
        raise refused("No.", "domain is not running", touched=True)

    domains.resizes.append(end)
    resize(domains)
    assert domains.log == [TOLD]


@pytest.mark.parametrize("touched", [True, False])
def test_a_libvirt_that_does_not_answer(domains: ScriptedDomains, touched: bool) -> None:
    domains.resizes.append(lost(touched=touched))
    error = fails(domains)
    assert isinstance(error, Unreachable)
    assert error.touched == touched


def test_a_libvirt_that_goes_away_behind_its_refusal(domains: ScriptedDomains) -> None:
    def refuse() -> None:
        domains.reads.append(lost(touched=False))
        raise refused("No.", "busy", touched=True)

    domains.resizes.append(refuse)
    error = fails(domains)
    assert isinstance(error, Unreachable)
    assert error.touched
