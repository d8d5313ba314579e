"""Which examples an arm shows before a question: in the exam and in service the same.

    pick = shots_of(arm, examples)      # None where the arm shows none
    pick(question)                      # two examples, the nearest last

>>> fixed_shots(examples, k=4, seed=0)
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Sequence

from tokka.errors import UsageError
from tokka.records import Arm, Example, Question

# One similarity for each text, higher is nearer: (question, texts) → scores.
Similarity = Callable[[str, Sequence[str]], Sequence[float]]


def shots_of(
    arm: Arm, examples: Sequence[Example]
) -> Callable[[Question], Sequence[Example]] | None:
    """How the arm picks its shots: the same for every question, or the nearest to each."""
    spec = arm.prompt
    if spec.shots == 0:
        return None
    if spec.selection == "fixed":
        fixed = fixed_shots(examples, spec.shots, spec.seed)
        return lambda question: fixed
    return lambda question: nearest_shots(question.messages[-1].content, examples, spec.shots)


def fixed_shots(examples: Sequence[Example], k: int, seed: int) -> tuple[Example, ...]:
    """`k` training examples of different facts, the same for every question.

    They depend on the examples' ids and the seed, not on the order of the list. Raises UsageError
    where the examples hold fewer than `k` different facts.
    """
    ranked = sorted(
        (example for example in examples if example.split == "train"),
        key=lambda e: (hashlib.sha256(f"{seed}\x00{e.id}".encode()).digest(), e.id),
    )
    return _different_facts(ranked, k)


def nearest_shots(
    question_text: str, examples: Sequence[Example], k: int, similarity: Similarity | None = None
) -> tuple[Example, ...]:
    """The `k` training examples of different facts whose questions are most similar, nearest last.

    The nearest stands last because it is then closest to the question in the prompt. Without
    `similarity`, character pairs are compared (`bigram_similarity`). Ties go by id.
    """
    train = sorted((e for e in examples if e.split == "train"), key=lambda e: e.id)
    scores = (similarity or bigram_similarity)(question_text, [asked(e) for e in train])
    ranked = [e for _, e in sorted(zip(scores, train, strict=True), key=lambda pair: -pair[0])]
    return tuple(reversed(_different_facts(ranked, k)))


def bigram_similarity(question: str, texts: Sequence[str]) -> list[float]:
    """Dice's coefficient of the character pairs, in [0, 1]; needs no model and suits Japanese."""
    wanted = _pairs(question)
    sets = [_pairs(text) for text in texts]
    return [2 * len(wanted & own) / max(1, len(wanted) + len(own)) for own in sets]


def asked(example: Example) -> str:
    """What the user says in the example."""
    return "\n".join(message.content for message in example.messages if message.role == "user")


def _different_facts(ranked: Sequence[Example], k: int) -> tuple[Example, ...]:
    chosen: list[Example] = []
    facts: set[str] = set()
    for example in ranked:
        fact = example.fact_id or f"\x00{_same(asked(example))}"
        if len(chosen) < k and fact not in facts:
            facts.add(fact)
            chosen.append(example)
    if len(chosen) < k:
        raise UsageError(
            f"shots: {k} are asked for, the training examples hold {len(chosen)} different facts; "
            "lower shots or add examples"
        )
    return tuple(chosen)


def _same(text: str) -> str:
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text)).strip()


def _pairs(text: str) -> set[str]:
    folded = "".join(re.findall(r"\w", unicodedata.normalize("NFKC", text).casefold()))
    return {folded[i : i + 2] for i in range(len(folded) - 1)}
