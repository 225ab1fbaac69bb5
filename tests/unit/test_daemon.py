"""What the daemon's assembly refuses before it touches anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attachd import conf
from attachd.daemon import _be_the_only_one, _cinder, _scraped_socket
from attachd.errors import AttachdError, Code, Unreachable
from attachd.model import AttachFlow
from tests.fakes.cinder_http import CinderServer

HOLD = """
import sys
from pathlib import Path
from attachd.daemon import _be_the_only_one
_be_the_only_one(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_daemon_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    with pytest.raises(AttachdError, match="Another attachd") as excinfo:
        _be_the_only_one(tmp_path)
    assert (excinfo.value.code, excinfo.value.touched) == (Code.JOURNAL_UNAVAILABLE, False)
    assert [file.name for file in tmp_path.iterdir()] == ["daemon.lock"]
    first.kill()
    first.communicate()
    _be_the_only_one(tmp_path)


def test_a_state_directory_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(AttachdError, match="can't be used") as excinfo:
        _be_the_only_one(tmp_path / "missing")
    assert excinfo.value.code is Code.JOURNAL_UNAVAILABLE
    assert excinfo.value.problem.resolution


def test_the_lock_is_the_daemons_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    _be_the_only_one(tmp_path)
    os.umask(before)
    assert oct((tmp_path / "daemon.lock").stat().st_mode) == "0o100600"


@pytest.mark.parametrize(
    ("configured", "offered", "flow"),
    [
        ("", "3.71", "attachments"),
        ("", "3.43", "volume-actions"),
        ("attach_flow = auto", "3.44", "attachments"),
        ("attach_flow = attachments", "3.71", "attachments"),
        ("attach_flow = attachments", "3.43", None),
        ("attach_flow = volume-actions", "3.0", "volume-actions"),
    ],
)
def test_the_style_of_attaching_is_configured(
    tmp_path: Path, configured: str, offered: str, flow: str | None
) -> None:
    """None: such a Cinder is as good as out of reach."""
    with CinderServer(microversion=offered) as server:
        file = tmp_path / "attachd.conf"
        file.write_text(
            f"[cinder]\nauth_type = password\nauth_url = {server.auth_url}\nusername = attachd\n"
            "password = right\nproject_name = service\nuser_domain_id = default\n"
            f"project_domain_id = default\n{configured}\n"
        )
        cinder = _cinder(conf.load([], files=[file]))
        volume_id = server.rules.add_volume().id
        if flow is None:
            with pytest.raises(Unreachable, match=r"3\.44"):
                cinder.get_volume(volume_id)
        else:
            assert cinder.get_volume(volume_id) is not None
            assert cinder.attach_flow() is AttachFlow(flow)


@pytest.mark.parametrize(("configured", "address"), [("", None), ("127.0.0.1:0", "127.0.0.1")])
def test_the_numbers_are_on_tcp_only_where_it_is_asked_for(
    tmp_path: Path, configured: str, address: str | None
) -> None:
    file = tmp_path / "attachd.conf"
    file.write_text(f"[metrics]\nlisten = {configured}\n" if configured else "")
    sock = _scraped_socket(conf.load([], files=[file]))
    if sock is None:
        assert address is None
        return
    with sock:
        assert sock.getsockname()[0] == address
