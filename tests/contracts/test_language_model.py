"""What every language model promises (models/protocol.py): torch, llama.cpp and HTTP alike."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tokka.errors import UsageError
from tokka.models.protocol import GenerateRequest, ScoreRequest
from tokka.records import Message

KINDS = ("torch_smollm2", "torch_tiny", "llamacpp", "endpoint", "completions")
QUESTIONS = ("What is the capital of France?", "Name a fruit.", "Tell me a story about a long day.")
OPTIONS = ("Paris", "An apple", "A chair made of steel")


class Shelf(dict[str, str]):
    """A memo in memory, through JSON as the real one; `puts` counts what was computed."""

    puts = 0

    def get(self, key: str) -> Any | None:  # type: ignore[override]
        return json.loads(self[key]) if key in self else None

    def put(self, key: str, value: Any) -> None:
        self.puts += 1
        self[key] = json.dumps(value)


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, open_case: Callable[[str], Any]) -> Any:
    return open_case(request.param)


@pytest.fixture
def model(case: Any) -> Any:
    return case.model


@pytest.fixture
def scoring(case: Any) -> Any:
    if not case.model.capabilities.scores_options:
        pytest.skip("doesn't score options, and says so: see the test of capabilities")
    return case.model


def prompt(model: Any, text: str) -> Any:
    return model.renderer.prompt((Message(role="user", content=text),))


def requests(model: Any, max_tokens: int = 4, **how: Any) -> list[GenerateRequest]:
    return [GenerateRequest(prompt(model, text), max_tokens, **how) for text in QUESTIONS]


def score_requests(model: Any) -> list[ScoreRequest]:
    asked = [prompt(model, text) for text in QUESTIONS]
    options = model.renderer.options(asked, [OPTIONS] * len(asked))
    return [ScoreRequest(p.ids, of) for p, of in zip(asked, options, strict=True)]


@pytest.fixture(scope="session")
def remembered() -> dict[str, Any]:
    return {}


@pytest.fixture
def greedy(case: Any, remembered: dict[str, Any]) -> list[tuple[str, str, int]]:
    """What the model said to all questions when it was first asked."""
    if case.name not in remembered:
        remembered[case.name] = texts(case.model, requests(case.model))
    return remembered[case.name]


def texts(model: Any, asked: list[GenerateRequest]) -> list[tuple[str, str, int]]:
    return [(r.text, r.finish, r.tokens_out) for r in model.generate(asked)]


def test_capabilities_tell_the_truth(model: Any) -> None:
    able, rendered = model.capabilities, prompt(model, "Hi")
    assert able.chat_template == model.renderer.chat_template
    assert able.token_ids == bool(rendered.ids)
    assert rendered.hash_kind == ("tokens" if able.token_ids else "messages")
    assert able.max_context_tokens > 0
    assert re.fullmatch("[0-9a-f]{64}", model.digest)
    if not able.scores_options:
        with pytest.raises(UsageError, match="open the model itself"):
            list(model.score([ScoreRequest((1,), ((2,),))]))


def test_a_model_that_computes_here_names_what_computes_and_in_which_numbers(model: Any) -> None:
    """They decide results, so every answer carries them; a service hides them."""
    own = model.capabilities
    assert bool(own.engine) == bool(own.dtype) == own.scores_options


def test_the_prompt_hash_names_the_prompt(model: Any) -> None:
    first, again, other = (prompt(model, text) for text in ("Hi", "Hi", "Hi."))
    assert first.sha256 == again.sha256 != other.sha256
    assert re.fullmatch("[0-9a-f]{64}", first.sha256)
    if model.capabilities.token_ids:
        from tokka.models.rendering import hash_ids

        assert first.sha256 == hash_ids(first.ids)


def test_bos_stands_once_where_the_tokenizer_wants_one(case: Any, model: Any) -> None:
    if not model.capabilities.token_ids:
        pytest.skip("hides its token ids")
    ids, bos = prompt(model, "Hi").ids, model.renderer.bos_id
    assert ids[0] == bos and ids[1] != bos
    if not model.capabilities.chat_template:
        assert ids.count(bos) == 1
    (result,) = model.generate([GenerateRequest(prompt(model, "Hi"), 1)])
    assert result.tokens_in == len(ids)  # nothing was put before it on the way


def test_the_same_greedy_requests_give_the_same_texts_whatever_their_seed(
    model: Any, greedy: list[Any]
) -> None:
    assert texts(model, requests(model)) == greedy
    assert texts(model, requests(model, seed=2)) == greedy


def test_texts_depend_neither_on_order_nor_on_neighbours(model: Any, greedy: list[Any]) -> None:
    assert texts(model, requests(model)[::-1])[::-1] == greedy
    assert texts(model, requests(model)[1:2]) == greedy[1:2]


def test_sampling_is_repeated_by_its_seed(model: Any) -> None:
    def sampled(seed: int) -> list[Any]:
        return texts(model, requests(model, temperature=1.5, seed=seed)[-1:])

    assert sampled(3) == sampled(3)
    assert sampled(3) != sampled(4)


def test_an_answer_has_at_most_max_tokens_and_says_when_it_was_cut(model: Any) -> None:
    (result,) = model.generate(requests(model, max_tokens=3)[-1:])
    assert (result.tokens_out, result.finish) == (3, "length")
    assert not result.truncated  # of the prompt, nothing was lost


def test_a_stop_string_ends_the_answer_before_it(model: Any, greedy: list[Any]) -> None:
    asked = requests(model)[-1]
    full = greedy[-1][0]
    stop = full[len(full) // 2 :][:2]
    (result,) = model.generate([GenerateRequest(asked.prompt, 4, stop=(stop,))])
    assert (result.text, result.finish) == (full[: full.index(stop)], "stop")


def test_a_memo_replays_answers_without_the_model(model: Any) -> None:
    shelf, seen = Shelf(), list[int]()
    first = list(model.generate(requests(model), shelf))
    puts = shelf.puts
    # Equal to the measured second, which no second computation would be.
    assert list(model.generate(requests(model), shelf, seen.append)) == first
    assert 0 < puts == shelf.puts
    assert sum(seen) == len(QUESTIONS)
    list(model.generate(requests(model, max_tokens=5)[:1], shelf))
    assert shelf.puts > puts


def test_a_memo_replays_scores_without_the_model(scoring: Any) -> None:
    shelf = Shelf()
    first = list(scoring.score(score_requests(scoring), shelf))
    puts = shelf.puts
    assert list(scoring.score(score_requests(scoring), shelf)) == first
    assert 0 < puts == shelf.puts


def test_scores_depend_neither_on_order_nor_on_neighbours(case: Any, scoring: Any) -> None:
    asked = score_requests(scoring)
    together = [r.loglikelihoods for r in scoring.score(asked)]
    backwards = [r.loglikelihoods for r in scoring.score(asked[::-1])][::-1]
    alone = [next(scoring.score([asked[1]])).loglikelihoods]
    for mine, theirs in zip(together + together[1:2], backwards + alone, strict=True):
        assert mine == pytest.approx(theirs, abs=case.tolerance, rel=0)


def test_a_score_is_the_sum_of_its_steps(case: Any, scoring: Any) -> None:
    """log p(ab | x) = log p(a | x) + log p(b | xa): options are continuations, nothing else."""
    asked = prompt(scoring, "Hi")
    ids, (first, second, *_) = asked.ids, scoring.renderer.option("An apple", asked)
    whole, step = scoring.score(
        [ScoreRequest(ids, ((first, second), (first,))), ScoreRequest((*ids, first), ((second,),))]
    )
    assert all(value < 0 for value in whole.loglikelihoods)
    assert whole.loglikelihoods[0] == pytest.approx(
        whole.loglikelihoods[1] + step.loglikelihoods[0],
        # llama.cpp computes the step's prompt in another batch than a continuation.
        abs=case.tolerance or 0.5,
    )


@pytest.mark.parametrize("name", ["torch_tiny", "llamacpp"])
def test_a_prompt_beyond_the_context_is_cut_and_says_so(
    open_case: Callable[[str], Any], name: str
) -> None:
    model = open_case(name).model
    limit = model.capabilities.max_context_tokens
    long = prompt(model, "a b c d " * limit)
    assert len(long.ids) > limit
    (scored,) = model.score([ScoreRequest(long.ids, (model.renderer.option("x", long),))])
    (result,) = model.generate([GenerateRequest(long, 4)])
    assert scored.truncated and result.truncated
    assert result.tokens_in == limit - 4


def test_an_endpoint_refuses_a_prompt_beyond_its_context_instead_of_cutting_it(
    open_case: Callable[[str], Any],
) -> None:
    model = open_case("endpoint").model
    long = prompt(model, "a b c d " * model.capabilities.max_context_tokens)
    (result,) = model.generate([GenerateRequest(long, 4)])
    assert result.finish == "error" and "context" in result.error


def test_two_engines_agree_on_the_same_weights(open_case: Callable[[str], Any]) -> None:
    """Quantised kernels and dequantised weights in float32: 0.08 nats a token on average."""
    torch, llamacpp = open_case("torch_smollm2").model, open_case("llamacpp").model
    asked = score_requests(torch)[:2]
    assert (
        asked == score_requests(llamacpp)[:2]
    )  # the same tokens from the folder and from the GGUF
    for mine, theirs in zip(torch.score(asked), llamacpp.score(asked), strict=True):
        for option, a, b in zip(
            asked[0].options, mine.loglikelihoods, theirs.loglikelihoods, strict=True
        ):
            assert a == pytest.approx(b, abs=0.3 * len(option))


def test_a_completion_endpoint_says_what_llamacpp_says_to_the_same_ids(
    open_case: Callable[[str], Any],
) -> None:
    here, there = open_case("llamacpp").model, open_case("completions").model
    asked = requests(here)
    assert [r.prompt.ids for r in asked] == [r.prompt.ids for r in requests(there)]
    assert texts(here, asked) == texts(there, requests(there))
