"""The worldwide identifier in a SCSI device's VPD page 0x83, as udev spells it. Pure.

udev's scsi_id takes the best designator of the logical unit itself: an NAA name before an EUI-64,
and of several NAA names the most specific. It writes the designator's type and then its hex digits:
``3600140...``. Vendor-specific and T10 names are not worldwide, and no identity here.
"""

from __future__ import annotations

from collections.abc import Iterator

PAGE = 0x83
_HEADER = 4
_BINARY = 1
_LOGICAL_UNIT = 0
_EUI64 = 2
_NAA = 3
# NAA formats by preference: IEEE registered extended, IEEE registered, IEEE extended, local.
_NAA_FORMATS = (6, 5, 2, 3)


def wwn_of(page: bytes) -> str | None:
    """The identifier in this page 0x83; None: it holds no worldwide one."""
    if len(page) < _HEADER or page[1] != PAGE:
        return None
    best: tuple[int, str] | None = None
    for kind, body in _designators(page):
        rank = _rank(kind, body)
        if rank is not None and (best is None or rank < best[0]):
            best = (rank, f"{kind}{body.hex()}")
    return best[1] if best else None


def _designators(page: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each binary designator of the logical unit."""
    end = min(len(page), _HEADER + int.from_bytes(page[2:4], "big"))
    at = _HEADER
    while at + _HEADER <= end:
        code_set, kind = page[at] & 0x0F, page[at + 1] & 0x0F
        association = (page[at + 1] >> 4) & 0x03
        length = page[at + 3]
        body = page[at + _HEADER : at + _HEADER + length]
        at += _HEADER + length
        if at <= end and code_set == _BINARY and association == _LOGICAL_UNIT and body:
            yield kind, body


def _rank(kind: int, body: bytes) -> int | None:
    if kind == _NAA and body[0] >> 4 in _NAA_FORMATS:
        return _NAA_FORMATS.index(body[0] >> 4)
    if kind == _EUI64:
        return len(_NAA_FORMATS)
    return None
