"""The fastest that this machine could train: required arithmetic over the rate of a large product.

Job: `model` (folder), `lessons` by work, `methods` by work ("lora" or "pretrain"), `rank`. Out: the
`rate` of a bfloat16 product of 2,048 × 2,048 matrices in FLOP/s (the best of some seconds), and for
each work its `terms` in FLOP and the `tokens_per_second` that they allow.

What is counted, multiplication and addition as two:
  body       2 N forward and 2 N for the gradient of what flows, a token; N: weights of the layers'
             linear maps. Training all weights: 2 N more.
  adapters   6 a token and parameter
  attention  4 × heads × head size × visible keys forward, twice that backward, a layer and token
  head       4 × vocabulary × width at learnt positions; 6 where it is trained
Norms, activations, the softmax and the optimiser move memory rather than multiply: not counted, so
the roof is higher than any program can reach.
"""

from __future__ import annotations

import time
from typing import Any

from measuring import Facts, contestant, tell

SIDE = 2048
SECONDS = 4.0


def work(job: Facts) -> Facts:
    from transformers import AutoConfig

    rate = product_rate(SECONDS, SIDE)
    tell(f"a large bfloat16 product: {rate / 1e9:,.0f} GFLOP/s")
    config = AutoConfig.from_pretrained(job["model"]).get_text_config()
    found: Facts = {}
    for name, lessons in job["lessons"].items():
        rank = job["rank"] if job["methods"][name] == "lora" else None
        terms = required(config, lessons, rank)
        tokens = sum(len(ids) for ids, _ in lessons)
        total = sum(terms.values())
        found[name] = {"terms": terms, "tokens": tokens, "tokens_per_second": tokens * rate / total}
    return {"rate": rate, "works": found}


def product_rate(seconds: float, side: int) -> float:
    """FLOP/s, the best product of those that fit into `seconds`."""
    import torch

    place = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.randn(side, side, device=place).bfloat16() for _ in range(2))
    best, until = float("inf"), time.perf_counter() + seconds
    left @ right
    while time.perf_counter() < until:
        started = time.perf_counter()
        left @ right
        if place == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def required(config: Any, lessons: Any, rank: int | None) -> dict[str, float]:
    """FLOP by term, for every lesson once; `rank` None trains all weights."""
    maps = linear_maps(config)
    body = sum(count * inputs * outputs for inputs, outputs, count in maps)
    tokens = sum(len(ids) for ids, _ in lessons)
    learnt = sum(len(ids) - start for ids, start in lessons)
    keys = sum(visible_keys(config, len(ids)) for ids, _ in lessons)
    width, heads = config.hidden_size, config.num_attention_heads
    head = config.vocab_size * width
    adapters = sum(count * (inputs + outputs) for inputs, outputs, count in maps) * (rank or 0)
    return {
        "body": (4.0 if rank else 6.0) * body * tokens,
        "adapters": 6.0 * adapters * tokens,
        "attention": 12.0 * heads * _head_size(config) * keys,
        "head": (4.0 if rank else 6.0) * head * learnt,
    }


def linear_maps(config: Any) -> list[tuple[int, int, int]]:
    """(inputs, outputs, how many) of a dense Llama-like decoder's linear maps, without the head."""
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    queries = config.num_attention_heads * _head_size(config)
    keys = config.num_key_value_heads * _head_size(config)
    return [
        (width, queries, layers),
        (width, keys, 2 * layers),
        (queries, width, layers),
        (width, inner, 2 * layers),
        (inner, width, layers),
    ]


def visible_keys(config: Any, length: int) -> int:
    """Keys that all positions of all layers see together."""
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    window = getattr(config, "sliding_window", None) or length
    whole = length * (length + 1) // 2
    beyond = max(0, length - window)
    slid = whole - beyond * (beyond + 1) // 2
    return sum(slid if kind == "sliding_attention" else whole for kind in kinds)


def _head_size(config: Any) -> int:
    return int(
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )


if __name__ == "__main__":
    contestant(work)
