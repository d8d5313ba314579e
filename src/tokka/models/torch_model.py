"""The local exam engine: each shared token once, the head only where a token is scored.

    with TorchModel(load_module(folder, "bfloat16"), renderer, name=…, digest=…) as model:
        for result in model.score(requests): ...

Options are scored as a tree (see `tree`): what questions share is computed once, the options of a
question share the question, and the language-model head runs only at the positions whose next token
is scored, over blocks of the vocabulary. Texts are written by continuous batching (see
`generation`). Attention is our own for the families in `attention.FAMILIES`; other architectures
take a plain path, one option or text at a time, with a notice.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from tokka.errors import UsageError
from tokka.models.attention import Decoder, Prefix, knows, turning_length
from tokka.models.batches import shared_prefix, truncate
from tokka.models.generation import Scheduler, Writer
from tokka.models.head import head_of, log_probabilities
from tokka.models.opening import quiet, rounding
from tokka.models.plain_generation import PlainScheduler
from tokka.models.protocol import (
    Capabilities,
    GenerateRequest,
    GenerateResult,
    Memo,
    Progress,
    ScoreRequest,
    ScoreResult,
)
from tokka.models.rendering import TokenRenderer, hash_ids
from tokka.models.tree import Batch, Group, Pick, Plan, plan
from tokka.records import fingerprint

ENGINE_VERSION = 3  # raise when results may change: it is part of every memo key
CACHE_TOKENS = 32_768  # of all slots together
WAVE = 128  # texts written together, and kept together in a memo
T = TypeVar("T")


class TorchModel:
    """A causal language model in this process.

    Memory beyond the weights is bounded by `batch_tokens` × (activations + cache of a token), masks
    of at most `batches.MASK_CELLS` cells (or one row's), a block of logits (64 MB), the cache of a
    shared prefix, and for texts the cache of `CACHE_TOKENS` tokens (or of one text, where that is
    longer) in up to `slots` slots.
    """

    def __init__(
        self,
        module: Any,
        renderer: TokenRenderer,
        *,
        name: str,
        digest: str,
        batch_tokens: int = 2048,
        slots: int = 64,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        self.module = module.eval()
        self.name = name
        self.digest = digest
        self.renderer = renderer
        config = module.config.get_text_config()
        reason = knows(config)
        self.plain = bool(reason)
        if reason and notice is not None:
            notice(f"{name}: takes the plain path (slower): {reason}")
        weight = module.get_input_embeddings().weight
        self.capabilities = Capabilities(
            scores_options=True,
            token_ids=True,
            adapters=True,
            chat_template=renderer.chat_template,
            max_context_tokens=_positions(config),
            dtype=str(weight.dtype).removeprefix("torch."),
            engine=f"torch {torch.__version__} on {weight.device.type}, engine {ENGINE_VERSION}",
        )
        self._batch_tokens = batch_tokens
        self._slots = slots
        self._device, self._dtype = weight.device, weight.dtype
        self._turning = turning_length(config)
        self._head = head_of(module)
        self._decoder = None if self.plain else Decoder(module)
        if self.plain:
            self._prove_head()

    @torch.inference_mode()
    def _prove_head(self) -> None:
        """An unknown architecture may bend its logits in a way of its own: compare before
        trusting."""
        vocabulary = self._head.weight.shape[0]
        ids = torch.arange(1, 9, device=self._device)[None] % vocabulary
        own = torch.log_softmax(self.module(input_ids=ids).logits[0, :-1].float(), dim=-1)
        hidden = self.module.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        order = torch.arange(ids.shape[1] - 1, device=self._device)
        ours = log_probabilities(self._head, hidden[0, :-1], order, ids[0, 1:])
        theirs = own.gather(1, ids[0, 1:, None])[:, 0]
        if not torch.allclose(ours, theirs, rtol=0.02, atol=0.1):
            raise UsageError(
                f"{self.name}: architecture {self.module.config.model_type} computes its logits "
                f"in a way that tokka doesn't know, so its scores would be wrong; use another base "
                f"model"
            )

    # ---- log-likelihood of options --------------------------------------------------------

    def score(
        self,
        requests: Sequence[ScoreRequest],
        memo: Memo | None = None,
        progress: Progress | None = None,
    ) -> Iterator[ScoreResult]:
        """Natural-log likelihoods (float32 log-softmax), in the order of the requests."""
        if not requests:
            return
        if any(not request.options or not all(request.options) for request in requests):
            raise UsageError("score: every request needs options of at least one token")
        longest = max(len(option) for request in requests for option in request.options)
        if longest > self.capabilities.max_context_tokens:
            raise UsageError(
                f"score: an option of {longest} tokens doesn't fit into the model's context of "
                f"{self.capabilities.max_context_tokens}; shorten it"
            )
        planned = plan(requests, self.capabilities.max_context_tokens, self._batch_tokens)

        def result(index: int, values: list[float], seconds: float) -> ScoreResult:
            return ScoreResult(tuple(values), planned.truncated[index], seconds)

        def finished() -> Iterator[tuple[int, ScoreResult]]:
            for members, names, compute in self._work(planned, requests):
                asked = [[hash_ids(planned.keeps[i]), requests[i].options] for i in members]
                values, seconds = _remembered(memo, self._key("score", [names, asked]), compute)
                if progress is not None:
                    progress(len(members))
                for index, value in zip(members, values, strict=True):
                    yield index, result(index, value, seconds / len(members))

        yield from _in_order(finished())

    def _work(
        self, planned: Plan, requests: Sequence[ScoreRequest]
    ) -> Iterator[tuple[list[int], Any, Callable[[], list[list[float]]]]]:
        """Batches as (requests, what else decides their bits, how to compute them)."""
        if self.plain:
            for index, keep in enumerate(planned.keeps):
                options = requests[index].options
                yield [index], "plain", partial(self._score_plain, keep, options)
            return
        prefixes = _Prefixes(self._extend, planned.groups)
        for place, group in enumerate(planned.groups):
            for batch in group.batches:
                shape = [len(batch.lanes), batch.width, hash_ids(group.prefix)]
                yield batch.requests, shape, partial(self._score_tree, batch, prefixes, place)

    @torch.inference_mode()
    def _extend(self, prefix: Prefix | None, ids: tuple[int, ...]) -> Prefix:
        assert self._decoder is not None
        return self._decoder.extend(prefix, ids, self._batch_tokens)

    @torch.inference_mode()
    def _score_tree(self, batch: Batch, prefixes: _Prefixes, group: int) -> list[list[float]]:
        assert self._decoder is not None
        lanes = [[(row.ids, row.places, row.ends) for row in rows] for rows in batch.lanes]
        hidden, _ = self._decoder.read(lanes, batch.width, prefixes[group])
        picks: list[tuple[int, Pick]] = []  # where in the flattened batch
        for lane, rows in enumerate(batch.lanes):
            start = lane * batch.width
            for row in rows:
                picks += [(start + pick.column, pick) for pick in row.picks]
                start += len(row.ids)
        to = self._device
        columns, rows_of = np.unique([column for column, _ in picks], return_inverse=True)
        values = log_probabilities(
            self._head,
            hidden.flatten(0, 1)[torch.from_numpy(columns).to(to)],
            torch.from_numpy(rows_of).to(to),
            torch.tensor([pick.target for _, pick in picks], device=to),
        ).tolist()
        results: dict[int, dict[int, float]] = {}
        for (_, pick), value in zip(picks, values, strict=True):
            options = results.setdefault(pick.request, {})
            options[pick.option] = options.get(pick.option, 0.0) + value
        return [[results[i][o] for o in sorted(results[i])] for i in batch.requests]

    @torch.inference_mode()
    def _score_plain(
        self, keep: tuple[int, ...], options: tuple[tuple[int, ...], ...]
    ) -> list[list[float]]:
        values = []
        for option in options:
            ids = torch.tensor([keep + option[:-1]], device=self._device)
            hidden = self.module.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
            states = hidden[0, len(keep) - 1 :]
            targets = torch.tensor(option, device=self._device)
            order = torch.arange(len(option), device=self._device)
            values.append(float(log_probabilities(self._head, states, order, targets).sum()))
        return [values]

    # ---- generation ---------------------------------------------------------------------------

    def generate(
        self,
        requests: Sequence[GenerateRequest],
        memo: Memo | None = None,
        progress: Progress | None = None,
    ) -> Iterator[GenerateResult]:
        """Texts in the order of the requests; greedy at temperature 0, else seeded per request."""
        yield from _in_order(self.finished(requests, memo, progress))

    def finished(
        self,
        requests: Sequence[GenerateRequest],
        memo: Memo | None = None,
        progress: Progress | None = None,
    ) -> Iterator[tuple[int, GenerateResult]]:
        """(place of the request, its text), each as it finishes."""
        if not requests:
            return
        limit = self.capabilities.max_context_tokens
        longest = max(r.max_tokens for r in requests)
        if longest >= limit:
            raise UsageError(
                f"generate: max_tokens {longest} leaves no room for a prompt in a context of "
                f"{limit} tokens; lower prompt.max_tokens"
            )
        cut = [truncate(r.prompt.ids, limit - r.max_tokens) for r in requests]
        keeps = [keep for keep, _ in cut]
        shared = 0 if self.plain else shared_prefix(keeps)
        lazy = _Prefixes(self._extend, [Group(keeps[0][:shared], -1)])
        for start in range(0, len(requests), WAVE):
            wave = list(range(start, min(start + WAVE, len(requests))))
            asked = [
                [hash_ids(keeps[i]), r.max_tokens, r.temperature, r.seed, r.stop]
                for i in wave
                for r in [requests[i]]
            ]
            key = self._key("generate", [shared, self._slots, asked])
            kept = memo.get(key) if memo is not None else None
            told: list[Any] = []
            written = self._write(
                [requests[i] for i in wave], [keeps[i] for i in wave], shared, lazy
            )
            for place, text, tokens, finish, seconds in kept or written:
                told.append([place, text, tokens, finish, seconds])
                index = start + place
                if progress is not None:
                    progress(1)
                yield (
                    index,
                    GenerateResult(
                        text=text,
                        tokens_in=len(keeps[index]),
                        tokens_out=tokens,
                        truncated=cut[index][1],
                        finish=finish,
                        seconds=seconds,
                    ),
                )
            if memo is not None and kept is None:
                memo.put(key, told)

    def _write(
        self,
        requests: list[GenerateRequest],
        keeps: list[tuple[int, ...]],
        shared: int,
        prefixes: _Prefixes,
    ) -> Iterator[tuple[int, str, int, str, float]]:
        """(place, text, tokens, finish, seconds) as texts finish; the seconds add up to the
        whole."""
        started = time.perf_counter()
        if self.plain:
            writers = (self._write_plain(i, keeps[i], r) for i, r in enumerate(requests))
            batches: Iterator[list[Writer]] = ([writer] for writer in writers)
        else:
            batches = self._write_together(requests, keeps, shared, prefixes[0])
        for batch in batches:
            now = time.perf_counter()
            for writer in batch:
                share = (now - started) / len(batch)
                yield writer.key, writer.text, len(writer.ids), writer.finish, share
            started = now if batch else started

    def _write_together(
        self,
        requests: list[GenerateRequest],
        keeps: list[tuple[int, ...]],
        shared: int,
        prefix: Prefix | None,
    ) -> Iterator[list[Writer]]:
        assert self._decoder is not None
        longest = max(
            len(keep) - shared + r.max_tokens for keep, r in zip(keeps, requests, strict=True)
        )
        scheduler = Scheduler(
            self._decoder,
            self._head,
            self.renderer,
            prefix,
            slots=max(1, min(self._slots, len(requests), CACHE_TOKENS // longest)),
            batch_tokens=self._batch_tokens,
        )
        # Longest first: prompts read together are of one length, and long texts start early.
        for i in sorted(range(len(requests)), key=lambda i: (-len(keeps[i]), i)):
            scheduler.add(i, keeps[i][shared:], requests[i])
        while scheduler.busy:
            yield scheduler.step()

    def _write_plain(self, place: int, keep: tuple[int, ...], request: GenerateRequest) -> Writer:
        scheduler = PlainScheduler(self.module, self._head, self.renderer, self._turning)
        scheduler.add(place, keep, request)
        while True:
            for writer in scheduler.step():
                return writer

    def scheduler(self, slots: int) -> Scheduler | PlainScheduler:
        """For texts that come and go: up to `slots` at once, with whole prompts."""
        if self._decoder is None:
            return PlainScheduler(self.module, self._head, self.renderer, self._turning)
        return Scheduler(
            self._decoder,
            self._head,
            self.renderer,
            None,
            slots=slots,
            batch_tokens=self._batch_tokens,
        )

    # ---- both -----------------------------------------------------------------------------------

    def _key(self, kind: str, asked: Any) -> str:
        how = [ENGINE_VERSION, str(self._dtype), self._batch_tokens]
        return fingerprint([kind, self.digest, how, asked])

    def close(self) -> None:
        self.module = None
        self._decoder = None

    def __enter__(self) -> TorchModel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Prefixes:
    """Cached prefixes by group, computed when first needed: a sitting found in the memo needs none.

    Only the ancestors of the group asked for last are kept.
    """

    def __init__(
        self, extend: Callable[[Prefix | None, tuple[int, ...]], Prefix], groups: list[Group]
    ) -> None:
        self._extend, self._groups = extend, groups
        self._made: dict[int, Prefix] = {}

    def __getitem__(self, place: int) -> Prefix | None:
        path = []
        while place >= 0:
            path.append(place)
            place = self._groups[place].parent
        self._made = {g: prefix for g, prefix in self._made.items() if g in path}
        prefix: Prefix | None = None
        for group in reversed(path):
            ids = self._groups[group].prefix[prefix.length if prefix else 0 :]
            if group in self._made:
                prefix = self._made[group]
            elif ids:
                prefix = self._made[group] = self._extend(prefix, ids)
        return prefix


def _remembered(memo: Memo | None, key: str, compute: Callable[[], T]) -> tuple[T, float]:
    """A batch's values and seconds, from the memo or computed and kept there."""
    entry = memo.get(key) if memo is not None else None
    if entry is None:
        started = time.perf_counter()
        values = compute()
        entry = {"values": values, "seconds": time.perf_counter() - started}
        if memo is not None:
            memo.put(key, entry)
    return entry["values"], entry["seconds"]


def _in_order(finished: Iterator[tuple[int, T]]) -> Iterator[T]:
    """Values by their places 0, 1, …, each as soon as it and all before it are there."""
    ready: dict[int, T] = {}
    wanted = 0
    for index, value in finished:
        ready[index] = value
        while wanted in ready:
            yield ready.pop(wanted)
            wanted += 1


def _positions(config: Any) -> int:
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        if getattr(config, name, None):
            return int(getattr(config, name))
    raise UsageError(
        f"base_model: architecture {config.model_type} doesn't say how long its context is; add "
        "max_position_embeddings to its config.json"
    )


def load_module(
    folder: Path, dtype: str, adapters: Sequence[Path] = (), *, device: str | None = None
) -> Any:
    """A causal language model from safetensors, with LoRA adapters folded in, in their order.

    The fold happens here and nowhere else, so what is examined is what is served. An adapter that
    was trained on weights rounded to NF4 is folded into the same rounded weights. `device` None: a
    GPU where there is one.
    """
    from transformers import AutoModelForCausalLM

    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")
    quiet()
    module: Any = AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=getattr(torch, dtype),
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
    for adapter in adapters:
        from peft import PeftModel

        if rounding(adapter) == "nf4":
            from tokka.models.nf4 import dequantised

            module = dequantised(module)
        module = PeftModel.from_pretrained(module, str(adapter)).merge_and_unload(safe_merge=True)
    return module.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
