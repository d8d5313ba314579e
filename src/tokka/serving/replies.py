"""Answers in OpenAI's shapes, whole or as server-sent events.

A chunk costs the quoting of its text: all around it is made once for a request.

    shape = ChatShape(service, visit, asked)
    shape.chunk("締切は")         # b'data: {"id":…,"choices":[{…"content":"締切は"…}]}\\n\\n'
    shape.whole(answer)           # the body of an answer that isn't streamed
"""

from __future__ import annotations

import json
from json.encoder import encode_basestring  # what json.dumps ends in, without making an encoder
from typing import Any

from tokka.records import Answer
from tokka.serving.asks import Asked
from tokka.serving.faults import Fault
from tokka.serving.footnotes import annotations_of, citations_of, footnotes, passages_of
from tokka.serving.service import Service, Visit

DONE = b"data: [DONE]\n\n"
_TEXT = "\x00"  # stands where a chunk's text goes; no other field can hold it


def dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def event(value: Any) -> bytes:
    return b"data: " + dumps(value) + b"\n\n"


class ChatShape:
    """`chat.completion` and its chunks."""

    object = "chat.completion"
    chunk_object = "chat.completion.chunk"
    prefix = "chatcmpl-"

    def __init__(self, service: Service, visit: Visit, asked: Asked) -> None:
        self._service, self._visit, self._asked = service, visit, asked
        self._head = {
            "id": f"{self.prefix}{visit.id.removeprefix('req_')}",
            "created": int(visit.at),
            "model": service.facts.name,
        }
        self._chunk_head = {**self._head, "object": self.chunk_object}
        self._tail: dict[str, Any] = {"usage": None} if asked.include_usage else {}
        chunk = {**self._chunk_head, "choices": [self._delta(_TEXT)], **self._tail, **service.mark}
        before, after = event(chunk).split(dumps(_TEXT))
        self._before, self._after = before, after

    def chunk(self, text: str) -> bytes:
        return self._before + encode_basestring(text).encode() + self._after

    def first(self) -> bytes:
        """Goes before the first text, in the same write."""
        choice = {
            "index": 0,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        return event(self._envelope(choice))

    def last(self, answer: Answer, dropped_turns: int) -> bytes:
        """Footnotes, the end with its fields, the usage, and [DONE]."""
        notes = footnotes(answer, self._service.facts.language)
        parts = [self.chunk(notes)] if notes else []
        said = {**self._envelope(self._end(answer)), "tokka": self.fields(answer, dropped_turns)}
        parts.append(event(said))
        if self._asked.include_usage:
            usage = {**self._chunk_head, "choices": [], "usage": self.usage()}
            parts.append(event({**usage, **self._service.mark}))
        return b"".join([*parts, DONE])

    def whole(self, answer: Answer, dropped_turns: int) -> bytes:
        text = answer.text + footnotes(answer, self._service.facts.language)
        return dumps(
            {
                **self._head,
                "object": self.object,
                "choices": [self._choice(text, answer)],
                "usage": self.usage(),
                "tokka": self.fields(answer, dropped_turns),
            }
        )

    def usage(self) -> dict[str, int]:
        read, written = self._visit.prompt_tokens, self._visit.completion_tokens
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }

    def fields(self, answer: Answer, dropped_turns: int) -> dict[str, Any]:
        """What this product says beside OpenAI's fields."""
        service, visit = self._service, self._visit
        return {
            "release": service.facts.name,
            "digest": service.facts.digest,
            "stage": service.standing.stage,
            "unapproved": service.facts.unapproved,
            "conditions": list(service.standing.conditions),
            "status": answer.status,
            "request_id": visit.id,
            "prompt_sha256": answer.prompt_sha256,
            "hash_kind": answer.hash_kind,
            "confidence": answer.confidence,
            "citations": citations_of(answer),
            "passages": passages_of(answer),
            "not_applied": list(self._asked.not_applied),
            "dropped_turns": dropped_turns,
        }

    def _envelope(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {**self._chunk_head, "choices": [choice], **self._tail, **self._service.mark}

    def _delta(self, text: str) -> dict[str, Any]:
        return {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}

    def _end(self, answer: Answer) -> dict[str, Any]:
        notes = annotations_of(answer)
        delta = {"annotations": notes} if notes else {}
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": self._visit.finish}

    def _choice(self, text: str, answer: Answer) -> dict[str, Any]:
        return {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": text,
                "refusal": None,
                "annotations": annotations_of(answer),
            },
            "logprobs": None,
            "finish_reason": self._visit.finish,
        }


class CompletionShape(ChatShape):
    """`text_completion` and its chunks."""

    object = "text_completion"
    chunk_object = "text_completion"
    prefix = "cmpl-"

    def first(self) -> bytes:
        return b""

    def _delta(self, text: str) -> dict[str, Any]:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": None}

    def _end(self, answer: Answer) -> dict[str, Any]:
        return {**self._delta(""), "finish_reason": self._visit.finish}

    def _choice(self, text: str, answer: Answer) -> dict[str, Any]:
        return {**self._delta(text), "finish_reason": self._visit.finish}


def error_event(fault: Fault, service: Service) -> bytes:
    """The end of a stream that can't go on; there is no [DONE] after it."""
    return event({"error": fault.shape(), **service.mark})
