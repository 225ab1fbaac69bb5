"""lvmconfig's answer, as LVM 2.03 gives it."""

from __future__ import annotations

from pathlib import Path

import pytest

from attachd.errors import Unreachable
from attachd.host.lvm import LvmConfig, lvm_config, parse_devices

SHOWN = r"""devices {
	dir="/dev"
	global_filter=["a|^/dev/mapper/vg\\.x|","a#\"#","r|.*|"]
	scan=["/dev"]
	use_devicesfile=1
	devicesfile="own.devices"
	filter=["a|.*|"]
}
"""


def a_program(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """The only lvmconfig there is."""
    program = directory / "lvmconfig"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    monkeypatch.setattr("attachd.host.lvm._SBIN", "/nowhere")


def test_what_it_scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "answer").write_text(SHOWN)
    a_program(
        tmp_path,
        monkeypatch,
        f'echo "WARNING: Running as a non-root user." >&2\n'
        f'[ "$*" = "--typeconfig full devices" ] && cat {tmp_path}/answer',
    )
    assert lvm_config() == LvmConfig(
        global_filter=(r"a|^/dev/mapper/vg\.x|", 'a#"#', "r|.*|"),
        use_devicesfile=True,
        devicesfile="own.devices",
    )


def test_no_lvm_on_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("attachd.host.lvm._SBIN", "/nowhere")
    assert lvm_config() is None


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'Failed to load config file lvm.conf' >&2; exit 5", "Failed to load config file"),
        ("echo '\tglobal_filter=[' ", ""),
        ("exec sleep 60", "timed out"),
    ],
)
def test_an_lvm_that_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    a_program(tmp_path, monkeypatch, script)
    monkeypatch.setattr("attachd.host.lvm._SECONDS", 1)
    with pytest.raises(Unreachable, match="doesn't say") as caught:
        lvm_config()
    assert said in caught.value.problem.details


@pytest.mark.parametrize(
    ("shown", "patterns"),
    [('\tglobal_filter="r|.*|"\n', ("r|.*|",)), ("\tglobal_filter=[]\n", ()), ("", ())],
)
def test_an_old_lvm_knows_of_no_devices_file(shown: str, patterns: tuple[str, ...]) -> None:
    assert parse_devices(f"devices {{\n{shown}}}\n") == LvmConfig(
        global_filter=patterns, use_devicesfile=False, devicesfile="system.devices"
    )
