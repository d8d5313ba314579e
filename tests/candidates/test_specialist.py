"""Exam questions and people's questions are answered on one path, with evidence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tokka.arms.building import candidate_of, lessons_of
from tokka.candidates.opening import asked
from tokka.candidates.specialist import LETTER_TOKENS, Specialist
from tokka.models.rendering import hash_ids
from tokka.records import (
    Answer,
    Arm,
    Candidate,
    Example,
    FinetuneSpec,
    Message,
    Passage,
    PromptSpec,
    Question,
    RetrievalSpec,
)

TURNS = (
    "{% for m in messages %}<turn>{{ m.role }}\n{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)
RAG = Arm(name="rag", retrieval=RetrievalSpec(top_k=2))
CHOICES = ("red", "blue", "as green as grass")
RULES = "The badge of a pilot is blue. It is worn on the left arm."


def candidate(arm: Arm | None = None, language: str = "en") -> Candidate:
    return candidate_of(
        arm or Arm(name="base"), base_model="fake", base_digest="f", language=language, artifacts={}
    )


def ask(text: str, name: str = "q1", **fields: Any) -> Question:
    return Question(
        id=name, messages=(Message(role="user", content=text),), **{"form": "short", **fields}
    )


class Shelf:
    """A retriever that finds one rule, and writes down what it was asked."""

    digest = "d"

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.closed = False

    def search(self, query: str, top_k: int, spec: RetrievalSpec, **_: Any) -> list[Passage]:
        self.asked.append((query, top_k))
        return [
            Passage(
                number=1, chunk_id="rules#3", document_id="rules", title="Rules", text=RULES,
                start=100, end=100 + len(RULES), page=4,
            )
        ]  # fmt: skip

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def one(specialist: Specialist, question: Question, **how: Any) -> Answer:
    (answer,) = specialist.answer([question], **how)
    return answer


# ---- how choices are answered -------------------------------------------------------------------


def test_a_choice_is_scored_by_likelihood_without_showing_letters(fake_model: Any) -> None:
    model = fake_model("en")
    question = ask("Which colour?", form="choice", choices=CHOICES)
    answer = one(Specialist(candidate(), model), question, exam_digest="x")
    assert answer.decoding.method == "loglikelihood"
    assert answer.choice_loglikelihoods == tuple(-float(len(c)) - 1 for c in CHOICES)
    assert answer.choice_lengths == tuple(len(c) + 1 for c in CHOICES)  # a space, a token a letter
    assert (answer.text, answer.choice) == ("", None)  # the exam's normalisation decides
    (request,) = model.scored
    assert model.renderer.decode(request.prompt) == "Question: Which colour?\nAnswer:"
    assert model.written == []


def test_a_model_that_cant_score_is_asked_for_a_letter_and_the_answer_says_so(
    fake_model: Any,
) -> None:
    prompts: list[str] = []

    def say(prompt: str) -> str:
        prompts.append(prompt)
        return " B."

    model = fake_model("en", say=say, scores_options=False)
    question = ask("Which colour?", form="choice", choices=CHOICES)
    answer = one(Specialist(candidate(), model), question)
    assert answer.decoding.method == "letter"
    assert answer.decoding.max_tokens == LETTER_TOKENS
    assert (answer.choice, answer.text, answer.choice_loglikelihoods) == (1, "B.", ())
    assert "A. red\nB. blue\nC. as green as grass" in prompts[0]
    assert model.scored == []


def test_a_letter_that_names_nothing_is_no_choice(fake_model: Any) -> None:
    model = fake_model("en", say=lambda prompt: "neither", scores_options=False)
    answer = one(Specialist(candidate(), model), ask("Which?", form="choice", choices=CHOICES))
    assert (answer.choice, answer.text, answer.status) == (None, "neither", "answered")


# ---- the prompt ---------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [None, TURNS], ids=["base", "chat"])
@pytest.mark.parametrize("arm", [Arm(name="lora"), RAG], ids=["bare", "with passages"])
def test_training_exam_and_serving_send_the_same_ids(
    fake_model: Any, template: str | None, arm: Arm
) -> None:
    """Pitfall 2: templates drift apart. Here the three are the same ids, and a hash proves it."""
    arm = arm.model_copy(update={"prompt": PromptSpec(system="Be brief.", format="One word.")})
    model, shelf = fake_model("en", template), Shelf()
    specialist = Specialist(candidate(arm), model, shelf)
    text = "Which colour is the badge?"
    taught = Example(
        id="e1",
        messages=(
            Message(role="user", content=text),
            Message(role="assistant", content="blue"),
        ),
    )
    context = "retrieved" if arm.retrieval else "none"
    spec = FinetuneSpec(data="examples.jsonl", context=context)
    (lesson,), _ = lessons_of([taught], arm, spec, model.renderer, "en", 4096, shelf)
    examined = one(specialist, ask(text))
    served = one(specialist, asked(text))
    sent = [request.prompt.ids for request in model.written]
    assert lesson.ids[: lesson.start] == sent[0] == sent[1]
    assert examined.prompt_sha256 == served.prompt_sha256 == hash_ids(lesson.ids[: lesson.start])
    assert examined.hash_kind == "tokens"


def test_a_scored_prompt_has_the_hash_of_its_ids(fake_model: Any) -> None:
    model = fake_model("en")
    answer = one(Specialist(candidate(), model), ask("Q?", form="choice", choices=CHOICES))
    assert answer.prompt_sha256 == hash_ids(model.scored[0].prompt)
    assert answer.tokens_in == len(model.scored[0].prompt) + sum(answer.choice_lengths)


def test_shots_are_chosen_for_each_question_and_stand_before_it(fake_model: Any) -> None:
    def shots(question: Question) -> list[Example]:
        said = f"shot for {question.id}", "yes"
        roles = ("user", "assistant")
        pairs = zip(roles, said, strict=True)
        return [Example(id="s", messages=tuple(Message(role=r, content=c) for r, c in pairs))]  # type: ignore[arg-type]

    model = fake_model("en")
    list(Specialist(candidate(), model, None, shots).answer([ask("1?", "q1"), ask("2?", "q2")]))
    first, second = (model.renderer.decode(r.prompt.ids) for r in model.written)
    assert first == "Question: shot for q1\nAnswer: yes\n\nQuestion: 1?\nAnswer:"
    assert second == "Question: shot for q2\nAnswer: yes\n\nQuestion: 2?\nAnswer:"


def test_answers_are_greedy_and_end_as_the_prompt_says(fake_model: Any) -> None:
    """Pitfall 4: "greedy" that samples."""
    for stop, expected in ((None, ("\n",)), (("。",), ("。",)), ((), ())):
        model = fake_model("ja")
        arm = Arm(name="a", prompt=PromptSpec(max_tokens=7, stop=stop))
        answer = one(Specialist(candidate(arm), model), ask("Q?"))
        (request,) = model.written
        assert (request.temperature, request.max_tokens, request.stop) == (0.0, 7, expected)
        decoding = answer.decoding
        assert (decoding.method, decoding.temperature) == ("text", 0.0)
        assert (decoding.max_tokens, decoding.stop) == (7, expected)


def test_every_answer_says_how_it_was_decoded_and_which_shots_it_saw(fake_model: Any) -> None:
    """Pitfall 4: what decides an answer is kept with it."""
    roles = (("user", "Colour of a rope?"), ("assistant", "blue"))
    rope = Example(id="e7", messages=tuple(Message(role=r, content=c) for r, c in roles))  # type: ignore[arg-type]
    arm = Arm(name="few", prompt=PromptSpec(shots=1, max_tokens=7, stop=("。",)))
    questions = [ask("1?", "q1"), ask("2?", "q2", form="choice", choices=CHOICES)]
    for scores, methods in ((True, ("text", "loglikelihood")), (False, ("text", "letter"))):
        model = fake_model("en", scores_options=scores)
        own = Specialist(candidate(arm), model, None, lambda question: [rope])
        answers = list(own.answer(questions))
        assert [a.shots for a in answers] == [("e7",), ("e7",)]
        assert tuple(a.decoding.method for a in answers) == methods
        assert {(a.decoding.dtype, a.decoding.engine) for a in answers} == {("float32", "fake 1")}
        text = answers[0].decoding
        assert (text.max_tokens, text.temperature, text.seed, text.stop) == (7, 0.0, 0, ("。",))


# ---- evidence -----------------------------------------------------------------------------------


def test_passages_are_kept_and_what_rests_on_them_is_cited(fake_model: Any) -> None:
    pytest.importorskip("snowballstemmer")
    shelf = Shelf()
    model = fake_model("en", say=lambda prompt: "The badge is blue.")
    answer = one(Specialist(candidate(RAG), model, shelf), ask("Which colour is the badge?"))
    assert shelf.asked == [("Which colour is the badge?", 2)]
    assert [p.chunk_id for p in answer.passages] == ["rules#3"]
    (citation,) = answer.citations
    assert (citation.document_id, citation.page, citation.passage) == ("rules", 4, 1)
    assert (citation.start, citation.end) == (100, 100 + RULES.index(" It"))  # in the document
    assert answer.text[citation.answer_start : citation.answer_end] == "The badge is blue."
    assert "[1] (Rules) The badge of a pilot" in model.renderer.decode(model.written[0].prompt.ids)


def test_an_answer_that_rests_on_no_passage_cites_none(fake_model: Any) -> None:
    pytest.importorskip("snowballstemmer")
    model = fake_model("en", say=lambda prompt: "Elephants never forget Paris.")
    answer = one(Specialist(candidate(RAG), model, Shelf()), ask("Which colour is the badge?"))
    assert answer.passages and answer.citations == ()


def test_an_arm_without_retrieval_searches_nothing(fake_model: Any) -> None:
    shelf = Shelf()
    answer = one(Specialist(candidate(), fake_model("en"), shelf), ask("Which colour?"))
    assert (shelf.asked, answer.passages, answer.citations) == ([], (), ())


# ---- all questions ------------------------------------------------------------------------------


def test_answers_keep_the_order_of_the_questions_whatever_their_form(fake_model: Any) -> None:
    questions = [
        ask("1?", "q1"),
        ask("2?", "q2", form="choice", choices=CHOICES),
        ask("3?", "q3", form="number"),
        ask("4?", "q4", form="choice", choices=CHOICES[:2]),
    ]
    done: list[int] = []
    model = fake_model("en")
    answers = list(
        Specialist(candidate(), model).answer(questions, exam_digest="x", progress=done.append)
    )
    assert [a.question_id for a in answers] == ["q1", "q2", "q3", "q4"]
    methods = [a.decoding.method for a in answers]
    assert methods == ["text", "loglikelihood", "text", "loglikelihood"]
    assert {a.exam_digest for a in answers} == {"x"}
    assert {a.candidate_id for a in answers} == {candidate().id}
    assert sum(done) == 4


def test_a_failed_answer_says_so_and_the_others_go_on(fake_model: Any) -> None:
    """Pitfall 17: a failed question becomes neither a text nor nothing."""
    model = fake_model("en", say=lambda prompt: "error:timeout" if "2?" in prompt else "blue")
    answers = list(
        Specialist(candidate(), model).answer([ask(f"{n}?", f"q{n}") for n in (1, 2, 3)])
    )
    assert [a.status for a in answers] == ["answered", "error", "answered"]
    assert (answers[1].error, answers[1].text) == ("timeout", "")
    assert answers[0].cost_usd == 0.001 and answers[0].tokens_out == 4


def test_closing_closes_the_index_and_the_model(fake_model: Callable[..., Any]) -> None:
    model, shelf = fake_model("en"), Shelf()
    with Specialist(candidate(RAG), model, shelf):
        assert not (model.closed or shelf.closed)
    assert model.closed and shelf.closed


# ---- reranking ----------------------------------------------------------------------------------


class Ranking(Shelf):
    """A shelf that lets the reranker read what it found."""

    def search(self, query: str, top_k: int, spec: RetrievalSpec, **how: Any) -> list[Passage]:
        found = super().search(query, top_k, spec)
        (score,) = how["reranker"].scores(query, [passage.text for passage in found])
        return [passage.model_copy(update={"rerank": score}) for passage in found]


def test_the_arms_own_model_reranks_and_its_scores_are_remembered(fake_model: Any) -> None:
    from tokka.retrieval.rerank import Likelihood

    class Memo(dict[str, Any]):
        def put(self, key: str, value: Any) -> None:
            self[key] = value

    model, memo = fake_model("en"), Memo()
    arm = Arm(name="rag", retrieval=RetrievalSpec(rerank="likelihood"))
    for _ in range(2):
        specialist = Specialist(candidate(arm), model, Ranking(), None, Likelihood(model, "en"))
        answer = one(specialist, ask("Which colour?"), memo=memo)
        assert answer.passages[0].rerank == -1.0
    (request,) = model.scored  # the second time it was remembered
    assert RULES in model.renderer.decode(request.prompt)


# ---- silence ------------------------------------------------------------------------------------

HUSH = Arm(name="hush", retrieval=RetrievalSpec(top_k=2, silence=0.5))
VAIN = "Who feeds elephants in Paris?"


def test_below_the_threshold_nobody_is_asked_whatever_the_form(fake_model: Any) -> None:
    pytest.importorskip("snowballstemmer")
    for scores in (True, False):
        model, done = fake_model("en", scores_options=scores), []
        questions = [
            ask(VAIN),
            ask("Which colour is the badge of a pilot?", "q2"),
            ask(VAIN, "q3", form="choice", choices=CHOICES),
        ]
        answers = list(
            Specialist(candidate(HUSH), model, Shelf()).answer(questions, progress=done.append)
        )
        assert [a.status for a in answers] == ["abstained", "answered", "abstained"]
        assert [a.question_id for a in answers] == ["q1", "q2", "q3"]
        assert {a.text for a in answers[::2]} == {"The documents don't hold the answer."}
        method = "loglikelihood" if scores else "letter"  # as its neighbours: still comparable
        assert [a.decoding.method for a in answers] == ["text", "text", method]
        assert (len(model.written), len(model.scored), sum(done)) == (1, 0, 3)
        assert all(a.tokens_out == 0 and not a.citations and a.passages for a in answers[::2])
        low, high = answers[0].confidence, answers[1].confidence
        assert low is not None and high is not None and low < 0.5 <= high


def test_silence_is_said_in_the_candidates_language(fake_model: Any) -> None:
    pytest.importorskip("sudachipy")
    answer = one(
        Specialist(candidate(HUSH, "ja"), fake_model("ja"), Shelf()), ask("象は何を食べるか")
    )
    assert (answer.status, answer.text) == ("abstained", "資料には答えが見つかりません。")


@pytest.mark.parametrize("silence", [None, "tuned", 0.0])
def test_without_a_threshold_everything_is_answered_and_the_confidence_kept(
    fake_model: Any, silence: Any
) -> None:
    pytest.importorskip("snowballstemmer")
    arm = Arm(name="rag", retrieval=RetrievalSpec(silence=silence))
    answer = one(Specialist(candidate(arm), fake_model("en"), Shelf()), ask(VAIN))
    assert answer.status == "answered"
    assert answer.confidence is not None and answer.confidence < 0.5


def test_an_arm_that_searches_nothing_has_no_confidence(fake_model: Any) -> None:
    assert one(Specialist(candidate(), fake_model("en")), ask(VAIN)).confidence is None
