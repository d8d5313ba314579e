"""A sitting's figures say what was asked, what failed and how it was scored."""

from __future__ import annotations

from typing import Any

import pytest

from tokka.arms.building import candidate_of
from tokka.candidates.letters import with_options
from tokka.candidates.specialist import Specialist
from tokka.errors import IntegrityError
from tokka.exam.sitting import (
    asked_digest,
    asked_in,
    decide_all,
    method_of,
    score_all,
    sit,
    summarise,
)
from tokka.records import (
    Answer,
    Arm,
    Exam,
    Key,
    Message,
    Passage,
    Question,
    RetrievalSpec,
    Sitting,
)
from tokka.stats.compare import ArmScores, compare

CHOICES = ("blue", "a very deep blue")
RULES = "The badge of a pilot is blue."


def ask(n: int, form: str = "short", **fields: Any) -> Question:
    choices = {"choices": CHOICES} if form == "choice" else {}
    text = (Message(role="user", content=f"Which colour has number {n}?"),)
    return Question(id=f"q{n}", messages=text, form=form, **{**choices, **fields})  # type: ignore[arg-type]


def key(n: int, target: str = "blue", choice: int | None = None) -> Key:
    return Key(question_id=f"q{n}", targets=(target,), choice=choice)


def exam(**fields: Any) -> Exam:
    return Exam(**{
        "name": "colours", "role": "domain", "digest": "d" * 64, "scorer": "contained",
        "normalisation": "sum", "questions": 4, **fields,
    })  # fmt: skip


class Shelf:
    """Finds the rules for odd questions, a stranger for even ones."""

    digest = "d"

    def search(self, query: str, top_k: int, spec: RetrievalSpec, **_: Any) -> list[Passage]:
        document = "rules" if int(query.rstrip("?").split()[-1]) % 2 else "stranger"
        text = RULES if document == "rules" else "Elephants never forget."
        return [Passage(number=1, chunk_id="c", document_id=document, title="", text=text,
                        start=0, end=len(text))]  # fmt: skip

    def close(self) -> None: ...
    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, *exc: object) -> None: ...


@pytest.fixture
def specialist(fake_model: Any) -> Any:
    def make(retrieval: RetrievalSpec | None = None, **how: Any) -> Specialist:
        arm = Arm(name="arm", retrieval=retrieval)
        candidate = candidate_of(
            arm, base_model="fake", base_digest="f", language="en", artifacts={}
        )
        return Specialist(candidate, fake_model("en", **how), Shelf() if retrieval else None)

    return make


def sat(
    specialist: Specialist,
    questions: list[Question],
    keys: list[Key],
    limit: int | None = None,
    top_k: int = 0,
    **of: Any,
) -> Sitting:
    own = exam(**of)
    answers = sit(specialist, own, questions)
    scores = score_all(own, questions, keys, answers)
    return summarise(
        own, questions, answers, scores, arm="arm", candidate_id="c", split="test", limit=limit,
        top_k=top_k,
    )  # fmt: skip


# ---- what is asked ------------------------------------------------------------------------------


def test_only_questions_of_the_policys_split_are_asked() -> None:
    """No choice sees the test: development runs on `dev`, and never on both."""
    questions = [ask(n, split="dev" if n % 3 == 0 else "test") for n in range(9)]
    assert [q.id for q in asked_in(questions, "dev", None)] == ["q0", "q3", "q6"]
    assert [q.id for q in asked_in(questions, "test", None)] == ["q1", "q2", "q4", "q5", "q7", "q8"]
    assert [q.id for q in asked_in(questions, "test", 2)] == ["q1", "q2"]
    assert asked_in(questions, "test", 0) == []


