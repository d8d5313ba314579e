"""Texts that grow side by side: each is what it would be alone, and ends where it should.

`test_families.py` holds every architecture's greedy answers against whole forwards; here are
neighbours, ends, seeds and resumption, on a few that differ in their masks and heads.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
from families import (  # noqa: E402
    BOS,
    CONTEXT,
    KNOWN,
    VARIED,
    Ids,
    Shelf,
    Words,
    cut,
    greedily,
    greedy_of,
    make,
    opened,
    prompt_of,
    reference,
    some_ids,
    some_prompts,
)

from tokka.errors import UsageError  # noqa: E402
from tokka.models.protocol import GenerateRequest, GenerateResult, Prompt  # noqa: E402

ENDLESS = Words(stop_ids=frozenset())
varied = pytest.mark.parametrize("family", VARIED)


def clear(family: str, prompts: Sequence[Prompt], tokens: int) -> list[Prompt]:
    """Prompts whose greedy answer is no near tie, which any other computation may break."""
    found = [p for p in prompts if greedy_of(family, p.ids, tokens)[1] > 1e-3]
    assert len(found) >= 4, "draw other prompts"
    return found


def shown(ids: Sequence[int]) -> str:
    return ENDLESS.decode(ids)


def texts(results: Sequence[GenerateResult]) -> list[str]:
    return [result.text for result in results]


# ---- neighbours ---------------------------------------------------------------------------------


@varied
@pytest.mark.parametrize("slots", [1, 3, 64])
def test_a_greedy_answer_is_the_same_whatever_stands_beside_it(family: str, slots: int) -> None:
    """Mixed lengths of prompts and answers, a shared start longer than the window or none, more
    texts than slots for them."""
    prompts = clear(family, some_prompts("passages") + some_prompts("long start"), 8)
    model = opened(family, ENDLESS, slots=slots)
    draw = random.Random(slots)
    crowd = draw.choices(prompts, k=70 if slots == 64 else 12)
    for asked in (
        [GenerateRequest(p, 8) for p in prompts[:1]],
        [GenerateRequest(p, 8) for p in prompts[2:4]],
        [GenerateRequest(p, draw.randint(1, 8)) for p in crowd],
    ):
        results = list(model.generate(asked))
        assert texts(results) == [
            shown(greedy_of(family, r.prompt.ids, 8)[0][: r.max_tokens]) for r in asked
        ]


@varied
@pytest.mark.parametrize("budget", [1, 16, 50, 300])
def test_a_greedy_answer_is_the_same_whatever_the_budget(family: str, budget: int) -> None:
    """Prompts longer than a batch too."""
    prompts = clear(family, some_prompts("long start"), 6)
    model = opened(family, ENDLESS, batch_tokens=budget)
    results = list(model.generate([GenerateRequest(p, 6) for p in prompts]))
    assert texts(results) == [shown(greedy_of(family, p.ids, 6)[0]) for p in prompts]


def test_a_greedy_answer_from_a_vocabulary_of_many_blocks() -> None:
    exact = make("llama", vocab_size=4096)
    prompts = some_prompts("long start")
    model = opened("llama", ENDLESS, make("llama", vocab_size=4096))
    for prompt, result in zip(
        prompts, model.generate([GenerateRequest(p, 6) for p in prompts]), strict=True
    ):
        said, lead = greedily(exact, prompt.ids, 6)
        assert lead < 1e-4 or result.text == shown(said)


@varied
def test_a_text_that_outgrows_the_window_and_the_room_first_given_to_it(family: str) -> None:
    """From one token on; and 70 tokens in slots of 64."""
    prompts = [prompt_of((BOS,)), *some_prompts("apart")]
    model, compared = opened(family, ENDLESS), 0
    for prompt, result in zip(
        prompts, model.generate([GenerateRequest(p, 70) for p in prompts]), strict=True
    ):
        said, lead = greedy_of(family, prompt.ids, 70)
        assert result.tokens_out == 70
        if lead > 1e-4:
            assert result.text == shown(said)
            compared += 1
    assert compared > 2


@pytest.mark.parametrize("prompt_tokens", [30, 45])
def test_a_rotation_that_depends_on_the_length_of_the_text_is_followed(prompt_tokens: int) -> None:
    """Phi-3's long rope turns all places otherwise once a text has more than 40 tokens here: the
    answer to a prompt of 30 grows over that, and nothing computed before it may be used after."""
    ids = [(BOS, *some_ids(random.Random(n), prompt_tokens - 1)) for n in range(6)]
    prompts = clear("phi3-longrope", [prompt_of(i) for i in ids], 20)
    results = list(
        opened("phi3-longrope", ENDLESS).generate([GenerateRequest(p, 20) for p in prompts])
    )
    assert texts(results) == [shown(greedy_of("phi3-longrope", p.ids, 20)[0]) for p in prompts]


# ---- ends ---------------------------------------------------------------------------------------


def ends_of(family: str, prompts: Sequence[Prompt], tokens: int) -> list[int]:
    """Two tokens that end some answers midway and leave others whole."""
    said = [greedy_of(family, p.ids, tokens)[0] for p in prompts]
    found = [
        token
        for token in sorted({t for ids in said for t in ids[1:]})
        if 0 < sum(token in ids for ids in said) < len(said) - 1
        and not any(token == ids[0] for ids in said)
    ]
    assert len(found) >= 2, "draw other prompts"
    return [found[0], found[-1]]


@varied
def test_eos_ends_an_answer_and_its_neighbours_go_on(family: str) -> None:
    """Pitfall 7: never stops."""
    prompts = clear(family, some_prompts("long start"), 10)
    ends = ends_of(family, prompts, 10)
    model = opened(family, Words(stop_ids=frozenset(ends)))
    finishes = set()
    for _ in range(2):
        asked = [GenerateRequest(p, 10) for p in prompts]
        for prompt, result in zip(prompts, model.generate(asked), strict=True):
            said, _ = greedy_of(family, prompt.ids, 10)
            end = min((said.index(e) for e in ends if e in said), default=10)
            assert result.text == shown(said[:end])  # EOS itself is not said
            assert result.finish == ("length" if end == 10 else "stop")
            finishes.add(result.finish)
        prompts = prompts[::-1]
    assert finishes == {"stop", "length"}


def test_an_answer_that_ends_at_once_says_nothing() -> None:
    (prompt, *_) = prompts = clear("gemma3", some_prompts("apart"), 4)
    end = greedy_of("gemma3", prompt.ids, 4)[0][0]
    model = opened("gemma3", Words(stop_ids=frozenset({end})))
    first, *others = model.generate([GenerateRequest(p, 4) for p in prompts])
    assert (first.text, first.finish, first.tokens_in) == ("", "stop", len(prompt.ids))
    assert len(others) == len(prompts) - 1


@varied
def test_one_token_is_one_token(family: str) -> None:
    prompts = clear(family, some_prompts("short start"), 1)
    for result, prompt in zip(
        opened(family, ENDLESS).generate([GenerateRequest(p, 1) for p in prompts]),
        prompts,
        strict=True,
    ):
        assert result.text == shown(greedy_of(family, prompt.ids, 1)[0])
        assert (result.tokens_out, result.finish) == (1, "length")


@varied
def test_a_stop_string_ends_an_answer_before_it_even_across_tokens(family: str) -> None:
    """Each request has its own; "12 207 45" is stopped by "2 2"."""
    prompts = clear(family, some_prompts("long start"), 9)
    whole = {p.ids: shown(greedy_of(family, p.ids, 9)[0]) for p in prompts}
    stops: list[tuple[str, ...]] = []
    for prompt in prompts:  # the end of the third token and the beginning of the next
        end = len(" ".join(whole[prompt.ids].split()[:3]))
        stops.append((whole[prompt.ids][end - 1 : end + 2],))
    stops[0] = ()
    stops[1] = ("never said", *stops[1])
    asked = [GenerateRequest(p, 9, stop=stop) for p, stop in zip(prompts, stops, strict=True)]
    for request, result in zip(asked, opened(family, ENDLESS).generate(asked), strict=True):
        text = whole[request.prompt.ids]
        found = [text.index(s) for s in request.stop if s in text]
        assert result.text == text[: min(found, default=None)]
        assert result.finish == ("stop" if found else "length")
        if found:  # it ends as soon as the stop string is whole
            end = min(found) + len(request.stop[-1])
            assert result.tokens_out == text[: end - 1].count(" ") + 1


def test_a_stop_string_counts_once_something_visible_was_said() -> None:
    (prompt, *_) = clear("llama", some_prompts("apart"), 8)
    said, _ = greedy_of("llama", prompt.ids, 8)
    first, second, end = said[0], said[1], next(i for i in said[3:] if i not in said[:3])
    assert first != second and said[2] not in (first, second)
    breaks = {first: "\n", second: " ", end: "\n"}

    def show(ids: Sequence[int]) -> str:
        return "".join(breaks.get(i, chr(0x4E00 + i)) for i in ids)

    model = opened("llama", Words(stop_ids=frozenset(), show=show))
    (result,) = model.generate([GenerateRequest(prompt, 8, stop=("\n",))])
    assert result.text.startswith("\n ") and result.finish == "stop"
    assert result.text == show(said[: min(said.index(i, 3) for i in (first, end) if i in said[3:])])


def test_characters_of_several_tokens_are_shown_and_stopped_at_whole() -> None:
    """Byte by byte: the answer's bytes are 答え。質問, whichever ids the model says."""
    spelt = "答え。質問".encode()
    (prompt, *_) = clear("llama", some_prompts("apart"), len(spelt))
    said, _ = greedy_of("llama", prompt.ids, len(spelt))

    def show(ids: Sequence[int]) -> str:
        """Any run of the answer, as a byte tokenizer would show it."""
        starts = [n for n in range(len(said)) if said[n : n + len(ids)] == tuple(ids)]
        return spelt[starts[0] : starts[0] + len(ids)].decode(errors="replace")

    model = opened("llama", Words(stop_ids=frozenset(), show=show))
    for stops, expected, tokens in [
        ((), "答え。質問", 15),
        (("質",), "答え。", 12),
        (("。質問",), "答え", 15),
    ]:
        (result,) = model.generate([GenerateRequest(prompt, 15, stop=stops)])
        assert (result.text, result.tokens_out) == (expected, tokens)
    (part,) = model.generate([GenerateRequest(prompt, 4)])
    assert part.text == spelt[:4].decode(errors="replace")


