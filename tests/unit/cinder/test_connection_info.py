"""Every cell of reading Cinder's connection_info."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attachd.cinder.connection_info import read_connection
from attachd.cinder.wire import Answer
from attachd.errors import AttachdError, Code
from attachd.model import Chap, Connection, Mode, Target

PASSWORD = "s3cr3t-Chap"
IQN = "iqn.2010-10.org.openstack:volume-0b1c"
SINGULAR: dict[str, Any] = {
    "driver_volume_type": "iscsi",
    "target_discovered": False,
    "target_portal": "192.0.2.10:3260",
    "target_iqn": IQN,
    "target_lun": 0,
    "auth_method": "CHAP",
    "auth_username": "somebody",
    "auth_password": PASSWORD,
    "access_mode": "rw",
    "encrypted": False,
    "qos_specs": None,
}
PLURAL: dict[str, Any] = {
    **SINGULAR,
    "target_portals": ["192.0.2.10:3260", "[2001:db8::1]:3261"],
    "target_iqns": [IQN, f"{IQN}-b"],
    "target_luns": [1, 2],
}


def read(info: object) -> Connection:
    return read_connection(Answer(value=info, path="attachment.connection_info", touched=True))


def refusal(info: object) -> AttachdError:
    with pytest.raises(AttachdError) as caught:
        read(info)
    return caught.value


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in SINGULAR.items() if key not in keys}


def test_the_singular_becomes_the_only_target() -> None:
    assert read(SINGULAR).targets == (Target(portal="192.0.2.10:3260", iqn=IQN, lun=0),)


def test_the_plural_goes_before_the_singular() -> None:
    assert read(PLURAL).targets == (
        Target(portal="192.0.2.10:3260", iqn=IQN, lun=1),
        Target(portal="[2001:db8::1]:3261", iqn=f"{IQN}-b", lun=2),
    )


def test_a_portal_has_one_spelling() -> None:
    """iscsiadm and the kernel know no other, and os-brick compares it as text."""
    (there,) = read({**SINGULAR, "target_portal": "[2001:DB8:0:0::1]:3260"}).targets
    assert there.portal == "[2001:db8::1]:3260"


@pytest.mark.parametrize("absent", ["target_portals", "target_iqns", "target_luns"])
def test_a_plural_that_is_not_whole_does_not_count(absent: str) -> None:
    info = {key: value for key, value in PLURAL.items() if key != absent}
    assert read(info).targets == read(SINGULAR).targets


QOS = {
    "total_bytes_sec": "1048576",
    "read_iops_sec_max": "500",
    "size_iops_sec": "4096",
    "write_bytes_sec": "0",
    "write_iops_sec": 300,
    "a_driver_of_its_own": "who knows",
}


def test_of_the_front_end_qos_libvirts_own_keys_count_and_0_is_no_limit() -> None:
    assert read({**SINGULAR, "qos_specs": QOS}).iotune == {
        "total_bytes_sec": 1048576,
        "read_iops_sec_max": 500,
        "write_iops_sec": 300,
        "size_iops_sec": 4096,
    }
    assert read(SINGULAR).iotune == {}


@pytest.mark.parametrize(
    "limit", ["much", "-1", "1.5", "", "²", "9" * 17, str(10**15 + 1), -5, True]
)
def test_what_is_no_limit_is_named(limit: object) -> None:
    connection = read({**SINGULAR, "qos_specs": {"total_bytes_sec": limit, "read_iops_sec": "7"}})
    assert connection.unreadable == ("total_bytes_sec",)
    assert connection.iotune == {"read_iops_sec": 7}


def test_chap_is_kept_and_not_shown() -> None:
    connection = read(SINGULAR)
    assert connection.chap == Chap(username="somebody", password=PASSWORD, method="CHAP")
    assert PASSWORD not in repr(connection)


def test_discovery_chap_stands_apart() -> None:
    discovery = {
        "discovery_auth_method": "CHAP",
        "discovery_auth_username": "finder",
        "discovery_auth_password": "other",
    }
    connection = read({**SINGULAR, **discovery})
    assert connection.discovery_chap == Chap(username="finder", password="other")
    assert read(SINGULAR).discovery_chap is None


def test_no_auth_method_means_no_chap() -> None:
    assert read(without("auth_method")).chap is None
    assert read({**SINGULAR, "auth_method": None}).chap is None


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("access_mode", "rw", Mode.RW),
        ("access_mode", "ro", Mode.RO),
        ("access_mode", None, Mode.RW),
        ("discard", True, True),
        ("discard", False, False),
        ("discard", None, False),
        ("encrypted", True, True),
        ("encrypted", None, False),
    ],
)
def test_flags(key: str, value: object, expected: object) -> None:
    attribute = {"access_mode": "mode"}.get(key, key)
    assert getattr(read({**SINGULAR, key: value}), attribute) == expected


@pytest.mark.parametrize("key", ["access_mode", "discard", "encrypted"])
def test_flags_have_defaults(key: str) -> None:
    connection = read(without(key))
    assert (connection.mode, connection.discard, connection.encrypted) == (Mode.RW, False, False)


@pytest.mark.parametrize("kind", ["rbd", "fibre_channel", "nvmeof", "iser", "ISCSI", ""])
def test_other_protocols_are_unsupported(kind: str) -> None:
    error = refusal({**SINGULAR, "driver_volume_type": kind})
    assert error.code == Code.PROTOCOL_UNSUPPORTED


@pytest.mark.parametrize(
    "key",
    [
        "driver_volume_type",
        "target_portal",
        "target_iqn",
        "target_lun",
        "auth_username",
        "auth_password",
    ],
)
@pytest.mark.parametrize("how", ["absent", "null"])
def test_what_must_be_there_is_named(key: str, how: str) -> None:
    info = without(key) if how == "absent" else {**SINGULAR, key: None}
    error = refusal(info)
    assert error.code == Code.CINDER_REFUSED
    assert f"attachment.connection_info.{key} is missing" in error.problem.brief


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("driver_volume_type", 1),
        ("target_portal", 3260),
        ("target_portal", "192.0.2.10"),
        ("target_portal", "192.0.2.10:"),
        ("target_portal", "192.0.2.10:0"),
        ("target_portal", "192.0.2.10:65536"),
        ("target_portal", "192.0.2.10:3260,1"),
        ("target_portal", ":3260"),
        ("target_portal", "2001:db8::1:3260"),
        ("target_portal", "--help:3260"),
        ("target_portal", "a b:3260"),
        ("target_portal", "../x:3260"),
        ("target_portal", "192.0.2.10:3260\n"),
        ("target_portal", "192.0.2.10:٣٢٦٠"),
        ("target_iqn", ["iqn"]),
        ("target_iqn", ""),
        ("target_iqn", "volume-1"),
        ("target_iqn", "iqn.2010-10.org:../../x"),
        ("target_iqn", "iqn.2010-10.org:" + "x" * 223),
        ("target_lun", "0"),
        ("target_lun", 0.0),
        ("target_lun", True),
        ("target_lun", -1),
        ("target_lun", [0]),
        ("access_mode", "rx"),
        ("access_mode", 1),
        ("discard", "true"),
        ("encrypted", "no"),
        ("auth_method", 1),
        ("auth_username", 1),
        ("auth_password", {}),
    ],
)
def test_wrong_values_are_refused_by_name(key: str, value: object) -> None:
    error = refusal({**SINGULAR, key: value})
    assert error.code == Code.CINDER_REFUSED
    assert f"attachment.connection_info.{key} " in error.problem.brief


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"target_portals": []}, "target_portals"),
        ({"target_portals": "192.0.2.10:3260"}, "target_portals"),
        ({"target_iqns": [IQN]}, "target_iqns"),
        ({"target_luns": [1, 2, 3]}, "target_luns"),
        ({"target_luns": [1, "2"]}, "target_luns[1]"),
        ({"target_portals": ["192.0.2.10:3260", None]}, "target_portals[1]"),
        ({"target_iqns": [IQN, 5]}, "target_iqns[1]"),
    ],
)
def test_wrong_lists_are_refused_by_name(changed: dict[str, Any], path: str) -> None:
    error = refusal({**PLURAL, **changed})
    assert error.code == Code.CINDER_REFUSED
    assert f"attachment.connection_info.{path} " in error.problem.brief


@pytest.mark.parametrize("info", [[], "iscsi", 7, True])
def test_what_is_no_object_is_refused(info: object) -> None:
    assert "attachment.connection_info is not an object" in refusal(info).problem.brief


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=12)
json_values = scalars | st.lists(scalars, max_size=3) | st.just({"inner": 1})


@settings(deadline=None)
@given(
    base=st.sampled_from([SINGULAR, PLURAL]),
    changes=st.dictionaries(st.sampled_from(sorted(PLURAL)), json_values, max_size=4),
    dropped=st.sets(st.sampled_from(sorted(PLURAL)), max_size=3),
)
def test_whatever_comes_is_read_or_refused_and_never_told(
    base: dict[str, Any], changes: dict[str, Any], dropped: set[str]
) -> None:
    info = {key: value for key, value in {**base, **changes}.items() if key not in dropped}
    try:
        connection = read(info)
    except AttachdError as error:
        assert error.code in (Code.CINDER_REFUSED, Code.PROTOCOL_UNSUPPORTED)
        assert "attachment.connection_info" in f"{error.problem.brief} {error.problem.details}"
        assert PASSWORD not in str(error.problem) + error.problem.details
    else:
        assert connection.targets
        assert all(isinstance(target.lun, int) and target.lun >= 0 for target in connection.targets)
        assert all(":" in target.portal for target in connection.targets)
        assert PASSWORD not in repr(connection)


@settings(deadline=None)
@given(
    paths=st.lists(
        st.tuples(
            st.ip_addresses(v=4), st.integers(1, 65535), st.integers(min_value=0, max_value=2**64)
        ),
        min_size=1,
        max_size=4,
    )
)
def test_well_formed_lists_come_through_in_order(paths: list[tuple[object, int, int]]) -> None:
    info = {
        **SINGULAR,
        "target_portals": [f"{address}:{port}" for address, port, _ in paths],
        "target_iqns": [IQN] * len(paths),
        "target_luns": [lun for _, _, lun in paths],
    }
    assert read(info).targets == tuple(
        Target(portal=f"{address}:{port}", iqn=IQN, lun=lun) for address, port, lun in paths
    )
