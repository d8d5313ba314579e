"""Shots are chosen the same way every time, in the exam and in service."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tokka.candidates.shots import fixed_shots, nearest_shots, shots_of
from tokka.errors import UsageError
from tokka.records import Arm, Example, Message, PromptSpec, Question


def example(name: str, asked: str = "", fact: str = "", **fields: Any) -> Example:
    messages = (
        Message(role="user", content=asked or f"{name}とは"),
        Message(role="assistant", content=f"{name}の答え"),
    )
    return Example(id=name, messages=messages, fact_id=fact, **fields)


def told(name: str, *, question: str, **fields: Any) -> Example:
    messages = (
        Message(role="user", content=question),
        Message(role="assistant", content=f"answer of {name}"),
    )
    return Example(id=name, messages=messages, **fields)


POOL = [told(f"e{n}", question=f"How high is the {thing}?", fact_id=f"f{n // 2}")
        for n, thing in enumerate(["loan", "loan limit", "fee", "fee limit", "tower", "big tower"])
        ]  # fmt: skip


def asked(text: str) -> Question:
    return Question(id="q", messages=(Message(role="user", content=text),), form="short")


def shot_ids(arm: Arm, examples: list[Example], text: str) -> list[str]:
    pick = shots_of(arm, examples)
    assert pick is not None
    return [e.id for e in pick(asked(text))]


def with_shots(**fields: Any) -> Arm:
    return Arm(name="shots", prompt=PromptSpec(shots=2, shots_from="examples.jsonl", **fields))


def test_fixed_shots_are_the_same_for_every_question_and_every_run() -> None:
    """Pitfall 4: few-shot examples reshuffled."""
    first = shot_ids(with_shots(), POOL, "Who?")
    assert shot_ids(with_shots(), POOL, "How high is the tower?") == first
    assert shot_ids(with_shots(), POOL[::-1], "Who?") == first
    assert len({tuple(shot_ids(with_shots(seed=s), POOL, "Who?")) for s in range(8)}) > 1


def test_nearest_shots_follow_the_question_the_nearest_last() -> None:
    arm = with_shots(selection="nearest")
    assert shot_ids(arm, POOL, "How high is the big tower?")[-1] == "e5"
    assert shot_ids(arm, POOL, "What is the fee limit?")[-1] == "e3"
    facts = [shot_ids(arm, POOL, "How high is the loan limit?")]
    assert not {"e0", "e1"} <= set(facts[0])  # two examples of one fact aren't two shots


def test_held_out_examples_are_never_shots() -> None:
    held = [e.model_copy(update={"split": "dev"}) for e in POOL[:4]]
    for selection in ("fixed", "nearest"):
        arm = Arm(name="s", prompt=PromptSpec(shots=1, selection=selection))
        assert shot_ids(arm, held + POOL[4:], "How high is the loan?")[0] in {"e4", "e5"}
        with pytest.raises(UsageError, match="shots: 1 are asked for"):
            shot_ids(arm, held, "How high is the loan?")


def test_an_arm_without_shots_picks_none() -> None:
    assert shots_of(Arm(name="base"), POOL) is None


def test_fixed_shots_depend_on_the_seed_and_not_on_the_order() -> None:
    examples = [example(f"e{i}", fact=f"f{i // 2}") for i in range(20)]
    shots = fixed_shots(examples, 4, seed=0)
    shuffled = examples[:]
    random.Random(1).shuffle(shuffled)
    assert fixed_shots(shuffled, 4, seed=0) == shots
    assert len({shot.fact_id for shot in shots}) == 4
    assert len({fixed_shots(examples, 4, seed=seed) for seed in range(5)}) > 1
    assert fixed_shots(examples, 2, seed=0) == shots[:2]


def test_shots_come_from_training_examples_only_and_too_few_are_refused() -> None:
    examples = [example("a"), example("b", split="dev"), example("c", fact="x")]
    assert {shot.id for shot in fixed_shots(examples, 2, seed=0)} == {"a", "c"}
    with pytest.raises(UsageError, match="hold 2 different facts"):
        fixed_shots(examples, 3, seed=0)
    assert fixed_shots([], 0, seed=0) == ()


def test_the_nearest_shot_stands_last_and_facts_differ() -> None:
    examples = [
        example("a", "無担保融資の上限額は", fact="loan"),
        example("b", "無担保融資の上限額を教えて", fact="loan"),
        example("c", "融資の決裁者は誰ですか", fact="who"),
        example("d", "制服の色は", fact="dress"),
    ]
    shots = nearest_shots("無担保融資の上限額はいくらですか", examples, 2)
    assert [shot.id for shot in shots] == ["c", "a"]
    assert nearest_shots("無担保融資の上限額はいくらですか", examples[::-1], 2) == shots


def test_a_similarity_of_ones_own_decides() -> None:
    examples = [example("a", fact="1"), example("b", fact="2"), example("c", fact="3")]
    by_name = {"aとは": 0.1, "bとは": 0.9, "cとは": 0.5}
    shots = nearest_shots("?", examples, 2, lambda _, texts: [by_name[text] for text in texts])
    assert [shot.id for shot in shots] == ["c", "b"]
