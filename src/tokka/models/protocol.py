"""What a language model, an embedder and a renderer promise; `tests/contracts/` runs one suite
over all.

Token ids in, numbers or token ids out: a model has no opinions about prompts. Models that hide
their token ids (most HTTP endpoints) take messages instead and say so in `capabilities`.

    with open_model(ref, ...) as model:
        prompt = model.renderer.prompt(messages)
        for result in model.score([ScoreRequest(prompt.ids, options)]): ...

Both `score` and `generate` work in batches whose plan is a pure function of the requests; a `Memo`
keeps whole batches, because float results can depend on the batch shape. That one mechanism resumes
a killed sitting and makes reruns cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from tokka.models.thoughts import Thought
from tokka.records import HashKind, Messages


@dataclass(frozen=True, slots=True)
class Capabilities:
    scores_options: bool  # log-likelihood of given tokens
    token_ids: bool  # prompts are sent as token ids and can be hashed as such
    adapters: bool  # LoRA adapters can be attached
    chat_template: bool  # instruct model: rendered by its own template
    max_context_tokens: int
    dtype: str = ""  # of the weights as computed; empty where a service hides it
    engine: str = ""  # what computes, with its version: results may differ between two


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered conversation up to where the answer begins. `ids` and `text` are empty where
    tokens are hidden.

    `lead` stands between the prompt and an answer, and is tokenised with the answer. `verbatim`: a
    text to be continued as it stands, in which nothing is a role, a label or a template.
    """

    ids: tuple[int, ...]
    messages: Messages
    sha256: str
    hash_kind: HashKind
    text: str = ""
    lead: str = ""
    verbatim: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """A text by itself. `before`: BOS where the tokenizer wants one, else nothing. `ids`: the text
    and EOS, where the tokenizer has one; empty for a text of no tokens."""

    before: tuple[int, ...]
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Options are continuations of the prompt, tokenised by the renderer (at least one token
    each)."""

    prompt: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """Natural-log likelihood of each option (sum over its tokens), in the order of the request."""

    loglikelihoods: tuple[float, ...]
    truncated: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """`stop` strings count once something visible was said. `temperature` 0 is greedy. `seed` is
    per request, so that a result doesn't depend on neighbours."""

    prompt: Prompt
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GenerateResult:
    text: str
    tokens_in: int
    tokens_out: int
    truncated: bool
    finish: str  # "stop" (EOS or stop string) | "length" | "error"
    seconds: float
    cost_usd: float = 0.0
    error: str = ""


class Memo(Protocol):
    """A store of finished batches: JSON values by key. Both calls are atomic."""

    def get(self, key: str) -> Any | None: ...
    def put(self, key: str, value: Any) -> None: ...


Progress = Callable[[int], None]  # called with the number of requests just finished


class Renderer(Protocol):
    """The one place where conversations become token ids, for training, exam and serving."""

    chat_template: bool

    def prompt(self, messages: Messages) -> Prompt: ...

    # The prompt behind a thought, where its answer begins.
    def thinking(self, prompt: Prompt, thought: Thought) -> Prompt: ...

    # A whole text to be continued; `before` comes from an arm. `scored`: its answers are scored.
    def completion(
        self, text: str, *, delimiter: str = "", before: str = "", scored: bool = False
    ) -> Prompt: ...
    def option(self, text: str, prompt: Prompt) -> tuple[int, ...]: ...  # without its end
    def options(
        self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]
    ) -> list[tuple[tuple[int, ...], ...]]: ...  # all options of all prompts at once
    def answer(self, text: str, prompt: Prompt) -> tuple[int, ...]: ...  # with its end of turn
    def running(self, text: str) -> Running: ...  # a whole document, as pretraining reads it
    def count(self, text: str) -> int: ...  # tokens of a bare text
    def decode(self, ids: Sequence[int]) -> str: ...
    @property
    def stop(self) -> tuple[str, ...]: ...  # strings that end an answer, besides EOS
    @property
    def stop_ids(self) -> frozenset[int]: ...


class LanguageModel(Protocol):
    name: str  # the reference it was opened by
    digest: str  # SHA-256 over weights, tokenizer and template (endpoint: URL and model name)
    capabilities: Capabilities

    @property
    def renderer(self) -> Renderer: ...

    # Results come in the order of the requests; `progress` is called as batches finish.
    def score(
        self,
        requests: Sequence[ScoreRequest],
        memo: Memo | None = None,
        progress: Progress | None = None,
    ) -> Iterator[ScoreResult]: ...
    def generate(
        self,
        requests: Sequence[GenerateRequest],
        memo: Memo | None = None,
        progress: Progress | None = None,
    ) -> Iterator[GenerateResult]: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...


class Embedder(Protocol):
    """Rows are L2-normalised float32, shape (len(texts), dimensions)."""

    name: str
    digest: str

    @property
    def dimensions(self) -> int: ...
    def queries(self, texts: Sequence[str]) -> Any: ...
    def passages(self, texts: Sequence[str]) -> Any: ...
