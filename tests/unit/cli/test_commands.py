"""Every command, in every format, and each exit status with its words."""

from __future__ import annotations

import socket
import subprocess
import threading
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from attachd.audit.findings import Finding, FindingCode, Repair
from attachd.cli import client
from attachd.cli.main import main
from attachd.cli.parser import ATTACHMENT_COLUMNS, FINDING_COLUMNS, OPERATION_COLUMNS
from attachd.errors import Code, Problem, Refused, World
from attachd.model import Bus, Mode, OperationState
from tests.fakes.engine import Failure, FakeEngine
from tests.unit.cli.conftest import Run
from tests.unit.serving import serving

UNDONE = Failure(
    OperationState.UNDONE,
    Problem(
        code=Code.CONNECT_FAILED,
        brief="The volume's device did not appear.",
        details="10.0.0.1:3260 does not answer",
        resolution="Look at the target.",
    ),
    failed_step="connect",
)


# --- attach and detach ------------------------------------------------------------------------


def test_attach_prints_the_attachment(daemon: FakeEngine, run: Run) -> None:
    ran = run("attach", "web", "data", "-f", "json")

    assert ran.status == 0
    assert ran.err == ""
    assert tuple(ran.document) == ATTACHMENT_COLUMNS
    assert ran.document["guest_name"] == "web"
    assert ran.document["serial"] == ran.document["volume_id"] == daemon.volumes["data"]
    assert ran.document["state"] == "attached"
    assert uuid.UUID(daemon.requests[0].request_id)


@pytest.mark.usefixtures("daemon")
def test_attach_tells_people_where_the_guest_finds_the_disk(run: Run) -> None:
    out = run("attach", "web", "data").out
    table, _, hint = out.rpartition("+\n")
    volume_id = table.partition("| serial")[2].split()[1]
    assert hint == f"In the guest: /dev/disk/by-id/virtio-{volume_id[:20]} (vdb is only a hint).\n"


def test_attach_hands_on_its_options(daemon: FakeEngine, run: Run) -> None:
    options = ("--device", "sdc", "--bus", "scsi", "--mode", "ro", "--override-nova")
    assert run("attach", "web", "data", *options).status == 0

    (request,) = daemon.requests
    assert (request.device, request.bus, request.mode) == ("sdc", Bus.SCSI, Mode.RO)
    assert request.override_nova


def test_without_options_the_daemon_chooses(daemon: FakeEngine, run: Run) -> None:
    assert run("attach", "web", "data").status == 0

    (request,) = daemon.requests
    assert (request.device, request.bus, request.mode) == (None, Bus.VIRTIO, Mode.RW)
    assert not request.override_nova


@pytest.mark.usefixtures("daemon")
def test_detach_prints_the_operation(run: Run) -> None:
    run("attach", "web", "data")

    ran = run("detach", "web", "data", "-f", "json")

    assert ran.status == 0
    assert (ran.document["kind"], ran.document["state"]) == ("detach", "done")
    assert run("list", "-f", "json").document == []


def test_extend_prints_the_attachment(daemon: FakeEngine, run: Run) -> None:
    run("attach", "web", "data")

    ran = run("extend", "web", "data", "2", "-f", "json")

    assert ran.status == 0
    assert tuple(ran.document) == ATTACHMENT_COLUMNS
    assert ran.document["size_gib"] == 2
    assert daemon.requests[-1].size_gib == 2
    assert run("list", "-f", "value", "-c", "size_gib").out == "2\n"
    missing = run("extend", "web", "logs", "2")
    assert (missing.status, missing.err.split(":")[0]) == (4, "not-attached")


@pytest.mark.usefixtures("daemon")
def test_quiet_says_nothing_when_all_went_well(run: Run) -> None:
    for command in ("attach", "detach"):
        ran = run(command, "web", "data", "-q")
        assert (ran.status, ran.out, ran.err) == (0, "", "")
    assert run("detach", "web", "data", "-q").err.startswith("not-attached: ")


