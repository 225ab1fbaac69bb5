from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attachd.host.vpd import wwn_of
from tests.unit.host.tree import designator, page_83

NAA6 = bytes.fromhex("6001405aaaabbbbccccddddeeeeffff0")
NAA5 = bytes.fromhex("5001405aaaabbbb0")
NAA2 = bytes.fromhex("2001405aaaabbbb0")
EUI = bytes.fromhex("0011223344556677")


@pytest.mark.parametrize(
    ("designators", "wwn"),
    [
        ([designator(NAA6)], "3" + NAA6.hex()),
        ([designator(NAA5)], "3" + NAA5.hex()),
        ([designator(EUI, kind=2)], "2" + EUI.hex()),
        ([designator(NAA5), designator(NAA6)], "3" + NAA6.hex()),
        ([designator(NAA2), designator(NAA5)], "3" + NAA5.hex()),
        ([designator(EUI, kind=2), designator(NAA2)], "3" + NAA2.hex()),
        # A port's or a target's name isn't the logical unit's.
        ([designator(NAA6, association=1), designator(NAA5)], "3" + NAA5.hex()),
        ([designator(NAA6, association=2)], None),
        # Vendor-specific and T10 names aren't worldwide.
        ([designator(b"LIO-ORG volume", kind=1, code_set=2)], None),
        ([designator(b"1234", kind=0)], None),
        ([designator(b"")], None),
        ([], None),
    ],
)
def test_the_best_name_of_the_logical_unit(designators: list[bytes], wwn: str | None) -> None:
    assert wwn_of(page_83(*designators)) == wwn


def test_another_page_names_nothing() -> None:
    assert wwn_of(b"\x00\x80" + page_83(designator(NAA6))[2:]) is None


def test_a_page_cut_short_names_nothing() -> None:
    assert wwn_of(page_83(designator(NAA6))[:-1]) is None


@given(st.binary(max_size=64))
def test_any_bytes_are_read_without_an_error(page: bytes) -> None:
    wwn_of(b"\x00\x83" + page)
