"""A tokenizer as llama.cpp knows it: the tables and marks that a GGUF carries.

Hugging Face's fast tokenizer → metadata of a GGUF. llama.cpp cuts text into words by rules that are
written into it, each with a name; only a tokenizer whose rules are one of them, to the letter, can
be written. Any other would cut the same text into other ids without a word (llama.cpp's converter
tells rules by the ids of one text; a tokenizer trained anew is unknown to it).

    write_tokens(writer, tokenizer, rows)
"""

from __future__ import annotations

import json
from typing import Any

from tokka.errors import UsageError
from tokka.models.rendering import TokenRenderer

SPACE = "▁"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_BYTES_ONLY = {**_BYTES, "use_regex": False}


def _split(numbers: str) -> list[dict[str, Any]]:
    pattern = {"Regex": f"{_ENDINGS}|{_WORDS}|{numbers}|{_REST}"}
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    return [split, _BYTES_ONLY]


# llama.cpp's name → the rules as tokenizer.json spells them, and whether a word that is a token is
# taken whole, without merges (llama-vocab.cpp, `llm_tokenizer_bpe`).
PRETOKENIZERS: dict[str, tuple[list[dict[str, Any]], bool]] = {
    "gpt-2": ([_BYTES], False),
    "smollm": ([{"type": "Digits", "individual_digits": True}, _BYTES], False),
    "qwen2": (_split(r"\p{N}"), False),
    "llama-bpe": (_split(r"\p{N}{1,3}"), True),
}


def write_tokens(writer: Any, tokenizer: Any, rows: int) -> None:
    """Add a tokenizer to a GGUF whose embedding has `rows` rows: tokens, merges or scores, special
    tokens, whether a text begins with BOS, chat template, end of turn.

    Raises UsageError for a tokenizer that llama.cpp can't follow, or one without EOS.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise _unknown("it isn't a fast tokenizer (no tokenizer.json)")
    if tokenizer.eos_token_id is None:
        raise UsageError(
            "quantise: the tokenizer names no EOS token, so the model would never stop; set "
            "eos_token in tokenizer_config.json"
        )
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    model = rules["model"]
    if model["type"] != "BPE":
        raise _unknown(f"it is of the kind {model['type']}, not BPE")
    pieces = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    texts = _texts(rules, rows)
    if model.get("byte_fallback"):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_add_space_prefix(_leads_with_space(rules))
        writer.add_token_list(texts)
        writer.add_token_scores(_scores(model, texts))
        writer.add_token_types(_types(rules, texts))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_pretokenizer(rules))
        writer.add_add_space_prefix(False)
        writer.add_token_list(texts)
        writer.add_token_types(_types(rules, texts))
        writer.add_token_merges(pieces)
    _write_specials(writer, tokenizer)


def texts_of(tokenizer: Any, rows: int) -> list[str]:
    """The text of each of the vocabulary's `rows`, as `write_tokens` writes them."""
    return _texts(json.loads(tokenizer.backend_tokenizer.to_str()), rows)


def marks_of(tokenizer: Any) -> dict[str, Any]:
    """What of a tokenizer must not get lost on the way: GGUF's key → value; None where it has
    none."""
    plain = list(tokenizer("x").input_ids)
    eos, bos = tokenizer.eos_token_id, tokenizer.bos_token_id
    ends = TokenRenderer(tokenizer, "en").stop_ids - {eos}
    return {
        "tokenizer.ggml.bos_token_id": bos,
        "tokenizer.ggml.eos_token_id": eos,
        "tokenizer.ggml.eot_token_id": min(ends, default=None),
        "tokenizer.ggml.unknown_token_id": tokenizer.unk_token_id,
        "tokenizer.ggml.padding_token_id": tokenizer.pad_token_id,
        "tokenizer.ggml.add_bos_token": bos is not None and plain[:1] == [bos],
        "tokenizer.ggml.add_eos_token": eos is not None and plain[-1:] == [eos],
        "tokenizer.chat_template": tokenizer.chat_template or None,
    }


