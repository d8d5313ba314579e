"""What the plan of shared work must not change: options, orders, batches, neighbours, resumption.

`test_families.py` holds every architecture against whole forwards; here are the awkward requests,
on a few that differ in their masks and heads.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from families import (  # noqa: E402
    BOS,
    CONTEXT,
    KNOWN,
    TOLERANCE,
    VARIED,
    Shelf,
    make,
    naive_score,
    opened,
    scored,
    scores_of,
    some_ids,
    some_questions,
)
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from tokka.errors import UsageError  # noqa: E402
from tokka.models.head import leaders  # noqa: E402
from tokka.models.protocol import ScoreRequest  # noqa: E402

START = (BOS, *some_ids(random.Random(4), 29))  # longer than the window
varied = pytest.mark.parametrize("family", VARIED)


@pytest.fixture
def draw(request: pytest.FixtureRequest) -> random.Random:
    """Each test's own, so that it asks the same alone as among others."""
    return random.Random(request.node.name)


def same_as_alone(family: str, asked: list[ScoreRequest], values: list[tuple[float, ...]]) -> None:
    assert len(values) == len(asked)
    for request, mine in zip(asked, values, strict=True):
        theirs = scores_of(family, request.prompt, request.options)
        assert mine == pytest.approx(theirs, abs=TOLERANCE, rel=0)


# ---- options ------------------------------------------------------------------------------------


@varied
@pytest.mark.parametrize("count", [1, 2, 12])
def test_options_of_one_token_are_read_from_the_prompts_last_state(family: str, count: int) -> None:
    asked = [ScoreRequest(START, tuple((i,) for i in range(5, 5 + 16 * count, 16)))]
    same_as_alone(family, asked, scored(opened(family), asked))


@varied
def test_options_of_one_token_share_one_probability(family: str) -> None:
    model = opened(family)
    (values,) = scored(model, [ScoreRequest(START, tuple((i,) for i in range(211)))])
    assert sum(torch.tensor(values).double().exp()).item() == pytest.approx(1.0, abs=1e-4)


@varied
def test_options_that_begin_alike_or_end_where_another_goes_on(
    draw: random.Random, family: str
) -> None:
    stem, tail = some_ids(draw, 3), some_ids(draw, 2)
    options = (stem + tail, stem, stem[:1], stem + tail[:1], stem[:2] + tail, tail, stem + tail)
    asked = [ScoreRequest(START, options), ScoreRequest(START, options[::-1])]
    for budget in (16, 4096):
        values = scored(opened(family, batch_tokens=budget), asked)
        same_as_alone(family, asked, values)
        assert values[0][0] == values[0][-1]  # the same option twice


@varied
def test_an_option_among_others_is_worth_what_it_is_worth_alone(
    draw: random.Random, family: str
) -> None:
    option = some_ids(draw, 5)
    others = tuple(some_ids(draw, n) for n in (1, 5, 2, 4, 1, 3, 9, 2, 5, 2))
    model = opened(family)
    (alone,) = scored(model, [ScoreRequest(START, (option,))])
    (among,) = scored(model, [ScoreRequest(START, (*others[:4], option, *others[4:], option))])
    assert (among[4], among[-1]) == pytest.approx((*alone, *alone), abs=TOLERANCE / 2, rel=0)


@varied
def test_an_option_longer_than_the_window_and_the_budget(draw: random.Random, family: str) -> None:
    options = (some_ids(draw, 40), some_ids(draw, 3))
    asked = [ScoreRequest(START[:9], options)]
    same_as_alone(family, asked, scored(opened(family, batch_tokens=16), asked))


@varied
def test_an_option_may_leave_hardly_any_room_for_its_prompt_but_no_less_than_none(
    draw: random.Random,
    family: str,
) -> None:
    option = some_ids(draw, CONTEXT - 1)
    asked = [ScoreRequest(START, (option, option[:5])), ScoreRequest(START[:4], (option[:9],))]
    model = opened(family, batch_tokens=64)
    results = list(model.score(asked))
    same_as_alone(family, asked, [r.loglikelihoods for r in results])
    assert [r.truncated for r in results] == [True, False]
    with pytest.raises(UsageError, match=f"option of {CONTEXT + 1} tokens"):
        list(model.score([*asked, ScoreRequest(START, ((*option, 5, 6),))]))


