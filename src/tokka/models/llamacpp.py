"""A `.gguf` file as a language model, computed by llama.cpp in a child process.

GGUF + renderer → log-likelihoods and texts, token ids in and out over loopback HTTP. A native crash
or a killed parent leaves nothing behind; after a crash the child is started once more.

    with open_llamacpp(Path("model.gguf"), renderer, digest) as model:
        prompt = model.renderer.prompt(messages)
        for result in model.score([ScoreRequest(prompt.ids, options)]): ...

llama.cpp's quantised kernels give other numbers for other batch shapes: the same token after the
same prompt moved by 0.3 to 0.6 nats with where the cached prefix ended (600 tokens, Gemma 3 270M
Q4_K_M; 408 tokens, SmolLM2-135M Q4_1). So a prompt is always computed in blocks of 128 tokens
counted from its start, a cached prefix is cut back to whole blocks before it is used again, and an
option's tokens are computed one at a time. A result then depends on its own request alone, bit for
bit.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from tokka.errors import MissingExtra, ServiceError, UsageError
from tokka.models.batches import answer_end, truncate
from tokka.models.llamacpp_process import LlamaServer
from tokka.models.llamacpp_server import BLOCK_TOKENS
from tokka.models.protocol import (
    Capabilities,
    GenerateRequest,
    GenerateResult,
    Memo,
    Progress,
    Renderer,
    ScoreRequest,
    ScoreResult,
)
from tokka.models.safety import refuse_unsafe
from tokka.records import fingerprint

# llama.cpp takes the log of a 32-bit probability; below this one it is 0 and the log would be −∞.
LOWEST_LOGLIKELIHOOD = -104.0
_CERTAIN = 1000.0  # a logit bias that makes its token the sampled one, whatever the others are
T = TypeVar("T")


class _Gone(Exception):
    """The child process ended while it was being asked."""


class LlamaCppModel:
    """A LanguageModel over one GGUF; made by `open_llamacpp`. Callers take turns."""

    def __init__(
        self,
        path: Path,
        renderer: Renderer,
        digest: str,
        context_tokens: int,
        threads: int,
        log: Path | None,
    ) -> None:
        self.name, self.digest, self.renderer = str(path), digest, renderer
        self.capabilities = capabilities_of(renderer, context_tokens)
        self._made_by = ["llamacpp", _library_version(), digest, context_tokens, BLOCK_TOKENS]
        self._how = (path, context_tokens, threads, log)
        self._turn = threading.Lock()
        self._restarts_left = 1
        self._kept: tuple[int, ...] = ()  # whole blocks in the child's cache
        self._whole: tuple[int, ...] = ()  # a token that is a whole character, once one was needed
        self._tokens = 0  # of the vocabulary, once they were counted
        self._closed = False
        self._start()

    def score(
        self,
        requests: Sequence[ScoreRequest],
        memo: Memo | None = None,
        progress: Progress | None = None,
    ) -> Iterator[ScoreResult]:
        """Natural-log likelihoods. Against the dequantised weights in float32, SmolLM2-135M Q4_1
        differed by 0.08 nats a token on average, 0.12 at most (12 options)."""
        for request in requests:
            if not request.options or not all(request.options):
                raise UsageError("score: every request needs options of at least one token")
            entry = self._recall(
                ["score", request.prompt, request.options],
                memo,
                lambda r=request: asdict(self._score(r)),  # type: ignore[misc]
            )
            if progress is not None:
                progress(1)
            yield ScoreResult(tuple(entry["loglikelihoods"]), entry["truncated"], entry["seconds"])

    def generate(
        self,
        requests: Sequence[GenerateRequest],
        memo: Memo | None = None,
        progress: Progress | None = None,
    ) -> Iterator[GenerateResult]:
        """Texts; greedy at temperature 0, else plain sampling with the request's own seed."""
        for request in requests:
            how = [request.max_tokens, request.temperature, request.seed, request.stop]
            entry = self._recall(
                ["generate", request.prompt.ids, *how],
                memo,
                lambda r=request: asdict(self._generate(r)),  # type: ignore[misc]
            )
            if progress is not None:
                progress(1)
            yield GenerateResult(**entry)

    def close(self) -> None:
        self._closed = True
        self._client.close()
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _recall(self, what: list[Any], memo: Memo | None, compute: Callable[[], T]) -> T:
        key = fingerprint([*self._made_by, *what])
        entry: T | None = memo.get(key) if memo is not None else None
        if entry is None:
            with self._turn:
                entry = self._survive(compute)
            if memo is not None:
                memo.put(key, entry)
        return entry

    def _survive(self, compute: Callable[[], T]) -> T:
        """Compute; if the child dies meanwhile, start it once more and compute again."""
        while True:
            try:
                return compute()
            except _Gone as gone:
                reason = self._server.how_it_ended() or str(gone)
                self._client.close()
                self._server.close()
                if not self._restarts_left:
                    raise self._server.crashed(reason) from gone
                self._restarts_left -= 1
                self._start()

    def _score(self, request: ScoreRequest) -> ScoreResult:
        started = time.perf_counter()
        longest = max(len(option) for option in request.options)
        prompt, truncated = self._fit(request.prompt, longest)
        self._prefill(prompt, {"n_predict": 1})
        # From its first token on, also where options begin alike: a skipped token would be missing
        # in the child's cache, and two tokens computed together round differently from one.
        sums = (
            sum(
                self._next_token(prompt + option[:place], token)
                for place, token in enumerate(option)
            )
            for option in request.options
        )
        return ScoreResult(tuple(sums), truncated, time.perf_counter() - started)

    def _next_token(self, context: tuple[int, ...], token: int) -> float:
        """Log-likelihood of one token. llama.cpp has no prompt log-probabilities, but reports the
        sampled token's before any bias: the bias picks the token, the number is the model's own.
        """
        reply = self._sampled(context, token, 1)
        found = reply.get("completion_probabilities")
        if found is None:
            return self._unspoken(context, token)
        self._check_alone(reply, found[0]["id"], token)
        return _loglikelihood(found[0]["logprob"])

    def _sampled(self, context: tuple[int, ...], token: int, listed: int) -> dict[str, Any]:
        return self._ask(
            {
                "prompt": context,
                "n_predict": 1,
                "n_probs": listed,
                "temperature": 0,
                "samplers": ["temperature"],
                "logit_bias": [[token, _CERTAIN]],
                "cache_prompt": True,
            }
        )

    def _unspoken(self, context: tuple[int, ...], token: int) -> float:
        """Log-likelihood of a token that begins a character and doesn't end it, as each kanji's
        first byte where the vocabulary lacks it. The server says nothing of such a token until the
        character is whole, so another is sampled in its place, and all tokens are listed."""
        for other in self._whole or range(self._vocabulary()):
            reply = self._sampled(context, other, self._vocabulary())
            found = reply.get("completion_probabilities")
            if found is not None:
                self._whole = (other,)
                self._check_alone(reply, found[0]["id"], other)
                listed = {entry["id"]: entry["logprob"] for entry in found[0]["top_logprobs"]}
                return _loglikelihood(listed[token])
        raise ServiceError(f"llama.cpp: {self.name} has no token that is a whole character")

    def _check_alone(self, reply: dict[str, Any], found: int, token: int) -> None:
        computed = reply["timings"]["prompt_n"]
        if found != token or computed != 1:
            raise ServiceError(
                f"llama.cpp {_library_version()} did not score token {token} alone (got "
                f"{found}, {computed} tokens computed); install the version of xllamacpp "
                "that tokka's constraints name"
            )

    def _vocabulary(self) -> int:
        if not self._tokens:
            told = self._client.get("/v1/models").json()
            self._tokens = int(told["data"][0]["meta"]["n_vocab"])
        return self._tokens

    def _generate(self, request: GenerateRequest) -> GenerateResult:
        started = time.perf_counter()
        prompt, truncated = self._fit(request.prompt.ids, request.max_tokens)
        reply = self._prefill(
            prompt,
            {
                "n_predict": request.max_tokens,
                "temperature": request.temperature,
                "samplers": ["temperature"],
                "seed": request.seed & 0xFFFFFFFF,
                # The server would stop at a line break before the answer's first character.
                "stop": [s for s in request.stop if s == s.lstrip()],
                "return_tokens": True,
            },
        )
        text, finish = reply["content"], "length" if reply["stop_type"] == "limit" else "stop"
        spoken: list[int] = reply["tokens"]
        ends = [i for i, token in enumerate(spoken) if token in self.renderer.stop_ids]
        if ends:
            if reply["stop_type"] != "eos" or ends[0] < len(spoken) - 1:
                # An end of turn that this GGUF doesn't know as one: the rest was never meant.
                text, finish = self.renderer.decode(spoken[: ends[0]]), "stop"
            spoken = spoken[: ends[0]]
        end = answer_end(text, request.stop)
        if end is not None:
            text, finish = text[:end], "stop"
            spoken = spoken[: self._stopped_at(spoken, request.stop)]
        return GenerateResult(
            text=text,
            tokens_in=len(prompt),
            tokens_out=len(spoken),
            truncated=truncated,
            finish=finish,
            seconds=time.perf_counter() - started,
        )

    def _stopped_at(self, spoken: list[int], stop: tuple[str, ...]) -> int:
        """How many tokens it took to say a stop string: those behind it nobody asked for."""

        def stops(tokens: int) -> bool:
            return answer_end(self.renderer.decode(spoken[:tokens]), stop) is not None

        return 1 + bisect_left(range(1, len(spoken) + 1), True, key=stops)

    def _fit(self, prompt: tuple[int, ...], answer_tokens: int) -> tuple[tuple[int, ...], bool]:
        room = self.capabilities.max_context_tokens - answer_tokens
        if room < 1:
            raise UsageError(
                f"llama.cpp: {answer_tokens} answer tokens leave no room for a prompt in a context "
                f"of {self.capabilities.max_context_tokens}; open the model with a longer context"
            )
        return truncate(prompt, room)

    def _prefill(self, prompt: tuple[int, ...], how: dict[str, Any]) -> dict[str, Any]:
        """Compute a prompt in whole blocks from its start, reusing those that the cache holds."""
        blocks = (len(prompt) - 1) // BLOCK_TOKENS * BLOCK_TOKENS
        shared = 0
        for mine, theirs in zip(prompt[:blocks], self._kept, strict=False):
            if mine != theirs:
                break
            shared += 1
        shared = shared // BLOCK_TOKENS * BLOCK_TOKENS
        self._kept = ()
        if shared:
            # One other token makes the child drop everything behind the shared blocks.
            other = 1 if prompt[shared] == 0 else 0
            cut = (*prompt[:shared], other)
            self._ask({"prompt": cut, "n_predict": 1, "temperature": 0, "cache_prompt": True})
        reply = self._ask({**how, "prompt": prompt, "cache_prompt": shared > 0})
        if reply["timings"]["cache_n"] != shared:
            reply = self._ask({**how, "prompt": prompt, "cache_prompt": False})
        self._kept = prompt[:blocks]
        return reply

    def _start(self) -> None:
        self._server = LlamaServer(*self._how)
        self._kept = ()
        self._client = httpx.Client(
            base_url=self._server.url,
            headers=self._server.headers,
            timeout=httpx.Timeout(10.0, read=None),
            trust_env=False,
        )

    def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        if self._closed:
            raise UsageError(f"{self.name}: the model is closed; open it again")
        try:
            reply = self._client.post("/completion", json=body)
        except httpx.RequestError as error:
            raise _Gone(f"{type(error).__name__}: {error}") from error
        if reply.status_code != 200:
            raise ServiceError(
                f"llama.cpp: {self.name} answered {reply.status_code} ({reply.text[:200]}); "
                "check that the tokenizer belongs to this GGUF"
            )
        found: dict[str, Any] = reply.json()
        return found


