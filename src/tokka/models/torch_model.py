"""The local exam engine: options of a question in one row, shared prefixes once, head only where
needed.

    row:   [shared prefix, once for all] [question of row 1 | option A | option B | …]

A tree mask lets every option see the prefix, its question and itself; positions go on from the end
of the prompt, so each option is computed as if it stood alone. The language-model head runs only
at the positions whose next token is scored, over blocks of the vocabulary: positions × vocabulary
is never held. Architectures whose masks this file doesn't know take a plain path, one option at a
time.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from tokka.errors import UsageError
from tokka.models.batches import (
    Row,
    answer_end,
    by_budget,
    score_rows,
    shared_prefix,
    truncate,
)
from tokka.models.head import head_of
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
from tokka.records import fingerprint

ENGINE_VERSION = 2  # raise when results may change: it is part of every memo key
VOCABULARY_BLOCK = 32_768
# How the decoder takes a 4-D mask: by layer type, or one for all layers.
MASKS = {"gemma3_text": "by_layer", "llama": "single"}
T = TypeVar("T")


class TorchModel:
    """A causal language model in this process. Memory beyond the weights stays within about
    `batch_tokens` × (activations + cache of a token) plus one vocabulary block of logits."""

    def __init__(
        self,
        module: Any,
        renderer: TokenRenderer,
        *,
        name: str,
        digest: str,
        batch_tokens: int = 2048,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        self.module = module.eval()
        self.name = name
        self.digest = digest
        self.renderer = renderer
        config = module.config.get_text_config()
        self.mask_style = MASKS.get(config.model_type, "plain")
        if self.mask_style == "plain" and notice is not None:
            notice(f"{name}: architecture {config.model_type} takes the plain path (slower)")
        self.capabilities = Capabilities(
            scores_options=True,
            token_ids=True,
            adapters=True,
            chat_template=renderer.chat_template,
            max_context_tokens=_positions(config),
        )
        self._batch_tokens = batch_tokens
        self._device = module.get_input_embeddings().weight.device
        self._dtype = module.get_input_embeddings().weight.dtype
        self._window: Any = getattr(config, "sliding_window", None)
        self._head = head_of(module)
        if self.mask_style == "plain":
            self._prove_head()

    @torch.inference_mode()
    def _prove_head(self) -> None:
        """An unknown architecture may bend its logits in a way of its own: compare before
        trusting."""
        vocabulary = self._head.weight.shape[0]
        ids = torch.arange(1, 9, device=self._device)[None] % vocabulary
        own = torch.log_softmax(self.module(input_ids=ids).logits[0, :-1].float(), dim=-1)
        hidden = self.module.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        ours = self._log_probabilities(hidden[0, :-1], ids[0, 1:])
        theirs = own.gather(1, ids[0, 1:, None])[:, 0]
        if not torch.allclose(ours, theirs, rtol=0.02, atol=0.1):
            raise UsageError(
                f"{self.name}: architecture {self.module.config.model_type} computes its logits "
                f"in a "
                "way that tokka doesn't know, so its scores would be wrong; use another base model"
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
        rows = score_rows(requests, self.capabilities.max_context_tokens)
        shared = 0 if self.mask_style == "plain" else shared_prefix([row.keep for row in rows])
        prefix = _Lazy(lambda: self._prefix(rows[0].keep[:shared]))
        groups = by_budget([row.width(shared) for row in rows], self._batch_tokens)

        def compute(group: list[int]) -> list[list[float]]:
            batch = [rows[i] for i in group]
            if self.mask_style == "plain":
                return [self._score_plain(row) for row in batch]
            return self._score_tree(batch, shared, prefix.value)

        def key(group: list[int]) -> Any:
            return [[hash_ids(rows[i].keep), rows[i].options] for i in group]

        yield from self._batches(
            "score",
            groups,
            key,
            compute,
            shared,
            memo,
            progress,
            lambda index, value, seconds: ScoreResult(tuple(value), rows[index].truncated, seconds),
        )

    @torch.inference_mode()
    def _prefix(self, ids: tuple[int, ...]) -> Any:
        """The cache of the shared prefix, computed once at batch 1; None where nothing is
        shared."""
        if not ids:
            return None
        cache = _new_cache()
        tokens = torch.tensor([ids], device=self._device)
        length = len(ids)
        positions = torch.arange(length, device=self._device)[None]
        allowed = positions[:, :, None] >= positions[:, None, :]
        self._forward(tokens, positions, positions, allowed, cache)
        return [(layer.keys, layer.values) for layer in cache.layers]

    @torch.inference_mode()
    def _score_tree(self, rows: list[Row], shared: int, prefix: Any) -> list[list[float]]:
        width = max(row.width(shared) for row in rows)
        batch = len(rows)
        tokens = torch.zeros((batch, width), dtype=torch.long)
        positions = torch.zeros((batch, width), dtype=torch.long)
        branch = torch.full(
            (batch, width), -1, dtype=torch.long
        )  # 0 = prompt, 1… = option, -1 = pad
        picks: list[tuple[int, int, int, int, int]] = []  # row, option, column, target token
        for r, row in enumerate(rows):
            question = row.keep[shared:]
            end = len(question)
            tokens[r, :end] = torch.tensor(question)
            positions[r, :end] = torch.arange(shared, len(row.keep))
            branch[r, :end] = 0
            column = end
            for o, option in enumerate(row.options):
                inputs = option[:-1]
                picks.append((r, o, end - 1, option[0], 0))
                picks += [(r, o, column + j, option[j + 1], j + 1) for j in range(len(inputs))]
                if inputs:
                    tokens[r, column : column + len(inputs)] = torch.tensor(inputs)
                    positions[r, column : column + len(inputs)] = torch.arange(
                        len(row.keep), len(row.keep) + len(inputs)
                    )
                    branch[r, column : column + len(inputs)] = o + 1
                column += len(inputs)
        causal = torch.arange(width)[:, None] >= torch.arange(width)[None, :]
        same = (branch[:, :, None] == branch[:, None, :]) | (branch[:, None, :] == 0)
        inner = causal[None] & same & (branch[:, None, :] >= 0)
        inner |= torch.eye(width, dtype=torch.bool)[None]  # a padded row must see something
        outer = torch.ones((batch, width, shared), dtype=torch.bool)
        allowed = torch.cat([outer, inner], dim=2)
        columns = torch.cat([torch.arange(shared).expand(batch, shared), positions], dim=1)
        hidden = self._forward(
            tokens.to(self._device),
            positions.to(self._device),
            columns.to(self._device),
            allowed.to(self._device),
            _filled_cache(prefix, batch),
        )
        place = torch.tensor([(p[0], p[2]) for p in picks], device=self._device)
        targets = torch.tensor([p[3] for p in picks], device=self._device)
        values = self._log_probabilities(hidden[place[:, 0], place[:, 1]], targets).tolist()
        results = [[0.0] * len(row.options) for row in rows]
        for (r, o, *_), value in zip(picks, values, strict=True):
            results[r][o] += value
        return results

    @torch.inference_mode()
    def _score_plain(self, row: Row) -> list[float]:
        values = []
        for option in row.options:
            ids = torch.tensor([row.keep + option[:-1]], device=self._device)
            hidden = self.module.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
            start = len(row.keep) - 1
            targets = torch.tensor(option, device=self._device)
            values.append(float(self._log_probabilities(hidden[0, start:], targets).sum()))
        return values

    def _forward(self, tokens: Any, positions: Any, columns: Any, allowed: Any, cache: Any) -> Any:
        """Last hidden states. `positions` (batch, width) are the tokens' places in their text,
        `columns` (batch, cache + width) those of the keys, `allowed` (batch, width, cache +
        width)."""
        full = allowed[:, None]
        mask: Any = full
        if self.mask_style == "by_layer":
            near = positions[:, :, None] - columns[:, None, :] < int(self._window)
            mask = {"full_attention": full, "sliding_attention": full & near[:, None]}
        return self.module.get_decoder()(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    def _log_probabilities(self, hidden: Any, targets: Any) -> Any:
        """log p(target) at each row of `hidden` (positions, width), float32, block by block."""
        weight = self._head.weight
        states = hidden.float()
        total = torch.full((len(states),), -math.inf, device=states.device)
        picked = torch.zeros(len(states), device=states.device)
        for start in range(0, weight.shape[0], VOCABULARY_BLOCK):
            block = weight[start : start + VOCABULARY_BLOCK]
            logits = self._head.logits(states, slice(start, start + VOCABULARY_BLOCK))
            total = torch.logaddexp(total, torch.logsumexp(logits, dim=1))
            inside = (targets >= start) & (targets < start + block.shape[0])
            rows = inside.nonzero()[:, 0]
            picked[rows] = logits[rows, targets[rows] - start]
        return picked - total

    # ---- generation ---------------------------------------------------------------------------

    def generate(
        self,
        requests: Sequence[GenerateRequest],
        memo: Memo | None = None,
        progress: Progress | None = None,
    ) -> Iterator[GenerateResult]:
        """Texts in the order of the requests; greedy at temperature 0, else seeded per request."""
        if not requests:
            return
        limit = self.capabilities.max_context_tokens
        longest = max(r.max_tokens for r in requests)
        if longest >= limit:
            raise UsageError(
                f"{self.name}: max_tokens {longest} leaves no room for a question in a context of "
                f"{limit}; lower prompt.max_tokens"
            )
        cut = [truncate(r.prompt.ids, limit - r.max_tokens) for r in requests]
        keeps = [keep for keep, _ in cut]
        shared = 0 if self.mask_style == "plain" else shared_prefix(keeps)
        prefix = _Lazy(lambda: self._prefix(keeps[0][:shared]))
        groups = by_budget([len(keep) - shared for keep in keeps], self._batch_tokens, most=16)
        if self.mask_style == "plain":
            groups = [[i] for group in groups for i in group]

        def compute(group: list[int]) -> list[list[Any]]:
            return self._decode(
                [requests[i] for i in group], [keeps[i] for i in group], shared, prefix.value
            )

        def key(group: list[int]) -> Any:
            return [
                [hash_ids(keeps[i]), r.max_tokens, r.temperature, r.seed, r.stop]
                for i in group
                for r in [requests[i]]
            ]

        yield from self._batches(
            "generate",
            groups,
            key,
            compute,
            shared,
            memo,
            progress,
            lambda index, value, seconds: GenerateResult(
                text=value[0],
                tokens_in=len(keeps[index]),
                tokens_out=value[1],
                truncated=cut[index][1],
                finish=value[2],
                seconds=seconds,
            ),
        )

    @torch.inference_mode()
    def _decode(
        self,
        requests: list[GenerateRequest],
        keeps: list[tuple[int, ...]],
        shared: int,
        prefix: Any,
    ) -> list[list[Any]]:
        batch = len(requests)
        lengths = [len(keep) - shared for keep in keeps]
        width = max(lengths)
        tokens = torch.zeros((batch, width), dtype=torch.long, device=self._device)
        valid = torch.zeros((batch, width), dtype=torch.bool, device=self._device)
        for r, keep in enumerate(keeps):
            tokens[r, : lengths[r]] = torch.tensor(keep[shared:], device=self._device)
            valid[r, : lengths[r]] = True
        places = torch.arange(shared, shared + width, device=self._device).expand(batch, width)
        outer = torch.arange(shared, device=self._device).expand(batch, shared)
        columns = torch.cat([outer, places], dim=1)
        causal = places[:, :, None] >= columns[:, None, :]
        visible = torch.cat([torch.ones_like(outer, dtype=torch.bool), valid], dim=1)
        cache = _filled_cache(prefix, batch) or _new_cache()
        allowed = causal & (visible[:, None, :] | (places[:, :, None] == columns[:, None, :]))
        if self.mask_style == "plain":
            out = self.module.get_decoder()(input_ids=tokens, use_cache=True)
            hidden, cache = out.last_hidden_state, out.past_key_values
        else:
            hidden = self._forward(tokens, places, columns, allowed, cache)
        last = torch.tensor(lengths, device=self._device) - 1
        state = hidden[torch.arange(batch, device=self._device), last]
        writers = [_Writer(request, self.renderer) for request in requests]
        position = last + 1 + shared
        while True:
            chosen = self._choose(state, writers)
            for writer, token in zip(writers, chosen, strict=True):
                writer.take(token)
            if all(writer.finish for writer in writers):
                break
            step = torch.tensor(chosen, device=self._device)[:, None]
            if self.mask_style == "plain":
                out = self.module.get_decoder()(
                    input_ids=step, past_key_values=cache, use_cache=True
                )
                state = out.last_hidden_state[:, 0]
                continue
            columns = torch.cat([columns, position[:, None]], dim=1)
            visible = torch.cat([visible, torch.ones_like(visible[:, :1])], dim=1)
            hidden = self._forward(step, position[:, None], columns, visible[:, None], cache)
            state = hidden[:, 0]
            position = position + 1
        return [[writer.text, len(writer.ids), writer.finish] for writer in writers]

    def _choose(self, state: Any, writers: list[_Writer]) -> list[int]:
        """Next token of each row. The head runs in the weights' dtype; the leaders are then
        computed
        again in float32, since bf16 logits tie where float32 ones don't."""
        head = self._head
        logits = head.bend(self.module.get_output_embeddings()(state).float())
        leaders = logits.topk(min(32, logits.shape[1]), dim=1).indices
        exact = torch.einsum("bh,bkh->bk", state.float(), head.weight[leaders].float())
        if head.bias is not None:
            exact += head.bias[leaders].float()
        greedy = leaders.gather(1, exact.argmax(dim=1, keepdim=True))[:, 0].tolist()
        chosen = []
        for row, writer in enumerate(writers):
            temperature = writer.request.temperature
            if temperature <= 0:
                chosen.append(int(greedy[row]))
                continue
            weights = torch.softmax(logits[row] / temperature, dim=0).cpu()
            chosen.append(int(torch.multinomial(weights, 1, generator=writer.generator)))
        return chosen

    # ---- both -----------------------------------------------------------------------------------

    def _batches(
        self,
        kind: str,
        groups: list[list[int]],
        key: Callable[[list[int]], Any],
        compute: Callable[[list[int]], list[Any]],
        shared: int,
        memo: Memo | None,
        progress: Progress | None,
        result: Callable[[int, Any, float], T],
    ) -> Iterator[T]:
        """Run or recall each group; yield results in the order of the requests as they complete."""
        place = {index: group for group in groups for index in group}
        waiting = iter(groups)
        ready: dict[int, T] = {}
        for index in sorted(place):
            while index not in ready:
                group = next(waiting)
                name = fingerprint(
                    [ENGINE_VERSION, kind, self.digest, str(self._dtype), shared, key(group)]
                )
                entry = memo.get(name) if memo is not None else None
                if entry is None:
                    started = time.perf_counter()
                    values = compute(group)
                    seconds = (time.perf_counter() - started) / len(group)
                    entry = {"values": values, "seconds": seconds}
                    if memo is not None:
                        memo.put(name, entry)
                for i, value in zip(group, entry["values"], strict=True):
                    ready[i] = result(i, value, entry["seconds"])
                if progress is not None:
                    progress(len(group))
            yield ready.pop(index)

    def close(self) -> None:
        self.module = None

    def __enter__(self) -> TorchModel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _positions(config: Any) -> int:
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        if getattr(config, name, None):
            return int(getattr(config, name))
    raise UsageError(
        f"base_model: architecture {config.model_type} doesn't say how long its context is; add "
        "max_position_embeddings to its config.json"
    )


