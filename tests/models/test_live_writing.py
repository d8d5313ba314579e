"""What may be said of a growing text: whole characters, and nothing of a stop string."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokka.errors import ServiceError, UsageError
from tokka.models.batches import answer_end
from tokka.models.live_writing import Decoded, Flow, Spoken, refuse_too_long
from tokka.models.protocol import GenerateRequest, GenerateResult, Prompt

texts = st.text("ab\n 。", max_size=12)
stops = st.lists(st.text("ab\n 。", min_size=1, max_size=4), max_size=3)


@given(st.lists(st.text("ab\n 。", min_size=1, max_size=4), max_size=8), stops)
def test_what_is_said_is_what_the_exam_keeps(news: list[str], stop: list[str]) -> None:
    spoken, said, whole = Spoken(stop), "", ""
    for new in news:
        if spoken.ended:
            break
        said += spoken.add(new)
        whole += new
        kept = whole[: answer_end(whole, stop)]
        assert kept.startswith(said)
        assert spoken.ended == (answer_end(whole, stop) is not None)
        if spoken.ended:
            assert said == kept
    assert said + spoken.rest() == whole[: answer_end(whole, stop)]


@given(st.lists(st.text("ab\n 。", min_size=1, max_size=4), max_size=8), stops, texts)
def test_nothing_is_said_that_can_still_become_a_stop_string(
    news: list[str], stop: list[str], more: str
) -> None:
    """Whatever comes next, what was said stays."""
    spoken, said, whole = Spoken(stop), "", ""
    for new in news:
        said += spoken.add(new)
        whole += new
        if spoken.ended:
            return
        later = whole + more
        assert later[: answer_end(later, stop)].startswith(said)


def test_what_cannot_become_a_stop_string_is_said_at_once() -> None:
    spoken = Spoken(("。終", "\n\n"))
    assert [spoken.add(new) for new in ("\n\n締切", "は正午。", "\n", "です", "。終")] == [
        "\n\n締切", "は正午", "。", "\nです", "",
    ]  # fmt: skip
    assert spoken.ended


def byte_level() -> Any:
    """Every byte a token, and some pairs of them."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    rules = Tokenizer(models.BPE())
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    rules.train_from_iterator(["締切は翌営業日の正午まで the noon of the day"] * 3, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=rules, bos_token="<s>")


def sentencepiece() -> Any:
    """Of Gemma's and Llama's kind: spaces are ▁, the first is left out, bytes where no piece is."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, normalizers

    pieces = ["<unk>", "<s>", *(f"<0x{n:02X}>" for n in range(256))]
    pieces += ["▁", "▁the", "▁no", "on", "締", "切", "は", "。", "a"]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    rules = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    rules.normalizer = normalizers.Replace(" ", "▁")
    rules.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )  # fmt: skip
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=rules, bos_token="<s>", unk_token="<unk>"
    )


KINDS: dict[str, Any] = {}


def tokenizer(kind: str) -> Any:
    if kind not in KINDS:
        KINDS[kind] = {"bytes": byte_level, "pieces": sentencepiece}[kind]()
    return KINDS[kind]


def decoding(kind: str) -> Any:
    return lambda ids: tokenizer(kind).decode(list(ids), skip_special_tokens=True)


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
@settings(deadline=None)  # the first call makes a tokenizer
@given(data=st.data())
def test_pieces_of_a_text_are_the_text(kind: str, data: st.DataObject) -> None:
    """Characters of one to four bytes, however its tokens arrive, and special tokens among them."""
    said = data.draw(st.text("締切は。鷗𠮷👩 a the noon\n", max_size=12))
    ids = tokenizer(kind)(said, add_special_tokens=False).input_ids
    for place in data.draw(st.lists(st.integers(0, 12), max_size=2)):
        if kind == "bytes":
            break  # a special token inside a character leaves none
        ids.insert(place, tokenizer(kind).bos_token_id)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(ids)))) | {0, len(ids)})
    decode, decoded = decoding(kind), Decoded(decoding(kind))
    told = ""
    for start, stop in pairwise(cuts):
        new = decoded.add(ids[start:stop])
        assert "\ufffd" not in new or "\ufffd" in decode(ids)
        told += new
    whole = decode(ids)
    if "\ufffd" in whole:
        return  # a special token inside a character: there is no right text
    assert told == whole


def test_a_character_waits_for_its_last_byte() -> None:
    ids = [tokenizer("bytes").convert_tokens_to_ids(piece) for piece in "ðł®·"]
    assert decoding("bytes")(ids) == "𠮷"
    decoded = Decoded(decoding("bytes"))
    assert [decoded.add([one]) for one in ids] == ["", "", "", "𠮷"]


def result(text: str) -> GenerateResult:
    return GenerateResult(text, 1, 1, False, "stop", 0.0)


def test_what_came_before_anybody_listened_is_heard_first() -> None:
    async def listen() -> tuple[list[Any], Any]:
        flow = Flow(lambda: None)
        flow.tell("締", 1)
        flow.tell("", 2)
        flow.tell("切", 1)
        flow.end(result("締切"))
        flow.tell("ignored", 1)
        flow.fail(ServiceError("ignored"))
        return [(piece.text, piece.tokens) async for piece in flow], flow.result

    assert asyncio.run(listen()) == ([("締切", 4)], result("締切"))


def test_a_listener_who_waits_is_woken_by_text_end_failure_and_leaving() -> None:
    async def listen(wake: Any) -> Any:
        left: list[bool] = []
        flow = Flow(lambda: left.append(True))
        waiting = asyncio.ensure_future(anext(flow))
        await asyncio.sleep(0)
        wake(flow)
        try:
            return await waiting
        except (StopAsyncIteration, ServiceError) as error:
            return type(error), left

    told = asyncio.run(listen(lambda flow: flow.tell("a", 1)))
    assert told.text == "a"
    assert asyncio.run(listen(lambda flow: flow.end(result("")))) == (StopAsyncIteration, [])
    assert asyncio.run(listen(lambda flow: flow.fail(ServiceError("x")))) == (ServiceError, [])
    assert asyncio.run(listen(lambda flow: flow.cancel())) == (StopAsyncIteration, [True])


def test_a_failure_is_raised_after_what_was_said_before() -> None:
    async def listen() -> list[str]:
        flow = Flow(lambda: None)
        flow.tell("half", 1)
        flow.fail(ServiceError("the model broke down"))
        heard = [(await anext(flow)).text]
        with pytest.raises(ServiceError, match="broke down"):
            await anext(flow)
        return heard

    assert asyncio.run(listen()) == ["half"]


@pytest.mark.parametrize(("tokens", "answer", "fits"), [(6, 4, True), (7, 4, False), (1, 0, False)])
def test_a_prompt_and_its_answer_fit_or_are_refused(tokens: int, answer: int, fits: bool) -> None:
    request = GenerateRequest(Prompt((5,) * tokens, (), "", "tokens"), answer)
    if fits:
        refuse_too_long("m", request, 10)
        return
    with pytest.raises(UsageError, match=r"m: .*(7 tokens.*4.*10|got 0)"):
        refuse_too_long("m", request, 10)
