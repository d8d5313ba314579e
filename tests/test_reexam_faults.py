"""What a conversion did to answers is told from the answers, also where no score changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("scipy")
from hypothesis import given
from hypothesis import strategies as st

from tokka.records import Answer, Decoding, Message, Question
from tokka.reexam_faults import (
    Pair,
    end_faults,
    first_difference,
    likeness,
    nonsense_faults,
)


def answer(name: str, text: str = "blue", tokens: int = 3, **more: Any) -> Answer:
    fields = {
        "candidate_id": "c",
        "exam_digest": "e",
        "question_id": name,
        "text": text,
        "prompt_sha256": "p",
        "hash_kind": "tokens",
        "tokens_out": tokens,
        "decoding": Decoding(method="text", max_tokens=20),
    }
    return Answer.model_validate({**fields, **more})


def pairs(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> list[Pair]:
    found = []
    for number, (one, other) in enumerate(zip(before, after, strict=True)):
        asked = (Message(role="user", content="?"),)
        question = Question(id=f"q{number}", messages=asked, form="short")
        found.append(
            Pair("exam", question, answer(question.id, **one), answer(question.id, **other))
        )
    return found


def lengths(*tokens: int) -> list[dict[str, Any]]:
    return [{"tokens": n} for n in tokens]


# ---- ends --------------------------------------------------------------------------------------


def test_answers_that_run_into_their_limit_have_lost_their_end() -> None:
    (fault,) = end_faults(pairs(lengths(*[3] * 12), lengths(*[20] * 12)))
    assert fault.startswith("12 of 12 answers ran into their limit")
    assert end_faults(pairs(lengths(*[20] * 12), lengths(*[20] * 12))) == []  # as examined
    assert end_faults(pairs(lengths(*[20] * 12), lengths(*[3] * 12))) == []


def test_few_answers_that_run_on_are_chance() -> None:
    assert end_faults(pairs(lengths(*[12] * 10), lengths(*[12] * 8, 20, 20))) == []
    assert end_faults(pairs(lengths(*[3] * 12), lengths(*[3] * 11, 20))) == []


def test_answers_that_grow_without_reaching_the_limit_are_found() -> None:
    (fault,) = end_faults(pairs(lengths(*[3] * 20), lengths(*[9, 10] * 10)))
    assert fault.startswith("answers grew from 3.0 to 9.5 tokens")
    assert end_faults(pairs(lengths(*[10] * 20), lengths(*[11, 9] * 10))) == []


def test_choices_and_silence_have_no_end_to_lose() -> None:
    scored = [{"choice_loglikelihoods": (-1.0, -2.0), "tokens": 0}] * 12
    silent = [{"status": "abstained", "tokens": 0}] * 12
    for before in (scored, silent):
        assert end_faults(pairs(before, [{**one, "tokens": 20} for one in before])) == []


# ---- nonsense ----------------------------------------------------------------------------------


def options(*values: float) -> dict[str, Any]:
    return {"choice_loglikelihoods": values}


def test_likelihoods_that_no_longer_follow_the_examined_ones_are_nonsense() -> None:
    before = [options(-1.0, -2.0, -3.0), options(-9.0, -5.0, -7.0), options(-2.0, -1.0, -4.0)]
    near = [options(*(v - 0.1 * n for n, v in enumerate(o["choice_loglikelihoods"])))
            for o in before]  # fmt: skip
    far = [options(-30.0, -31.0, -30.5), options(-8.0, -8.1, -8.2), options(-1.0, -5.0, -1.0)]
    assert nonsense_faults(pairs(before, near)) == []
    (fault,) = nonsense_faults(pairs(before, far))
    assert "9 options correlate with the examined ones by only" in fault


def test_a_model_that_only_grew_surer_or_shifted_is_no_nonsense() -> None:
    """What all options of a question share decides nothing."""
    before = [options(-1.0, -2.0), options(-9.0, -5.0), options(-2.0, -1.0)]
    after = [options(-52.0, -54.0), options(-9.0, -1.0), options(-7.0, -5.0)]
    assert nonsense_faults(pairs(before, after)) == []


def test_equal_likelihoods_correlate_and_flat_ones_do_not() -> None:
    flat, spread = [options(-1.0, -1.0)] * 3, [options(-1.0, -3.0)] * 3
    assert nonsense_faults(pairs(flat, flat)) == []
    (fault,) = nonsense_faults(pairs(spread, flat))
    assert "by only 0.00" in fault


@pytest.mark.parametrize("wild", [math.nan, math.inf])
def test_likelihoods_that_are_no_numbers_are_named(wild: float) -> None:
    before = [options(-1.0, -2.0)] * 3
    (fault,) = nonsense_faults(pairs(before, [*before[:2], options(wild, -2.0)]))
    assert fault == "the likelihoods of 1 of 3 choices are no numbers"


def test_texts_that_share_nothing_are_nonsense_though_all_were_wrong_before() -> None:
    said = ["翌営業日の正午まで", "三億円とする", "店長が決裁する", "白い制服"]
    near = ["翌営業日の正午です", "三億円", "店長が決める", "制服は白い"]
    far = ["ѭѭѭ", "ger ligh�", "の", ""]
    before = [{"text": text} for text in said]
    assert nonsense_faults(pairs(before, [{"text": text} for text in near])) == []
    (fault,) = nonsense_faults(pairs(before, [{"text": text} for text in far]))
    assert fault.startswith("4 answers share 0% of their character pairs")


@given(one=st.text(), other=st.text())
def test_likeness_is_a_share_the_same_both_ways(one: str, other: str) -> None:
    assert 0 <= likeness(one, other) == likeness(other, one) <= 1
    assert likeness(one, one) == 1


def test_full_width_and_half_width_are_the_same_text() -> None:
    assert likeness("２００万円　以内", "200万円 以内") == 1


# ---- prompts -----------------------------------------------------------------------------------


class Letters:
    bos_id = 1

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [f"<{i}>" for i in ids]


@pytest.mark.parametrize(
    ("after", "told"),
    [
        ((1, 1, 5, 6), "token 1 and those behind it are ['<1>', '<5>', '<6>'], examined was "
                       "['<5>', '<6>'] (it begins with BOS twice)"),
        ((5, 6), "token 0 and those behind it are ['<5>', '<6>'], examined was "
                 "['<1>', '<5>', '<6>'] (BOS is missing)"),
        ((1, 5, 9), "token 2 and those behind it are ['<9>'], examined was ['<6>']"),
        ((1, 5), "token 2 and those behind it are [], examined was ['<6>']"),
        ((1, 5, 6), "the hash differs"),
    ],
)  # fmt: skip
def test_the_first_tokens_that_differ_are_shown(after: tuple[int, ...], told: str) -> None:
    assert first_difference((1, 5, 6), after, Letters(), Letters()) == told


def test_no_more_of_a_prompt_is_shown_than_needed() -> None:
    told = first_difference(tuple(range(50)), tuple(range(1, 51)), Letters(), Letters())
    assert told.count("<") == 12
