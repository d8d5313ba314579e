"""The request log is written by one thread, in batches, and never in an answer's way."""

from __future__ import annotations

import threading

import pytest
from fakes import FakeLedger
from hypothesis import given
from hypothesis import strategies as st

from tokka.release.rows import RequestRow, UsageRow
from tokka.serving.recording import Recorder, keyed_hash, sampled
from tokka.serving.watching import Metrics


def row(number: int) -> RequestRow:
    return RequestRow(f"req_{number}", "2026-11-23T00:00:00Z", "k", "/v1/completions", 200)


def test_closing_writes_what_is_left_in_order_and_sums_usage():
    ledger = FakeLedger()
    recorder = Recorder(ledger, Metrics("a-1", "d"))
    for number in range(1200):
        recorder.add(row(number), UsageRow("k", "2026-11-23", 2, 1))
    recorder.close()
    assert [r.id for r in ledger.rows] == [f"req_{n}" for n in range(1200)]
    assert ledger.usage == {("k", "2026-11-23"): 2400}


def test_what_has_no_room_is_dropped_and_counted_but_never_usage():
    class Slow(FakeLedger):
        def write_requests(self, rows):
            gate.wait(10)
            super().write_requests(rows)

    gate, ledger, metrics = threading.Event(), Slow(), Metrics("a-1", "d")
    recorder = Recorder(ledger, metrics, room=10)
    for number in range(1000):
        recorder.add(row(number), UsageRow("k", "2026-11-23", 1, 1))
    gate.set()
    recorder.close()
    assert len(ledger.rows) + metrics.dropped._value.get() == 1000
    assert metrics.dropped._value.get() > 0
    assert ledger.usage == {("k", "2026-11-23"): 1000}


def test_a_ledger_that_is_away_for_a_moment_gets_each_row_once(monkeypatch):
    monkeypatch.setattr("tokka.serving.recording._RETRY_SECONDS", 0.05)
    ledger, metrics = FakeLedger(fails=2), Metrics("a-1", "d")
    recorder = Recorder(ledger, metrics)
    recorder.add(row(1), UsageRow("k", "2026-11-23", 5, 1))
    recorder.close()
    assert [r.id for r in ledger.rows] == ["req_1"]
    assert ledger.usage == {("k", "2026-11-23"): 5}
    assert metrics.write_failures._value.get() == 2


def test_a_ledger_that_stays_away_doesnt_keep_the_server_from_ending():
    ledger, metrics = FakeLedger(fails=10_000), Metrics("a-1", "d")
    recorder = Recorder(ledger, metrics)
    recorder.add(row(1))
    recorder.close(seconds=0.2)
    assert not recorder._thread.is_alive()
    assert metrics.dropped._value.get() == 1


def test_a_short_text_cant_be_found_by_trying_without_the_secret():
    assert keyed_hash(b"a", "はい") != keyed_hash(b"b", "はい")
    assert keyed_hash(b"a", "はい") == keyed_hash(b"a", "はい")
    assert keyed_hash(b"a", "") == ""


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_a_share_of_requests_is_sampled_by_id(share):
    kept = sum(sampled(f"req_{n}", share) for n in range(4000))
    assert abs(kept / 4000 - share) < 0.03


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_who_is_in_a_small_sample_is_in_every_larger_one(name, one, other):
    low, high = sorted((one, other))
    assert sampled(name, high) or not sampled(name, low)