class _Lazy:
    """A value that is computed when it is first needed: a sitting found in the memo needs none."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._made, self._value = make, False, None

    @property
    def value(self) -> Any:
        if not self._made:
            self._value, self._made = self._make(), True
        return self._value


class _Writer:
    """One answer as it grows."""

    def __init__(self, request: GenerateRequest, renderer: TokenRenderer) -> None:
        self.request, self.renderer = request, renderer
        self.ids: list[int] = []
        self.text = ""
        self.finish = ""
        self.generator = torch.Generator().manual_seed(request.seed)

    def take(self, token: int) -> None:
        if self.finish:
            return
        if token in self.renderer.stop_ids:
            self.finish = "stop"
            return
        self.ids.append(token)
        self.text = self.renderer.decode(self.ids)
        end = answer_end(self.text, self.request.stop)
        if end is not None:
            self.text, self.finish = self.text[:end], "stop"
        elif len(self.ids) >= self.request.max_tokens:
            self.finish = "length"


def _new_cache() -> Any:
    """A plain cache: one made with the model's config drops keys beyond the sliding window, which a
    shared prefix still needs."""
    from transformers import DynamicCache

    return DynamicCache()


def _filled_cache(prefix: Any, batch: int) -> Any:
    if prefix is None:
        return None
    cache = _new_cache()
    for layer, (keys, values) in enumerate(prefix):
        shape = (batch, -1, -1, -1)
        cache.update(keys.expand(shape), values.expand(shape), layer)
    return cache


def load_module(folder: Path, dtype: str, adapter: Path | None = None) -> Any:
    """A causal language model from safetensors, with a LoRA adapter folded in where one is given.

    The fold happens here and nowhere else, so what is examined is what is served.
    """
    from transformers import AutoModelForCausalLM

    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")
    module: Any = AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=getattr(torch, dtype),
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
    if adapter is not None:
        from peft import PeftModel

        module = PeftModel.from_pretrained(module, str(adapter)).merge_and_unload(safe_merge=True)
    if torch.cuda.is_available():
        module = module.to("cuda")
    return module