def test_adopt_prints_the_attachment_and_release_the_operation(
    daemon: FakeEngine, run: Run
) -> None:
    adopted = run("adopt", "web", "data", "-f", "json")
    assert (adopted.status, adopted.err) == (0, "")
    assert tuple(adopted.document) == ATTACHMENT_COLUMNS
    assert (adopted.document["adopted"], adopted.document["state"]) == (True, "attached")

    again = run("adopt", "web", "data")
    assert (again.status, again.err.split(":")[0]) == (4, "already-attached")
    released = run("release", "web", "data", "-f", "json")
    assert released.status == 0
    assert (released.document["kind"], released.document["state"]) == ("release", "done")
    assert run("list", "-f", "json").document == []
    assert run("release", "web", "data").status == 4
    assert run("adopt", "web", "data", "--override-nova").status == 2
    assert len({request.request_id for request in daemon.requests}) == 4


def test_no_wait_prints_the_operation(daemon: FakeEngine, run: Run) -> None:
    daemon.hold = True

    ran = run("attach", "web", "data", "--no-wait", "-f", "json")

    assert ran.status == 0
    assert ran.document["state"] == "running"
    assert ran.document["operation_id"] == daemon.until_submitted()


# --- exit statuses ----------------------------------------------------------------------------


def test_undone_is_1(daemon: FakeEngine, run: Run) -> None:
    daemon.failure = UNDONE

    ran = run("attach", "web", "data")

    assert ran.status == 1
    assert ran.out == ""
    assert ran.err.splitlines() == [
        "connect-failed: The volume's device did not appear.",
        "10.0.0.1:3260 does not answer",
        "Look at the target.",
        f"See how it went: attachctl operation show {daemon.until_submitted()}",
    ]


def test_an_error_as_json_is_an_object_and_nothing_else(daemon: FakeEngine, run: Run) -> None:
    daemon.failure = UNDONE

    ran = run("attach", "web", "data", "-f", "json")

    assert ran.status == 1
    assert ran.err == ""
    assert list(ran.document) == ["code", "brief", "details", "resolution"]
    assert ran.document["code"] == "connect-failed"
    assert ran.document["details"] == "10.0.0.1:3260 does not answer"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((), "arguments are required: COMMAND"),
        (("atach", "web", "data"), "did you mean attach?"),
        (("operation", "shw", "x"), "did you mean show?"),
        (("operation",), "arguments are required: COMMAND"),
        (("attach", "web"), "arguments are required: VOLUME"),
        (("attach", "web", "data", "--devise", "vdb"), "did you mean --device?"),
        (("attach", "web", "data", "--bus", "virtoi"), "did you mean virtio?"),
        (("attach", "web", "data", "--bus", "ide"), "invalid choice: 'ide'"),
        (("attach", "web", "data", "--timeout", "soon"), "not a number of seconds"),
        (("attach", "web", "data", "--timeout", "-1"), "not a number of seconds"),
        (("attach", "web", "data", "--timeout", "nan"), "not a number of seconds"),
        (("extend", "web", "data"), "arguments are required: SIZE"),
        *(
            (("extend", "web", "data", "--", size), "not a whole number of GiB")
            for size in ("0", "-1", "2GB", "1.5", "²", str(2**31), "9" * 5000, "")
        ),
        (("list", "--lon"), "did you mean --long?"),
        (("list", "-f", "jsn"), "did you mean json?"),
        (("list", "-c", "devise"), "did you mean device?"),
        (("list", "--limit", "0"), "not a number above 0: '0'"),
        (("operation", "list", "--limit", "0"), "not a number above 0: '0'"),
        (("operation", "list", "--limit", "all"), "not a number above 0: 'all'"),
        (("list", "surplus\x1b[31m"), r"unrecognized arguments: surplus\x1b[31m"),
    ],
)
def test_wrong_usage_is_2(run: Run, argv: tuple[str, ...], words: str) -> None:
    ran = run(*argv)

    assert ran.status == 2
    assert ran.out == ""
    assert words in ran.err
    assert ran.err.startswith("usage: attachctl")


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("attach", "nobody", "data"), "guest-not-found"),
        (("attach", "web", "nothing"), "volume-not-found"),
        (("detach", "nobody", "data"), "guest-not-found"),
        (("show", "none"), "attachment-not-found"),
        (("operation", "show", "none"), "operation-not-found"),
        (("show", "a/../../b?c#d"), "attachment-not-found"),
        (("show", "\udcff"), "attachment-not-found"),
    ],
)
@pytest.mark.usefixtures("daemon")
def test_not_found_is_3(run: Run, argv: tuple[str, ...], code: str) -> None:
    ran = run(*argv)
    assert (ran.status, ran.out) == (3, "")
    assert ran.err.startswith(f"{code}: ")


