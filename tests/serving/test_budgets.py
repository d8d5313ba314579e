"""Requests a minute, requests at once, tokens a day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from fakes import FakeKey

from tokka.serving.budgets import Budgets
from tokka.serving.faults import Fault


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0
        self.moment = datetime(2026, 11, 23, 23, 0, tzinfo=UTC)

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return self.moment

    def wait(self, seconds: float) -> None:
        self.seconds += seconds
        self.moment += timedelta(seconds=seconds)


def budgets(clock, used=lambda key, day: 0, per_key=16):
    return Budgets(per_key, used, clock, clock.now)


def ask(counted, key):
    with counted.enter(key):
        pass


def test_a_minutes_requests_may_come_at_once_and_then_refill_evenly():
    clock = Clock()
    counted, key = budgets(clock), FakeKey("k", requests_per_minute=3)
    for _ in range(3):
        ask(counted, key)
    with pytest.raises(Fault) as refused:
        ask(counted, key)
    assert (refused.value.status, refused.value.retry_after) == (429, 20)
    clock.wait(20)
    ask(counted, key)
    with pytest.raises(Fault):
        ask(counted, key)


def test_only_so_many_requests_of_a_key_run_at_once():
    counted, key = budgets(Clock(), per_key=2), FakeKey("k")
    with counted.enter(key), counted.enter(key):
        with pytest.raises(Fault, match="2 are allowed"):
            ask(counted, key)
        ask(counted, FakeKey("other"))
    ask(counted, key)


def test_reserved_tokens_are_gone_until_it_is_known_how_many_were_used():
    counted, key = budgets(Clock()), FakeKey("k", tokens_per_day=100)
    first = counted.reserve(key, 60)
    with pytest.raises(Fault) as refused:
        counted.reserve(key, 60)
    assert refused.value.retry_after == 1  # the first may use less
    with pytest.raises(Fault) as refused:
        counted.reserve(key, 101)
    assert refused.value.retry_after == 3600  # midnight UTC
    first.settle(10)
    first.settle(10)
    counted.reserve(key, 90)
    with pytest.raises(Fault):
        counted.check_day(key)


def test_a_new_day_begins_at_nothing_and_old_reservations_dont_count_in_it():
    clock = Clock()
    counted, key = budgets(clock), FakeKey("k", tokens_per_day=100)
    old = counted.reserve(key, 100)
    clock.wait(3600)
    counted.reserve(key, 40)
    old.settle(10)
    with pytest.raises(Fault):
        counted.reserve(key, 61)
    counted.reserve(key, 60)


def test_a_restart_keeps_what_the_day_had_used():
    ledger = {("k", "2026-11-23"): 95}
    counted = budgets(Clock(), lambda key, day: ledger.get((key, day), 0))
    with pytest.raises(Fault, match="5 are left"):
        counted.reserve(FakeKey("k", tokens_per_day=100), 6)


def test_a_ledger_that_fails_at_first_gives_no_fresh_day():
    answers = [OSError("away"), 95]

    def used_on(key, day):
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    counted, key = budgets(Clock(), used_on), FakeKey("k", tokens_per_day=100)
    with pytest.raises(OSError, match="away"):
        counted.check_day(key)
    with pytest.raises(Fault, match="5 are left"):
        counted.reserve(key, 6)
