from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from attachd.errors import Code, Unreachable
from attachd.host.connector import ConnectorProperties
from attachd.model import Connector


class Reader:
    """os-brick's slow answer, counted."""

    def __init__(self) -> None:
        self.reads = 0
        self.initiator = "iqn.1993-08.org.debian:01:abc"

    def __call__(self, my_ip: str, host: str, multipath: bool) -> Connector:
        self.reads += 1
        return {"ip": my_ip, "host": host, "initiator": self.initiator, "multipath": multipath}


@pytest.fixture
def name(tmp_path: Path) -> Path:
    path = tmp_path / "initiatorname.iscsi"
    path.write_text("InitiatorName=iqn.1993-08.org.debian:01:abc\n")
    return path


def properties_of(
    reader: Reader,
    name: Path,
    *,
    my_ip: str | None = None,
    multipath: Callable[[], bool] = lambda: False,
) -> ConnectorProperties:
    return ConnectorProperties(read=reader, my_ip=my_ip, multipath=multipath, initiator_name=name)


def test_read_once(name: Path) -> None:
    reader = Reader()
    properties = properties_of(reader, name, my_ip="192.0.2.7")
    assert properties.get()["ip"] == "192.0.2.7"
    assert properties.get() == properties.get()
    assert reader.reads == 1


def test_had_ready_once(name: Path) -> None:
    reader, asked = Reader(), []

    def running() -> bool:
        asked.append(1)
        return True

    properties = properties_of(reader, name, multipath=running)
    properties.warm()
    properties.warm()
    assert (reader.reads, len(asked)) == (1, 1)
    properties.get()
    assert (reader.reads, len(asked)) == (1, 2)


@pytest.mark.parametrize("replaced", [True, False])
def test_read_anew_when_the_initiator_name_changes(name: Path, replaced: bool) -> None:
    reader = Reader()
    properties = properties_of(reader, name)
    properties.get()
    reader.initiator = "iqn.1993-08.org.debian:01:xyz"
    if replaced:
        other = name.with_suffix(".new")
        other.write_text(name.read_text())
        other.rename(name)
    else:
        name.write_text("InitiatorName=iqn.1993-08.org.debian:01:xyz\n")
        os.utime(name, ns=(1, 1))
    assert properties.get()["initiator"] == "iqn.1993-08.org.debian:01:xyz"
    assert reader.reads == 2


def test_what_a_caller_does_to_its_copy_stays_its_own(name: Path) -> None:
    properties = properties_of(Reader(), name)
    copy = dict(properties.get())
    copy["host"] = "elsewhere"
    assert properties.get()["host"] != "elsewhere"


def test_no_initiator_name_is_not_kept(name: Path) -> None:
    reader = Reader()
    reader.initiator = ""
    properties = properties_of(reader, name)
    with pytest.raises(Unreachable) as caught:
        properties.get()
    assert caught.value.code is Code.ISCSI_UNAVAILABLE
    assert not caught.value.touched
    reader.initiator = "iqn.new"
    assert properties.get()["initiator"] == "iqn.new"


def test_read_anew_when_multipathd_comes_or_goes(name: Path) -> None:
    running = [False]
    properties = properties_of(Reader(), name, multipath=lambda: running[0])
    assert properties.get()["multipath"] is False
    running[0] = True
    assert properties.get()["multipath"] is True
