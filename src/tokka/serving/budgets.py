"""How much a key may ask for: requests a minute, requests at once, tokens a day.

Key → `Budgets.enter` (a place among its requests, counted in its minute) → `reserve` tokens before
a text is written → `settle` with what was really used. The day is UTC's; what was used before a
restart is read once from the ledger.

    with budgets.enter(key):
        reserved = budgets.reserve(key, most=900)
        reserved.settle(812)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tokka.serving.callers import Key
from tokka.serving.faults import Fault

_KEPT = 4096  # keys whose counts are remembered


@dataclass(slots=True)
class _Account:
    running: int = 0
    allowed: float = 0.0  # requests that may come at once now
    at: float = 0.0
    day: str = ""
    used: int = 0
    reserved: int = 0


@dataclass(slots=True)
class Reserved:
    """Tokens that are set aside. Settling twice counts once."""

    account: _Account
    day: str
    tokens: int
    settled: bool = field(default=False)

    def settle(self, used: int) -> None:
        if self.settled:
            return
        self.settled = True
        if self.account.day == self.day:  # a new day began with everything at zero
            self.account.reserved -= self.tokens
            self.account.used += used


class Budgets:
    """Belongs to one event loop. `used_on(key_id, day)` → tokens, from the ledger."""

    def __init__(
        self,
        per_key: int,
        used_on: Callable[[str, str], int],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._per_key, self._used_on = per_key, used_on
        self._clock, self._now = clock, now
        self._accounts: dict[str, _Account] = {}

    @contextmanager
    def enter(self, key: Key) -> Iterator[None]:
        """Raises Fault 429 where the key has too many requests running or in this minute."""
        account = self._account(key)
        if account.running >= self._per_key:
            raise Fault(
                429,
                f"this key has {account.running} requests running, and {self._per_key} are allowed "
                "at once; wait for one to end",
                code="too_many_running",
            )
        self._count(key, account)
        account.running += 1
        try:
            yield
        finally:
            account.running -= 1

    def reserve(self, key: Key, most: int) -> Reserved:
        """Set aside the most that a request can use. Raises Fault 429 where less is left today."""
        account = self._account(key)
        day = self._today(key, account)
        limit = key.tokens_per_day
        if limit is not None and account.used + account.reserved + most > limit:
            left = max(0, limit - account.used - account.reserved)
            later = account.used + most <= limit  # what others have set aside may come back
            when = "when running answers have ended" if later else "after midnight UTC"
            raise Fault(
                429,
                f"this key may use {limit} tokens a day, {left} are left, and this request can use "
                f"{most}; ask for less (max_tokens), or come back {when}",
                code="tokens_per_day",
                retry_after=None if later else self._until_midnight(),
            )
        account.reserved += most
        return Reserved(account, day, most)

    def check_day(self, key: Key) -> None:
        """Raises Fault 429 where nothing is left today: before any work is done."""
        account = self._account(key)
        self._today(key, account)
        limit = key.tokens_per_day
        if limit is not None and account.used + account.reserved >= limit:
            later = account.used < limit
            when = "when running answers have ended" if later else "after midnight UTC"
            raise Fault(
                429,
                f"this key has no token of its {limit} left today; come back {when}",
                code="tokens_per_day",
                retry_after=None if later else self._until_midnight(),
            )

    def _account(self, key: Key) -> _Account:
        account = self._accounts.get(key.id)
        if account is None:
            if len(self._accounts) >= _KEPT:
                idle = [
                    name
                    for name, a in self._accounts.items()
                    if not a.running and not a.reserved and self._clock() - a.at > 60
                ]
                for name in idle:
                    del self._accounts[name]
            rate = key.requests_per_minute
            account = _Account(allowed=float(rate or 0), at=self._clock())
            self._accounts[key.id] = account
        return account

    def _count(self, key: Key, account: _Account) -> None:
        """A token bucket: a minute's worth may come at once, then it refills evenly."""
        rate = key.requests_per_minute
        now = self._clock()
        if rate is None:
            account.at = now
            return
        account.allowed = min(float(rate), account.allowed + (now - account.at) * rate / 60)
        account.at = now
        if account.allowed < 1:
            raise Fault(
                429,
                f"this key may ask {rate} times a minute; wait a moment",
                code="requests_per_minute",
                retry_after=(1 - account.allowed) * 60 / rate,
            )
        account.allowed -= 1

    def _today(self, key: Key, account: _Account) -> str:
        day = self._now().strftime("%Y-%m-%d")
        if account.day != day:
            # Without a limit nobody asks how much it was; the ledger keeps the sum all the same. It
            # is asked first: where it fails, the day hasn't begun, and is asked for again.
            used = 0 if key.tokens_per_day is None else self._used_on(key.id, day)
            account.day, account.reserved, account.used = day, 0, used
        return day

    def _until_midnight(self) -> float:
        now = self._now()
        midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        return (midnight - now).total_seconds()
