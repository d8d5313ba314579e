"""OpenTelemetry spans of a request, off unless the standard variables name a collector.

`OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`) turns it on, `OTEL_SDK_DISABLED=true` off; a
caller's `traceparent` (W3C) is continued. Spans hold figures and hashes, never texts or errors'
words.

    tracing = tracing_from(os.environ)
    span = tracing.begin("POST /v1/chat/completions", headers)
    tracing.end(span, {"http.response.status_code": 200})
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from tokka.extras import require
from tokka.serving.callers import Headers

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Tracing:
    """`provider` None: nothing is traced, and nothing of OpenTelemetry is imported."""

    def __init__(self, provider: Any = None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("tokka") if provider is not None else None

    def begin(self, name: str, headers: Headers) -> Any:
        if self._tracer is None:
            return None
        from opentelemetry.trace import SpanKind

        return self._tracer.start_span(name, context=_context(headers), kind=SpanKind.SERVER)

    def part(self, parent: Any, name: str, seconds: float, facts: Mapping[str, Any]) -> None:
        """A part of a request that has just ended and took so long."""
        if parent is None or self._tracer is None:
            return
        from opentelemetry.trace import set_span_in_context

        ended = time.time_ns()
        span = self._tracer.start_span(
            name, context=set_span_in_context(parent), start_time=ended - int(seconds * 1e9)
        )
        span.set_attributes(dict(facts))
        span.end(ended)

    def end(self, span: Any, facts: Mapping[str, Any], failed: bool = False) -> None:
        if span is None:
            return
        span.set_attributes({name: value for name, value in facts.items() if value is not None})
        if failed:
            from opentelemetry.trace import Status, StatusCode

            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def close(self) -> None:
        if self._provider is not None:
            self._provider.shutdown()


def tracing_from(environment: Mapping[str, str]) -> Tracing:
    """Tracing as the environment wants it."""
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if off or environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return Tracing()
    if not any(environment.get(name) for name in _ENDPOINTS):
        return Tracing()
    require("opentelemetry.sdk.trace", extra="serve")
    require("opentelemetry.exporter.otlp.proto.http", extra="serve")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = environment.get("OTEL_SERVICE_NAME", "tokka")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def _context(headers: Headers) -> Any:
    """Only a well-formed parent is continued, and nothing else of what it carries."""
    values = [value for name, value in headers if name == b"traceparent"]
    text = values[0].decode("latin-1") if len(values) == 1 else ""
    if not _TRACEPARENT.fullmatch(text):
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": text})
