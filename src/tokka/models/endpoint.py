"""Any OpenAI-compatible endpoint as a language model: vLLM, SGLang, llama.cpp, a cloud service.

Messages in, texts out, over `/chat/completions`: the endpoint hides its token ids, and a prompt's
hash covers its messages. With a renderer of our own, token ids go to `/completions` instead, the
same as everywhere else, and a service that puts a token of its own before them is refused. Neither
can score given options. Text leaves only for loopback or a listed host, redirects are not followed,
and the key comes from an environment variable and is never shown.

    with open_endpoint("http://127.0.0.1:8000/v1#qwen3-4b", hosts=[], api_key_env=None) as model:
        for result in model.generate([GenerateRequest(model.renderer.prompt(messages), 48)]): ...

One question's failure is that question's result (`finish="error"`, never kept in the memo); where
the key is refused, or nothing at all comes back, ServiceError stops the run.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from typing import Any, Self

import httpx

from tokka.errors import ServiceError, UsageError
from tokka.models.address import (
    Address,
    address_of,
    key_of,
    open_async_client,
    open_client,
)
from tokka.models.batches import answer_end
from tokka.models.messages import MessagesRenderer, hidden
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
from tokka.models.rendering import TokenRenderer, plain
from tokka.models.retries import is_retried, wait_seconds
from tokka.records import fingerprint

# Where the service itself is at fault and nothing has come back yet, this many lost questions say
# enough: each has been retried for a minute or so.
_HOPELESS_AFTER = 3
_REFUSED_KEY = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class Price:
    input_usd_per_million: float
    output_usd_per_million: float

    def of(self, tokens_in: int, tokens_out: int) -> float:
        return (
            tokens_in * self.input_usd_per_million + tokens_out * self.output_usd_per_million
        ) / 1e6


@dataclass(frozen=True, slots=True)
class _Outcome:
    result: GenerateResult
    service_failed: bool = False  # no answer at all, as opposed to a refusal of this question


class _Tally:
    """How one call fares, so that a dead service is named once instead of once a question."""

    def __init__(self) -> None:
        self._answered = self._lost = self._refused = 0
        self._last = ""

    def add(self, outcome: _Outcome) -> None:
        failed = outcome.result.finish == "error"
        self._answered += not failed
        self._lost += failed and outcome.service_failed
        self._refused += failed and not outcome.service_failed
        self._last = outcome.result.error or self._last

    def stop_if_hopeless(self, left: int) -> None:
        if self._answered:
            return
        if self._lost >= _HOPELESS_AFTER or (not left and self._lost):
            raise ServiceError(self._last)
        if not left and self._refused > 1:
            raise ServiceError(f"all {self._refused} requests were refused; the last: {self._last}")


class EndpointModel:
    """A LanguageModel over HTTP; made by `open_endpoint`."""

    def __init__(
        self,
        reference: str,
        address: Address,
        api_key: str,
        price: Price,
        timeout_seconds: float,
        retries: int,
        concurrency: int,
        max_context_tokens: int,
        renderer: TokenRenderer | None,
    ) -> None:
        url, self._model = address.url, address.model
        self.name, self.host, self._key = reference, address.host, api_key
        self.digest = fingerprint(["endpoint", self.name, *([renderer.digest] if renderer else [])])
        self.renderer: Renderer = renderer or MessagesRenderer()
        self.capabilities = Capabilities(
            scores_options=False,
            token_ids=renderer is not None,
            adapters=False,
            chat_template=self.renderer.chat_template,
            max_context_tokens=max_context_tokens,
        )
        self._route = "/completions" if renderer else "/chat/completions"
        self.url = url.copy_with(path=url.path.rstrip("/") + self._route)
        self.price, self.retries, self._concurrency = price, retries, concurrency
        self._client = open_client(address, api_key, timeout_seconds)
        self._how: tuple[Address, str, float] = (address, api_key, timeout_seconds)

    def score(
        self,
        requests: Sequence[ScoreRequest],
        memo: Memo | None = None,
        progress: Progress | None = None,
    ) -> Iterator[ScoreResult]:
        raise hidden("score options")

    def generate(
        self,
        requests: Sequence[GenerateRequest],
        memo: Memo | None = None,
        progress: Progress | None = None,
    ) -> Iterator[GenerateResult]:
        """Results in the order of the requests, each as soon as it and those before it are there.

        Raises ServiceError when the key or the model is refused, when the host redirects, or when
        nothing at all can be had from the service.
        """
        keys = [fingerprint([self.digest, self.body(request)]) for request in requests]
        done: dict[int, GenerateResult] = {}
        asked: dict[Future[_Outcome], int] = {}
        given_up = threading.Event()
        tally = _Tally()
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="tokka-endpoint")
        try:
            for index, request in enumerate(requests):
                entry = memo.get(keys[index]) if memo is not None else None
                if entry is None:
                    asked[pool.submit(self._ask, request, given_up)] = index
                    continue
                done[index] = GenerateResult(**entry)
                if progress is not None:
                    progress(1)
            for index in range(len(requests)):
                while index not in done:
                    for future in wait(asked, return_when=FIRST_COMPLETED).done:
                        outcome, place = future.result(), asked.pop(future)
                        done[place] = outcome.result
                        tally.add(outcome)
                        if memo is not None and outcome.result.finish != "error":
                            memo.put(keys[place], asdict(outcome.result))
                        if progress is not None:
                            progress(1)
                    tally.stop_if_hopeless(left=len(asked))
                yield done.pop(index)
        finally:
            given_up.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def open_async_client(self) -> httpx.AsyncClient:
        """A client of the same service for an event loop; its caller closes it."""
        return open_async_client(*self._how)

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"EndpointModel({self.name!r})"

    def body(self, request: GenerateRequest) -> dict[str, Any]:
        """What is sent for a request."""
        stop = list(request.stop)
        body: dict[str, Any] = {"model": self._model}
        if self.capabilities.token_ids:
            body["prompt"] = list(request.prompt.ids)
            body["stop_token_ids"] = sorted(self.renderer.stop_ids)
            # The service would stop at a line break before the answer's first character.
            stop = [s for s in stop if s == s.lstrip()]
        else:
            body["messages"] = plain(request.prompt.messages)
        body |= {
            "temperature": request.temperature,
            "seed": request.seed,
            "max_tokens": request.max_tokens,
        }
        return {**body, "stop": stop} if stop else body

    def _ask(self, request: GenerateRequest, given_up: threading.Event) -> _Outcome:
        """One question with its retries; `given_up` ends the waits.

        Raises ServiceError where no other question would fare better.
        """
        started = time.perf_counter()
        body, reason = self.body(request), ""
        for attempt in range(self.retries + 1):
            retry_after = None
            try:
                reply = self._client.post(self.url, json=body)
            except httpx.RequestError as error:
                reason = f"{type(error).__name__}: {self._clean(str(error))}"
            except RuntimeError as error:
                raise UsageError(f"{self.name}: the model is closed; open it again") from error
            else:
                if reply.status_code == 200:
                    return self._read(reply, request, time.perf_counter() - started)
                self._stop_if_hopeless(reply)
                reason = f"status {reply.status_code} {self._clean(reply.text)}".strip()
                if not is_retried(reply.status_code):
                    return self._failed(f"{self.host}: {reason}", started, service=False)
                retry_after = reply.headers.get("retry-after")
            last_try = attempt == self.retries
            if last_try or given_up.wait(wait_seconds(attempt, retry_after, random.random())):
                break
        tries = self.retries + 1
        return self._failed(
            f"{self.host}: no answer after {tries} tries (the last: {reason}); check that the "
            "service runs and has room, then run the same command again: finished answers are kept",
            started,
            service=True,
        )

    def _read(self, reply: httpx.Response, request: GenerateRequest, seconds: float) -> _Outcome:
        try:
            found = reply.json()
            choice = found["choices"][0]
            told = choice["text"] if self.capabilities.token_ids else choice["message"]["content"]
            text = told or ""
            # Half a surrogate pair is legal JSON but no text: it could be neither hashed nor kept.
            text = text.encode("utf-8", "replace").decode()
            usage = found.get("usage") or {}
            tokens_in = int(usage.get("prompt_tokens") or self.estimate(request))
            tokens_out = int(usage.get("completion_tokens") or self.renderer.count(text))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            error = (
                f"{self.host}: the answer is none of {self._route} ({self._clean(reply.text)!r}); "
                f"check that the URL ends where {self._route} follows"
            )
            result = GenerateResult("", 0, 0, False, "error", seconds, error=error)
            return _Outcome(result, service_failed=True)
        finish = "length" if choice.get("finish_reason") == "length" else "stop"
        if self.capabilities.token_ids:
            self.stop_if_prompt_changed(tokens_in, request)
            end = answer_end(text, request.stop)
            if end is not None:
                text, finish = text[:end], "stop"
        return _Outcome(
            GenerateResult(
                text=text,
                tokens_in=tokens_in,
                tokens_out=tokens_out,
                truncated=False,
                finish=finish,
                seconds=seconds,
                cost_usd=self.price.of(tokens_in, tokens_out),
            )
        )

    def stop_if_prompt_changed(self, counted: int, request: GenerateRequest) -> None:
        """A second BOS or a cut prompt would change every answer without a word."""
        sent = len(request.prompt.ids)
        if counted != sent:
            raise ServiceError(
                f"{self.host}: {sent} prompt tokens were sent and {counted} were counted, so it "
                "doesn't take token ids as they are; use a service that does (vLLM, SGLang, "
                "llama.cpp), or remove endpoint.tokenizer to send messages"
            )

    def estimate(self, request: GenerateRequest) -> int:
        """Tokens of the prompt, where the service doesn't say."""
        if self.capabilities.token_ids:
            return len(request.prompt.ids)
        return sum(self.renderer.count(message.content) for message in request.prompt.messages)

    def _stop_if_hopeless(self, reply: httpx.Response) -> None:
        status = reply.status_code
        if status in _REFUSED_KEY:  # bodies of such answers like to repeat the key
            raise ServiceError(
                f"{self.host}: status {status}, the key was refused; set the environment variable "
                "that the project file names as api_key_env, or ask the service's owner for access"
            )
        if status == 404:
            raise ServiceError(
                f"{self.host}: status 404 {self._clean(reply.text)}; check the path and the model "
                f"name in {self.name}"
            )
        if reply.is_redirect:
            target = self._clean(reply.headers.get("location", "nowhere").split("?")[0])
            raise ServiceError(
                f"{self.host}: status {status}, it redirects to {target}, which was not followed; "
                "write the final URL, and list its host under hosts if the text may go there"
            )

    def _failed(self, error: str, started: float, *, service: bool) -> _Outcome:
        seconds = time.perf_counter() - started
        return _Outcome(GenerateResult("", 0, 0, False, "error", seconds, error=error), service)

    def _clean(self, text: str) -> str:
        """One short line of somebody else's text, without the key."""
        if self._key:
            text = text.replace(self._key, "[key]")
        return " ".join(text.split())[:200]


def open_endpoint(
    reference: str,
    *,
    hosts: Sequence[str],
    api_key_env: str | None,
    input_usd_per_million: float = 0.0,
    output_usd_per_million: float = 0.0,
    timeout_seconds: float = 120.0,
    retries: int = 5,
    concurrency: int = 2,
    max_context_tokens: int = 8192,
    renderer: TokenRenderer | None = None,
) -> EndpointModel:
    """Open `http://host/v1#name`. Nothing is sent yet.

    `renderer` holds the served model's own tokenizer: prompts are then rendered here and sent as
    token ids to `/completions`.

    `hosts` are those to which text may be sent besides loopback; `api_key_env` names the
    environment variable that holds the key. Prices are per million tokens as the service reports
    them (estimated where it doesn't). Raises UsageError for a host that isn't listed, a missing key
    or a missing model name.
    """
    address = address_of(reference, hosts)
    return EndpointModel(
        reference,
        address,
        key_of(api_key_env, address.host),
        Price(input_usd_per_million, output_usd_per_million),
        timeout_seconds,
        retries,
        concurrency,
        max_context_tokens,
        renderer,
    )
