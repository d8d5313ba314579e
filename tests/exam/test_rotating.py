"""The place of an option decides no answer, and how much it would have decided is told."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tokka.arms.building import candidate_of
from tokka.candidates.specialist import Specialist
from tokka.exam.rotating import askings, joined, position_bias
from tokka.exam.sitting import AS_GIVEN, decide, method_of, score_all, sit, summarise
from tokka.records import (
    OPTION_ORDER,
    Answer,
    Arm,
    Exam,
    Key,
    Message,
    PositionBias,
    Question,
    Sitting,
)

COLOURS = ("red", "green", "blue")


def ask(n: int, choices: tuple[str, ...] = COLOURS, **fields: Any) -> Question:
    text = (Message(role="user", content=f"Which colour has number {n}?"),)
    form = "choice" if choices else "short"
    return Question(id=f"q{n}", messages=text, form=form, choices=choices, **fields)


def keys(questions: list[Question], choice: int = 2) -> list[Key]:
    return [
        Key(question_id=q.id, targets=(q.choices[choice] if q.choices else "blue",),
            choice=choice if q.choices else None)
        for q in questions
    ]  # fmt: skip


def exam(**fields: Any) -> Exam:
    return Exam(**{
        "name": "colours", "role": "domain", "digest": "d" * 64, "scorer": "contained",
        "normalisation": "sum", "questions": 4, **fields,
    })  # fmt: skip


@pytest.fixture
def specialist(fake_model: Any) -> Any:
    def make(**how: Any) -> Specialist:
        candidate = candidate_of(
            Arm(name="arm"), base_model="fake", base_digest="f", language="en", artifacts={}
        )
        return Specialist(candidate, fake_model("en", **how))

    return make


def sat(own: Specialist, questions: list[Question], **how: Any) -> tuple[list[Answer], Sitting]:
    right = keys(questions)
    shown = how.pop("show_options", True)
    answers = sit(own, exam(), questions, show_options=shown, rotate=True, **how)
    scores = score_all(exam(), questions, right, answers)
    sitting = summarise(
        exam(), questions, answers, scores, arm="arm", candidate_id="c", split="test", limit=None,
        rotate=True, keys=right,
    )  # fmt: skip
    return answers, sitting


def listed(prompt: str) -> list[str]:
    """The options in the order in which the prompt shows them."""
    return [line[2:] for line in prompt.split("\n") if line.startswith("- ")]


def first_shown(prompt: str, option: str) -> float:
    """A model that likes what stands first, and a little what is blue."""
    place = listed(prompt).index(option.strip())
    return (-1.0, -5.0, -6.0)[place] + (0.5 if "blue" in option else 0.0)


def by_content(prompt: str, option: str) -> float:
    return -1.0 if "blue" in option else -3.0 - len(option)


def say_first(prompt: str) -> str:
    return "A"


def say_blue(prompt: str) -> str:
    return next(line[0] for line in prompt.split("\n") if line.endswith(". blue"))


# ---- what is asked ------------------------------------------------------------------------------


def test_every_option_stands_once_at_every_place() -> None:
    asked = askings([ask(1, ("a", "b", "c", "d")), ask(2, ()), ask(3)])
    assert [a.original.id for a in asked] == ["q1"] * 4 + ["q2"] + ["q3"] * 3
    assert [a.question.choices for a in asked[:4]] == [
        ("a", "b", "c", "d"), ("b", "c", "d", "a"), ("c", "d", "a", "b"), ("d", "a", "b", "c"),
    ]  # fmt: skip
    for one in asked[:4]:
        assert [one.original.choices[place] for place in one.order] == list(one.question.choices)
    assert asked[4].order == ()
    assert {a.question.id for a in asked} == {"q1", "q2", "q3"}


def test_each_choice_is_asked_once_per_order_and_a_text_once(specialist: Any) -> None:
    own = specialist(like=by_content)
    done: list[int] = []
    answers, sitting = sat(own, [ask(1), ask(2, ()), ask(3)], progress=done.append)
    assert (len(own.model.scored), len(own.model.written)) == (6, 1)
    assert [a.question_id for a in answers] == ["q1", "q2", "q3"]
    assert [len(a.rotations) for a in answers] == [3, 0, 3]
    assert sum(done) == 3  # questions, however often each was asked
    assert sitting.settings[OPTION_ORDER] == "rotated"
    assert method_of([ask(1), ask(2, ()), ask(3)], answers) == (
        "choice: loglikelihood rotated, short: text"
    )
    prompts = [own.model.renderer.decode(r.prompt) for r in own.model.scored[:3]]
    assert [listed(p) for p in prompts] == [
        ["red", "green", "blue"], ["green", "blue", "red"], ["blue", "red", "green"],
    ]  # fmt: skip


def test_where_options_are_not_in_the_prompt_each_question_is_asked_once(specialist: Any) -> None:
    """Each option is then scored by itself: the order can't matter, and the sitting says so."""
    own = specialist(like=by_content)
    answers, sitting = sat(own, [ask(1), ask(2)], show_options=False)
    assert len(own.model.scored) == 2
    assert [a.rotations for a in answers] == [(), ()]
    assert sitting.settings[OPTION_ORDER] == AS_GIVEN
    assert sitting.positions == ()


