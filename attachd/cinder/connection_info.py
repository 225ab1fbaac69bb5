"""Cinder's connection_info, read into :class:`attachd.model.Connection`.

The rules:

* Only iSCSI is known; anything else is ``protocol-unsupported``.
* The result is always in the plural. ``target_portals``, ``target_iqns`` and ``target_luns`` count
  where all three are there, as for os-brick; else the singular three make the only target.
* What will stand on iscsiadm's command line and in paths below /dev has to look like a portal and
  an iSCSI name; nothing is repaired or guessed.
* Of the front-end QoS, libvirt's own keys count, as for Nova; Cinder has worked out those per GiB.
* CHAP passwords go into :class:`attachd.model.Chap` and nowhere else.
"""

from __future__ import annotations

import re

from attachd.cinder.wire import Answer
from attachd.errors import AttachdError, Code
from attachd.model import Chap, Connection, Mode, Target
from attachd.portal import spelled

ISCSI = "iscsi"

_WHAT = ("total", "read", "write")
_UNITS = ("bytes", "iops")
IOTUNE = frozenset(
    {
        *(f"{what}_{unit}_sec" for what in _WHAT for unit in _UNITS),
        *(f"{what}_{unit}_sec_max" for what in _WHAT for unit in _UNITS),
        "size_iops_sec",
    }
)
"""https://libvirt.org/formatdomain.html#block-i-o-tuning, as far as Cinder documents them."""
LARGEST_LIMIT = 10**15
"""QEMU takes no more (THROTTLE_VALUE_MAX)."""
LARGEST_PORT = 65535

_PORTAL = re.compile(
    r"(?:[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]):([0-9]{1,5})", re.ASCII
)
_NUMBER = re.compile(r"[0-9]{1,16}", re.ASCII)
_IQN = re.compile(r"(?:iqn|eui|naa)\.[\w.:-]{1,219}", re.ASCII)


def read_connection(info: Answer) -> Connection:
    """Read ``attachment.connection_info``, in which everything lies side by side.

    Raises AttachdError protocol-unsupported, or cinder-refused naming the attribute.
    """
    return _read(_protocol(info), info)


def read_old_connection(info: Answer) -> Connection:
    """Read ``connection_info`` as os-initialize_connection answers it; raises the same.

    The protocol stands beside ``data``, which has everything else.
    """
    return _read(_protocol(info), info.at("data"))


def _protocol(info: Answer) -> str:
    protocol = info.at("driver_volume_type").text()
    if protocol != ISCSI:
        raise _unsupported(info)
    return protocol


def _read(protocol: str, info: Answer) -> Connection:
    discard = info.get("discard")
    encrypted = info.get("encrypted")
    iotune, unreadable = _iotune(info.get("qos_specs"))
    return Connection(
        protocol=protocol,
        targets=_targets(info),
        mode=_mode(info),
        discard=discard.flag() if discard else False,
        encrypted=encrypted.flag() if encrypted else False,
        iotune=iotune,
        unreadable=unreadable,
        chap=_chap(info, "auth"),
        discovery_chap=_chap(info, "discovery_auth"),
    )


def _targets(info: Answer) -> tuple[Target, ...]:
    portals, iqns, luns = (info.get(f"target_{name}") for name in ("portals", "iqns", "luns"))
    if portals and iqns and luns:
        return _many_targets(portals, iqns, luns)
    return (_target(info.at("target_portal"), info.at("target_iqn"), info.at("target_lun")),)


def _many_targets(portals: Answer, iqns: Answer, luns: Answer) -> tuple[Target, ...]:
    count = len(portals.items())
    if count == 0:
        raise portals.wrong("is empty")
    for other in (iqns, luns):
        if len(other.items()) != count:
            raise other.wrong(f"is not as long as {portals.path}")
    return tuple(
        _target(portal, iqn, lun)
        for portal, iqn, lun in zip(portals.items(), iqns.items(), luns.items(), strict=True)
    )


def _target(portal: Answer, iqn: Answer, lun: Answer) -> Target:
    return Target(portal=_portal(portal), iqn=_iqn(iqn), lun=_lun(lun))


def _portal(portal: Answer) -> str:
    match = _PORTAL.fullmatch(portal.text())
    if not match or not 0 < int(match[1]) <= LARGEST_PORT:
        raise portal.wrong("is not address:port")
    return spelled(match[0])


def _iqn(iqn: Answer) -> str:
    if not _IQN.fullmatch(iqn.text()):
        raise iqn.wrong("is not an iSCSI name")
    return iqn.text()


def _lun(lun: Answer) -> int:
    if lun.integer() < 0:
        raise lun.wrong("is negative")
    return lun.integer()


def _mode(info: Answer) -> Mode:
    mode = info.get("access_mode")
    if mode is None:
        return Mode.RW
    try:
        return Mode(mode.text())
    except ValueError:
        raise mode.wrong("is neither rw nor ro") from None


def _iotune(specs: Answer | None) -> tuple[dict[str, int], tuple[str, ...]]:
    """The limits, and the names of those that are none: only who begins an attach minds them.

    As the administrator wrote them, in text, or as Cinder worked them out per GiB; 0 is no limit.
    """
    found = {key: value for key in sorted(IOTUNE) if specs and (value := specs.get(key))}
    limits = {key: _limit(value) for key, value in found.items()}
    return (
        {key: limit for key, limit in limits.items() if limit},
        tuple(key for key, limit in limits.items() if limit is None),
    )


def _limit(value: Answer) -> int | None:
    text = str(value.value)
    if isinstance(value.value, bool) or not _NUMBER.fullmatch(text) or int(text) > LARGEST_LIMIT:
        return None
    return int(text)


def _chap(info: Answer, prefix: str) -> Chap | None:
    method = info.get(f"{prefix}_method")
    if method is None:
        return None
    return Chap(
        method=method.text(),
        username=info.at(f"{prefix}_username").text(),
        password=info.at(f"{prefix}_password").text(),
    )


def _unsupported(info: Answer) -> AttachdError:
    kind = info.at("driver_volume_type")
    return AttachdError(
        Code.PROTOCOL_UNSUPPORTED,
        f"attachd connects {ISCSI} only, and the volume's backend speaks another protocol.",
        details=f"{kind.path} is {kind.text()[:40]!r}.",
        resolution="Use a volume type whose backend speaks iSCSI.",
        touched=info.touched,
    )
