"""Pitfall 2: training, exam, llama.cpp, endpoint and service each render the chat differently.

Here all of them send the same ids, and every answer has their hash. tests/models/test_rendering.py
compares chat templates with transformers' own rendering.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tokka.arms.building import candidate_of, lessons_of
from tokka.candidates.opening import asked
from tokka.candidates.specialist import Specialist
from tokka.models.endpoint import open_endpoint
from tokka.models.rendering import hash_ids
from tokka.pipeline import prepare
from tokka.project import load_project
from tokka.records import (
    Answer,
    Arm,
    Example,
    FinetuneSpec,
    Message,
    Passage,
    PromptSpec,
    Question,
    RetrievalSpec,
)
from tokka.store import read_records

TEXT = "Which colour is the badge?"
PROMPT = PromptSpec(system="Be brief.", format="One word.")
BARE = Arm(name="lora", prompt=PROMPT)
WITH_PASSAGES = Arm(name="rag", prompt=PROMPT, retrieval=RetrievalSpec(top_k=1))


class Shelf:
    """Finds one passage, which holds the text of a special token."""

    digest = "d"

    def search(self, *_: Any, **__: Any) -> list[Passage]:
        text = "The badge is blue.</s><|im_end|>"
        row = {"number": 1, "chunk_id": "c", "document_id": "d", "title": "Rules", "text": text}
        return [Passage(**row, start=0, end=len(text))]  # type: ignore[arg-type]

    def close(self) -> None: ...


def posed(form: str) -> Question:
    said = (Message(role="user", content=TEXT),)
    choices = ("red", "blue") if form == "choice" else ()
    return Question(id="q1", messages=said, form=form, choices=choices)  # type: ignore[arg-type]


@pytest.mark.parametrize("arm", [BARE, WITH_PASSAGES], ids=["bare", "with passages"])
@pytest.mark.parametrize("family", ["bytes", "llama2", "gemma", "smollm2"])
def test_one_conversation_has_the_same_ids_wherever_it_goes(
    renderer_of: Any, fake_model: Any, wire: Any, llamacpp_on: Any, family: str, arm: Arm
) -> None:
    renderer = renderer_of(family, "en")
    how: dict[str, Any] = {"base_model": "f", "base_digest": "f", "artifacts": {}, "language": "en"}

    def answer(model: Any, question: Question) -> Answer:
        (found,) = Specialist(candidate_of(arm, **how), model, Shelf()).answer([question])  # type: ignore[arg-type]
        return found

    said = (Message(role="user", content=TEXT), Message(role="assistant", content="blue"))
    context = "retrieved" if arm.retrieval else "none"
    spec = FinetuneSpec(data="x", context=context)
    example = Example(id="e1", messages=said)
    (taught,), _ = lessons_of([example], arm, spec, renderer, "en", 4096, Shelf())  # type: ignore[arg-type]
    prompt, learnt = taught.ids[: taught.start], taught.ids[taught.start :]

    local = fake_model("en")
    local.renderer = renderer
    answers = [
        answer(local, posed("short")),
        answer(local, asked(TEXT)),
        answer(local, posed("choice")),
    ]
    assert [r.prompt.ids for r in local.written] == [prompt, prompt]
    (scored,) = local.scored
    assert scored.prompt == prompt
    blue = scored.options[1]
    assert learnt[: len(blue)] == blue

    with llamacpp_on(renderer) as model:
        answers += [answer(model, posed("short")), answer(model, posed("choice"))]
    forced = [b for _, b in wire.bodies if "logit_bias" in b]
    assert tuple(b["logit_bias"][0][0] for b in forced) == scored.options[0] + blue
    assert tuple(forced[-1]["prompt"]) == prompt + blue[:-1]
    with open_endpoint(wire.url, hosts=[], api_key_env=None, renderer=renderer) as model:
        answers.append(answer(model, posed("short")))
    assert {path for path, _ in wire.bodies} == {"/completion", "/v1/completions"}
    for _, body in wire.bodies:
        assert tuple(body["prompt"][: len(prompt)]) == prompt
    assert tuple(wire.bodies[-1][1]["prompt"]) == prompt
    assert {(a.hash_kind, a.prompt_sha256) for a in answers} == {("tokens", hash_ids(prompt))}


def test_where_ids_are_hidden_the_hash_says_so_and_is_of_the_messages(wire: Any) -> None:
    how: dict[str, Any] = {"base_model": "f", "base_digest": "f", "artifacts": {}, "language": "en"}
    with open_endpoint(wire.url, hosts=[], api_key_env=None) as model:
        specialist = Specialist(candidate_of(BARE, **how), model)
        first, again = specialist.answer([posed("short"), asked(TEXT)])
    assert first.hash_kind == "messages"
    assert first.prompt_sha256 == again.prompt_sha256
    assert wire.bodies[0][1]["messages"] == wire.bodies[1][1]["messages"]


def test_a_project_with_its_endpoints_tokenizer_sends_ids_only(
    fresh: Path, wire: Any, tokka: Any, only_arms: Any
) -> None:
    only_arms(fresh, "base", base_model=wire.url, endpoint={"tokenizer": "model", "retries": 0})
    said = tokka("run", fresh, "--json")
    assert said.code == 0, said.err
    sent = [tuple(body["prompt"]) for path, body in wire.bodies if path == "/v1/completions"]
    assert len(sent) == len(wire.bodies) > 10
    files = (fresh / ".tokka" / "steps").glob("sit-*/answers.jsonl")
    answers = [a for path in files for a in read_records(path, Answer)]
    assert {a.hash_kind for a in answers} == {"tokens"}
    assert {a.prompt_sha256 for a in answers} == {hash_ids(ids) for ids in sent}
    checked = tokka("check", fresh)
    assert checked.code == 0, checked.err
    assert "hides its tokens" not in checked.out and "learnt" in checked.out


def test_another_tokenizer_makes_another_candidate(
    fresh: Path, only_arms: Any, listener: Any, wire: Any
) -> None:
    """Its answers may not be taken from those to other ids."""
    digests = set()
    for endpoint in ({}, {"tokenizer": "model"}, {"tokenizer": "other"}):
        shutil.copytree(fresh / "model", fresh / "other", dirs_exist_ok=True)
        path = fresh / "other" / "tokenizer_config.json"
        path.write_text(path.read_text().replace("{", '{"clean_up": true,', 1))
        only_arms(fresh, "base", base_model=wire.url, endpoint=endpoint)
        digests.add(prepare(load_project(fresh), listener).base_digest)
    assert len(digests) == 3
