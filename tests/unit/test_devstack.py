"""The DevStack plugin fits the rest of the tree: its options, its units, its jobs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from attachd import conf

PROJECT = Path(__file__).resolve().parents[2]
LIBRARY = (PROJECT / "devstack" / "lib" / "attachd").read_text()
SYSTEMD = PROJECT / "systemd"
OF_A_USER_OF_ITS_OWN = {"sysusers.d", "tmpfiles.d"}
"""In DevStack attachd has none."""

VALUES = {
    "cinder auth_type": "password",
    "cinder auth_url": "http://192.0.2.1/identity",
    "cinder orphan_timeout": "150",
    "DEFAULT debug": "True",
    "host my_ip": "192.0.2.1",
}


def test_each_option_that_it_sets_is_one_of_attachds(tmp_path: Path) -> None:
    """attachd refuses to start with another."""
    options = re.findall(r'iniset "\$ATTACHD_CONF" (\w+) (\w+) ', LIBRARY)
    assert len(options) == LIBRARY.count("iniset ")
    file = tmp_path / "attachd.conf"
    groups: dict[str, list[str]] = {}
    for group, name in dict.fromkeys(options):
        groups.setdefault(group, []).append(f"{name} = {VALUES.get(f'{group} {name}', 'text')}")
    file.write_text("".join(f"[{g}]\n" + "\n".join(o) + "\n" for g, o in groups.items()))
    config = conf.load([], files=[file])
    assert config.cinder.orphan_timeout == 150
    assert config.user == "text"


def test_it_waits_longer_than_devstacks_cinder_works() -> None:
    found = re.search(r"^_ATTACHD_ORPHAN_SECONDS=(\d+)$", LIBRARY, re.MULTILINE)
    assert found
    assert int(found[1]) > 120


def test_every_unit_is_installed() -> None:
    units = {
        file.relative_to(SYSTEMD).as_posix()
        for file in SYSTEMD.rglob("*")
        if file.is_file() and file.parent.name not in OF_A_USER_OF_ITS_OWN
    }
    installed = re.search(r"for unit in (attachd\.service .*?); do", LIBRARY, re.DOTALL)
    assert installed
    assert set(installed[1].replace("\\", "").split()) == units
    assert (PROJECT / "etc/libvirt/hooks/qemu.d/attachd").is_file()


# --- the jobs ----------------------------------------------------------------------------------


def document(path: str) -> Any:
    return yaml.safe_load((PROJECT / path).read_text())


@pytest.fixture
def job() -> dict[str, Any]:
    (found,) = [entry["job"] for entry in document(".zuul.yaml") if "job" in entry]
    assert isinstance(found, dict)
    return found


def test_the_zuul_job_is_a_cinder_alone(job: dict[str, Any]) -> None:
    services = {name for name, wanted in job["vars"]["devstack_services"].items() if wanted}
    assert {"key", "c-api", "c-sch", "c-vol"} <= services
    assert not [name for name in services if name.startswith(("n-", "g-", "q-", "placement"))]
    assert set(job["vars"]["devstack_plugins"]) == {"attachd"}
    assert (PROJECT / job["run"]).is_file()


def test_the_workflow_is_a_cinder_alone() -> None:
    (steps,) = [j["steps"] for j in document(".github/workflows/devstack.yaml")["jobs"].values()]
    (deploy,) = [step["with"] for step in steps if "devstack-action" in step.get("uses", "")]
    off = {name[1:] for name in deploy["enabled_services"].split(",") if name.startswith("-")}
    nova = {"n-api", "n-api-meta", "n-cond", "n-cpu", "n-novnc", "n-sch"}
    assert nova | {"placement-api", "placement-client", "g-api"} <= off
    assert "enable_plugin attachd " in deploy["conf_overrides"]


def test_both_run_the_same_tests(job: dict[str, Any]) -> None:
    for path in (job["run"], ".github/workflows/devstack.yaml"):
        text = (PROJECT / path).read_text()
        for command in ("tools/guest-host", "make cloud", "OS_CLOUD: devstack-admin"):
            assert command in text, (path, command)
