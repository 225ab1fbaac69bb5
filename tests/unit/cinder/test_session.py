"""The credentials in [cinder], read by keystoneauth beside attachd's own options."""

from __future__ import annotations

from pathlib import Path

import pytest

from attachd import conf
from attachd.cinder.session import load_auth, new_session
from attachd.errors import AttachdError, Code

PASSWORD = {
    "auth_url": "http://127.0.0.1:5000/v3",
    "username": "attachd",
    "password": "hunter2",
    "project_name": "service",
    "user_domain_name": "Default",
    "project_domain_name": "Default",
}
APPLICATION = {
    "auth_url": "http://127.0.0.1:5000/v3",
    "application_credential_id": "0123",
    "application_credential_secret": "hunter2",
}


def write(directory: Path, options: dict[str, str]) -> Path:
    path = directory / "attachd.conf"
    path.write_text("[cinder]\n" + "".join(f"{key} = {value}\n" for key, value in options.items()))
    return path


@pytest.mark.parametrize(
    "options",
    [
        {"auth_type": "password", **PASSWORD},
        {"auth_type": "v3password", **PASSWORD},
        {"auth_type": "v3applicationcredential", **APPLICATION},
    ],
    ids=lambda options: options["auth_type"],
)
def test_every_plugin_of_keystoneauth_can_be_named(tmp_path: Path, options: dict[str, str]) -> None:
    config = conf.load([], files=[write(tmp_path, options)])
    auth = load_auth(config, "cinder")
    assert getattr(auth, "auth_url") == options["auth_url"]  # noqa: B009 - not every plugin has it
    assert auth is not load_auth(config, "cinder"), "loading twice registers nothing twice"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "auth_type is not set"),
        ({"auth_type": "nonsense"}, "nonsense"),
        ({"auth_type": "password"}, "auth_url"),
        ({"auth_type": "v3applicationcredential", "auth_url": "http://x"}, ""),
        ({"auth_type": "password", **PASSWORD, "password": "se$same"}, "$$"),
    ],
)
def test_credentials_that_cant_be_used_are_a_configuration_error(
    tmp_path: Path, options: dict[str, str], told: str
) -> None:
    config = conf.load([], files=[write(tmp_path, options)])
    with pytest.raises(AttachdError) as caught:
        load_auth(config, "cinder")
    assert caught.value.code == Code.CONFIG_INVALID
    assert told in caught.value.problem.details
    assert str(tmp_path) in caught.value.problem.details
    assert "[cinder]" in caught.value.problem.resolution
    assert "same" not in str(caught.value.problem.details + caught.value.problem.brief)
    assert caught.value.__cause__ is None or "same" not in str(caught.value.__cause__)


def test_the_sample_file_shows_the_password_plugins_options() -> None:
    (options,) = (options for group, options in conf.list_opts() if group == "cinder")
    names = {option.dest for option in options}
    assert set(PASSWORD) | {"auth_type", "request_timeout", "retries", "region_name"} <= names


@pytest.mark.parametrize(
    ("insecure", "cafile", "verify"),
    [
        (False, None, True),
        (False, "/etc/ssl/own.pem", "/etc/ssl/own.pem"),
        (True, None, False),
        (True, "/etc/ssl/own.pem", False),
    ],
)
def test_certificates_are_checked_unless_told_otherwise(
    tmp_path: Path, insecure: bool, cafile: str | None, verify: bool | str
) -> None:
    config = conf.load([], files=[write(tmp_path, {"auth_type": "password", **PASSWORD})])
    auth = load_auth(config, "cinder")
    session = new_session(auth=auth, timeout=5, cafile=cafile, insecure=insecure)
    assert session.verify == verify
