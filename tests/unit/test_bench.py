"""A run of tools/bench against a stored one."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from benchkit.comparing import FIGURES, TOLERANCE, compare
from benchkit.figures import Round, union
from benchkit.watched import slope

BENCH = Path(__file__).resolve().parents[2] / "tools" / "bench"
RUN: dict[str, Any] = {
    **{
        verb: {"wall": 8.0, "own_time": 0.8, "floor_own_time": 0.4, "overhead_ratio": 0.05}
        for verb in ("attach", "detach")
    },
    "cold": {"attach": 10.0, "detach": 8.0},
    "parallel": {
        "n": 8,
        "wall": 60.0,
        "floor": 40.0,
        "idle": {"attachments": 8, "cpu": 0.02},
    },
    "watched": {"attachments": 200, "cpu": 0.01},
    "memory": {"daemon_pss_kib": 60 * 1024, "helper_pss_kib": 40 * 1024},
    "client": {"list": 0.6, "list_json": 0.6, "help": 0.3, "openstack_version": 6.0},
}


def test_every_figure_is_told() -> None:
    changes = compare(RUN, RUN)
    assert [change.figure for change in changes] == list(FIGURES)
    assert not any(change.is_worse for change in changes)
    assert all("the same" in str(change) for change in changes)


def test_twice_as_fast_a_machine_changes_no_ratio() -> None:
    def halved(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: v if k in SIZES else halved(v) for k, v in value.items()}
        return value / 2

    assert [c.now for c in compare(RUN, halved(RUN))] == [c.stored for c in compare(RUN, RUN)]


SIZES = ("memory", "overhead_ratio", "n", "idle", "watched")


def test_what_is_worse_is_named() -> None:
    now = deepcopy(RUN)
    now["detach"]["own_time"] *= 1 + 2 * TOLERANCE
    now["attach"]["own_time"] *= 1 + TOLERANCE / 2
    (worse,) = [change for change in compare(RUN, now) if change.is_worse]
    assert worse.figure == "detach: own time / the plain process's"
    assert "WORSE" in str(worse)


def test_what_is_better_is_named_too() -> None:
    now = deepcopy(RUN)
    now["client"]["list"] /= 2
    told = [str(change) for change in compare(RUN, now) if "better" in str(change)]
    assert len(told) == 1
    assert "attachctl list /" in told[0]


@pytest.mark.parametrize("missing", [None, 0])
def test_what_a_run_did_not_measure_is_not_compared(missing: object) -> None:
    now = deepcopy(RUN)
    now["parallel"] = {"n": missing, "wall": missing, "floor": missing, "idle": missing}
    del now["client"]["list_json"]
    unmeasured = [change for change in compare(RUN, now) if change.now is None]
    assert len(unmeasured) == 3
    assert not any(change.is_worse for change in unmeasured)
    assert all("not in both" in str(change) for change in unmeasured)


@pytest.mark.parametrize("content", [None, "", "[]", "{"])
def test_a_file_that_is_no_run_is_refused_before_anything_is_measured(
    tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "stored.json"
    if content is not None:
        file.write_text(content)
    result = subprocess.run(
        [sys.executable, BENCH, "--against", file], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert str(file) in result.stderr


def test_own_time_is_outside_of_cinders_changes_and_of_connect() -> None:
    calls = [
        {"library": "cinder", "name": "POST /attachments", "started": 1.0, "ended": 2.0},
        {"library": "libvirt", "name": "read", "started": 0.5, "ended": 1.5},
        {"library": "os_brick", "name": "connect", "started": 2.5, "ended": 4.0},
        {"library": "os_brick", "name": "iscsiadm", "started": 3.0, "ended": 4.5},
        {"library": "cinder", "name": "GET /volumes", "started": 5.0, "ended": 6.0},
    ]
    times = {"created_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:00:10Z"}
    measured = Round(json.loads(json.dumps({"calls": calls, **times})))
    assert measured.own_time == pytest.approx(6.0 - 1.0 - 1.5)
    assert measured.own_time_less_questions == pytest.approx(6.0 - 1.0 - 1.5 - 1.0)
    assert measured.overhead_ratio == pytest.approx((10.0 - 1.5 - 2.0 - 1.0) / 10.0)


def test_overlap_counts_once() -> None:
    assert union([(0, 2), (1, 3), (5, 6)]) == 4


def test_growth_is_what_the_later_half_added() -> None:
    """What the first operations fill, caches for one, is no growth."""
    early = [(n, {"daemon": 100 + 50 * n, "helper": 40}) for n in range(1, 5)]
    later = [(n, {"daemon": 300 + 2 * n, "helper": 40 + n}) for n in range(5, 9)]
    told = slope([*early, *later])
    assert (told["operations"], told["daemon"], told["helper"]) == (8, 316, 48)
    assert told["slope_kib"] == pytest.approx(3)
