"""Two questions to two worlds at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def together(first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
    """What both answer. Raises what ``first`` raises, at once, else what ``second`` does.

    Both only ask: ``second`` may still be under way then, and changes nothing. What they call is
    noted with the operation that asks.
    """
    answer: Future[B] = Future()

    def ask() -> None:
        try:
            answer.set_result(second())
        except BaseException as exc:  # noqa: BLE001 - it is raised below
            answer.set_exception(exc)

    beside = threading.Thread(target=copy_context().run, args=(ask,), name="beside", daemon=True)
    beside.start()
    return first(), answer.result()
