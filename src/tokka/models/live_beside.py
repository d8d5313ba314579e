"""A served GGUF once more, for a search that scores passages or rewrites questions with it.

beside = Beside(path, renderer, digest, context_tokens=4096, threads=2, log=None)
beside.score(requests)      # starts the exam's engine, in a child of its own
beside.close_child()
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tokka.errors import ServiceError, UsageError
from tokka.models.llamacpp import LlamaCppModel, capabilities_of, open_llamacpp
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

T = TypeVar("T")


class Beside:
    """The same GGUF as a LanguageModel, for a search that asks it: the exam's own engine in a child
    of its own, started when it is first asked. So a search finds here what it found in the exam."""

    def __init__(
        self,
        path: Path,
        renderer: Renderer,
        digest: str,
        context_tokens: int,
        threads: int,
        log: Path | None,
    ) -> None:
        self.name, self.digest = str(path), digest
        self.capabilities: Capabilities = capabilities_of(renderer, context_tokens)
        self._renderer = renderer
        self._how: dict[str, Any] = {
            "context_tokens": context_tokens, "threads": threads, "log": log,
        }  # fmt: skip
        self._path = path
        self._opened: LlamaCppModel | None = None
        self._closed = False
        self._turn = threading.Lock()

    @property
    def renderer(self) -> Renderer:
        return self._renderer

    def score(
        self,
        requests: Sequence[ScoreRequest],
        memo: Memo | None = None,
        progress: Progress | None = None,
    ) -> Iterator[ScoreResult]:
        return self._surviving(self._model().score(requests, memo, progress))

    def generate(
        self,
        requests: Sequence[GenerateRequest],
        memo: Memo | None = None,
        progress: Progress | None = None,
    ) -> Iterator[GenerateResult]:
        return self._surviving(self._model().generate(requests, memo, progress))

    def _surviving(self, results: Iterator[T]) -> Iterator[T]:
        """An exam gives up when its child has ended twice; a server opens another next time."""
        try:
            yield from results
        except ServiceError:
            with self._turn:
                if self._opened is not None:
                    self._opened.close()
                self._opened = None
            raise

    def _model(self) -> LlamaCppModel:
        with self._turn:
            if self._closed:
                raise UsageError(f"{self.name}: the model is closed; open it again")
            if self._opened is None:
                self._opened = open_llamacpp(self._path, self._renderer, self.digest, **self._how)
            return self._opened

    def close(self) -> None:
        """The live model closes what it owns."""

    def close_child(self) -> None:
        with self._turn:
            self._closed = True
            if self._opened is not None:
                self._opened.close()

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