def test_options_are_listed_only_where_there_are_some() -> None:
    (said,) = with_options(ask(1, "choice"), "en").messages
    assert said.content == "Which colour has number 1?\nOptions:\n- blue\n- a very deep blue"
    assert with_options(ask(1, "choice"), "ja").messages[0].content.split("\n")[1] == "選択肢："
    assert with_options(ask(1), "en") == ask(1)
    system = Message(role="system", content="s")
    asked = ask(1, "choice").model_copy(update={"messages": (system, *ask(1).messages)})
    shown = with_options(asked, "en")
    assert shown.messages[0] == system and shown.choices == CHOICES


# ---- choices ------------------------------------------------------------------------------------


def by_length(prompt: str, option: str) -> float:
    """−1 a letter, but a long option's letters are likelier."""
    return -1.0 * len(option) if len(option) < 8 else -0.7 * len(option)


@pytest.mark.parametrize(
    ("normalisation", "chosen"), [("sum", 0), ("tokens", 1), ("characters", 1), ("bytes", 1)]
)
def test_the_exams_normalisation_decides_the_choice(
    specialist: Any, normalisation: str, chosen: int
) -> None:
    (answer,) = sit(
        specialist(like=by_length), exam(normalisation=normalisation), [ask(1, "choice")]
    )
    assert (answer.choice, answer.text) == (chosen, CHOICES[chosen])
    scored = sat(specialist(like=by_length), [ask(1, "choice")], [key(1, choice=chosen)],
                 normalisation=normalisation)  # fmt: skip
    assert scored.primary is not None and scored.primary.estimate == 1.0


def test_a_chosen_option_is_cited_like_a_written_answer(specialist: Any) -> None:
    pytest.importorskip("snowballstemmer")
    own = specialist(RetrievalSpec(top_k=1))
    found, missed = sit(own, exam(), [ask(1, "choice"), ask(2, "choice")])
    assert [c.document_id for c in found.citations] == ["rules"]
    assert missed.citations == ()


def test_a_stored_answer_chooses_again_under_another_normalisation(specialist: Any) -> None:
    """Nobody is asked: the likelihoods are in the answer, and so is how its choice was made."""
    pytest.importorskip("snowballstemmer")
    own, question = specialist(RetrievalSpec(top_k=1), like=by_length), ask(1, "choice")
    (stored,) = sit(own, exam(), [question])
    assert (stored.text, stored.decoding.normalisation) == ("blue", "sum")
    other = exam(normalisation="tokens", digest="e" * 64)
    (again,) = decide_all(other, [question], [stored], "en")
    assert (again.choice, again.text) == (1, CHOICES[1])
    assert (again.decoding.normalisation, again.exam_digest) == ("tokens", "e" * 64)
    assert again.citations == own.cite(question, CHOICES[1], again.passages)
    (back,) = decide_all(exam(), [question], [again], "en")
    assert back == stored
    assert len(own.model.scored) == 1


def test_written_answers_stand_as_they_are(specialist: Any) -> None:
    letter = specialist(scores_options=False, say=lambda prompt: " B.")
    questions = [ask(1, "choice"), ask(2)]
    answers = sit(letter, exam(), questions)
    assert [(a.text, a.choice, a.decoding.normalisation) for a in answers] == [
        ("B.", 1, None), ("B.", None, None),
    ]  # fmt: skip
    assert decide_all(exam(normalisation="bytes"), questions, answers, "en") == answers


def test_stored_answers_take_the_order_of_the_questions_and_none_may_be_missing(
    specialist: Any,
) -> None:
    questions = [ask(n) for n in (1, 2, 3)]
    answers = sit(specialist(), exam(), questions)
    assert decide_all(exam(), questions, answers[::-1], "en") == answers
    with pytest.raises(IntegrityError, match="no stored answer to q2; sit the exam again"):
        decide_all(exam(), questions, [answers[0], answers[2]], "en")


def test_what_is_asked_has_a_digest_that_keys_and_order_dont_change() -> None:
    one = asked_digest([ask(1), ask(2, "choice")])
    same = [ask(2, "choice", topic="t", cluster_id="c", document_ids=("d",)), ask(1, split="dev")]
    assert asked_digest(same) == one
    for other in (
        [ask(1), ask(3, "choice")],
        [ask(1), ask(2, "choice", choices=CHOICES[::-1])],
        [ask(1), ask(2, "choice", completion="whole")],
        [ask(1, max_tokens=3), ask(2, "choice")],
    ):
        assert asked_digest(other) != one


