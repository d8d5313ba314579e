"""The border between prompt and answer: one tokenisation of both (decision 13)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokka.arms.building import candidate_of
from tokka.candidates.specialist import Specialist
from tokka.errors import UsageError
from tokka.models.rendering import TokenRenderer
from tokka.records import Arm, Example, Message, Passage, PromptSpec, Question, RetrievalSpec
from tokka.training.lessons import lesson

FAMILIES = ("bytes", "llama2", "gemma", "smollm2")
PIECES = [
    "質問",
    "：",
    "「",
    "」",
    "。",
    "答え：",
    "はい",
    " ",
    "\n",
    "Answer",
    ":",
    "blue",
    "The ",
    "1",
    "🦊",
]
texts = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join)
many = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ASK = (Message(role="user", content="質問：限度額は。"),)


def harness_pair(tokenizer: Any, context: str, answer: str) -> tuple[list[int], list[int]]:
    """What lm-evaluation-harness 0.4.13 makes of the two (lm_eval/api/model.py, `_encode_pair`)."""
    kept = context.rstrip()
    whole = tokenizer.encode(kept + context[len(kept) :] + answer)
    first = tokenizer.encode(kept)
    return first, whole[len(first) :]


# ---- completions: as the harness ----------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@given(context=texts, answer=texts, delimiter=st.sampled_from(["", " ", "\n"]))
@many
def test_a_completion_and_its_answer_have_the_ids_that_the_harness_gives_them(
    tokenizer_of: Any, renderer_of: Any, family: str, context: str, answer: str, delimiter: str
) -> None:
    if not context.strip():
        return
    prompt = renderer_of(family).completion(context, delimiter=delimiter, scored=True)
    first, rest = harness_pair(tokenizer_of(family), context, delimiter + answer)
    assert list(prompt.ids) == first
    scored = list(renderer_of(family).option(answer, prompt))
    assert scored == rest if rest else scored  # where nothing is left, the harness stops


def test_spaces_that_end_a_scored_completion_belong_to_the_answer(make_tokenizer: Any) -> None:
    renderer = TokenRenderer(make_tokenizer(), "en")
    scored = renderer.completion("The badge is \n", delimiter="=", scored=True)
    assert (scored.text, scored.lead) == ("The badge is", " \n=")
    assert renderer.decode(renderer.option("blue", scored)) == " \n=blue"
    written = renderer.completion("The badge is \n", delimiter="=")
    assert renderer.decode(written.ids) == written.text == "The badge is \n"


def test_an_answer_that_merges_into_the_prompt_as_a_whole_is_scored_by_itself(
    tokenizer_of: Any, renderer_of: Any
) -> None:
    """The harness ends with an assertion there."""
    context, answer = "資料", "："
    assert harness_pair(tokenizer_of("bytes"), context, answer)[1] == []
    renderer = renderer_of("bytes")
    assert renderer.decode(renderer.option(answer, renderer.completion(context))) == answer


def test_special_tokens_count_in_the_text_and_not_in_what_an_arm_puts_before_it(
    renderer_of: Any,
) -> None:
    renderer = renderer_of("bytes")
    text = "<s>A</s>B"
    assert renderer.completion(text).ids.count(1) == 1
    assert renderer.completion(text, before="</s></s>").ids.count(1) == 1


@pytest.mark.parametrize("text", ["", " \n", "　"])
def test_a_completion_of_spaces_is_refused(renderer_of: Any, text: str) -> None:
    with pytest.raises(UsageError, match="nothing but spaces"):
        renderer_of("bytes").completion(text, scored=True)


# ---- conversations: from the prompt's ids on ----------------------------------------------------


@pytest.mark.parametrize("language", ["ja", "en"])
@pytest.mark.parametrize("family", FAMILIES)
@given(said=texts, answer=texts)
@many
def test_a_conversation_keeps_its_prompts_ids_and_loses_no_character_of_an_answer(
    tokenizer_of: Any, renderer_of: Any, family: str, language: str, said: str, answer: str
) -> None:
    renderer, tokenizer = renderer_of(family, language), tokenizer_of(family)
    prompt = renderer.prompt((Message(role="user", content=said),))
    option = renderer.option(answer, prompt)
    one = renderer.decode((*prompt.ids, *option))
    prompted = tokenizer.decode(tokenizer.encode(prompt.text), skip_special_tokens=True)
    assert one == prompted + prompt.lead + answer
    whole = tuple(tokenizer.encode(prompt.text + prompt.lead + answer, add_special_tokens=False))
    without_bos = prompt.ids[prompt.ids[0] == renderer.bos_id != whole[0] :]
    if whole[: len(without_bos)] == without_bos:
        assert (*without_bos, *option) == whole


def test_characters_that_merge_over_the_border_stay_in_the_answer(renderer_of: Any) -> None:
    renderer = renderer_of("bytes")
    prompt = renderer.prompt(ASK)
    whole = renderer.completion(prompt.text + "「三億円」").ids
    assert whole[: len(prompt.ids)] != prompt.ids
    assert renderer.decode(renderer.option("「三億円」", prompt)) == "「三億円」"


def test_an_answer_by_itself_gets_no_space_that_nobody_wrote(renderer_of: Any) -> None:
    renderer = renderer_of("llama2")
    prompt = renderer.prompt(ASK)
    whole = renderer.completion(prompt.text + "「三億円」").ids
    assert whole[: len(prompt.ids)] != prompt.ids
    pieces = renderer.pieces(renderer.option("「三億円」", prompt))
    assert "".join(pieces) == "「三億円」"


@pytest.mark.parametrize("family", FAMILIES)
@given(answer=texts.filter(str.strip))
@many
def test_the_exam_scores_the_ids_that_training_teaches(
    renderer_of: Any, family: str, answer: str
) -> None:
    renderer = renderer_of(family)
    prompt = renderer.prompt(ASK)
    taught = lesson("e1", ASK, answer, renderer, 4096)
    assert taught.ids[: taught.start] == prompt.ids
    scored = renderer.option(answer, prompt)
    assert taught.ids[taught.start :][: len(scored)] == scored
    assert taught.ids[-1] in renderer.stop_ids


# ---- many at once -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_all_options_of_all_prompts_are_tokenised_in_one_call(
    renderer_of: Any, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = renderer_of(family)
    prompts = [renderer.prompt(ASK), renderer.completion("答え： ", delimiter="「", scored=True)]
    wanted = [("翌日", "はい"), ("はい", "三億円」", "blue")]
    alone = [
        tuple(renderer.option(t, p) for t in of) for p, of in zip(prompts, wanted, strict=True)
    ]
    calls: list[Any] = []
    tokenizer = renderer._tokenizer

    def counted(text: Any, **how: Any) -> Any:
        calls.append(text)
        return tokenizer(text, **how)

    monkeypatch.setattr(renderer, "_tokenizer", counted)
    assert renderer.options(prompts, wanted) == alone
    assert sum(isinstance(text, list) for text in calls) == 1


# ---- through an arm -----------------------------------------------------------------------------

CHOICES = ("red", "blue")
WHOLE = Question(
    id="q1",
    messages=(Message(role="user", content="Which colour?"),),
    form="choice",
    choices=CHOICES,
    completion="Q: Sky?\nA: blue\n\nQ: Which colour?\nA: ",
    delimiter="-",
)
WRITTEN = WHOLE.model_copy(
    update={"form": "short", "choices": (), "stop": ("\n", "Q:"), "max_tokens": 9}
)


def specialist(model: Any, prompt: PromptSpec | None = None, **parts: Any) -> Specialist:
    search = RetrievalSpec() if "retriever" in parts else None
    arm = Arm(name="a", prompt=prompt or PromptSpec(), retrieval=search)
    how: dict[str, Any] = {"base_model": "f", "base_digest": "f", "artifacts": {}, "language": "en"}
    return Specialist(candidate_of(arm, **how), model, **parts)


def test_the_control_sends_the_exact_text(fake_model: Any) -> None:
    model = fake_model("en")
    (answer,) = specialist(model).answer([WHOLE], show_options=True)
    (request,) = model.scored
    assert model.renderer.decode(request.prompt) == WHOLE.completion.rstrip()
    assert [model.renderer.decode(option) for option in request.options] == [" -red", " -blue"]
    assert request.prompt.count(model.renderer.bos_id) == 1
    assert answer.choice_lengths == (5, 6)
    (answer,) = specialist(model).answer([WRITTEN])
    (request,) = model.written
    assert model.renderer.decode(request.prompt.ids) == WRITTEN.completion
    assert (request.max_tokens, request.stop) == (9, ("\n", "Q:"))
    assert (answer.decoding.max_tokens, answer.decoding.stop) == (9, ("\n", "Q:"))


def test_what_an_arm_says_goes_before_the_text(fake_model: Any) -> None:
    class Shelf:
        def search(self, *_: Any, **__: Any) -> list[Passage]:
            row = {"number": 1, "chunk_id": "c", "document_id": "d", "title": "T", "text": "blue"}
            return [Passage(**row, start=0, end=4)]

    said = (Message(role="user", content="Who?"), Message(role="assistant", content="Me"))
    model = fake_model("en")
    spec = PromptSpec(system="Be brief.", format="One word.")
    parts: dict[str, Any] = {
        "retriever": Shelf(), "shots": lambda question: [Example(id="e", messages=said)]
    }  # fmt: skip
    list(specialist(model, spec, **parts).answer([WHOLE]))
    before = "Be brief.\n\nQuestion: Who?\nAnswer: Me\n\nDocuments:\n[1] (T) blue\n\nOne word.\n\n"
    assert model.renderer.decode(model.scored[0].prompt) == before + WHOLE.completion.rstrip()


@pytest.mark.parametrize(
    ("said", "kept"), [(" blue\nred", " blue"), ("\nblue", ""), (" blue ", " blue ")]
)
def test_a_written_answer_is_cut_as_the_harness_cuts_it(
    fake_model: Any, said: str, kept: str
) -> None:
    """At the first stop string, also where nothing was said before it; its spaces are left."""
    (answer,) = specialist(fake_model("en", say=lambda prompt: said)).answer([WRITTEN])
    assert answer.text == kept


def test_a_chat_endpoint_gets_the_text_as_one_message_and_a_choice_without_it(wire: Any) -> None:
    from tokka.models.endpoint import open_endpoint

    with open_endpoint(wire.url, hosts=[], api_key_env=None) as model:
        list(specialist(model).answer([WRITTEN]))
        list(specialist(model).answer([WHOLE]))
    (_, written), (_, chosen) = wire.bodies
    assert written["messages"] == [{"role": "user", "content": WRITTEN.completion}]
    assert chosen["messages"][0]["content"].startswith("Question: Which colour?\n\nA. red\nB. blue")
