"""A model from nothing: a tokenizer learnt from the texts, random Llama weights from the seed.

Texts → a folder in Hugging Face's layout: config.json, generation_config.json, model.safetensors,
tokenizer.json, tokenizer_config.json. The same texts, settings and seed give the same bytes.

    make(folder, (document.text for document in documents), ScratchSpec(), seed=0)

The tokenizer is byte-level BPE (Sennrich et al. 2016; bytes after Radford et al. 2019), so no text
is unknown to it. Texts are normalised by NFKC, and cut before pairs are counted where the script
changes, not only at spaces: Japanese has none, and a particle doesn't grow onto each noun.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokka.errors import UsageError
from tokka.records import ScratchSpec

BOS, EOS = "<s>", "</s>"
# A word with the space before it; a run of kanji, hiragana or katakana; up to three digits; marks;
# spaces. Every character falls into one of them.
_RUNS = (
    r" ?[\p{Han}々〆ヶ]+|\p{Hiragana}+|[\p{Katakana}ー]+|\p{N}{1,3}"
    r"| ?(?:(?![\p{Han}\p{Hiragana}\p{Katakana}々〆ヶー])\p{L}|\p{M})+"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def make(folder: Path, texts: Iterable[str], spec: ScratchSpec, seed: int) -> None:
    """Write the model into `folder`. Its vocabulary is smaller than `spec.vocabulary` where the
    texts give no more pieces.

    Weights are bfloat16: normal with a spread of 0.02 (the projections back into the residual
    stream narrower by √(2 × layers), Radford et al. 2019), drawn from `seed` on the CPU. Raises
    UsageError for a width that the heads don't divide evenly, and where the texts hold nothing.
    """
    if spec.width % (2 * spec.heads):
        raise UsageError(
            f"scratch: width {spec.width} must be a multiple of 2 × heads ({2 * spec.heads}); "
            "change one of them"
        )
    rules = _tokenizer(texts, spec.vocabulary)
    folder.mkdir(parents=True, exist_ok=True)
    _save_tokenizer(folder, rules, spec)
    _save_weights(folder, rules.get_vocab_size(), spec, seed)


def _tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    rules = Tokenizer(models.BPE())
    rules.normalizer = normalizers.NFKC()
    rules.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_RUNS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    rules.decoder = decoders.ByteLevel()
    count = 0

    def told() -> Iterable[str]:
        nonlocal count
        for text in texts:
            count += bool(text.strip())
            yield text

    rules.train_from_iterator(
        told(),
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[BOS, EOS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if not count:
        raise UsageError("scratch: the texts hold nothing to learn a tokenizer from; add some")
    rules.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, 0)]
    )
    return rules


def _save_tokenizer(folder: Path, rules: Any, spec: ScratchSpec) -> None:
    import transformers

    wrapped: Any = transformers.PreTrainedTokenizerFast
    wrapped(
        tokenizer_object=rules,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=spec.context_tokens,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(str(folder))


def _save_weights(folder: Path, vocabulary: int, spec: ScratchSpec, seed: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=spec.width,
        # SwiGLU at ⅔ × 4 × width, in multiples of 32 (Touvron et al. 2023).
        intermediate_size=-(-8 * spec.width // 3 // 32) * 32,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.heads,
        max_position_embeddings=spec.context_tokens,
        initializer_range=0.02,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        dtype="bfloat16",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = LlamaForCausalLM(config)
        for layer in module.model.layers:
            for into in (layer.self_attn.o_proj, layer.mlp.down_proj):
                with torch.no_grad():
                    into.weight.mul_((2 * spec.layers) ** -0.5)
    module.bfloat16().save_pretrained(str(folder))