def _write_specials(writer: Any, tokenizer: Any) -> None:
    for key, value in marks_of(tokenizer).items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif value is not None:
            writer.add_string(key, value)


def _texts(rules: dict[str, Any], rows: int) -> list[str]:
    """Each row's token; rows beyond the vocabulary get a name that no text contains."""
    texts = [f"[PAD{row}]" for row in range(rows)]
    known = {**{t: i for t, i in rules["model"]["vocab"].items()}}
    known.update({added["content"]: added["id"] for added in rules["added_tokens"]})
    for text, number in known.items():
        if number >= rows:
            raise UsageError(
                f"quantise: token {number} ({text!r}) has no row among the model's {rows}; the "
                "tokenizer belongs to another model"
            )
        texts[number] = text
    return texts


def _types(rules: dict[str, Any], texts: list[str]) -> list[int]:
    from gguf import TokenType

    vocabulary = rules["model"]["vocab"]
    bytes_ = {f"<0x{n:02X}>" for n in range(256)} if rules["model"].get("byte_fallback") else set()
    added = {token["content"]: bool(token["special"]) for token in rules["added_tokens"]}
    kinds = []
    for text in texts:
        if text in added:
            kind = TokenType.CONTROL if added[text] else TokenType.USER_DEFINED
        elif text in bytes_:
            kind = TokenType.BYTE
        else:
            kind = TokenType.NORMAL if text in vocabulary else TokenType.UNUSED
        kinds.append(int(kind))
    return kinds


def _scores(model: dict[str, Any], texts: list[str]) -> list[float]:
    """llama.cpp joins the two neighbours whose union scores best, BPE those whose merge comes
    first: so a token scores less the later its first merge comes. On Gemma 3 this is the order of
    the scores in Google's own tokenizer (236,249 tokens, none out of place)."""
    first: dict[str, int] = {}
    for place, pair in enumerate(model["merges"]):
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        first.setdefault(left + right, place)
    last = len(model["merges"])
    return [-float(first.get(text, last)) for text in texts]


def _leads_with_space(rules: dict[str, Any]) -> bool:
    """Whether a space is put before a text; raises UsageError for other habits than these."""
    normalizer, cutter = rules["normalizer"], rules["pre_tokenizer"]
    steps = normalizer["normalizers"] if _kind(normalizer) == "Sequence" else [normalizer]
    replaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    if _kind(cutter) == "Metaspace" and steps == [None]:
        if cutter["replacement"] == SPACE and not cutter.get("split", True):
            return bool(cutter["prepend_scheme"] != "never")
    elif cutter is None or (_kind(cutter) == "Split" and cutter["pattern"] == {"String": " "}):
        # The Split finds no space: the normalizer has replaced them all.
        if steps == [replaces]:
            return False
        if steps == [{"type": "Prepend", "prepend": SPACE}, replaces]:
            return True
    raise _unknown(f"its text is prepared by {normalizer} and {cutter}")


def _pretokenizer(rules: dict[str, Any]) -> str:
    # NFC leaves text as it is that is NFC already, as nearly all is.
    if rules["normalizer"] is not None and _kind(rules["normalizer"]) != "NFC":
        raise _unknown(f"its text is prepared by {rules['normalizer']}")
    cutter = rules["pre_tokenizer"]
    steps = cutter["pretokenizers"] if _kind(cutter) == "Sequence" else [cutter]
    # `trim_offsets` moves no border of a token.
    steps = [{k: v for k, v in (step or {}).items() if k != "trim_offsets"} for step in steps]
    whole = bool(rules["model"].get("ignore_merges"))
    for name, known in PRETOKENIZERS.items():
        if (steps, whole) == known:
            return name
    raise _unknown(f"its text is cut by {cutter}")


def _kind(step: dict[str, Any] | None) -> str:
    return "" if step is None else str(step["type"])


def _unknown(reason: str) -> UsageError:
    return UsageError(
        f"quantise: llama.cpp can't tokenise as this model does: {reason}; serve its safetensors, "
        f"or use a base model with one of the tokenizers {', '.join(PRETOKENIZERS)} or "
        "sentencepiece BPE"
    )