def _loglikelihood(value: float | None) -> float:
    return LOWEST_LOGLIKELIHOOD if value is None else max(float(value), LOWEST_LOGLIKELIHOOD)


def open_llamacpp(
    path: Path,
    renderer: Renderer,
    digest: str,
    *,
    context_tokens: int = 4096,
    threads: int | None = None,
    log: Path | None = None,
) -> LlamaCppModel:
    """Open a GGUF. `renderer` must hold the GGUF's own tokenizer; `digest` covers both.

    `threads` defaults to the processors this process may use (results don't depend on it); `log`
    gets llama.cpp's own lines. Raises IntegrityError for a file that is no GGUF, MissingExtra
    without xllamacpp, ServiceError when llama.cpp can't load it.
    """
    refuse_unsafe(path)
    threads = threads or threads_here()
    return LlamaCppModel(path, renderer, digest, context_tokens, threads, log)


def capabilities_of(renderer: Renderer, context_tokens: int) -> Capabilities:
    """What a GGUF can do here, in a context of so many tokens."""
    return Capabilities(
        scores_options=True,
        token_ids=True,
        adapters=False,
        chat_template=renderer.chat_template,
        max_context_tokens=context_tokens,
        dtype="gguf",
        engine=f"xllamacpp {_library_version()}",
    )


def threads_here() -> int:
    """The processors that this process may use."""
    may_use = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(may_use(0)) if may_use else os.cpu_count() or 1


def _library_version() -> str:
    try:
        return version("xllamacpp")
    except PackageNotFoundError:
        raise MissingExtra(
            "xllamacpp is not installed; install it with: pip install 'tokka[llamacpp]'"
        ) from None