@pytest.mark.usefixtures("daemon")
def test_refused_is_4(run: Run) -> None:
    run("attach", "web", "data")

    again = run("attach", "web", "data")
    other = run("detach", "web", "logs")
    bad = run("attach", "web", "da\nta")

    assert (again.status, again.err) == (4, "already-attached: It is attached already.\n")
    assert (other.status, other.err) == (4, "not-attached: It is not attached.\n")
    assert bad.status == 4
    assert bad.err.startswith("bad-request: ")


def test_refused_by_the_api_is_4(engine: FakeEngine, path: Path, run: Run) -> None:
    with serving(engine, path, authorise=lambda _peer: False):
        ran = run("list")
    assert ran.status == 4
    assert ran.err.startswith("permission-denied: ")


@pytest.mark.usefixtures("path")
def test_refused_by_the_kernel_is_4(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run as root, whom the kernel refuses nothing: so it is played here."""

    def refuse(*_arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(client._UnixConnection, "connect", refuse)

    ran = run("list", "-f", "json")

    assert ran.status == 4
    assert ran.document["code"] == "permission-denied"
    assert "group that owns" in ran.document["resolution"]


def test_needs_attention_is_5(daemon: FakeEngine, run: Run) -> None:
    problem = Problem(code=Code.STILL_IN_USE, brief="The device is left.", details="/dev/sdc")
    daemon.failure = Failure(OperationState.NEEDS_ATTENTION, problem, failed_step="connect")

    ran = run("attach", "web", "data")

    assert ran.status == 5
    assert ran.err.startswith("still-in-use: The device is left.\n/dev/sdc\n")


def test_a_daemon_that_failed_inside_is_5(daemon: FakeEngine, run: Run) -> None:
    daemon.raises = RuntimeError("oops")
    ran = run("attach", "web", "data")
    assert ran.status == 5
    assert ran.err.startswith("internal-error: ")


@pytest.mark.usefixtures("daemon")
def test_a_failure_of_its_own_is_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.Client, "get", lambda *_arguments: 1 / 0)
    ran = run("list")
    assert ran.status == 5
    assert ran.err.startswith("internal-error: ")


@pytest.mark.parametrize("argv", [("list",), ("attach", "web", "data"), ("detach", "web", "data")])
def test_no_socket_is_6(path: Path, run: Run, argv: tuple[str, ...]) -> None:
    ran = run(*argv)
    assert ran.status == 6
    assert ran.err.splitlines()[:2] == [
        "daemon-unreachable: The daemon can't be reached.",
        f"{path}: No such file or directory",
    ]


def test_nobody_listening_is_6(path: Path, run: Run) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    ran = run("attach", "web", "data", "-f", "json")
    assert ran.status == 6
    assert ran.document["code"] == "daemon-unreachable"


@pytest.mark.parametrize("name", ["x" * 200, "nul\0"])
def test_an_impossible_socket_is_6(run: Run, name: str) -> None:
    assert run("--socket", f"/{name}", "list").status == 6


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n{}",
        b"",
    ],
)
def test_a_stranger_on_the_socket_is_6(path: Path, run: Run, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(path))
        stranger.listen()

        def talk() -> None:
            peer, _ = stranger.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(answer)

        thread = threading.Thread(target=talk)
        thread.start()
        ran = run("list")
        thread.join(timeout=60)
    assert ran.status == 6
    assert ran.err.startswith("daemon-unreachable: ")


def test_still_running_is_7(daemon: FakeEngine, run: Run) -> None:
    daemon.hold = True

    ran = run("attach", "web", "data", "--timeout", "0.3")

    operation_id = daemon.until_submitted()
    assert ran.status == 7
    assert ran.out == ""
    assert operation_id in ran.err
    assert f"attachctl operation show {operation_id}" in ran.err
    daemon.release(operation_id)
    assert run("operation", "show", operation_id, "-f", "json").document["state"] == "done"


@pytest.mark.usefixtures("daemon")
def test_a_timeout_of_zero_still_sees_what_is_done(run: Run) -> None:
    assert run("attach", "web", "data", "--timeout", "0").status == 0


@pytest.mark.usefixtures("impatient")
def test_shutting_down_is_waited_for(daemon: FakeEngine, run: Run) -> None:
    daemon.raises = Refused(Code.SHUTTING_DOWN, "attachd is stopping.")

    ran = run("attach", "web", "data")

    assert ran.status == 4
    assert ran.err.startswith("shutting-down: ")


# --- lists, and what they look like -----------------------------------------------------------


@pytest.mark.parametrize(
    ("style", "out"),
    [("json", "[]\n"), ("yaml", "[]\n"), ("value", "")],
)
@pytest.mark.usefixtures("daemon")
def test_an_empty_list(run: Run, style: str, out: str) -> None:
    ran = run("list", "-f", style)
    assert (ran.status, ran.out, ran.err) == (0, out, "")


@pytest.mark.usefixtures("daemon")
def test_an_empty_table_has_its_head(run: Run) -> None:
    ran = run("list")
    assert ran.status == 0
    rule, head, last = ran.out.splitlines()
    assert rule == last
    assert head.split() == ["|", "attachment_id", "|", "guest_name", "|", "volume_id", "|",
                            "device", "|", "state", "|"]  # fmt: skip


def test_list_of_one_guest(daemon: FakeEngine, run: Run) -> None:
    run("attach", "web", "data")
    run("attach", "db", "logs")

    def names(*argv: str) -> list[str]:
        return run("list", *argv, "-f", "value", "-c", "guest_name").out.split()

    assert names() == ["db", "web"]
    assert names("--guest", "db") == ["db"]
    assert names("--guest", daemon.guests["web"]) == ["web"]
    assert names("--guest", "nobody") == []


@pytest.mark.usefixtures("daemon")
def test_long_is_more_columns_of_a_table_and_the_same_json(run: Run) -> None:
    run("attach", "web", "data")

    assert run("list", "--long", "-f", "json").out == run("list", "-f", "json").out
    assert "wwn" not in run("list").out
    assert "36001405" in run("list", "--long").out
    assert tuple(run("list", "-f", "json").document[0]) == ATTACHMENT_COLUMNS


@pytest.mark.usefixtures("daemon")
def test_columns_in_every_format(run: Run) -> None:
    run("attach", "web", "data")

    def listed(style: str) -> str:
        return run("list", "-f", style, "-c", "state", "-c", "device").out

    assert listed("value") == "attached vdb\n"
    assert listed("json") == '[\n  {\n    "state": "attached",\n    "device": "vdb"\n  }\n]\n'
    assert yaml.safe_load(listed("yaml")) == [{"state": "attached", "device": "vdb"}]
    assert listed("csv") == "state,device\nattached,vdb\n"
    assert listed("table") == (
        "+----------+--------+\n"
        "| state    | device |\n"
        "+----------+--------+\n"
        "| attached | vdb    |\n"
        "+----------+--------+\n"
    )


def test_csv_is_quoted_where_it_must_be(daemon: FakeEngine, run: Run) -> None:
    daemon.guests['a "b", c'] = daemon.guests.pop("web")
    run("adopt", 'a "b", c', "data")
    listed = run("list", "-f", "csv", "-c", "guest_name", "-c", "guest_path").out
    assert listed == 'guest_name,guest_path\n"a ""b"", c",\n'
    assert run("list", "-f", "csv").out.startswith(
        "attachment_id,guest_name,volume_id,device,state\n"
    )


@pytest.mark.usefixtures("daemon")
def test_show_in_every_format(run: Run) -> None:
    attached = run("attach", "web", "data", "-f", "json").document
    name = attached["attachment_id"]

    assert run("show", name, "-f", "json").document == attached
    assert yaml.safe_load(run("show", name, "-f", "yaml").out) == attached
    assert run("show", name, "-f", "value").out.splitlines() == list(map(str, attached.values()))
    assert run("show", name, "-f", "value", "-c", "wwn").out == "36001405\n"
    assert (
        run("show", name, "-f", "csv", "-c", "wwn", "-c", "bus").out == "wwn,bus\n36001405,virtio\n"
    )
    table = run("show", name).out.splitlines()
    assert [line.split()[1] for line in table if line.startswith("|")] == ["Field", *attached]


def test_operations_are_listed(daemon: FakeEngine, run: Run) -> None:
    run("attach", "web", "data")
    daemon.hold = True
    run("detach", "web", "data", "--no-wait")

    every = run("operation", "list", "-f", "json").document

    assert [found["kind"] for found in every] == ["detach", "attach"]
    assert tuple(every[0]) == OPERATION_COLUMNS
    columns = ("-f", "value", "-c", "kind", "-c", "state", "-c", "guest", "-c", "volume")
    assert run("operation", "list", *columns, "--open").out == "detach running web data\n"
    assert "steps" not in run("operation", "list").out


@pytest.mark.parametrize(("limit", "shown"), [("1", 1), ("4", 4), ("5", 5), ("6", 5), (None, 5)])
def test_attachments_come_page_by_page(
    daemon: FakeEngine,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    limit: str | None,
    shown: int,
) -> None:
    monkeypatch.setattr("attachd.cli.commands._PAGE", 2)
    names = [f"guest-{number}" for number in range(5)]
    for name in names:
        daemon.guests[name] = str(uuid.uuid4())
        run("attach", name, "data")
    options = () if limit is None else ("--limit", limit)
    listed = run("list", *options, "-f", "value", "-c", "guest_name").out.split()
    assert listed == names[:shown]


@pytest.mark.parametrize(("limit", "shown"), [("1", 1), ("4", 4), ("5", 5), ("6", 5), (None, 5)])
@pytest.mark.usefixtures("daemon")
def test_operations_come_page_by_page(
    run: Run, monkeypatch: pytest.MonkeyPatch, limit: str | None, shown: int
) -> None:
    monkeypatch.setattr("attachd.cli.commands._PAGE", 2)
    for command in ("attach", "detach", "attach", "detach", "attach"):
        run(command, "web", "data")
    every = run("operation", "list", "-f", "json").document
    options = () if limit is None else ("--limit", limit)
    listed = run("operation", "list", *options, "-f", "value", "-c", "operation_id").out.split()
    assert listed == [found["operation_id"] for found in every][:shown]
    assert [found["kind"] for found in every] == ["attach", "detach"] * 2 + ["attach"]


def test_an_audit_exits_0_only_where_the_worlds_agree(daemon: FakeEngine, run: Run) -> None:
    assert (run("audit").status, run("audit").out) == (0, "The four worlds agree.\n")
    assert run("audit", "-f", "json").document == []
    finding = Finding(
        code=FindingCode.DEVICE_GONE,
        brief="The host has no device.",
        says={World.HOST: "no device", World.CINDER: "volume in-use"},
        resolution="Detach it.",
        volume_id="v",
    )
    daemon.findings = (finding, finding)

    ran = run("audit")
    block = (
        "device-gone: The host has no device.\n  host: no device\n  cinder: volume in-use\n"
        "Detach it.\n"
    )
    assert (ran.status, ran.err, ran.out) == (5, "", f"{block}\n{block}")
    (first, _) = run("audit", "-f", "json").document
    assert tuple(first) == FINDING_COLUMNS
    assert run("audit", "-f", "value", "-c", "code").out == "device-gone\ndevice-gone\n"


def test_an_audit_repairs_what_is_safe_and_looks_again(daemon: FakeEngine, run: Run) -> None:
    safe = Finding(
        code=FindingCode.VOLUME_STATUS_DIFFERS,
        brief="Cinder says that it is available.",
        volume_id="data",
        guest_id="web",
        repair=Repair.RESTORE,
    )
    daemon.findings = (safe, replace(safe, code=FindingCode.DISK_SOURCE_DIFFERS, repair=None))

    only_said = run("audit", "--repair", "--dry-run", "-f", "value", "-c", "code", "-c", "repair")
    assert (only_said.status, only_said.err) == (5, "")
    assert only_said.out == "volume-status-differs restore\ndisk-source-differs None\n"
    assert "Safe to do: restore (attachctl audit --repair)" in run("audit", "--dry-run").out

    repaired = run("audit", "--repair", "-f", "value", "-c", "code")
    assert (repaired.status, repaired.out) == (5, "disk-source-differs\n")
    assert repaired.err == "restore of volume data, guest web: done\n"
    daemon.findings = (safe,)
    daemon.failure = UNDONE
    failed = run("audit", "--repair")
    assert failed.err.startswith("restore of volume data, guest web: undone (connect-failed: ")


def test_a_disconnect_is_never_waited_for(
    daemon: FakeEngine, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("attach", "web", "data")
    daemon.hold = True
    begun = run("disconnect", "web", "-f", "json")
    assert (begun.status, [found["kind"] for found in begun.document]) == (0, ["disconnect"])
    monkeypatch.setenv("ATTACHD_SOCKET", "/nowhere/attachd.sock")
    gone = run("disconnect", "web")
    assert (gone.status, gone.err.split(":")[0]) == (0, "daemon-unreachable")


def test_a_reconnect_never_keeps_a_guest_from_starting(
    daemon: FakeEngine, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("attach", "web", "data")
    done = run("reconnect", "web", "-f", "json")
    assert (done.status, [found["state"] for found in done.document]) == (0, ["done"])
    daemon.failure = UNDONE
    failed = run("reconnect", "web")
    assert failed.status == 0
    assert failed.err == "connect-failed: The volume's device did not appear.\n"
    monkeypatch.setenv("ATTACHD_SOCKET", "/nowhere/attachd.sock")
    gone = run("reconnect", "web")
    assert (gone.status, gone.err.split(":")[0]) == (0, "daemon-unreachable")


@pytest.mark.parametrize(
    ("code", "status"),
    [(Code.WRONG_DEVICE, 5), (Code.WORLDS_DISAGREE, 5), (Code.CINDER_UNAVAILABLE, 0)],
)
def test_a_strict_reconnect_tells_of_another_volumes_device(
    daemon: FakeEngine, run: Run, code: Code, status: int
) -> None:
    run("attach", "web", "data")
    assert run("reconnect", "web", "--strict").status == 0
    daemon.failure = Failure(OperationState.UNDONE, Problem(code=code, brief="No."))
    assert run("reconnect", "web", "--strict").status == status
    assert run("reconnect", "web").status == 0


def test_a_strict_reconnect_that_has_no_answer_in_time(daemon: FakeEngine, run: Run) -> None:
    """The device is proven, or comes, or doesn't; only one that was to go mustn't be there."""
    run("attach", "web", "data")
    daemon.hold = True
    assert run("reconnect", "web", "--strict", "--timeout", "0.2").status == 0
    daemon.fence("web")
    assert run("reconnect", "web", "--strict", "--timeout", "0.2").status == 5


HOOK = Path(__file__).parents[3] / "etc" / "libvirt" / "hooks" / "qemu.d" / "attachd"


@pytest.mark.parametrize(
    ("words", "asked", "answer", "status"),
    [
        (("prepare", "begin"), "reconnect --strict --quiet 0-1", 0, 0),
        (("prepare", "begin"), "reconnect --strict --quiet 0-1", 5, 1),
        (("prepare", "begin"), "reconnect --strict --quiet 0-1", 6, 0),
        (("release", "end"), "disconnect --quiet 0-1", 0, 0),
        (("started", "begin"), None, 5, 0),
    ],
)
def test_libvirts_hook(
    tmp_path: Path, words: tuple[str, str], asked: str | None, answer: int, status: int
) -> None:
    stub = tmp_path / "attachctl"
    stub.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\nexit {answer}\n')
    stub.chmod(0o755)
    done = subprocess.run(
        [HOOK, "a guest", *words, "-"],
        input="<domain>\n  <uuid>0-1</uuid>\n</domain>\n",
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == status
    assert ("a guest" in done.stderr) == (status != 0)
    written = tmp_path / "asked"
    assert (written.read_text().strip() if written.exists() else None) == asked


def test_an_operation_is_resumed_to_its_end(daemon: FakeEngine, run: Run) -> None:
    daemon.failure = Failure(
        OperationState.NEEDS_ATTENTION,
        Problem(code=Code.STILL_IN_USE, brief="It is held."),
        failed_step="connect",
    )
    assert run("attach", "web", "data").status == 5
    name = daemon.until_submitted()
    assert run("operation", "resume", name).status == 5
    daemon.failure = UNDONE
    assert run("operation", "resume", name).err.startswith("connect-failed: ")
    assert run("operation", "show", name, "-f", "value", "-c", "state").out == "undone\n"


def test_an_operation_that_is_resumed_well_is_printed(daemon: FakeEngine, run: Run) -> None:
    daemon.failure = Failure(
        OperationState.NEEDS_ATTENTION, Problem(code=Code.STILL_IN_USE, brief="It is held.")
    )
    run("attach", "web", "data")
    daemon.failure = None
    ran = run("operation", "resume", daemon.until_submitted(), "-f", "json")
    assert (ran.status, ran.document["state"]) == (0, "done")
    assert run("operation", "resume", "none").status == 3


def test_an_operation_is_shown_with_its_steps(daemon: FakeEngine, run: Run) -> None:
    daemon.failure = UNDONE
    run("attach", "web", "data")
    name = daemon.until_submitted()

    table = run("operation", "show", name).out
    shown = run("operation", "show", name, "-f", "json").document

    assert tuple(shown) == OPERATION_COLUMNS
    assert [step["name"] for step in shown["steps"]] == ["create", "connect", "create"]
    assert "\nconnect-failed: The volume's device did not appear.\n10.0.0.1:3260" in table
    steps = [line.split("|")[1:] for line in table.splitlines() if "cinder" in line]
    assert [(cells[0].strip(), cells[2].strip()) for cells in steps] == [
        ("create", "do"),
        ("create", "undo"),
    ]
    assert run("operation", "show", name, "-f", "value", "-c", "state").out == "undone\n"


def test_what_a_terminal_would_obey_is_escaped(daemon: FakeEngine, run: Run) -> None:
    daemon.guests["a\x1b[2Jb\nc"] = daemon.guests.pop("web")
    run("attach", daemon.guests["a\x1b[2Jb\nc"], "data")

    assert run("list", "-f", "value", "-c", "guest_name").out == "a\\x1b[2Jb\\nc\n"
    assert "\x1b" not in run("list").out
    assert run("list", "-f", "json").document[0]["guest_name"] == "a\x1b[2Jb\nc"


def test_wide_characters_keep_the_bars_in_line(daemon: FakeEngine, run: Run) -> None:
    daemon.guests["客機"] = daemon.guests.pop("web")
    run("attach", "客機", "data")
    assert run("list", "-c", "guest_name").out.splitlines()[3] == "| 客機       |"


# --- which daemon -----------------------------------------------------------------------------


def test_the_socket_option_goes_before_the_environment(
    engine: FakeEngine, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTACHD_SOCKET", str(tmp_path / "nobody.sock"))
    path = str(tmp_path / "attachd.sock")
    with serving(engine, Path(path)):
        assert run("--socket", path, "list").status == 0
        assert run("list", "--socket", path).status == 0
        assert run("list").status == 6


def test_version_and_help(run: Run) -> None:
    assert run("--version").out.startswith("attachctl 0.")
    assert "exit status:" in run("--help").out
    for command in (("attach",), ("operation", "show")):
        ran = run(*command, "--help")
        assert (ran.status, ran.err) == (0, "")


def test_main_without_arguments_takes_the_process_s_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["attachctl", "--version"])
    assert main() == 0
    assert "attachctl" in capsys.readouterr().out


# --- connector ---------------------------------------------------------------------------------


def test_connector_is_what_cinder_is_told(daemon: FakeEngine, run: Run) -> None:
    assert run("connector", "-f", "json").document == daemon.connector()
    ran = run("connector", "-f", "value", "-c", "initiator", "-c", "multipath")
    assert ran.out == f"{daemon.connector()['initiator']}\nNone\n"
