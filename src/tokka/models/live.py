"""A model that writes for many at once: what a server asks, where an exam asks `LanguageModel`.

A request goes in at any time; its text comes out piece by piece; whoever stops listening frees his
place at once. Opening loads weights and blocks; all else is asynchronous and belongs to the event
loop that asks.

    live = open_live(...)
    writing = live.write(GenerateRequest(prompt, max_tokens=64))
    async for piece in writing: ...
    writing.result
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from tokka.models.protocol import (
    Capabilities,
    GenerateRequest,
    GenerateResult,
    LanguageModel,
    Renderer,
)


@dataclass(frozen=True, slots=True)
class Piece:
    """What was newly said: whole characters, and no part of what may become a stop string."""

    text: str
    tokens: int


class Writing(Protocol):
    """One text as it grows. Joined, its pieces are `result.text`. `result` is there when the
    iteration ended by itself; ServiceError is raised where the model broke down."""

    result: GenerateResult | None

    def __aiter__(self) -> AsyncIterator[Piece]: ...
    def cancel(self) -> None: ...  # at any time, also twice; frees the place


class LiveModel(Protocol):
    name: str
    digest: str
    capabilities: Capabilities
    places: int  # texts that are written at the same time; more wait their turn

    @property
    def renderer(self) -> Renderer: ...
    @property
    def ready(self) -> bool: ...  # False while a broken model is started again

    # The same weights for a search that scores or rewrites with them; its calls block.
    @property
    def model(self) -> LanguageModel: ...
    def write(self, request: GenerateRequest) -> Writing: ...
    async def close(self) -> None: ...
