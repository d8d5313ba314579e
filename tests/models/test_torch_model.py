"""The fast exam engine against the slow obvious one: whole forwards, one request at a time."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokka.errors import UsageError
from tokka.models.protocol import GenerateRequest, Prompt, ScoreRequest
from tokka.models.rendering import TokenRenderer, hash_ids

torch = pytest.importorskip("torch")
from tokka.models.torch_model import TorchModel, load_module  # noqa: E402

WINDOW = 8  # of tests/conftest.py's gemma3_text
CONTEXT = 128
KINDS = ("gemma3_text", "gemma3_text capped", "llama", "gpt_neox", "opt")
FAST = KINDS[:3]
Open = Callable[..., TorchModel]


class Shelf(dict[str, str]):
    """A memo in memory, through JSON as the real one."""

    def get(self, key: str) -> Any | None:  # type: ignore[override]
        return json.loads(self[key]) if key in self else None

    def put(self, key: str, value: Any) -> None:
        self[key] = json.dumps(value)


@pytest.fixture(scope="session")
def open_tiny(make_module: Callable[..., Any], make_tokenizer: Callable[..., Any]) -> Open:
    modules: dict[str, Any] = {}

    def get(kind: str, **how: Any) -> TorchModel:
        if kind not in modules:
            name, _, capped = kind.partition(" ")
            modules[kind] = make_module(
                name, **({"final_logit_softcapping": 3.0} if capped else {})
            )
        renderer = TokenRenderer(make_tokenizer(), "en")
        return TorchModel(modules[kind], renderer, **{"name": kind, "digest": kind, **how})

    return get


def text_ids(rng: random.Random, length: int) -> tuple[int, ...]:
    return tuple(rng.randrange(5, 320) for _ in range(length))


def mixed_requests(shared: int, seed: int = 0, count: int = 7) -> list[ScoreRequest]:
    """Prompts of 2 to 40 tokens beyond a common start; one to five options of one to six tokens."""
    rng = random.Random(seed)
    start = (1, *text_ids(rng, shared))
    return [
        ScoreRequest(
            start + text_ids(rng, (17, 2, 40, 9, 30, 5, 24)[n % 7]),
            tuple(text_ids(rng, rng.randint(1, 6)) for _ in range(rng.randint(1, 5))),
        )
        for n in range(count)
    ]


@torch.inference_mode()
def naive(module: Any, prompt: tuple[int, ...], option: tuple[int, ...]) -> float:
    logits = module(input_ids=torch.tensor([prompt + option[:-1]])).logits[0].float()
    steps = torch.log_softmax(logits, dim=-1)[len(prompt) - 1 :]
    return float(steps.gather(1, torch.tensor(option)[:, None]).sum())


def naively(model: TorchModel, asked: list[ScoreRequest]) -> list[tuple[float, ...]]:
    return [tuple(naive(model.module, r.prompt, o) for o in r.options) for r in asked]


def scores(model: TorchModel, asked: list[ScoreRequest], memo: Any = None) -> list[Any]:
    return [r.loglikelihoods for r in model.score(asked, memo)]


def agree(mine: list[Any], theirs: list[Any], within: float = 1e-4) -> None:
    assert len(mine) == len(theirs)
    for a, b in zip(mine, theirs, strict=True):
        assert a == pytest.approx(b, abs=within, rel=0)


def prompts(lengths: list[int], shared: int = 0, seed: int = 3) -> list[Prompt]:
    rng = random.Random(seed)
    start = (1, *text_ids(rng, shared))
    ids = [start + text_ids(rng, length) for length in lengths]
    return [Prompt(i, (), hash_ids(i), "tokens") for i in ids]


@pytest.fixture
def as_ids(monkeypatch: pytest.MonkeyPatch) -> Callable[[TorchModel], None]:
    """Texts become the ids themselves, so that no special token hides in them."""

    def show(model: TorchModel) -> None:
        monkeypatch.setattr(model.renderer, "decode", lambda ids: " ".join(map(str, ids)))

    return show


# ---- log-likelihoods ----------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [0, 3, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_whole_forwards_of_one_option_at_a_time(
    open_tiny: Open, kind: str, shared: int
) -> None:
    asked = mixed_requests(shared)
    lengths = [len(r.prompt) - shared for r in asked]
    assert min(lengths) < WINDOW < max(lengths)
    model = open_tiny(kind, batch_tokens=96)
    agree(scores(model, asked), naively(model, asked))


@pytest.mark.parametrize("kind", KINDS)
def test_the_batch_budget_doesnt_change_scores(open_tiny: Open, kind: str) -> None:
    """Pitfall 3: batch size changes scores."""
    asked = mixed_requests(12, count=9)
    one, few, all_at_once = (
        scores(open_tiny(kind, batch_tokens=budget), asked) for budget in (1, 100, 10_000)
    )
    agree(one, few, 1e-4)
    agree(one, all_at_once, 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_requests_doesnt_change_scores(open_tiny: Open, kind: str) -> None:
    asked = mixed_requests(12)
    model = open_tiny(kind, batch_tokens=128)
    agree(scores(model, asked), scores(model, asked[::-1])[::-1], 1e-4)


@pytest.mark.parametrize("kind", FAST)
def test_options_beside_each_other_dont_see_each_other(open_tiny: Open, kind: str) -> None:
    """Pitfall 5 is avoided by putting options in one row; here is what that must not cost."""
    (asked,) = mixed_requests(12, count=1)
    option = text_ids(random.Random(9), 5)
    alone = ScoreRequest(asked.prompt, (option,))
    crowded = ScoreRequest(asked.prompt, (*asked.options, option, option))
    model = open_tiny(kind)
    (single,) = scores(model, [alone])
    (among,) = scores(model, [crowded])
    assert among[-2:] == pytest.approx((*single, *single), abs=1e-4, rel=0)


@pytest.mark.parametrize("kind", FAST)
def test_options_of_one_token_take_no_room_and_are_scored_alike(open_tiny: Open, kind: str) -> None:
    rng = random.Random(1)
    asked = [ScoreRequest((1, *text_ids(rng, 30)), tuple((i,) for i in range(5, 300, 40)))]
    model = open_tiny(kind)
    agree(scores(model, asked), naively(model, asked))
    (values,) = scores(model, [ScoreRequest(asked[0].prompt, tuple((i,) for i in range(320)))])
    assert sum(torch.tensor(values).exp()).item() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("kind", ["gemma3_text", "opt"])
def test_a_prompt_beyond_the_context_keeps_bos_and_its_end_and_says_so(
    open_tiny: Open, kind: str
) -> None:
    rng = random.Random(5)
    long, option = (1, *text_ids(rng, 200)), text_ids(rng, 4)
    fits = (1, *text_ids(rng, CONTEXT - len(option)))
    model = open_tiny(kind)
    cut, whole = model.score(
        [ScoreRequest(long, (option, option[:1])), ScoreRequest(fits, (option,))]
    )
    assert (cut.truncated, whole.truncated) == (True, False)
    kept = long[:1] + long[len(long) - (CONTEXT - len(option[:-1])) + 1 :]
    assert len(kept) + len(option[:-1]) == CONTEXT  # an option's last token is never read
    expected = tuple(naive(model.module, kept, o) for o in (option, option[:1]))
    assert cut.loglikelihoods == pytest.approx(expected, abs=1e-4)
    assert whole.loglikelihoods[0] == pytest.approx(naive(model.module, fits, option), abs=1e-4)


def test_an_unknown_architecture_takes_the_plain_path_and_says_so(open_tiny: Open) -> None:
    said: list[str] = []
    assert open_tiny("gpt_neox", notice=said.append).plain
    assert len(said) == 1 and "gpt_neox" in said[0] and "plain path" in said[0]
    for kind in FAST:
        assert not open_tiny(kind, notice=said.append).plain
    assert len(said) == 1


@pytest.mark.parametrize("kind", ["granite", "cohere", "phi"])
def test_scales_and_biases_of_other_heads_are_counted(
    make_module: Callable[..., Any], make_tokenizer: Callable[..., Any], kind: str
) -> None:
    """Granite divides its logits, Cohere multiplies them, Phi adds a bias."""
    module = make_module(kind, **({"logits_scaling": 8.0} if kind == "granite" else {}))
    if kind == "phi":
        torch.nn.init.normal_(module.lm_head.bias)
    renderer = TokenRenderer(make_tokenizer(), "en")
    model = TorchModel(module, renderer, name=kind, digest=kind)
    asked = mixed_requests(0, count=3)
    agree(scores(model, asked), naively(model, asked))


def test_logits_that_are_bent_in_an_unknown_way_are_refused(
    make_module: Callable[..., Any], make_tokenizer: Callable[..., Any]
) -> None:
    module = make_module("gpt_neox")
    forward = module.forward

    def bent(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.logits = out.logits * 0.5
        return out

    module.forward = bent
    with pytest.raises(UsageError, match="gpt_neox computes its logits in a way"):
        TorchModel(module, TokenRenderer(make_tokenizer(), "en"), name="odd", digest="odd")


def test_an_answer_that_leaves_no_room_for_a_question_is_refused(open_tiny: Open) -> None:
    (prompt,) = prompts([5])
    with pytest.raises(UsageError, match=f"max_tokens {CONTEXT} leaves no room"):
        list(open_tiny("llama").generate([GenerateRequest(prompt, CONTEXT)]))


def test_a_request_without_options_or_with_an_empty_one_is_refused(open_tiny: Open) -> None:
    for options in ((), ((5,), ())):
        with pytest.raises(UsageError, match="at least one token"):
            list(open_tiny("llama").score([ScoreRequest((1, 5), options)]))
    assert list(open_tiny("llama").score([])) == list(open_tiny("llama").generate([])) == []


# ---- generation ---------------------------------------------------------------------------------


def greedily(model: TorchModel, ids: tuple[int, ...], tokens: int, eos: int) -> list[int]:
    """What transformers' own `generate` says, EOS left out."""
    tensor = torch.tensor([ids])
    out = model.module.generate(
        tensor,
        attention_mask=torch.ones_like(tensor),
        do_sample=False,
        max_new_tokens=tokens,
        eos_token_id=eos,
        pad_token_id=0,
    )
    said = out[0, len(ids) :].tolist()
    return said[:-1] if said[-1] == eos else said


