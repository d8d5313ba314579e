"""How long to wait before a request to a service is sent again.

Attempt number + the answer's Retry-After → seconds. Exponential backoff with full jitter: a uniform
draw between 0 and the cap, so that callers that failed together don't come back together (Brooker,
"Exponential Backoff And Jitter", 2015).

>>> wait_seconds(attempt=2, retry_after="3", draw=0.5)
3.0
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

RETRIED_STATUS = frozenset({408, 409, 425, 429})


def is_retried(status: int) -> bool:
    """Whether a later try may go better: conflicts, limits and the server's own failures."""
    return status in RETRIED_STATUS or status >= 500


def wait_seconds(
    attempt: int,
    retry_after: str | None,
    draw: float,
    first_seconds: float = 0.5,
    longest_seconds: float = 60.0,
    now: datetime | None = None,
) -> float:
    """Seconds before try `attempt + 1`; `attempt` counts from 0, `draw` is uniform in [0, 1).

    Never less than the service asked for, and never more than `longest_seconds`.
    """
    backoff = draw * min(longest_seconds, first_seconds * 2.0 ** min(attempt, 30))
    asked = asked_seconds(retry_after, now or datetime.now(UTC))
    return min(longest_seconds, max(backoff, asked))


def asked_seconds(retry_after: str | None, now: datetime) -> float:
    """Retry-After (RFC 9110, 10.2.3) in seconds: a number or a date; 0 where it can't be read."""
    if not retry_after:
        return 0.0
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
