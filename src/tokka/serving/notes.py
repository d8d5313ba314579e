"""What is written down of a request that has ended: metrics, the trace, a row of the request log,
the tokens of its key, and a sampled observation.

    note_down(service, visit, "POST")
"""

from __future__ import annotations

from datetime import UTC, datetime

from tokka.release.rows import ObservationRow, RequestRow, UsageRow
from tokka.serving.callers import stamp
from tokka.serving.recording import keyed_hash, sampled
from tokka.serving.service import Service, Visit

_WRITING = ("/v1/chat/completions", "/v1/completions")
_LOGGED = (*_WRITING, "/v1/embeddings")
CLIENT_LEFT = 499  # nginx's number for it; nobody is told


def note_down(service: Service, visit: Visit, method: str) -> None:
    metrics, seconds = service.metrics, visit.seconds()
    if visit.ended in ("disconnected", "stalled"):
        visit.status = CLIENT_LEFT
    metrics.requests.labels(visit.route, str(visit.status)).inc()
    metrics.seconds.labels(visit.route).observe(seconds)
    if visit.fault is not None:
        metrics.refused.labels(visit.fault.reason).inc()
    if visit.first_seconds is not None:
        metrics.first.observe(visit.first_seconds)
    if visit.prompt_tokens or visit.completion_tokens:
        metrics.tokens.labels("prompt").inc(visit.prompt_tokens)
        metrics.tokens.labels("completion").inc(visit.completion_tokens)
    if method == "POST" and visit.route in _WRITING and visit.body:
        metrics.answers.labels(_outcome(visit)).inc()
    service.tracing.end(
        visit.span,
        {
            "http.request.method": method,
            "http.route": visit.route,
            "http.response.status_code": visit.status,
            "tokka.release": service.facts.name,
            "tokka.request_id": visit.id,
            "tokka.prompt_sha256": visit.prompt_sha256 or None,
            "gen_ai.usage.input_tokens": visit.prompt_tokens or None,
            "gen_ai.usage.output_tokens": visit.completion_tokens or None,
        },
        failed=visit.status >= 500,
    )
    if method == "POST" and visit.route in _LOGGED and visit.key is not None:
        _record(service, visit, seconds)


def _record(service: Service, visit: Visit, seconds: float) -> None:
    moment = datetime.fromtimestamp(visit.at, UTC)
    tokens = visit.prompt_tokens + visit.completion_tokens
    row = _row(service, visit, seconds, stamp(moment))
    usage = UsageRow(row.key_id, stamp(moment)[:10], tokens, 1)
    seen = None
    if visit.answer is not None and sampled(visit.id, service.limits.sample):
        seen = _observation(service, visit, row)
    service.recorder.add(row, usage, seen)


def _row(service: Service, visit: Visit, seconds: float, at: str) -> RequestRow:
    facts, secret = service.facts, service.hash_secret
    texts = service.limits.log_text
    assert visit.key is not None
    return RequestRow(
        id=visit.id,
        time=at,
        key_id=visit.key.id,
        route=visit.route,
        status=visit.status,
        model=facts.model,
        version=facts.version,
        release=facts.digest,
        prompt_sha256=visit.prompt_sha256,
        hash_kind=visit.hash_kind,
        question_hash=keyed_hash(secret, visit.question),
        answer_hash=keyed_hash(secret, visit.said),
        outcome=_outcome(visit),
        finish_reason=visit.finish,
        prompt_tokens=visit.prompt_tokens,
        completion_tokens=visit.completion_tokens,
        seconds=round(seconds, 6),
        ttft_seconds=None if visit.first_seconds is None else round(visit.first_seconds, 6),
        queue_seconds=None if visit.queue_seconds is None else round(visit.queue_seconds, 6),
        streamed=visit.streamed,
        unapproved=facts.unapproved,
        error=visit.fault.reason if visit.fault is not None else "",
        question=visit.question if texts else None,
        answer=visit.said if texts else None,
        details=dict(visit.details),
    )


def _observation(service: Service, visit: Visit, row: RequestRow) -> ObservationRow:
    """What later monitoring compares: figures, and no words."""
    answer = visit.answer
    assert answer is not None
    return ObservationRow(
        id=f"obs_{visit.id.removeprefix('req_')}",
        time=row.time,
        kind="answer",
        model=row.model,
        version=row.version,
        release=row.release,
        request_id=visit.id,
        data={
            "status": answer.status,
            "confidence": answer.confidence,
            "question_characters": len(visit.question),
            "answer_characters": len(answer.text),
            "prompt_tokens": visit.prompt_tokens,
            "completion_tokens": visit.completion_tokens,
            "truncated": answer.truncated,
            "citations": len(answer.citations),
            "mean_support": _mean([one.support for one in answer.citations]),
            "passages": len(answer.passages),
            "best_score": max((p.score for p in answer.passages), default=None),
            "best_dense": max((p.dense for p in answer.passages if p.dense is not None),
                              default=None),
            "seconds": row.seconds,
            "ttft_seconds": row.ttft_seconds,
        },
    )  # fmt: skip


def _outcome(visit: Visit) -> str:
    """One of a few fixed words."""
    if visit.ended:
        return visit.ended
    if visit.fault is not None:
        return "refused" if visit.fault.status < 500 else "failed"
    if visit.answer is None:
        return "done"
    return "truncated" if visit.finish == "length" else visit.answer.status


def _mean(values: list[float]) -> float | None:
    return round(sum(values) / len(values), 6) if values else None
