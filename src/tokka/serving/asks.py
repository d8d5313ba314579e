"""A request's body → what is asked of the model, or a `Fault` that names the parameter.

Decoding stays as it was examined, so that an answer is worth what the exam says. What a caller
wishes otherwise is refused where ignoring it would change the meaning of the answer (several
answers, forced tools, JSON), and else not applied and named in the answer (`not_applied`).

>>> ask_chat(b'{"model": "aoba-1", "messages": [{"role": "user", "content": "…"}]}', rules)
Asked(messages=(Message(role='user', content='…'),), stream=False, …)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tokka.records import Message, Messages
from tokka.serving.faults import Fault, wrong
from tokka.serving.footnotes import without_footnotes
from tokka.serving.shapes import (
    AS_APPLIED,
    CHAT,
    COMPLETION,
    EMBEDDING,
    NOT_APPLIED,
    Schema,
    mistake,
)

_NAMED = 20  # unknown fields that an answer names


@dataclass(frozen=True, slots=True)
class Rules:
    """What the server knows before it reads: the names that it goes by, and its limits."""

    models: tuple[str, ...]
    caller_system: Literal["ignore", "append", "refuse"] = "ignore"
    max_tokens: int = 1024
    max_messages: int = 512
    max_texts: int = 256


@dataclass(frozen=True, slots=True)
class Asked:
    """`max_tokens` and `stop` can only narrow what the release does by itself."""

    messages: Messages
    stream: bool
    include_usage: bool
    max_tokens: int
    stop: tuple[str, ...]
    not_applied: tuple[str, ...]

    @property
    def question(self) -> str:
        return self.messages[-1].content


@dataclass(frozen=True, slots=True)
class Embed:
    texts: tuple[str, ...]
    base64: bool
    kind: Literal["query", "passage"]
    dimensions: int | None


def ask_chat(body: bytes, rules: Rules) -> Asked:
    given = _object(body)
    _refuse_what_changes_meaning(given)
    _check(CHAT, given)
    _check_model(given, rules)
    said, ignored = _conversation(given["messages"], rules)
    return _asked(given, said, ignored, rules, CHAT)


def ask_completion(body: bytes, rules: Rules) -> Asked:
    given = _object(body)
    prompt: Any = given.get("prompt")
    if isinstance(prompt, list) and [type(one) for one in prompt] != [str]:
        raise wrong("prompt must be one text; send one request for each", param="prompt")
    if given.get("n") not in (None, 1) or given.get("best_of") not in (None, 1):
        raise wrong("n must be 1: one text is written for a request", param="n")
    _check(COMPLETION, given)
    _check_model(given, rules)
    text = prompt[0] if isinstance(prompt, list) else prompt
    if not text.strip():
        raise wrong("prompt is empty; ask something", param="prompt")
    _check_text(text, "prompt")
    return _asked(given, (Message(role="user", content=text),), (), rules, COMPLETION)


def ask_embeddings(body: bytes, rules: Rules) -> Embed:
    given = _object(body)
    texts = given.get("input")
    if isinstance(texts, list) and texts and not all(isinstance(t, str) for t in texts):
        raise wrong("input must be texts: token ids aren't taken", param="input")
    _check(EMBEDDING, given)
    _check_model(given, rules)
    several = given["input"] if isinstance(given["input"], list) else [given["input"]]
    if len(several) > rules.max_texts:
        raise wrong(f"input may hold at most {rules.max_texts} texts", param="input")
    for text in several:
        _check_text(text, "input")
    return Embed(
        tuple(several),
        given.get("encoding_format") == "base64",
        given.get("input_type") or "query",
        given.get("dimensions"),
    )


def read_object(body: bytes, schema: Schema) -> dict[str, Any]:
    """A body of another shape, checked."""
    given = _json(body)
    _check(schema, given)
    return given


def _object(body: bytes) -> dict[str, Any]:
    """Fields that are null count as not given, which is what OpenAI's clients mean by it."""
    return {name: value for name, value in _json(body).items() if value is not None}


