"""What an operation needed is let go of at its end, however many there were."""

from __future__ import annotations

import gc
from collections import Counter

from attachd.model import OperationState
from tests.unit.bench import Bench

OPERATIONS = 20


def _pairs_of_operations(bench: Bench, number: int) -> None:
    for _ in range(number):
        assert bench.attach("web", "data").state is OperationState.DONE
        assert bench.detach("web", "data").state is OperationState.DONE
        assert bench.auditor.audit() == ()


def _alive() -> Counter[str]:
    """How many objects there are of each type, but for the fakes'."""
    gc.collect()
    types = (type(each) for each in gc.get_objects())
    return Counter(each.__qualname__ for each in types if "tests." not in str(each.__module__))


def test_operations_leave_no_objects_behind(bench: Bench, guest: str) -> None:
    bench.cinder.add_volume(name="data")
    _pairs_of_operations(bench, 5)  # what is made once, and caches that have their size
    _alive()
    before = _alive()
    _pairs_of_operations(bench, OPERATIONS)
    more = _alive() - before
    # Not one for each pair: the interpreter makes a few of its own.
    assert {name: n for name, n in more.items() if n >= OPERATIONS} == {}