# ---- figures ------------------------------------------------------------------------------------


def test_a_whole_sitting_has_a_mean_and_its_parts(specialist: Any) -> None:
    questions = [
        ask(1, topic="a"), ask(2, topic="a"), ask(3, "choice", topic="b"), ask(4, "choice"),
    ]  # fmt: skip
    keys = [key(1), key(2, "green"), key(3, choice=0), key(4, choice=0)]
    found = sat(specialist(), questions, keys)
    assert found.complete and not found.partial
    assert (found.asked, found.answered, found.errors, found.refused) == (4, 4, 0, 0)
    assert found.primary is not None
    assert (found.primary.estimate, found.primary.n) == (0.75, 4)
    assert found.primary.low < 0.75 < found.primary.high
    assert {name: i.estimate for name, i in found.by_topic.items()} == {"a": 0.5, "b": 1.0}
    assert {name: i.estimate for name, i in found.by_form.items()} == {"choice": 1.0, "short": 0.5}
    assert found.settings == {
        "scoring": "choice: loglikelihood, short: text",
        "normalisation": "sum",
        "short answers": "contained",
    }
    assert found.cost_usd == 0.002 and found.tokens_out == 8
    assert found.retrieval == {}


def test_questions_of_one_passage_err_together(specialist: Any) -> None:
    def say(prompt: str) -> str:
        return "blue" if any(f"number {n}?" in prompt for n in range(4)) else "green"

    alone = [ask(n) for n in range(8)]
    together = [ask(n, cluster_id=f"passage {n // 4}") for n in range(8)]
    keys = [key(n) for n in range(8)]
    wilson = sat(specialist(say=say), alone, keys).primary
    clustered = sat(specialist(say=say), together, keys).primary
    assert wilson is not None and clustered is not None
    assert wilson.estimate == clustered.estimate == 0.5
    assert "2 clusters" in clustered.method and "Wilson" in wilson.method
    assert clustered.high - clustered.low > wilson.high - wilson.low


def test_one_failed_question_leaves_the_sitting_without_a_mean(specialist: Any) -> None:
    """Pitfall 17: a failed question becomes 0.0 or vanishes, and shifts the mean."""
    say = lambda prompt: "error:timeout" if "number 2?" in prompt else "blue"  # noqa: E731
    questions = [ask(1, topic="a"), ask(2, topic="b"), ask(3, topic="a")]
    found = sat(specialist(say=say), questions, [key(1), key(2), key(3)])
    assert (found.asked, found.answered, found.errors) == (3, 2, 1)
    assert not found.complete
    assert found.primary is None
    assert set(found.by_topic) == {"a"}  # what is whole may be shown, what isn't has no mean
    assert found.by_form == {}


def test_likelihoods_that_are_no_numbers_are_an_error_not_a_choice(specialist: Any) -> None:
    """Pitfall 17."""
    nan = specialist(like=lambda prompt, option: float("nan"))
    found = sat(nan, [ask(1, "choice")], [key(1, choice=0)])
    assert (found.errors, found.primary, found.complete) == (1, None, False)


def test_a_refusal_counts_as_zero_and_says_so(specialist: Any) -> None:
    say = lambda prompt: "I don't know." if "number 2?" in prompt else "blue"  # noqa: E731
    found = sat(specialist(say=say), [ask(1), ask(2)], [key(1), key(2)])
    assert (found.refused, found.errors, found.answered) == (1, 0, 2)
    assert found.complete and found.primary is not None and found.primary.estimate == 0.5


def test_a_limit_makes_a_sitting_partial(specialist: Any) -> None:
    found = sat(specialist(), [ask(1)], [key(1)], limit=1)
    assert found.partial and not found.complete
    assert found.primary is not None and found.primary.n == 1