@pytest.mark.parametrize("shared", [0, 2 * WINDOW])
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_equals_transformers_own_token_by_token(
    open_tiny: Open, as_ids: Callable[[TorchModel], None], kind: str, shared: int
) -> None:
    """Pitfall 4: "greedy" that samples. The seed is given and must not matter."""
    model = open_tiny(kind, batch_tokens=64)
    as_ids(model)
    asked = [GenerateRequest(p, 12, seed=n) for n, p in enumerate(prompts([3, 30, 9, 14], shared))]
    results = list(model.generate(asked))
    for request, result in zip(asked, results, strict=True):
        expected = greedily(model, request.prompt.ids, 12, eos=2)
        assert result.text == " ".join(map(str, expected))
        assert result.tokens_out == len(expected)
        assert result.finish == ("length" if len(expected) == 12 else "stop")
        assert result.tokens_in == len(request.prompt.ids)
    assert len({r.text for r in results}) == len(results)


@pytest.mark.parametrize("kind", ["gemma3_text", "llama", "opt"])
def test_a_sample_depends_on_its_seed_and_not_on_its_neighbours(
    open_tiny: Open, as_ids: Callable[[TorchModel], None], kind: str
) -> None:
    model = open_tiny(kind, batch_tokens=256)
    as_ids(model)
    asked = [
        GenerateRequest(p, 10, temperature=1.3, seed=n)
        for n, p in enumerate(prompts([20, 21, 22, 23], shared=10))
    ]

    def said(requests: list[GenerateRequest]) -> list[str]:
        return [r.text for r in model.generate(requests)]

    together = said(asked)
    assert [said([request])[0] for request in asked] == together
    assert said(asked[::-1])[::-1] == together
    others = [GenerateRequest(r.prompt, 10, temperature=1.3, seed=r.seed + 9) for r in asked]
    assert all(a != b for a, b in zip(said(others), together, strict=True))


