"""Open a language model that writes for many at once; see `models.opening` for what a reference
may be.

    live = open_live("embedded:gemma-3-270m", weights=folder, places=8)
    specialist = open_candidate(…, lambda weights, adapters: live.model, …)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokka.errors import UsageError
from tokka.models.live import LiveModel
from tokka.models.opening import (
    EndpointOptions,
    digest_of,
    kind,
    located,
    open_model,
    open_renderer,
)


def open_live(
    reference: str,
    *,
    places: int = 8,
    root: Path = Path(),
    language: str = "en",
    weights: Path | None = None,
    adapters: Sequence[Path] = (),
    dtype: str | None = None,
    threads: int | None = None,
    endpoint: EndpointOptions | None = None,
    notice: Callable[[str], None] | None = None,
    context_tokens: int = 4096,
    exact: bool = True,
    log: Path | None = None,
) -> LiveModel:
    """Open any model for service. Blocks while weights are loaded: call it outside the loop.

    `places` texts are written at the same time. `context_tokens` (of each place), `exact` and `log`
    are for llama.cpp; see `LlamaCppLive`. Everything else is as in `open_model`, and raises as it
    does.
    """
    if kind(reference) != "endpoint":
        sort, path = located(reference, root, weights)
        if sort == "gguf":
            if adapters:
                raise UsageError("a .gguf model takes no adapter; serve what was exported from it")
            from tokka.models.live_llamacpp import LlamaCppLive

            return LlamaCppLive(
                path,
                open_renderer(weights or path, language),
                digest_of(weights or path, language),
                places=places,
                context_tokens=context_tokens,
                threads=threads,
                exact=exact,
                log=log,
            )
    model: Any = open_model(
        reference,
        root=root,
        language=language,
        weights=weights,
        adapters=adapters,
        dtype=dtype,
        threads=threads,
        endpoint=endpoint,
        notice=notice,
    )
    if kind(reference) == "endpoint":
        from tokka.models.live_endpoint import EndpointLive

        return EndpointLive(model, places)
    from tokka.models.live_torch import TorchLive

    return TorchLive(model, places)