def _json(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise wrong("the body isn't JSON in UTF-8; send an object", code="invalid_json") from None
    if not isinstance(given, dict):
        raise wrong("the body must be a JSON object", code="invalid_json")
    return given


def _no_number(name: str) -> Any:
    raise ValueError(name)


def _check(schema: Schema, given: dict[str, Any]) -> None:
    fault = mistake(schema, given)
    if fault is not None:
        raise fault


def _check_model(given: dict[str, Any], rules: Rules) -> None:
    if given["model"] not in rules.models:
        raise Fault(
            404,
            f"that model isn't served here; ask for {rules.models[0]}",
            param="model",
            code="model_not_found",
        )


def _check_text(text: str, name: str) -> None:
    """What no tokenizer and no database takes."""
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise wrong(f"{name} holds a NUL or half a character; remove it", param=name)


def _refuse_what_changes_meaning(given: dict[str, Any]) -> None:
    if given.get("n") not in (None, 1):
        raise wrong("n must be 1: one answer is written for a request", param="n")
    choice = given.get("tool_choice", given.get("function_call"))
    if choice not in (None, "none", "auto"):
        raise wrong("tools can't be demanded here: this release calls none", param="tool_choice")
    form = given.get("response_format")
    if isinstance(form, dict) and form.get("type", "text") != "text":
        raise wrong(
            "response_format must be text: answers are given as they were examined",
            param="response_format",
        )
    if given.get("logprobs") or given.get("top_logprobs"):
        raise wrong("logprobs aren't given here; remove it", param="logprobs")
    if given.get("logit_bias"):
        raise wrong("logit_bias isn't supported; remove it", param="logit_bias")
    modalities = given.get("modalities")
    if given.get("audio") or (isinstance(modalities, list) and modalities != ["text"]):
        raise wrong("only texts are answered; remove modalities and audio", param="modalities")


def _conversation(rows: Sequence[dict[str, Any]], rules: Rules) -> tuple[Messages, tuple[str, ...]]:
    if len(rows) > rules.max_messages:
        raise wrong(f"messages may hold at most {rules.max_messages} turns", param="messages")
    said: list[Message] = []
    ignored: list[str] = []
    for index, row in enumerate(rows):
        place = f"messages[{index}].content"
        text = _text(row["content"], place)
        _check_text(text, place)
        role = row["role"]
        if role in ("system", "developer"):
            if not text.strip() or rules.caller_system == "ignore":
                ignored += ["messages.system"] if text.strip() else []
                continue
            if rules.caller_system == "refuse":
                raise wrong(
                    f"messages[{index}]: system text isn't taken here: this release answers under "
                    "its own; remove it",
                    param=f"messages[{index}].role",
                )
            said.append(Message(role="system", content=text))
            continue
        if role == "assistant":
            text = without_footnotes(text)
        if said and said[-1].role == role:  # chat templates want them to take turns
            said[-1] = Message(role=role, content=f"{said[-1].content}\n\n{text}")
        else:
            said.append(Message(role=role, content=text))
    if not said or said[-1].role != "user" or not said[-1].content.strip():
        raise wrong("the last of messages must be a user's, and say something", param="messages")
    first = next(m for m in said if m.role != "system")
    if first.role == "assistant":  # a greeting that a chat page wrote itself
        said.remove(first)
        ignored.append("messages.assistant")
    return tuple(said), tuple(dict.fromkeys(ignored))


def _text(content: Any, place: str) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content)


def _asked(
    given: dict[str, Any],
    said: Messages,
    ignored: tuple[str, ...],
    rules: Rules,
    schema: Schema,
) -> Asked:
    wishes = [
        name
        for name in NOT_APPLIED
        if name in given and given[name] != AS_APPLIED.get(name, _NEVER)
    ]
    wishes += [name for name in ("tools", "functions") if given.get(name)]
    limit = min(
        (int(given[n]) for n in ("max_tokens", "max_completion_tokens") if n in given),
        default=rules.max_tokens,
    )
    if limit > rules.max_tokens:
        wishes.append("max_tokens")
    unknown = sorted(set(given) - set(schema["properties"]) - {"functions"})
    # Half a character is legal in JSON's names, and can't be sent back.
    wishes += [name[:64].encode("utf-8", "replace").decode() for name in unknown[:_NAMED]]
    stop = given.get("stop", ())
    for text in (stop,) if isinstance(stop, str) else stop:
        _check_text(text, "stop")
    return Asked(
        messages=said,
        stream=bool(given.get("stream")),
        include_usage=bool((given.get("stream_options") or {}).get("include_usage")),
        max_tokens=min(limit, rules.max_tokens),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        not_applied=tuple(dict.fromkeys([*ignored, *wishes])),
    )


_NEVER = object()
