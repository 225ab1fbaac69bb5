"""A lock whose file can't be made: refused, nothing touched, and nothing held afterwards."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
from oslo_concurrency import lockutils

from attachd.errors import Code
from tests.unit.bench import Bench


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, Code.JOURNAL_FULL), (errno.EROFS, Code.JOURNAL_UNAVAILABLE)],
)
@pytest.mark.parametrize("kind", ["guest", "volume"])
def test_a_lock_that_cannot_be_made(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str, number: int, code: Code
) -> None:
    guest = bench.guests.add("web")
    volume = bench.cinder.add_volume(name="data")
    make = lockutils.external_lock

    def fail(name: str, **options: Any) -> Any:
        if name.startswith(kind):
            raise OSError(number, os.strerror(number))
        return make(name, **options)

    with monkeypatch.context() as full:
        full.setattr(lockutils, "external_lock", fail)
        view = bench.attach("web", "data")
    assert view.state == "refused"
    assert view.problem is not None
    assert view.problem.code is code
    bench.assert_nothing_left(guest, volume)
    assert bench.attach("web", "data").state == "done"
