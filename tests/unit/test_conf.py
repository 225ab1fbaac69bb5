"""The configuration: a mistake names the file, the group and the option; the sample is current."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from attachd import conf
from attachd.errors import AttachdError, Code

PROJECT = Path(__file__).resolve().parents[2]


def load(tmp_path: Path, text: str) -> AttachdError:
    file = tmp_path / "attachd.conf"
    file.write_text(text)
    with pytest.raises(AttachdError) as excinfo:
        conf.load([], files=[file])
    assert excinfo.value.code is Code.CONFIG_INVALID
    assert str(file) in excinfo.value.problem.details
    return excinfo.value


@pytest.mark.parametrize(
    ("text", "group", "option"),
    [
        ("[DEFAULT]\nworkers = many\n", "[DEFAULT]", "workers"),
        ("[DEFAULT]\nworkers = 0\n", "[DEFAULT]", "workers"),
        ("[guest]\nunplug_timeout = soon\n", "[guest]", "unplug_timeout"),
        ("[host]\nmy_ip = not an address\n", "[host]", "my_ip"),
        ("[api]\nthreads = 1\n", "[api]", "threads"),
        ("[cinder]\ninterface = secret\n", "[cinder]", "interface"),
        ("[cinder]\nattach_flow = old\n", "[cinder]", "attach_flow"),
        ("[metrics]\nlisten = 9776\n", "[metrics]", "listen"),
        ("[metrics]\nlisten = http://127.0.0.1:9776\n", "[metrics]", "listen"),
        ("[host]\nlock_path = $state_pth/locks\n", "[host]", "lock_path"),
    ],
)
def test_a_wrong_value_names_the_file_the_group_and_the_option(
    tmp_path: Path, text: str, group: str, option: str
) -> None:
    details = load(tmp_path, text).problem.details
    assert group in details
    assert option in details


@pytest.mark.parametrize(
    ("text", "group", "option"),
    [
        ("[guest]\nunplug_timout = 30\n", "[guest]", "unplug_timout"),
        ("[guests]\nuri = qemu:///system\n", "[guests]", ""),
        ("[DEFAULT]\nworker = 3\n", "[DEFAULT]", "worker"),
    ],
)
def test_a_misspelt_option_or_group_is_told(
    tmp_path: Path, text: str, group: str, option: str
) -> None:
    details = load(tmp_path, text).problem.details
    assert group in details
    assert option in details


def test_credentials_without_their_type_are_told_what_is_missing(tmp_path: Path) -> None:
    """What a newcomer forgets: which credentials there are is for auth_type to say."""
    text = "[cinder]\nauth_url = http://x:5000/v3\nusername = attachd\n"
    assert load(tmp_path, text).problem.resolution.startswith("Set auth_type first")
    typed = load(tmp_path, text.replace("[cinder]", "[cinder]\nauth_type = password\nuser = x"))
    assert "auth_type first" not in typed.problem.resolution


@pytest.mark.parametrize("text", ["workers = 3\n", "[DEFAULT\nworkers = 3\n", "\x00\x01"])
def test_a_file_that_cannot_be_parsed_is_named(tmp_path: Path, text: str) -> None:
    load(tmp_path, text)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "attachd.conf"
    file.write_bytes(b"[DEFAULT]\n# caf\xe9\n")
    with pytest.raises(AttachdError) as excinfo:
        conf.load([], files=[file])
    assert str(file) in excinfo.value.problem.details


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AttachdError, match="configuration") as excinfo:
        conf.load(["--config-file", str(tmp_path / "nothing.conf")])
    assert "nothing.conf" in excinfo.value.problem.details


def test_credentials_of_any_plugin_are_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "attachd.conf"
    file.write_text(
        "[cinder]\nauth_type = v3applicationcredential\nauth_url = http://127.0.0.1:5000/v3\n"
        "application_credential_id = x\napplication_credential_secret = y\n"
    )
    assert conf.load([], files=[file]).cinder.auth_type == "v3applicationcredential"


def test_no_secret_of_the_file_is_in_an_error(tmp_path: Path) -> None:
    error = load(tmp_path, "[cinder]\npassword = hush-hush\nrequest_timeout = x\n")
    assert "hush-hush" not in repr(error.problem)


def test_the_sample_is_what_the_options_say() -> None:
    made = subprocess.run(
        [sys.executable, PROJECT / "tools" / "sample"], capture_output=True, text=True, check=True
    )
    assert (PROJECT / "etc" / "attachd.conf.sample").read_text() == made.stdout