def test_a_whole_text_to_be_continued_is_asked_as_it_stands(specialist: Any) -> None:
    own = specialist(like=by_content)
    answers, _ = sat(own, [ask(1, completion="Q: red, green or blue?\nA:", delimiter=" ")])
    assert len(own.model.scored) == 1 and answers[0].rotations == ()


def test_without_rotate_nothing_of_it_is_told(specialist: Any) -> None:
    own, questions = specialist(like=first_shown), [ask(1)]
    answers = sit(own, exam(), questions, show_options=True)
    scores = score_all(exam(), questions, keys(questions), answers)
    sitting = summarise(
        exam(), questions, answers, scores, arm="arm", candidate_id="c", split="test", limit=None
    )
    assert len(own.model.scored) == 1
    assert OPTION_ORDER not in sitting.settings and sitting.positions == ()


# ---- one answer of all orders --------------------------------------------------------------------


def test_the_mean_over_the_orders_chooses_and_not_the_place(specialist: Any) -> None:
    questions = [ask(1)]
    (once,) = sit(specialist(like=first_shown), exam(), questions, show_options=True)
    (answer,), sitting = sat(specialist(like=first_shown), questions)
    assert (once.choice, once.text) == (0, "red")  # what stood first
    assert (answer.choice, answer.text) == (2, "blue")
    assert answer.choice_loglikelihoods == pytest.approx((-4.0, -4.0, -3.5))
    assert [r.order for r in answer.rotations] == [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
    # counted by the exam's options, whatever the order in which they were shown
    assert [r.choice_loglikelihoods for r in answer.rotations] == [
        (-1.0, -5.0, -5.5), (-6.0, -1.0, -4.5), (-5.0, -6.0, -0.5),
    ]  # fmt: skip
    assert sitting.primary is not None and sitting.primary.estimate == 1.0
    (score,) = score_all(exam(), questions, keys(questions), [answer])
    assert score.explanation == "chose C (-3.5 by sum over 3 orders), the key is C"


def test_the_normalisation_counts_in_every_order(specialist: Any) -> None:
    long = ask(1, ("blue", "a very deep blue"))
    like = lambda prompt, option: -0.7 * len(option) if len(option) > 8 else -len(option)  # noqa: E731
    (answer,) = sit(specialist(like=like), exam(), [long], show_options=True, rotate=True)
    again = decide(answer, long, exam(normalisation="characters"), lambda *_: ())
    assert (answer.choice, answer.decoding.normalisation) == (0, "sum")
    assert (again.choice, again.text) == (1, "a very deep blue")
    assert again.decoding.normalisation == "characters"


def test_tokens_seconds_and_cost_are_those_of_all_orders(specialist: Any) -> None:
    (once,) = sit(specialist(like=by_content), exam(), [ask(1)], show_options=True)
    (answer,), _ = sat(specialist(like=by_content), [ask(1)])
    assert answer.tokens_in == 3 * once.tokens_in
    assert answer.seconds == pytest.approx(1.5, abs=0.2)  # the fake takes half a second each
    (paid,), _ = sat(specialist(say=say_blue, scores_options=False), [ask(1)])
    assert paid.cost_usd == pytest.approx(0.003)
    assert paid.prompt_sha256 == paid.rotations[0].prompt_sha256
    assert len({r.prompt_sha256 for r in paid.rotations}) == 3


def test_the_option_that_most_letters_name_is_the_answer(specialist: Any) -> None:
    def say(prompt: str) -> str:  # blue, but what stands first where that is red
        return "A" if "A. red" in prompt else say_blue(prompt)

    (answer,), sitting = sat(specialist(say=say, scores_options=False), [ask(1)])
    assert [r.choice for r in answer.rotations] == [0, 2, 2]
    assert [r.text for r in answer.rotations] == ["A", "B", "A"]
    assert (answer.choice, answer.text, answer.decoding.method) == (2, "blue", "letter")
    assert answer.decoding.normalisation is None
    assert sitting.settings["scoring"] == "choice: letter rotated"
    (score,) = score_all(exam(), [ask(1)], keys([ask(1)]), [answer])
    assert (score.value, score.explanation) == (1.0, "answered C over 3 orders, the key is C")


def test_a_tie_of_letters_goes_to_the_first_option_and_says_so(specialist: Any) -> None:
    (answer,), _ = sat(specialist(say=say_first, scores_options=False), [ask(1)])
    assert [r.choice for r in answer.rotations] == [0, 1, 2]
    assert answer.choice == 0
    (score,) = score_all(exam(), [ask(1)], keys([ask(1)]), [answer])
    assert score.value == 0.0 and "a tie with B, C, the first counts" in score.explanation


def test_an_options_own_text_names_it_in_every_order(specialist: Any) -> None:
    (answer,), _ = sat(specialist(say=lambda prompt: "blue", scores_options=False), [ask(1)])
    assert [r.choice for r in answer.rotations] == [2, 2, 2]


def test_an_answer_that_names_nothing_in_any_order_is_wrong_or_abstained(specialist: Any) -> None:
    unsure = specialist(say=lambda prompt: "I don't know.", scores_options=False)
    (answer,), sitting = sat(unsure, [ask(1)])
    assert (answer.choice, answer.text) == (None, "I don't know.")
    assert sitting.refused == 1 and sitting.primary is not None
    (found,) = sitting.positions
    assert (found.unnamed, found.unchanged.estimate, found.p_value) == (3, 0.0, 1.0)


def test_a_failure_in_one_order_is_an_error_of_the_question(specialist: Any) -> None:
    """Pitfall 17; and a mean over the other orders would favour a place."""
    say = lambda prompt: "error:timeout" if "A. green" in prompt else "A"  # noqa: E731
    answers, sitting = sat(specialist(say=say, scores_options=False), [ask(1), ask(2, ())])
    assert [a.status for a in answers] == ["error", "answered"]
    assert (answers[0].error, answers[0].text) == ("order 2 of 3: timeout", "")
    assert (sitting.errors, sitting.primary, sitting.positions) == (1, None, ())


def test_likelihoods_that_are_no_numbers_in_one_order_are_an_error(specialist: Any) -> None:
    like = lambda prompt, option: math.nan if listed(prompt)[0] == "green" else -1.0  # noqa: E731
    (answer,), sitting = sat(specialist(like=like), [ask(1)])
    assert (sitting.errors, sitting.primary, sitting.positions) == (1, None, ())
    assert math.isnan(Answer.model_validate_json(answer.model_dump_json()).choice_loglikelihoods[0])


def test_a_prompt_cut_in_one_order_is_told(specialist: Any) -> None:
    asked = askings([ask(1)])
    own = specialist(like=by_content)
    answers = list(own.answer([a.question for a in asked], show_options=True))
    answers[1] = answers[1].model_copy(update={"truncated": True})
    (answer,) = joined(asked, answers)
    assert answer.truncated and [r.truncated for r in answer.rotations] == [False, True, False]


def test_an_order_without_lengths_is_an_error_where_lengths_count(specialist: Any) -> None:
    (answer,), _ = sat(specialist(like=by_content), [ask(1)])
    first, second, third = answer.rotations
    broken = second.model_copy(update={"choice_lengths": ()})
    lost = answer.model_copy(update={"rotations": (first, broken, third)})
    (score,) = score_all(exam(normalisation="tokens"), [ask(1)], keys([ask(1)]), [lost])
    assert (score.value, score.explanation) == (None, "0 token lengths for 3 options")
    assert score_all(exam(), [ask(1)], keys([ask(1)]), [lost])[0].value == 1.0


def test_answers_are_joined_in_the_order_of_the_questions() -> None:
    with pytest.raises(ValueError, match="shorter"):
        list(joined(askings([ask(1)]), []))


# ---- bias ----------------------------------------------------------------------------------------


def bias(own: Specialist, questions: list[Question]) -> PositionBias:
    (found,) = sat(own, questions)[1].positions
    return found


def test_a_model_that_picks_by_place_is_found_out(specialist: Any) -> None:
    found = bias(specialist(like=first_shown), [ask(n) for n in range(12)])
    assert (found.options, found.questions, found.unnamed) == (3, 12, 0)
    assert [round(i.estimate, 3) for i in found.picks] == [1.0, 0.0, 0.0]
    assert [i.estimate for i in found.accuracy] == [1.0, 0.0, 0.0]  # right where blue stood first
    assert found.unchanged.estimate == 0.0
    assert found.p_value < 0.001
    assert all(i.n == 12 and i.low <= i.estimate <= i.high for i in found.picks + found.accuracy)


def test_a_model_that_picks_by_content_shows_no_bias(specialist: Any) -> None:
    for how in ({"like": by_content}, {"say": say_blue, "scores_options": False}):
        found = bias(specialist(**how), [ask(n) for n in range(12)])
        assert [round(i.estimate, 9) for i in found.picks] == [round(1 / 3, 9)] * 3
        assert [i.estimate for i in found.accuracy] == [1.0] * 3
        assert (found.unchanged.estimate, found.p_value) == (1.0, 1.0)


def test_a_question_counts_once_however_often_it_was_asked(specialist: Any) -> None:
    """Two questions picked at the first place three times each prove nothing."""
    found = bias(specialist(like=first_shown), [ask(1), ask(2)])
    assert found.p_value == pytest.approx(1 / 3, abs=0.02)
    together = [ask(n, cluster_id="one passage") for n in range(12)]
    assert bias(specialist(like=first_shown), together).p_value == 1.0


def test_questions_of_different_length_are_told_apart(specialist: Any) -> None:
    questions = [ask(1), ask(2, ("red", "blue", "green", "white")), ask(3)]
    _, sitting = sat(specialist(like=by_content), questions)
    assert [(b.options, b.questions, len(b.picks)) for b in sitting.positions] == [
        (3, 2, 3), (4, 1, 4),
    ]  # fmt: skip


def test_a_tie_of_likelihoods_favours_no_place(specialist: Any) -> None:
    found = bias(specialist(like=lambda prompt, option: -1.0), [ask(n) for n in range(12)])
    assert (found.p_value, found.unchanged.estimate) == (1.0, 1.0)


def test_silence_in_one_order_is_silence_and_picks_no_place(specialist: Any) -> None:
    """Where options take part in the search, one order may find less than another."""
    question = ask(1, ("red", "green", "blue"))
    asked = askings([question], lambda q: True)
    answers, _ = sat(specialist(), [question])
    (whole,) = answers
    parts = [
        whole.model_copy(
            update={
                "rotations": (),
                "choice_loglikelihoods": rotation.choice_loglikelihoods,
                "confidence": 0.5,
                "status": "answered",
            }
        )
        for rotation in whole.rotations
    ]
    parts[1] = parts[1].model_copy(
        update={
            "choice_loglikelihoods": (), "choice_lengths": (), "text": "Not there.",
            "confidence": 0.2, "status": "abstained",
        }
    )  # fmt: skip
    (silent,) = joined(asked, parts)
    assert (silent.status, silent.text, silent.confidence) == ("abstained", "Not there.", 0.2)
    assert silent.choice_loglikelihoods == () and len(silent.rotations) == 3
    decided = decide(silent, question, exam(), lambda *_: ())
    assert (decided.text, decided.choice) == ("Not there.", None)
    right = keys([question])
    scores = score_all(exam(), [question], right, [silent])
    assert [score.value for score in scores] == [0.0]
    assert position_bias(exam(), [question], right, [silent], scores) == ()