def test_search_and_citations_are_measured_over_questions_that_name_gold(specialist: Any) -> None:
    pytest.importorskip("snowballstemmer")
    gold = {"document_ids": ("rules",)}
    questions = [ask(1, **gold), ask(2, **gold), ask(3)]
    own = specialist(RetrievalSpec(top_k=1), say=lambda prompt: "The badge is blue.")
    found = sat(own, questions, [key(n) for n in (1, 2, 3)], top_k=1)
    assert {name: (i.estimate, i.n) for name, i in found.retrieval.items()} == {
        "recall@1": (0.5, 2),
        "citation_precision": (1.0, 1),
        "citation_recall": (1.0, 1),
    }


# ---- methods ------------------------------------------------------------------------------------


class Policy:
    min_gain, max_forgetting, alpha, power, draws, seed = 0.0, 0.1, 0.05, 0.8, 200, 0


def test_likelihoods_and_letters_are_told_apart_and_never_compared(specialist: Any) -> None:
    questions, keys = [ask(n, "choice") for n in range(20)], [key(n, choice=0) for n in range(20)]
    scored = sit(specialist(), exam(), questions)
    letters = sit(specialist(scores_options=False, say=lambda prompt: "B"), exam(), questions)
    assert method_of(questions, scored) == "choice: loglikelihood"
    assert method_of(questions, letters) == "choice: letter"

    def arm(answers: list[Answer]) -> ArmScores:
        scores = score_all(exam(), questions, keys, answers)
        return ArmScores("c", scores, True, method_of(questions, answers))

    sittings = {"base": arm(scored), "same": arm(scored), "endpoint": arm(letters)}
    same, endpoint = compare(exam(), "base", sittings, {}, Policy())
    assert same.draws == 200
    assert (endpoint.outcome, endpoint.draws) == ("inconclusive", 0)
    assert "choice: letter" in endpoint.reason and "can't be compared" in endpoint.reason


# ---- silence ------------------------------------------------------------------------------------


def test_an_arm_with_silence_stays_comparable_and_has_a_curve(specialist: Any) -> None:
    """Questions on the badge are found for odd numbers only: the others are met with silence."""
    pytest.importorskip("snowballstemmer")
    questions = [ask(n, "choice" if n < 3 else "short") for n in (1, 2, 3, 4)]
    for place in (0, 2):
        said = (Message(role="user", content=f"Is the badge of a pilot blue, {place + 1}?"),)
        questions[place] = questions[place].model_copy(update={"messages": said})
    keys = [key(1, choice=0), key(2, choice=0), key(3), Key(question_id="q4", targets=(),
            unanswerable=True)]  # fmt: skip
    loud = sat(specialist(RetrievalSpec()), questions, keys, top_k=4)
    hush = sat(specialist(RetrievalSpec(silence=0.4)), questions, keys, top_k=4)
    assert loud.settings == hush.settings  # method and all: the two can be compared
    assert (loud.refused, hush.refused, hush.complete) == (0, 1, True)
    assert loud.coverage is not None and hush.coverage is not None
    assert (loud.coverage.silent, hush.coverage.silent) == (0.0, 0.5)
    assert [point[1] for point in hush.coverage.points][-1] == 0.5
    assert [point[1] for point in loud.coverage.points][-1] == 1.0
    assert loud.primary is not None and hush.primary is not None
    assert sat(specialist(), questions, keys).coverage is None


def test_a_silent_choice_chooses_nothing_under_any_normalisation(specialist: Any) -> None:
    pytest.importorskip("snowballstemmer")
    own, question = specialist(RetrievalSpec(silence=0.9)), ask(2, "choice")
    (answer,) = sit(own, exam(), [question])
    assert (answer.status, answer.choice) == ("abstained", None)
    (again,) = decide_all(exam(normalisation="tokens"), [question], [answer], "en")
    assert again == answer
