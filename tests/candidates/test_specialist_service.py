"""In service a question takes the exam's path, in three steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka.arms.building import candidate_of
from tokka.candidates.hearing import fitting
from tokka.candidates.opening import asked
from tokka.candidates.specialist import Specialist
from tokka.errors import UsageError
from tokka.models.protocol import GenerateResult, Prompt
from tokka.records import (
    Arm,
    Caller,
    Candidate,
    Example,
    Message,
    Messages,
    Passage,
    PromptSpec,
    Question,
    RetrievalSpec,
)

TURNS = (
    "{% for m in messages %}<turn>{{ m.role }}\n{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)
RAG = Arm(name="rag", retrieval=RetrievalSpec(top_k=2), prompt=PromptSpec(max_tokens=9))
EVERYTHING = Caller()
RULES = "The badge of a pilot is blue. It is worn on the left arm."
QUESTION = "Which colour is the badge?"


def candidate(arm: Arm | None = None, language: str = "en") -> Candidate:
    return candidate_of(
        arm or Arm(name="base"), base_model="fake", base_digest="f", language=language, artifacts={}
    )


def user(text: str) -> Messages:
    return (Message(role="user", content=text),)


class Shelf:
    """A retriever with one rule for all and one for the staff; writes down what it was asked."""

    digest = "d"

    def __init__(self) -> None:
        self.asked: list[tuple[Any, Caller]] = []

    def search(
        self, query: Any, top_k: int, spec: RetrievalSpec, caller: Caller = EVERYTHING, **_: Any
    ) -> list[Passage]:
        self.asked.append((query, caller))
        texts = [(RULES, ()), ("The safe's code is 4711.", ("staff",))]
        seen = [text for text, access in texts if caller.may_see(access)]
        return [
            Passage(
                number=number, chunk_id=f"rules#{number}", document_id="rules", title="Rules",
                text=text, start=100, end=100 + len(text), page=4,
            )
            for number, text in enumerate(seen, 1)
        ]  # fmt: skip

    def close(self) -> None: ...

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, *exc: object) -> None: ...


def written(specialist: Specialist, messages: Messages, **how: Any) -> Any:
    heard = specialist.hear(messages, **how)
    (result,) = specialist.model.generate([specialist.request_of(heard)])
    return specialist.said(heard, result)


@pytest.mark.parametrize("template", [None, TURNS], ids=["base", "chat"])
@pytest.mark.parametrize("arm", [RAG, Arm(name="bare")], ids=["with passages", "bare"])
def test_service_and_exam_give_the_same_prompt_text_and_citations(
    fake_model: Any, template: str | None, arm: Arm
) -> None:
    pytest.importorskip("snowballstemmer")
    shot = Example(
        id="s1", messages=(*user("Colour of a rope?"), Message(role="assistant", content="red"))
    )
    model = fake_model("en", template, say=lambda prompt: " The badge is blue.\n")
    specialist = Specialist(candidate(arm), model, Shelf(), lambda question: [shot])
    (examined,) = specialist.answer([asked(QUESTION)])
    served = written(specialist, user(QUESTION))
    unmeasured = {"seconds": 0.0}
    assert served.model_copy(update=unmeasured) == examined.model_copy(update=unmeasured)
    assert served.text == "The badge is blue." and served.shots == ("s1",)
    assert bool(served.citations) == (arm.retrieval is not None)
    first, second = model.written
    assert first == second


def test_a_live_model_says_what_the_exam_heard(
    make_module: Callable[..., Any], make_tokenizer: Callable[..., Any]
) -> None:
    torch = pytest.importorskip("torch")
    from tokka.models.live_torch import TorchLive
    from tokka.models.rendering import TokenRenderer
    from tokka.models.torch_model import TorchModel

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    module = make_module("llama", num_hidden_layers=2, max_position_embeddings=512)
    renderer = TokenRenderer(make_tokenizer(), "ja")
    live = TorchLive(TorchModel(module, renderer, name="tiny", digest="0" * 64), places=2)
    specialist = Specialist(candidate(RAG, "ja"), live.model, Shelf())
    text = "融資の限度額は？"
    (examined,) = specialist.answer([asked(text)])

    async def serve() -> Any:
        heard = await asyncio.to_thread(specialist.hear, user(text))
        writing = live.write(specialist.request_of(heard))
        said = [piece.text async for piece in writing]
        answer = specialist.said(heard, writing.result)
        assert "".join(said).strip() == answer.text
        await live.close()
        return answer

    served = asyncio.run(serve())
    torch.set_num_threads(threads)
    for name in ("prompt_sha256", "hash_kind", "text", "citations", "passages", "tokens_out"):
        assert getattr(served, name) == getattr(examined, name), name
    assert served.decoding == examined.decoding


def test_only_what_the_caller_may_see_is_searched(fake_model: Any) -> None:
    model, shelf = fake_model("en"), Shelf()
    specialist = Specialist(candidate(RAG), model, shelf)
    for labels, seen in (((), 1), (("staff",), 2), (("sales",), 1)):
        heard = specialist.hear(user(QUESTION), Caller(labels=labels))
        assert len(heard.passages) == seen
        assert ("4711" in heard.prompt.text) == (seen == 2)
        assert shelf.asked[-1] == (QUESTION, Caller(labels=labels))


def test_earlier_turns_stay_and_only_the_last_is_searched_for(fake_model: Any) -> None:
    shelf = Shelf()
    specialist = Specialist(candidate(RAG), fake_model("en"), shelf)
    turns = (*user("Hello?"), Message(role="assistant", content="Hi."), *user(QUESTION))
    heard = specialist.hear(turns)
    assert [query for query, _ in shelf.asked] == [QUESTION]
    text = heard.prompt.text
    assert text.index("Hello?") < text.index("Hi.") < text.index(RULES[:20]) < text.index(QUESTION)
    assert heard.dropped_turns == 0


def test_below_the_threshold_nobody_is_asked(fake_model: Any) -> None:
    model = fake_model("ja")
    spec = RetrievalSpec(top_k=2, silence=1.0)
    specialist = Specialist(candidate(Arm(name="a", retrieval=spec), "ja"), model, Shelf())
    heard = specialist.hear(user("休暇は何日ですか。"))
    assert heard.silent == "資料には答えが見つかりません。"
    answer = specialist.said(heard, None)
    assert (answer.text, answer.status, answer.citations) == (heard.silent, "abstained", ())
    assert answer.prompt_sha256 == heard.prompt.sha256
    assert model.written == []
    (examined,) = specialist.answer([asked("休暇は何日ですか。")])
    assert examined.model_copy(update={"seconds": answer.seconds}) == answer


def test_an_answer_that_was_never_written_is_no_silence(fake_model: Any) -> None:
    specialist = Specialist(candidate(), fake_model("en"))
    with pytest.raises(UsageError, match="no answer"):
        specialist.said(specialist.hear(user(QUESTION)), None)


def test_a_caller_may_only_shorten_the_answer(fake_model: Any) -> None:
    """Decoding stays as examined: nothing that a caller sends makes it longer or other."""
    specialist = Specialist(candidate(RAG), fake_model("en"))
    heard = specialist.hear(user(QUESTION))
    own = specialist.request_of(heard)
    assert (own.max_tokens, own.temperature, own.seed, own.stop) == (9, 0.0, 0, ("\n",))
    assert specialist.request_of(heard, max_tokens=5) == replace(own, max_tokens=5)
    assert specialist.request_of(heard, max_tokens=5000) == own
    wanted = specialist.request_of(heard, stop=("。", "", "\n"))
    assert wanted == replace(own, stop=("\n", "。"))


def test_an_answer_says_how_it_was_really_decoded(fake_model: Any) -> None:
    specialist = Specialist(candidate(RAG), fake_model("en"))
    heard = specialist.hear(user(QUESTION))
    request = specialist.request_of(heard, max_tokens=3, stop=("x",))
    answer = specialist.said(heard, GenerateResult("blue", 4, 3, False, "length", 0.1), request)
    assert (answer.decoding.max_tokens, answer.decoding.stop) == (3, ("\n", "x"))


def test_a_failed_answer_is_an_error(fake_model: Any) -> None:
    specialist = Specialist(candidate(), fake_model("en"))
    heard = specialist.hear(user(QUESTION))
    failed = GenerateResult("", 0, 0, False, "error", 0.1, error="busy")
    answer = specialist.said(heard, failed)
    assert (answer.status, answer.error) == ("error", "busy")


@pytest.mark.parametrize(
    "messages",
    [(), (*user("Hi"), Message(role="assistant", content="Hi."))],
    ids=["nothing", "the assistant's"],
)
def test_the_last_message_is_the_users(fake_model: Any, messages: Messages) -> None:
    with pytest.raises(UsageError, match="must be the user's"):
        Specialist(candidate(), fake_model("en")).hear(messages)


# ---- conversations that are too long ------------------------------------------------------------


def short_context(fake_model: Any, limit: int, arm: Arm = RAG) -> Specialist:
    model = fake_model("en")
    able = replace(model.capabilities, max_context_tokens=limit)

    class Short(type(model)):  # type: ignore[misc]
        capabilities = able

    model.__class__ = Short
    return Specialist(candidate(arm), model)


def conversation(turns: int) -> Messages:
    said: list[Message] = []
    for turn in range(turns):
        said += [*user(f"Q{turn}?"), Message(role="assistant", content=f"A{turn}.")]
    return (Message(role="system", content="Be brief."), *said, *user(QUESTION))


def test_the_oldest_turns_make_room_in_pairs_and_it_says_so(fake_model: Any) -> None:
    whole = len(short_context(fake_model, 4096).hear(conversation(6)).prompt.ids)
    limit = whole - 1 + RAG.prompt.max_tokens
    heard = short_context(fake_model, limit).hear(conversation(6))
    assert heard.dropped_turns == 2
    assert "Q0?" not in heard.prompt.text and "A0." not in heard.prompt.text
    assert all(word in heard.prompt.text for word in ("Be brief.", "Q1?", "A5.", QUESTION))
    assert len(heard.prompt.ids) + RAG.prompt.max_tokens <= limit


def test_a_last_message_that_is_too_long_is_refused_by_its_numbers(fake_model: Any) -> None:
    specialist = short_context(fake_model, 60)
    secret = "口座番号1234567"
    with pytest.raises(UsageError, match=r"\d+ tokens .* 51 fit") as refused:
        specialist.hear((*conversation(2)[:-1], *user(secret * 20)))
    assert "1234567" not in str(refused.value)


def test_an_answer_that_leaves_no_room_is_refused(fake_model: Any) -> None:
    with pytest.raises(UsageError, match=r"max_tokens 9 .* context of 9"):
        short_context(fake_model, 9).hear(user("Hi"))


@given(
    st.lists(st.sampled_from(["user", "assistant", "system"]), max_size=12),
    st.lists(st.integers(1, 9), min_size=13, max_size=13),
    st.integers(1, 60),
)
def test_as_few_turns_as_possible_are_left_out(
    roles: list[Any], lengths: list[int], room: int
) -> None:
    said = [*zip(roles, lengths, strict=False), ("user", lengths[-1])]
    messages = tuple(Message(role=role, content="x" * n) for role, n in said)

    def prompt_of(kept: Messages) -> Prompt:
        ids = tuple(i for m in kept for i in range(len(m.content)))
        return Prompt(ids, kept, "", "tokens")

    starts = [i for i, m in enumerate(messages) if m.role == "user"]
    possible = [messages] + [
        tuple(m for i, m in enumerate(messages) if i >= start or m.role == "system")
        for start in starts[1:]
    ]
    fit = [kept for kept in possible if len(prompt_of(kept).ids) <= room]
    if not fit:
        with pytest.raises(UsageError, match=f"{room} fit"):
            fitting(messages, prompt_of, room)
        return
    prompt, dropped = fitting(messages, prompt_of, room)
    assert prompt.messages == fit[0]
    assert dropped == len(messages) - len(fit[0])


def test_questions_of_an_exam_are_still_answered_together(fake_model: Any) -> None:
    model = fake_model("en")
    questions = [
        Question(id=f"q{n}", messages=user(f"Which colour is {n}?"), form="short") for n in range(3)
    ]
    answers = list(Specialist(candidate(RAG), model, Shelf()).answer(questions))
    assert [answer.question_id for answer in answers] == ["q0", "q1", "q2"]
    assert len(model.written) == 3