def test_a_request_without_options_or_with_an_empty_one_is_refused() -> None:
    model = opened("llama")
    for options in ((), ((5,), ())):
        with pytest.raises(UsageError, match="at least one token"):
            list(model.score([ScoreRequest(START, options)]))
    assert list(model.score([])) == []


# ---- prompts ------------------------------------------------------------------------------------


@varied
def test_the_same_prompt_twice_and_prompts_that_others_go_on_from(
    draw: random.Random, family: str
) -> None:
    prompts = [START, START[:10], START, START[:1], START[:11], START[:29], START[:10]]
    asked = [ScoreRequest(p, (some_ids(draw, 2), some_ids(draw, 1))) for p in prompts]
    for budget in (16, 40, 4096):
        same_as_alone(family, asked, scored(opened(family, batch_tokens=budget), asked))


@varied
def test_a_prompt_that_ends_where_an_option_of_another_goes_on(
    draw: random.Random, family: str
) -> None:
    option = some_ids(draw, 4)
    asked = [
        ScoreRequest(START, (option, option[:2])),
        ScoreRequest(START + option[:3], (option[3:], option)),
    ]
    values = scored(opened(family), asked)
    same_as_alone(family, asked, values)


@varied
def test_prompts_longer_than_a_batch_alone_and_with_a_shared_start(
    draw: random.Random, family: str
) -> None:
    asked = [
        ScoreRequest((BOS, *some_ids(draw, 120)), (some_ids(draw, 3),)),
        *(
            ScoreRequest(START + some_ids(draw, n), (some_ids(draw, 3), some_ids(draw, 1)))
            for n in (90, 17, 60, 5)
        ),
    ]
    for budget in (16, 33):
        same_as_alone(family, asked, scored(opened(family, batch_tokens=budget), asked))


@varied
def test_starts_within_starts_are_told_apart(draw: random.Random, family: str) -> None:
    """All share shots, half of them a passage, a quarter also the beginning of the question."""
    passages, openings = [some_ids(draw, n) for n in (21, 34)], [some_ids(draw, n) for n in (9, 12)]
    asked = [
        ScoreRequest(START + passage + opening + some_ids(draw, n), (some_ids(draw, 3), (9,)))
        for passage in passages
        for opening in openings
        for n in (2, 8)
    ]
    draw.shuffle(asked)
    for budget in (16, 64, 4096):
        same_as_alone(family, asked, scored(opened(family, batch_tokens=budget), asked))


@varied
@pytest.mark.parametrize("budget", [16, 4096])
def test_prompts_beyond_the_context_keep_bos_and_their_end_each_and_say_so(
    draw: random.Random, family: str, budget: int
) -> None:
    """What is left of them may share a start that the whole ones didn't, or the other way round."""
    long = START + some_ids(draw, CONTEXT)
    asked = [
        ScoreRequest(long, (some_ids(draw, 4),)),
        ScoreRequest(START + some_ids(draw, 3), (some_ids(draw, 4),)),
        ScoreRequest(long[:1] + long[7:], (some_ids(draw, 4), some_ids(draw, 1))),
        ScoreRequest(long, (some_ids(draw, 9),)),
        ScoreRequest(long[: CONTEXT - 3], (some_ids(draw, 4),)),
        ScoreRequest(long[: CONTEXT - 2], (some_ids(draw, 4),)),
    ]
    results = list(opened(family, batch_tokens=budget).score(asked))
    same_as_alone(family, asked, [r.loglikelihoods for r in results])
    assert [r.truncated for r in results] == [True, False, True, True, False, True]


# ---- anything -----------------------------------------------------------------------------------

POOL = random.Random(8)
SEGMENTS = [some_ids(POOL, n) for n in (1, 2, 7, 20, 33)]
ENDS = [some_ids(POOL, 1), some_ids(POOL, 1), some_ids(POOL, 3)]
PATHS = st.lists(st.sampled_from(SEGMENTS), max_size=4).map(lambda parts: sum(parts, (BOS,)))
OPTIONS = st.lists(
    st.lists(st.sampled_from(ENDS), min_size=1, max_size=2).map(lambda parts: sum(parts, ())),
    min_size=1,
    max_size=4,
).map(tuple)
REQUESTS = st.lists(st.builds(ScoreRequest, PATHS, OPTIONS), min_size=1, max_size=9)


