"""Spans: off by default, W3C parents continued, parts of a request under it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fakes import make_service
from test_routes import one

from tokka.serving.tracing import Tracing, tracing_from

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def traced():
    export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    spans, provider = export.InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return spans, Tracing(provider)


def test_a_request_continues_its_callers_trace(traced):
    spans, tracing = traced
    one(make_service(tracing=tracing), "/v1/chat/completions", headers={"traceparent": PARENT})
    found = {span.name: span for span in spans.get_finished_spans()}
    request = found["POST /v1/chat/completions"]
    assert f"{request.parent.span_id:016x}" == "b7ad6b7169203331"
    assert f"{request.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["gen_ai.usage.output_tokens"] == 11
    for part in ("hear", "queue", "write"):
        assert found[part].parent.span_id == request.context.span_id


@pytest.mark.parametrize("parent", ["", "rubbish", PARENT[:-1], PARENT + "-x"])
def test_a_parent_that_isnt_one_begins_a_trace(traced, parent):
    spans, tracing = traced
    one(make_service(tracing=tracing), "/healthz", None, headers={"traceparent": parent})
    assert spans.get_finished_spans()[0].parent is None


def test_nothing_is_traced_unless_the_environment_names_a_collector():
    named = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    assert tracing_from({})._provider is None
    assert tracing_from({**named, "OTEL_SDK_DISABLED": "true"})._provider is None
    assert tracing_from({**named, "OTEL_TRACES_EXPORTER": "none"})._provider is None
    on = tracing_from(named)
    assert on._provider is not None
    on.close()


def test_without_tracing_nothing_of_opentelemetry_is_imported():
    code = (
        "import sys, tokka.serving.app, tokka.serving.tracing as t; t.tracing_from({});"
        "print(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