def test_sampling_follows_the_models_probabilities(open_tiny: Open, as_ids: Any) -> None:
    """600 first tokens at temperature 1: each share within 4 standard errors of its probability."""
    model = open_tiny("llama", batch_tokens=100_000)
    as_ids(model)
    (prompt,) = prompts([10], seed=11)
    asked = [GenerateRequest(prompt, 1, temperature=1.0, seed=n) for n in range(600)]
    counted = [int(r.text) for r in model.generate(asked) if r.text]
    logits = model.module(input_ids=torch.tensor([prompt.ids])).logits[0, -1]
    likely, tokens = torch.softmax(logits, 0).topk(4)
    for p, token in zip(likely.tolist(), tokens.tolist(), strict=True):
        share = counted.count(token) / 600
        assert abs(share - p) < 4 * (p * (1 - p) / 600) ** 0.5


@pytest.mark.parametrize("kind", ["gemma3_text", "gpt_neox"])
def test_eos_ends_an_answer_and_its_neighbours_go_on(
    open_tiny: Open,
    as_ids: Callable[[TorchModel], None],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """Pitfall 7: never stops."""
    model = open_tiny(kind)
    as_ids(model)
    first, second = prompts([12, 25])
    unstopped = [greedily(model, p.ids, 8, eos=2) for p in (first, second)]
    elsewhere = {*unstopped[0][:2], *unstopped[1]}
    end = next(token for token in unstopped[0][2:] if token not in elsewhere)
    monkeypatch.setattr(model.renderer, "stop_ids", frozenset({end}))
    stopped, other = model.generate([GenerateRequest(first, 8), GenerateRequest(second, 8)])
    expected = unstopped[0][: unstopped[0].index(end)]
    assert expected == greedily(model, first.ids, 8, eos=end)
    assert (stopped.text, stopped.finish) == (" ".join(map(str, expected)), "stop")
    assert (other.text, other.finish) == (" ".join(map(str, unstopped[1])), "length")


def test_a_stop_string_across_tokens_ends_the_answer_before_it(open_tiny: Open) -> None:
    model = open_tiny("llama")
    (prompt,) = prompts([12])
    (free,) = model.generate([GenerateRequest(prompt, 10)])
    stop = free.text[3:5]
    assert len(stop) == 2 and free.text.index(stop) > 0
    (cut,) = model.generate([GenerateRequest(prompt, 10, stop=("never said", stop))])
    assert (cut.text, cut.finish) == (free.text[: free.text.index(stop)], "stop")


def test_a_generation_prompt_beyond_the_context_is_cut_and_says_so(
    open_tiny: Open, as_ids: Callable[[TorchModel], None]
) -> None:
    model = open_tiny("llama")
    as_ids(model)
    (long,) = prompts([200])
    (result,) = model.generate([GenerateRequest(long, 8)])
    assert (result.truncated, result.tokens_in) == (True, CONTEXT - 8)
    kept = long.ids[:1] + long.ids[len(long.ids) - (CONTEXT - 8) + 1 :]
    assert result.text == " ".join(map(str, greedily(model, kept, 8, eos=2)))


# ---- memory of finished batches -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gemma3_text", "opt"])
def test_a_killed_sitting_resumes_to_identical_results(open_tiny: Open, kind: str) -> None:
    """Pitfall 14: same seed, different score. Equal to the last bit, not about equal."""
    model = open_tiny(kind, batch_tokens=80)
    # Longest first, as they are computed: the first result comes after the first batch.
    asked = sorted(mixed_requests(10, count=12), key=lambda r: -len(r.prompt))
    wanted = [GenerateRequest(p, 6) for p in prompts([30, 28, 5, 11, 50])]
    uninterrupted = scores(model, asked), [r.text for r in model.generate(wanted)]
    shelf, computed = Shelf(), list[int]()
    killed = model.score(asked, shelf, computed.append)
    next(killed)
    killed.close()
    next(model.generate(wanted, shelf))
    before = len(shelf)
    assert 0 < sum(computed) < len(asked)
    resumed = scores(model, asked, shelf), [r.text for r in model.generate(wanted, shelf)]
    assert resumed == uninterrupted
    assert len(shelf) > before


def test_finished_batches_are_recalled_without_the_weights(open_tiny: Open) -> None:
    model, shelf = open_tiny("llama", batch_tokens=80), Shelf()
    asked, wanted = mixed_requests(10), [GenerateRequest(p, 4) for p in prompts([9, 30])]
    first = list(model.score(asked, shelf)), list(model.generate(wanted, shelf))
    model.close()
    done: list[int] = []
    assert list(model.score(asked, shelf, done.append)) == first[0]
    assert list(model.generate(wanted, shelf, done.append)) == first[1]
    assert sum(done) == len(asked) + len(wanted)


def test_another_model_or_another_request_is_never_answered_from_memory(open_tiny: Open) -> None:
    shelf = Shelf()
    (asked,), (prompt,) = mixed_requests(10, count=1), prompts([12])
    other = ScoreRequest(asked.prompt, (*asked.options, (7,)))
    runs = [
        lambda: list(open_tiny("llama").score([asked], shelf)),
        lambda: list(open_tiny("llama").score([other], shelf)),
        lambda: list(open_tiny("llama", digest="adapted").score([asked], shelf)),
        *(
            lambda how=how: list(open_tiny("llama").generate([GenerateRequest(**how)], shelf))
            for how in (
                {"prompt": prompt, "max_tokens": 3},
                {"prompt": prompt, "max_tokens": 4},
                {"prompt": prompt, "max_tokens": 3, "stop": ("x",)},
                {"prompt": prompt, "max_tokens": 3, "temperature": 1.0},
                {"prompt": prompt, "max_tokens": 3, "temperature": 1.0, "seed": 1},
            )
        ),
    ]
    for number, run in enumerate(runs, 1):
        run()
        assert len(shelf) == number


# ---- loading ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "attention"), [("llama", "sdpa"), ("gemma3_text", "sdpa"), ("gemma2", "eager")]
)
def test_a_model_is_loaded_with_the_attention_that_it_knows(
    make_module: Callable[..., Any], tmp_path: Path, kind: str, attention: str
) -> None:
    """Gemma 2 caps its attention scores, which PyTorch's fused attention can't."""
    changes = {"head_dim": 8, "num_key_value_heads": 1} if kind == "gemma2" else {}
    make_module(kind, attn_implementation=attention, **changes).save_pretrained(str(tmp_path))
    module = load_module(tmp_path, "float32")
    assert module.config._attn_implementation == attention
    assert module.dtype == torch.float32