@pytest.mark.parametrize("family", ["gemma3", "qwen2-window", "qwen3-moe"])
@settings(max_examples=30, deadline=None)
@given(asked=REQUESTS, budget=st.sampled_from([1, 16, 30, 70, 200, 4096]))
@example(asked=[ScoreRequest((BOS,), ((5,),))], budget=1)
def test_any_requests_in_any_order_and_batch_are_scored_as_each_alone(
    family: str, asked: list[ScoreRequest], budget: int
) -> None:
    """Prompts and options from a few pieces, so that they share starts in all ways there are."""
    model = opened(family, module=once(family), batch_tokens=budget)
    same_as_alone(family, asked, scored(model, asked))


MODULES: dict[str, Any] = {}


def once(family: str) -> Any:
    if family not in MODULES:
        MODULES[family] = make(family)
    return MODULES[family]


@varied
def test_neither_order_nor_budget_changes_a_score(family: str) -> None:
    """Pitfall 3: batch size changes scores."""
    asked = some_questions("passages", seed=1)
    first = scored(opened(family, batch_tokens=4096), asked)
    for budget in (16, 90, 600, 4096):
        model = opened(family, batch_tokens=budget)
        for mine, theirs in zip(scored(model, asked[::-1])[::-1], first, strict=True):
            assert mine == pytest.approx(theirs, abs=TOLERANCE / 2, rel=0)


# ---- work ---------------------------------------------------------------------------------------


def fed(model: Any, asked: list[ScoreRequest]) -> int:
    """Tokens that go through the model, padding included."""
    count = 0

    def see(_: Any, inputs: Any, __: Any) -> None:
        nonlocal count
        count += inputs[0].numel()

    hook = model.module.get_input_embeddings().register_forward_hook(see)
    scored(model, asked)
    hook.remove()
    return count


def texts(asked: list[ScoreRequest]) -> list[tuple[int, ...]]:
    """What has to be read: prompts with their options, but for the last token of each."""
    return [(r.prompt + option)[:-1] for r in asked for option in r.options]


@pytest.mark.parametrize("family", KNOWN)
def test_what_questions_and_options_share_is_computed_once(family: str) -> None:
    """Pitfall 5: the prompt computed again for every choice."""
    asked = some_questions("passages")
    starts = {text[: n + 1] for text in texts(asked) for n in range(len(text))}
    assert fed(opened(family, batch_tokens=4096), asked) == len(starts)


@pytest.mark.parametrize("budget", [64, 128, 256])
def test_what_doesnt_fit_into_a_batch_shares_a_cached_start(budget: int) -> None:
    """Padding included, no more than half again of what one batch for all would take."""
    asked = [
        ScoreRequest(START + r.prompt[1:], r.options)
        for seed in range(3)
        for r in some_questions("passages", seed)
    ]
    starts = {text[: n + 1] for text in texts(asked) for n in range(len(text))}
    assert len(starts) > 3 * budget
    assert fed(opened("gemma3", batch_tokens=budget), asked) < 1.5 * len(starts)


