"""The rules of trying again: what is repeated, how often, and what is asked before."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from attachd.cinder.faults import Transient
from attachd.cinder.retry import Landed, Retry
from attachd.errors import AttachdError, Code, Refused, Unreachable, World

TRIES = 4


def transient(*, touched: bool) -> Transient:
    return Transient(
        Code.CINDER_UNAVAILABLE, "Lost.", world=World.CINDER, touched=touched, details="transient"
    )


def lasting() -> Unreachable:
    return Unreachable(Code.CINDER_UNAVAILABLE, "No.", world=World.CINDER, touched=False)


LOST = "lost"
UNSENT = "unsent"
REFUSED = "refused"


class Service:
    """Does what its script says at each call, and remembers what was asked in which order.

    The script's words: lost (the answer, not the work), unsent, refused, or the result.
    """

    def __init__(self, *script: str, works_from: int = 1) -> None:
        self._script: Iterator[str] = iter(script)
        self._works_from = works_from
        self.log: list[str] = []
        self.effects = 0

    def act(self) -> str:
        self.log.append("act")
        word = next(self._script)
        if word == UNSENT:
            raise transient(touched=False)
        if word == REFUSED:
            raise Refused(Code.CINDER_REFUSED, "No.")
        if self.log.count("act") >= self._works_from:
            self.effects += 1
        if word == LOST:
            raise transient(touched=True)
        return word

    def landed(self) -> Landed[str] | None:
        self.log.append("ask")
        return Landed(result="found") if self.effects else None


@pytest.fixture
def retry() -> Retry:
    return Retry(tries=TRIES, deadline=60, pause=0.001)


def test_what_works_is_done_once_and_nothing_is_asked(retry: Retry) -> None:
    service = Service("done")
    assert retry.change(service.act, landed=service.landed) == "done"
    assert service.log == ["act"]


def test_what_was_never_sent_is_repeated_without_a_question(retry: Retry) -> None:
    service = Service(UNSENT, UNSENT, "done")
    assert retry.change(service.act, landed=service.landed) == "done"
    assert service.log == ["act", "act", "act"]


def test_a_lost_answer_is_looked_for_and_the_work_not_repeated(retry: Retry) -> None:
    service = Service(LOST)
    assert retry.change(service.act, landed=service.landed) == "found"
    assert service.log == ["act", "ask"]
    assert service.effects == 1


def test_a_call_without_effect_is_repeated_after_the_question_and_looked_at_again(
    retry: Retry,
) -> None:
    service = Service(LOST, "done", works_from=2)
    assert retry.change(service.act, landed=service.landed) == "found"
    assert service.log == ["act", "ask", "act", "ask"]


def test_an_answer_stands_where_the_question_finds_nothing(retry: Retry) -> None:
    service = Service(LOST, "done", works_from=9)
    assert retry.change(service.act, landed=service.landed) == "done"


def test_a_refusal_is_not_repeated(retry: Retry) -> None:
    service = Service(REFUSED)
    with pytest.raises(Refused) as caught:
        retry.change(service.act, landed=service.landed)
    assert service.log == ["act"]
    assert caught.value.touched is False


def test_a_refusal_after_a_lost_answer_is_asked_about_and_touched(retry: Retry) -> None:
    service = Service(LOST, REFUSED, works_from=9)
    with pytest.raises(Refused) as caught:
        retry.change(service.act, landed=service.landed)
    assert service.log == ["act", "ask", "act", "ask"]
    assert caught.value.touched is True


def test_a_refusal_of_what_the_first_one_did_is_no_failure(retry: Retry) -> None:
    """The first call comes late, between the question and the repetition."""
    service = Service(LOST, REFUSED, works_from=9)

    def late() -> Landed[str] | None:
        service.log.append("ask")
        return Landed(result="found") if service.log.count("act") > 1 else None

    assert retry.change(service.act, landed=late) == "found"


def test_tries_are_bounded_and_the_last_look_is_taken(retry: Retry) -> None:
    service = Service(*[LOST] * TRIES, works_from=TRIES)
    assert retry.change(service.act, landed=service.landed) == "found"
    assert service.log.count("act") == TRIES


def test_giving_up_says_that_something_may_have_been_touched(retry: Retry) -> None:
    """The last try never left, but an earlier one did."""
    service = Service(LOST, UNSENT, UNSENT, UNSENT, works_from=9)
    with pytest.raises(Transient) as caught:
        retry.change(service.act, landed=service.landed)
    assert caught.value.touched is True
    assert service.log.count("act") == TRIES


def test_giving_up_what_was_never_sent_touched_nothing(retry: Retry) -> None:
    service = Service(*[UNSENT] * TRIES)
    with pytest.raises(Transient) as caught:
        retry.change(service.act, landed=service.landed)
    assert caught.value.touched is False
    assert "ask" not in service.log


def test_a_question_without_an_answer_is_never_taken_for_a_no(retry: Retry) -> None:
    service = Service(LOST, "done")

    def unanswered() -> Landed[str] | None:
        service.log.append("ask")
        raise transient(touched=False)

    with pytest.raises(Transient) as caught:
        retry.change(service.act, landed=unanswered)
    assert service.log.count("act") == 1
    assert caught.value.touched is True


def test_what_can_not_be_decided_ends_it(retry: Retry) -> None:
    service = Service(LOST, "done")

    def ambiguous() -> Landed[str] | None:
        service.log.append("ask")
        raise AttachdError(Code.WORLDS_DISAGREE, "Two of them.")

    with pytest.raises(AttachdError) as caught:
        retry.change(service.act, landed=ambiguous)
    assert caught.value.code == Code.WORLDS_DISAGREE
    assert service.log.count("act") == 1


def test_reading_is_repeated_up_to_the_bound(retry: Retry) -> None:
    count = itertools.count(1)

    def ask() -> str:
        next(count)
        raise transient(touched=False)

    with pytest.raises(Transient):
        retry.read(ask)
    assert next(count) == TRIES + 1


def test_only_transient_faults_are_repeated(retry: Retry) -> None:
    count = itertools.count(1)

    def ask() -> str:
        next(count)
        raise lasting()

    with pytest.raises(Unreachable):
        retry.read(ask)
    assert next(count) == 2


def test_no_try_begins_after_the_deadline() -> None:
    retry = Retry(tries=1000, deadline=0.05, pause=0.02)
    count = itertools.count(1)

    def ask() -> str:
        next(count)
        raise transient(touched=False)

    with pytest.raises(Transient):
        retry.read(ask)
    assert next(count) < 10


def test_each_further_try_is_told() -> None:
    told: list[str] = []
    retry = Retry(tries=TRIES, deadline=60, pause=0.001, asked_again=lambda: told.append("again"))
    service = Service(UNSENT, UNSENT, "done")
    assert retry.change(service.act, landed=service.landed) == "done"
    assert len(told) == service.log.count("act") - 1 == 2
