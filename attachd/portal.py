"""A target's portal in one spelling, the kernel's and iscsiadm's. Pure.

Cinder's drivers hand on what an administrator wrote, and an IPv6 address has several spellings;
os-brick compares a portal with iscsiadm's as text.
"""

from __future__ import annotations

import ipaddress


def split_portal(portal: str) -> tuple[str, int]:
    """Address and port of ``address:port[,tag]``; IPv6 in brackets or not, in its short form."""
    address, _, port = portal.partition(",")[0].rpartition(":")
    address = address.removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(address).compressed
    except ValueError:
        address = address.lower()
    return address, int(port)


def join_portal(address: str, port: int) -> str:
    """``address:port``, IPv6 in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def spelled(portal: str) -> str:
    """The one spelling of ``address:port[,tag]``."""
    return join_portal(*split_portal(portal))