def test_an_answer_that_leaves_no_room_for_a_question_is_refused() -> None:
    with pytest.raises(UsageError, match=f"max_tokens {CONTEXT} leaves no room"):
        list(opened("llama").generate([GenerateRequest(prompt_of((BOS, 7)), CONTEXT)]))
    assert list(opened("llama").generate([])) == []


@varied
def test_prompts_beyond_the_context_are_cut_each_by_its_own_length_of_answer(family: str) -> None:
    draw = random.Random(6)
    start = (BOS, *some_ids(draw, 29))
    long = start + some_ids(draw, CONTEXT)
    cases: list[tuple[Ids, int]] = [
        (long, 3), (start + some_ids(draw, 4), 9), (long, 12), (long[: CONTEXT - 5], 5),
        (long[: CONTEXT - 4], 5),
    ]  # fmt: skip
    asked = [GenerateRequest(prompt_of(ids), tokens) for ids, tokens in cases]
    results = list(opened(family, ENDLESS).generate(asked))
    assert [r.truncated for r in results] == [True, False, True, False, True]
    for (ids, tokens), result in zip(cases, results, strict=True):
        kept = cut(ids, CONTEXT - tokens)
        said, lead = greedy_of(family, kept, tokens)
        assert (result.tokens_in, result.tokens_out) == (len(kept), tokens)
        if lead > 1e-3:
            assert result.text == shown(said)


