"""Every family of architectures: scores and greedy answers equal whole forwards, one at a time."""

from __future__ import annotations

import random

import pytest

torch = pytest.importorskip("torch")
from families import (  # noqa: E402
    ALL,
    BOS,
    CONTEXT,
    KNOWN,
    SHAPES,
    TOLERANCE,
    UNKNOWN,
    WINDOW,
    WINDOWED,
    Words,
    cut,
    greedy_of,
    make,
    naive_score,
    opened,
    prompt_of,
    reference,
    scored,
    scores_of,
    some_ids,
    some_prompts,
    some_questions,
)

from tokka.models.protocol import GenerateRequest, ScoreRequest  # noqa: E402


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", ALL)
def test_scores_equal_whole_forwards_of_one_option_at_a_time(family: str, shape: str) -> None:
    """Pitfalls 3 and 5, whatever the batch and the order."""
    asked = some_questions(shape)
    expected = [scores_of(family, r.prompt, r.options) for r in asked]
    module = make(family)
    for budget in (16, 100, 4096):
        order = random.Random(budget).sample(range(len(asked)), len(asked))
        model = opened(family, module=module, batch_tokens=budget)
        for index, values in zip(order, scored(model, [asked[i] for i in order]), strict=True):
            assert values == pytest.approx(expected[index], abs=TOLERANCE, rel=0), budget


@pytest.mark.parametrize("shape", ["short start", "passages"])
@pytest.mark.parametrize("family", ALL)
def test_greedy_answers_equal_whole_forwards_of_one_token_at_a_time(
    family: str, shape: str
) -> None:
    """Pitfall 4: "greedy" that samples. The seed is given and must not matter."""
    prompts = [p for p in some_prompts(shape) if greedy_of(family, p.ids, 10)[1] > 1e-3]
    assert len(prompts) >= 4
    module = make(family)
    for budget in (16, 4096):
        order = random.Random(budget).sample(prompts, len(prompts))
        asked = [
            GenerateRequest(prompt, (10, 3, 1, 7)[n % 4], seed=n) for n, prompt in enumerate(order)
        ]
        model = opened(family, Words(stop_ids=frozenset()), module, batch_tokens=budget)
        for request, result in zip(asked, model.generate(asked), strict=True):
            expected, _ = greedy_of(family, request.prompt.ids, 10)
            assert result.text == Words().decode(expected[: request.max_tokens])
            assert (result.tokens_out, result.finish) == (request.max_tokens, "length")


@pytest.mark.parametrize("family", ALL)
def test_a_prompt_beyond_the_context_is_scored_and_continued_from_bos_and_its_end(
    family: str,
) -> None:
    draw = random.Random(3)
    long = (BOS, *some_ids(draw, CONTEXT + 40))
    longest, short = some_ids(draw, 5), some_ids(draw, 1)
    fits = (BOS, *some_ids(draw, CONTEXT - 5))  # with an option of 5, whose last token is not fed
    asked = [ScoreRequest(long, (longest, short)), ScoreRequest(fits, (longest,))]
    model = opened(family, Words(stop_ids=frozenset()))
    results = list(model.score(asked))
    assert [r.truncated for r in results] == [True, False]
    for request, result in zip(asked, results, strict=True):
        expected = scores_of(family, request.prompt, request.options)
        assert result.loglikelihoods == pytest.approx(expected, abs=TOLERANCE, rel=0)
    (said,) = model.generate([GenerateRequest(prompt_of(long), 6)])
    kept = cut(long, CONTEXT - 6)
    assert (said.truncated, said.tokens_in) == (True, len(kept))
    expected_ids, lead = greedy_of(family, kept, 6)
    assert lead > 1e-3 and said.text == Words().decode(expected_ids)


def test_a_family_that_isnt_known_takes_the_plain_path_and_says_so() -> None:
    for family in ALL:
        said: list[str] = []
        opened(family, notice=said.append)
        if family in KNOWN:
            assert said == [], family
        if family in UNKNOWN:
            assert len(said) == 1 and "plain path" in said[0] and family in said[0]


# ---- settings that look like a window and aren't, or the other way round ------------------------


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"sliding_window": WINDOW}),
        ("qwen2", {"sliding_window": WINDOW, "use_sliding_window": False}),
        ("qwen3", {"sliding_window": WINDOW, "use_sliding_window": False}),
        ("qwen3-moe", {"sliding_window": WINDOW, "use_sliding_window": False}),
        ("qwen3", {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 1}),
        ("qwen3-moe", {"sliding_window": WINDOW, "use_sliding_window": True}),
        ("qwen2-moe", {"sliding_window": WINDOW, "use_sliding_window": True}),
        ("mixtral", {"sliding_window": WINDOW}),
        ("gemma3", {"sliding_window": 1}),
        ("mistral", {"sliding_window": CONTEXT}),
    ],
)
def test_a_window_is_what_the_architecture_makes_of_it(
    family: str, settings: dict[str, object]
) -> None:
    """Llama's own code knows no window, whatever its config.json says; Qwen's has a switch."""
    asked = some_questions("long start")
    module = make(family, **settings)
    expected = [tuple(naive_score(module, r.prompt, o) for o in r.options) for r in asked]
    values = scored(opened(family, module=module, batch_tokens=100), asked)
    for mine, theirs in zip(values, expected, strict=True):
        assert mine == pytest.approx(theirs, abs=TOLERANCE, rel=0)


# ---- whether these models could show a mistake --------------------------------------------------


@pytest.mark.parametrize("family", WINDOWED)
def test_the_windows_of_these_models_change_what_they_say(family: str) -> None:
    wide = make(family, sliding_window=10 * CONTEXT)
    prompt, option = (BOS, *some_ids(random.Random(1), 3 * WINDOW)), (7, 8)
    apart = naive_score(wide, prompt, option) - naive_score(reference(family), prompt, option)
    assert abs(apart) > 100 * TOLERANCE


@pytest.mark.parametrize("family", ALL)
def test_tokens_that_change_places_change_what_these_models_say(family: str) -> None:
    """So a place that is off by one would show."""
    draw = random.Random(2)
    first, second = 10, 15
    ids = [BOS, *some_ids(draw, 25)]
    for near in (0, 5):  # within the window too
        swapped = list(ids)
        i, j = first + near, second + near
        swapped[i], swapped[j] = swapped[j], swapped[i]
        (one,), (other,) = (scores_of(family, tuple(told), [(7, 8)]) for told in (ids, swapped))
        assert abs(one - other) > 10 * TOLERANCE
    said = {token for p in some_prompts("apart") for token in greedy_of(family, p.ids, 10)[0]}
    assert len(said) > 8


@pytest.mark.parametrize("family", KNOWN)
def test_fused_attention_as_on_an_accelerator_gives_the_same_scores(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = some_questions("long start")
    expected = [scores_of(family, r.prompt, r.options) for r in asked]
    monkeypatch.setattr("tokka.models.attention.tiled", lambda device: False)
    for found, values in zip(scored(opened(family), asked), expected, strict=True):
        assert found == pytest.approx(values, abs=TOLERANCE, rel=0)