@pytest.mark.parametrize("family", KNOWN)
def test_attention_some_queries_at_a_time_changes_nothing(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of up to 300 tokens, 17 queries at a time, each tile against the keys that it sees."""
    monkeypatch.setattr("tokka.models.attention.TILE_QUERIES", 17)
    asked = some_questions("passages")
    for budget in (70, 4096):
        same_as_alone(family, asked, scored(opened(family, batch_tokens=budget), asked))


def test_the_plain_path_reads_each_option_after_its_prompt() -> None:
    asked = some_questions("short start")
    assert fed(opened("gpt2"), asked) == sum(map(len, texts(asked)))


# ---- the head -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {}),
        ("gemma3", {"final_logit_softcapping": 3.0}),
        ("gemma2", {}),
        ("granite", {}),
        ("cohere", {}),
    ],
)
def test_blocks_of_positions_and_of_the_vocabulary_add_up(
    family: str, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokka.models.head.VOCABULARY_BLOCK", 50)  # 211 = 4 × 50 + 11
    monkeypatch.setattr("tokka.models.head.POSITIONS_BLOCK", 3)
    asked = some_questions("apart")
    expected = [
        tuple(naive_score(make(family, **settings), r.prompt, o) for o in r.options) for r in asked
    ]
    values = scored(opened(family, module=make(family, **settings)), asked)
    for mine, theirs in zip(values, expected, strict=True):
        assert mine == pytest.approx(theirs, abs=TOLERANCE, rel=0)


@pytest.mark.parametrize("words", [211, 512, 2048, 4096, 6000])
@pytest.mark.parametrize("count", [1, 3, 32])
def test_the_leaders_of_a_row_are_its_largest(words: int, count: int) -> None:
    """However they lie: spread out, or side by side in one block."""
    logits = torch.randn((6, words), generator=torch.Generator().manual_seed(words))
    logits[0, 100:140] += 9
    logits[1, -40:] += 9
    logits[2, :: words // 40] += 9
    found = logits.gather(1, leaders(logits, count))
    assert torch.equal(found, logits.topk(count, dim=1).values)


@pytest.mark.parametrize("family", [*KNOWN, "gpt2"])
def test_bfloat16_scores_are_as_near_to_float32_as_the_models_own(family: str) -> None:
    asked = some_questions("passages")
    exact = [x for r in asked for x in scores_of(family, r.prompt, r.options)]
    module = make(family).bfloat16()
    theirs = [naive_score(module, r.prompt, o) for r in asked for o in r.options]
    mine = [x for row in scored(opened(family, module=module), asked) for x in row]

    def apart(values: list[float]) -> float:
        return sum(abs(a - b) for a, b in zip(values, exact, strict=True)) / len(exact)

    assert 0 < apart(mine) < 1.5 * apart(theirs)


# ---- resumption and progress --------------------------------------------------------------------


@varied
def test_a_killed_sitting_resumes_to_the_same_bits(family: str) -> None:
    """Pitfall 14: same seed, different score."""
    asked = some_questions("passages", seed=2)
    model = opened(family, batch_tokens=64)
    uninterrupted = scored(model, asked)
    shelf, done = Shelf(), list[int]()
    killed = model.score(asked, shelf, done.append)
    next(killed)
    killed.close()
    assert 0 < sum(done) < len(asked)
    kept = len(shelf)
    resumed = [r.loglikelihoods for r in model.score(asked, shelf, done.append)]
    assert resumed == uninterrupted
    assert len(shelf) > kept > 0


def test_progress_counts_every_request_once_as_batches_finish() -> None:
    asked = some_questions("passages", seed=3)
    done: list[int] = []
    results = list(opened("gemma3", batch_tokens=64).score(asked, progress=done.append))
    assert sum(done) == len(results) == len(asked)
    assert len(done) > 2 and min(done) > 0
    done.clear()
    list(opened("gpt2").score(asked, progress=done.append))
    assert sum(done) == len(asked)


# ---- memory -------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """The most elements that any one tensor had which was made meanwhile, in all and of booleans
    (masks)."""

    elements = 0
    booleans = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
                if tensor.dtype == torch.bool:
                    self.booleans = max(self.booleans, tensor.numel())
        return made


def largest(model: Any, asked: list[ScoreRequest]) -> Largest:
    with Largest() as seen:
        scored(model, asked)
    return seen


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_positions_by_vocabulary_are_never_held(draw: random.Random, family: str) -> None:
    """2²³ elements (32 MB in float32) is the most that a block of logits or a mask may have."""
    words = 60_000
    model = opened(family, module=make(family, vocab_size=words), batch_tokens=4096)
    asked = [
        ScoreRequest(START, tuple(some_ids(draw, 40) for _ in range(4))),
        *(ScoreRequest(START + some_ids(draw, 9), (some_ids(draw, 60),)) for _ in range(6)),
    ]
    positions = sum(len(option) for request in asked for option in request.options)
    assert positions * words > 3 * 2**23
    assert largest(model, asked).elements <= 2**23


def test_more_questions_need_no_more_memory_at_once() -> None:
    model = opened("gemma3", batch_tokens=256)
    few, many = (some_questions("passages", seed) for seed in (4, 5))
    for seed in range(6, 12):
        many += [ScoreRequest(few[0].prompt[:40] + r.prompt[1:], r.options) for r in few]
        many += some_questions("passages", seed)
    one = largest(model, few).elements
    assert len(many) > 10 * len(few)
    assert largest(model, many).elements <= 1.5 * one


def test_the_masks_of_a_batch_stay_within_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below a long start, fewer questions to a batch, whatever its budget of tokens."""
    start = START + START
    asked = [ScoreRequest((*start, n, *START[1:10]), ((7, 8), (9,))) for n in range(40, 80)]
    model = opened("llama", batch_tokens=200)
    unbounded = largest(model, asked).booleans
    monkeypatch.setattr("tokka.models.batches.MASK_CELLS", unbounded // 3)
    assert 0 < largest(model, asked).booleans <= unbounded // 3
    same_as_alone("llama", asked, scored(model, asked))