@pytest.mark.parametrize("family", [*KNOWN, "gpt2"])
def test_bfloat16_answers_follow_the_likeliest_tokens(family: str) -> None:
    """What is said lies within rounding of the likeliest in float32, read by whole forwards."""
    prompts = some_prompts("long start")[:5]
    model = opened(family, ENDLESS, make(family).bfloat16())
    behind, spread = [], 0.0
    for prompt, result in zip(
        prompts, model.generate([GenerateRequest(p, 6) for p in prompts]), strict=True
    ):
        said = tuple(map(int, result.text.split()))
        ids = torch.tensor([prompt.ids + said])
        with torch.inference_mode():
            logits = reference(family)(input_ids=ids).logits[0, len(prompt.ids) - 1 : -1].float()
        behind += [float(row.max() - row[t]) for row, t in zip(logits, said, strict=True)]
        spread = float(logits.std())
    assert sum(behind) / len(behind) < 0.1 * spread  # any other token is 2 to 3 spreads behind


# ---- sampling -----------------------------------------------------------------------------------


@varied
def test_a_sample_depends_on_its_seed_and_not_on_its_neighbours(family: str) -> None:
    prompts = some_prompts("long start")
    asked = [GenerateRequest(p, 8, temperature=0.9, seed=n) for n, p in enumerate(prompts)]
    model = opened(family, ENDLESS)
    together = texts(list(model.generate(asked)))
    assert [texts(list(model.generate([request])))[0] for request in asked] == together
    mixed = [other for request in asked for other in (GenerateRequest(request.prompt, 3), request)]
    assert texts(list(model.generate(mixed[::-1])))[::-1][1::2] == together
    small = opened(family, ENDLESS, batch_tokens=16)
    assert texts(list(small.generate(asked))) == together
    again = [GenerateRequest(r.prompt, 8, temperature=0.9, seed=r.seed + 50) for r in asked]
    assert all(a != b for a, b in zip(texts(list(model.generate(again))), together, strict=True))


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "granite"])
def test_samples_follow_the_models_probabilities(family: str) -> None:
    """400 first tokens at temperature 0.5: each share within 4 standard errors of its
    probability."""
    prompt = some_prompts("long start")[0]
    asked = [GenerateRequest(prompt, 1, temperature=0.5, seed=n) for n in range(400)]
    counted = [int(r.text) for r in opened(family, ENDLESS).generate(asked)]
    with torch.inference_mode():
        logits = reference(family)(input_ids=torch.tensor([prompt.ids])).logits[0, -1].float()
    likely, tokens = torch.softmax(logits / 0.5, 0).topk(5)
    for p, token in zip(likely.tolist(), tokens.tolist(), strict=True):
        assert abs(counted.count(token) / 400 - p) < 4 * (p * (1 - p) / 400) ** 0.5
    assert likely[0] > 0.02


