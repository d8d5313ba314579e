from datetime import UTC, datetime

import pytest

from tokka.models.retries import asked_seconds, is_retried, wait_seconds

NOON = datetime(2026, 11, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("Sun, 01 Nov 2026 12:00:30 GMT", 30.0),
        ("Sun, 01 Nov 2026 11:59:30 GMT", 0.0),
        ("soon", 0.0),
        ("-5", 0.0),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header: str | None, seconds: float) -> None:
    assert asked_seconds(header, NOON) == seconds


def test_the_cap_doubles_and_the_wait_is_a_draw_below_it() -> None:
    assert [wait_seconds(attempt, None, 1.0) for attempt in range(4)] == [0.5, 1.0, 2.0, 4.0]
    assert wait_seconds(3, None, 0.25) == 1.0
    assert wait_seconds(3, None, 0.0) == 0.0


def test_a_wait_is_never_shorter_than_asked_nor_longer_than_the_limit() -> None:
    assert wait_seconds(0, "20", 0.9) == 20.0
    assert wait_seconds(0, "86400", 0.9) == 60.0
    assert wait_seconds(1000, None, 1.0) == 60.0


def test_only_what_may_pass_is_tried_again() -> None:
    assert all(map(is_retried, (408, 409, 425, 429, 500, 502, 503, 529)))
    assert not any(map(is_retried, (400, 401, 403, 404, 413, 422)))
