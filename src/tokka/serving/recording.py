"""The request log, observations and usage: written by one thread, off the requests' way.

Rows → a bounded queue → batches → the ledger. What has no room is dropped and counted, since an
answer never waits for a database; tokens that a key used are never dropped.

    recorder = Recorder(ledger, metrics)
    recorder.add(row, UsageRow("k1", "2026-11-23", 812, 1), observation)
    recorder.close()          # writes what is left
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from tokka.release.rows import ObservationRow, RequestRow, UsageRow
from tokka.serving.watching import Metrics

_ROOM = 10_000
_BATCH = 500
_PAUSE_SECONDS = 0.2  # a batch gathers for so long
_RETRY_SECONDS = 1.0
_CLOSE_SECONDS = 10.0
_log = logging.getLogger("tokka.serving")


class Ledger(Protocol):
    """What of `tokka.release.ledger.Ledger` is written to."""

    def write_requests(self, rows: Sequence[RequestRow]) -> None: ...
    def write_observations(self, rows: Sequence[ObservationRow]) -> None: ...
    def add_usage(self, rows: Iterable[UsageRow]) -> None: ...


class Recorder:
    """`add` may be called from any thread and never waits."""

    def __init__(self, ledger: Ledger, metrics: Metrics, room: int = _ROOM) -> None:
        self._ledger, self._metrics = ledger, metrics
        self._rows: queue.Queue[tuple[RequestRow, ObservationRow | None]] = queue.Queue(room)
        self._usage: dict[tuple[str, str], list[int]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._give_up_at = float("inf")
        self._thread = threading.Thread(target=self._run, name="tokka-recording", daemon=True)
        self._thread.start()

    def add(
        self, row: RequestRow, usage: UsageRow | None = None, seen: ObservationRow | None = None
    ) -> None:
        if usage is not None:
            with self._lock:
                sums = self._usage.setdefault((usage.key_id, usage.day), [0, 0])
                sums[0] += usage.tokens
                sums[1] += usage.requests
        try:
            self._rows.put_nowait((row, seen))
        except queue.Full:
            self._metrics.dropped.inc()

    def pending(self, key_id: str, day: str) -> int:
        """Tokens that the ledger doesn't know of yet."""
        with self._lock:
            return self._usage.get((key_id, day), [0, 0])[0]

    def close(self, seconds: float = _CLOSE_SECONDS) -> None:
        """Write what is left; what can't be written in this time is counted as dropped."""
        self._give_up_at = time.monotonic() + seconds
        self._closing.set()
        self._thread.join(seconds + 1)

    def _run(self) -> None:
        while True:
            last = self._closing.wait(_PAUSE_SECONDS)
            rows = self._batch()
            usage = self._take_usage()
            if rows or usage:
                self._write(rows, usage)
            elif last:
                return

    def _batch(self) -> list[tuple[RequestRow, ObservationRow | None]]:
        rows: list[tuple[RequestRow, ObservationRow | None]] = []
        while len(rows) < _BATCH:
            try:
                rows.append(self._rows.get_nowait())
            except queue.Empty:
                break
        return rows

    def _take_usage(self) -> list[UsageRow]:
        with self._lock:
            taken, self._usage = self._usage, {}
        return [UsageRow(key, day, *sums) for (key, day), sums in taken.items()]

    def _write(
        self, rows: Sequence[tuple[RequestRow, ObservationRow | None]], usage: list[UsageRow]
    ) -> None:
        """Until each part is written, or it is time to give up. Done parts aren't written again."""
        seen = [one for _, one in rows if one is not None]
        parts: list[Callable[[], None]] = []
        if usage:
            parts.append(lambda: self._ledger.add_usage(usage))
        if rows:
            parts.append(lambda: self._ledger.write_requests([row for row, _ in rows]))
        if seen:
            parts.append(lambda: self._ledger.write_observations(seen))
        while parts:
            try:
                parts[0]()
            except Exception as error:  # a database that is away comes back
                self._metrics.write_failures.inc()
                _log.warning("the request log can't be written (%s)", type(error).__name__)
                if time.monotonic() > self._give_up_at:
                    self._metrics.dropped.inc(len(rows))
                    return
                time.sleep(min(_RETRY_SECONDS, max(0.05, self._give_up_at - time.monotonic())))
            else:
                parts.pop(0)


def keyed_hash(secret: bytes, text: str) -> str:
    """HMAC-SHA-256: without the secret, nobody finds a short text by trying."""
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest() if text else ""


def sampled(request_id: str, share: float) -> bool:
    """Whether a request is among the share that is kept: by its id, so anybody finds the same."""
    number = int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:8], "big")
    return number < share * 2**64