def test_a_temperature_close_to_zero_is_greedy() -> None:
    prompts = clear("gemma3", some_prompts("apart"), 6)
    asked = [GenerateRequest(p, 6, temperature=1e-4, seed=n) for n, p in enumerate(prompts)]
    results = list(opened("gemma3", ENDLESS).generate(asked))
    assert texts(results) == [shown(greedy_of("gemma3", p.ids, 6)[0]) for p in prompts]


# ---- resumption, progress, order ----------------------------------------------------------------


@varied
def test_a_killed_run_resumes_to_the_same_texts(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Greedy and sampled ones side by side, kept eight by eight."""
    monkeypatch.setattr("tokka.models.torch_model.WAVE", 8)
    prompts = (some_prompts("passages") + some_prompts("long start")) * 3
    asked = [
        GenerateRequest(p, 1 + n % 6, temperature=(0.0, 1.0)[n % 2], seed=n)
        for n, p in enumerate(prompts)
    ]
    model = opened(family, ENDLESS, batch_tokens=64)
    uninterrupted = list(model.generate(asked))
    shelf, done = Shelf(), list[int]()
    killed = model.generate(asked, shelf, done.append)
    for _ in range(12):
        next(killed)
    killed.close()
    assert 12 <= sum(done) < len(asked) and len(shelf) == 1
    done.clear()
    resumed = list(model.generate(asked, shelf, done.append))
    assert sum(done) == len(asked)
    assert [(r.text, r.finish, r.tokens_out) for r in resumed] == [
        (r.text, r.finish, r.tokens_out) for r in uninterrupted
    ]


def test_finished_answers_are_recalled_without_the_weights() -> None:
    asked = [GenerateRequest(p, 4) for p in some_prompts("passages")]
    model, shelf = opened("qwen3", ENDLESS), Shelf()
    first = list(model.generate(asked, shelf))
    model.close()
    done: list[int] = []
    assert list(model.generate(asked, shelf, done.append)) == first
    assert sum(done) == len(asked)


def test_results_come_in_order_while_others_are_still_being_written() -> None:
    """The longest answer is asked for in the middle; those before it don't wait for it."""
    prompts = some_prompts("passages") * 10
    lengths = [2] * len(prompts)
    lengths[len(prompts) // 2] = 60
    asked = [GenerateRequest(p, n) for p, n in zip(prompts, lengths, strict=True)]
    done: list[int] = []
    stream = opened("gemma3", ENDLESS).generate(asked, progress=done.append)
    first = next(stream)
    assert sum(done) < len(asked)
    results = [first, *stream]
    assert [r.tokens_out for r in results] == lengths
    assert [r.tokens_in for r in results] == [len(p.ids) for p in prompts]
    assert sum(done) == len(asked)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_results_can_be_had_in_the_order_in_which_they_finish(family: str) -> None:
    prompts = some_prompts("short start")[:3]
    asked = [GenerateRequest(p, n) for p, n in zip(prompts, (12, 2, 6), strict=True)]
    model = opened(family, ENDLESS)
    found = list(model.finished(asked))
    assert dict(found) == {
        i: replace(r, seconds=dict(found)[i].seconds) for i, r in enumerate(model.generate(asked))
    }
    if family == "llama":  # the plain path writes one after the other
        assert [index for index, _ in found] == [1, 2, 0]
