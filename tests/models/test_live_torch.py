"""Texts that share a step: they join, leave and fail without each other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tokka.errors import ServiceError
from tokka.models.protocol import GenerateRequest
from tokka.records import Message

torch = pytest.importorskip("torch")
from tokka.models.live_torch import TorchLive  # noqa: E402
from tokka.models.rendering import TokenRenderer  # noqa: E402
from tokka.models.torch_model import TorchModel  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def launch(
    make_module: Callable[..., Any], make_tokenizer: Callable[..., Any]
) -> Iterator[Callable[..., TorchLive]]:
    opened: list[TorchLive] = []

    def make(places: int = 2, architecture: str = "llama") -> TorchLive:
        module = make_module(architecture, num_hidden_layers=2, max_position_embeddings=512)
        module.config.eos_token_id = None
        renderer = TokenRenderer(make_tokenizer(), "ja")
        renderer.stop_ids = frozenset()  # a random model may end at once
        opened.append(TorchLive(TorchModel(module, renderer, name="tiny", digest="0" * 64), places))
        return opened[-1]

    yield make
    for live in opened:
        asyncio.run(live.close())


def asked(live: TorchLive, text: str, max_tokens: int, **how: Any) -> GenerateRequest:
    prompt = live.renderer.prompt((Message(role="user", content=text),))
    return GenerateRequest(prompt, max_tokens, **how)


async def read(writing: Any) -> list[Any]:
    return [piece async for piece in writing]


def test_a_text_joins_others_that_are_being_written(launch: Callable[..., TorchLive]) -> None:
    async def join() -> tuple[bool, str, str]:
        live = launch()
        long = live.write(asked(live, "長い", 120))
        await anext(long)
        late = live.write(asked(live, "遅い", 4))
        await read(late)
        still = long.result is None
        await read(long)
        assert late.result is not None and long.result is not None
        return still, long.result.text, late.result.text

    async def alone(text: str, tokens: int) -> str:
        live = launch()
        writing = live.write(asked(live, text, tokens))
        await read(writing)
        assert writing.result is not None
        return writing.result.text

    still, long, late = asyncio.run(join())
    assert still
    assert (long, late) == (asyncio.run(alone("長い", 120)), asyncio.run(alone("遅い", 4)))


def test_a_few_free_places_are_filled_at_once(launch: Callable[..., TorchLive]) -> None:
    """The exam waits for eight; here three wait for three that finish one by one."""

    async def watch() -> int:
        live = launch(places=12)
        most = 0
        step = live._step

        def watched() -> None:
            nonlocal most
            step()
            most = max(most, len(live._writing))

        live._step = watched  # type: ignore[method-assign]
        texts = [live.write(asked(live, "い", 150)) for _ in range(9)]
        await anext(texts[0])
        texts += [live.write(asked(live, "ろ", 4)) for _ in range(4)]
        await asyncio.gather(*map(read, texts[9:]))
        assert texts[0].result is None
        for text in texts:
            text.cancel()
        return most

    assert asyncio.run(watch()) == 12


@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_a_step_that_fails_takes_its_own_texts_and_no_others(
    launch: Callable[..., TorchLive], architecture: str
) -> None:
    async def fail() -> tuple[list[Any], Any]:
        live = launch(places=2, architecture=architecture)
        good = live._scheduler.step
        secret = "口座番号は1234567"

        def bad() -> Any:
            if len(live._writing) == 2:
                raise RuntimeError(f"out of memory near {secret}")
            return good()

        live._model.scheduler = scheduler_with(live, bad)  # type: ignore[method-assign]
        texts = [live.write(asked(live, secret, 8)) for _ in range(2)]
        third = live.write(asked(live, "三", 3))
        failures = await asyncio.gather(*map(read, texts), return_exceptions=True)
        await read(third)
        return failures, third.result

    failures, result = asyncio.run(fail())
    assert [type(failure) for failure in failures] == [ServiceError, ServiceError]
    assert "RuntimeError" in str(failures[0]) and "1234567" not in str(failures[0])
    assert result.tokens_out == 3


def test_after_a_failed_step_nothing_is_computed_until_somebody_asks(
    launch: Callable[..., TorchLive],
) -> None:
    async def fail() -> tuple[Any, bool]:
        live = launch()

        def bad() -> Any:
            raise RuntimeError

        live._model.scheduler = scheduler_with(live, bad)  # type: ignore[method-assign]
        (failure,) = await asyncio.gather(
            read(live.write(asked(live, "い", 8))), return_exceptions=True
        )
        return failure, live.between(lambda: live._scheduler.busy)

    failure, busy = asyncio.run(fail())
    assert isinstance(failure, ServiceError) and not busy


def scheduler_with(live: TorchLive, step: Callable[[], Any]) -> Callable[[int], Any]:
    """Makes schedulers of which the first steps as told."""
    make, first = live._model.scheduler, [True]

    def made(places: int) -> Any:
        scheduler = make(places)
        if first.pop() if first else False:
            scheduler.step = step  # type: ignore[method-assign]
        return scheduler

    return made


def test_a_place_that_was_left_is_free_between_two_steps(launch: Callable[..., TorchLive]) -> None:
    async def leave() -> tuple[int, Any]:
        live = launch(places=2)
        first, second = (live.write(asked(live, text, 150)) for text in ("い", "ろ"))
        await anext(first), await anext(second)
        first.cancel()
        third = live.write(asked(live, "は", 5))
        await read(third)
        written = len(live._writing)
        await read(second)
        return written, (second.result, third.result)

    written, (second, third) = asyncio.run(leave())
    assert written <= 2
    assert (second.tokens_out, third.tokens_out) == (150, 5)

    async def alone() -> Any:
        live = launch(places=2)
        writing = live.write(asked(live, "ろ", 150))
        await read(writing)
        return writing.result

    assert asyncio.run(alone()).text == second.text  # though it was moved to the other's slot


def test_texts_that_are_too_long_together_are_written_after_each_other(
    launch: Callable[..., TorchLive], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokka.models.live_torch.CACHE_TOKENS", 200)

    async def both() -> tuple[int, list[int]]:
        live = launch(places=2)
        most = 0
        step = live._step

        def watched() -> None:
            nonlocal most
            most = max(most, len(live._writing))
            step()

        live._step = watched  # type: ignore[method-assign]
        texts = [live.write(asked(live, "い", 120)) for _ in range(2)]
        await asyncio.gather(*map(read, texts))
        return most, [text.result.tokens_out for text in texts if text.result]

    assert asyncio.run(both()) == (1, [120, 120])


def test_whoever_asks_the_model_itself_after_closing_is_told(
    launch: Callable[..., TorchLive],
) -> None:
    live = launch()
    request = asked(live, "い", 2)
    (before,) = live.model.generate([request])
    assert before.tokens_out == 2
    assert threading.current_thread().name != "tokka-writing"
    asyncio.run(live.close())
    with pytest.raises(ServiceError, match="closed"):
        list(live.model.generate([request]))


def test_an_error_of_whoever_asks_the_model_itself_is_his_own(
    launch: Callable[..., TorchLive],
) -> None:
    live = launch()
    with pytest.raises(ZeroDivisionError):
        live.between(lambda: 1 // 0)
    assert live.between(lambda: 2) == 2
    assert live.ready


def test_a_loop_that_is_gone_stops_nobody(launch: Callable[..., TorchLive]) -> None:
    live = launch()

    async def start() -> None:
        await anext(live.write(asked(live, "い", 150)))

    asyncio.run(start())  # its listener never says goodbye

    async def ask() -> Any:
        writing = live.write(asked(live, "ろ", 3))
        await read(writing)
        return writing.result

    assert asyncio.run(ask()).tokens_out == 3
