"""Figures for Prometheus. Labels are words of this program; nothing a caller sends becomes one.

metrics = Metrics("aoba-1", digest)
metrics.requests.labels("/v1/models", "200").inc()
metrics.page()       # the text that /metrics answers
"""

from __future__ import annotations

from collections.abc import Callable

from tokka.extras import require

require("prometheus_client", extra="serve")

from prometheus_client import (  # noqa: E402  (after the message of what to install)
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    def __init__(self, release: str, digest: str) -> None:
        own = self.registry = CollectorRegistry()
        info = Gauge("tokka_release_info", "What is served.", ["release", "digest"], registry=own)
        info.labels(release, digest).set(1)
        self.requests = Counter(
            "tokka_requests", "Requests by route and status.", ["route", "status"], registry=own
        )
        self.seconds = Histogram(
            "tokka_request_seconds", "From the first byte in to the last byte out.", ["route"],
            buckets=_SECONDS, registry=own,
        )  # fmt: skip
        self.first = Histogram(
            "tokka_time_to_first_token_seconds", "From the request to the first piece of text.",
            buckets=_SECONDS, registry=own,
        )  # fmt: skip
        self.queued = Histogram(
            "tokka_queue_seconds", "Waiting for a place.", buckets=_SECONDS, registry=own
        )
        self.tokens = Counter("tokka_tokens", "Tokens read and written.", ["kind"], registry=own)
        self.answers = Counter("tokka_answers", "Answers by outcome.", ["outcome"], registry=own)
        self.refused = Counter(
            "tokka_refused_requests", "Requests that were refused, by reason.", ["reason"],
            registry=own,
        )  # fmt: skip
        self.disconnects = Counter(
            "tokka_disconnects", "Clients that left before their answer ended.", registry=own
        )
        self.dropped = Counter(
            "tokka_log_rows_dropped", "Rows of the request log that had no room.", registry=own
        )
        self.write_failures = Counter(
            "tokka_log_write_failures", "Writes to the ledger that failed.", registry=own
        )

    def gauge(self, name: str, says: str, now: Callable[[], float]) -> None:
        """A figure that is asked for when the page is."""
        Gauge(f"tokka_{name}", says, registry=self.registry).set_function(now)

    def page(self) -> bytes:
        return generate_latest(self.registry)
