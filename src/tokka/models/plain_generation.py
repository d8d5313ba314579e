"""Texts from an architecture that only transformers knows: each by itself, a token at a time.

The same calls as `generation.Scheduler`, without its speed: nothing is shared between texts.

    scheduler = PlainScheduler(module, head, renderer, turning=None)
    scheduler.add(0, ids, request)
    while scheduler.busy:
        for finished in scheduler.step(): ...      # Writer: key, text, finish
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tokka.models.generation import Writer, choose
from tokka.models.head import Head
from tokka.models.protocol import GenerateRequest, Renderer


@dataclass(slots=True)
class _Text:
    writer: Writer
    ids: list[int]
    cache: Any = None


class PlainScheduler:
    """`turning`: the length behind which the model turns its keys another way, where it does."""

    def __init__(self, module: Any, head: Head, renderer: Renderer, turning: int | None) -> None:
        self._module, self._head, self._renderer = module, head, renderer
        self._turning = turning
        self._texts: list[_Text] = []

    @property
    def busy(self) -> bool:
        return bool(self._texts)

    @property
    def texts(self) -> Sequence[Writer]:
        return [text.writer for text in self._texts]

    def add(self, key: int, ids: Sequence[int], request: GenerateRequest) -> None:
        self._texts.append(_Text(Writer(key, ids, request, self._renderer), list(ids)))

    def drop(self, key: int) -> None:
        self._texts = [text for text in self._texts if text.writer.key != key]

    @torch.inference_mode()
    def step(self) -> list[Writer]:
        """One token of each text."""
        for text in self._texts:
            self._go_on(text)
        finished = [text.writer for text in self._texts if text.writer.finish]
        self._texts = [text for text in self._texts if not text.writer.finish]
        return finished

    def _go_on(self, text: _Text) -> None:
        if self._turning is not None and len(text.ids) == self._turning + 1:
            text.cache = None  # its keys were turned the other way
        new = text.ids if text.cache is None else text.ids[-1:]
        out = self._module.get_decoder()(
            input_ids=torch.tensor([new], device=self._head.weight.device),
            past_key_values=text.cache,
            use_cache=True,
        )
        text.ids += choose(self._head, out.last_hidden_state[:, -1], [text.writer])
        text.cache = out.past_key_values
