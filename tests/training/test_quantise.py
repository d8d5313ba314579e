"""A GGUF is the model it was made from: same ids, near the same scores, nothing lost on the way."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import pytest

from tokka.errors import IntegrityError, UsageError
from tokka.models.protocol import ScoreRequest
from tokka.training.start import Start

torch = pytest.importorskip("torch")
gguf = pytest.importorskip("gguf", reason="needs tokka[quantise]")
import numpy as np  # noqa: E402
import transformers  # noqa: E402
from tokenizers import (  # noqa: E402
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from tokka.models.opening import open_renderer  # noqa: E402
from tokka.models.torch_model import TorchModel, load_module  # noqa: E402
from tokka.training import gguf_tokens, weights_files  # noqa: E402
from tokka.training.gguf_tokens import PRETOKENIZERS  # noqa: E402
from tokka.training.quantise import quantise, type_of  # noqa: E402

TEXTS = [
    "Which colour is the lighthouse? The lighthouse is blue, and don't I'll WE'VE.",
    "  two  spaces   three\n\n\tand 123 4567 3.14 numbers; banana, cabana, nabbed, bandana",
    "日本語の文章です。漢字とカナ、ｶﾅ。融資は翌営業日に実行する。",
    "emoji 🎌🏽 é ñ \u3000 {}[]() <s> and </s> in a text",
]
EVERY_SIXTH = [*["sliding_attention"] * 5, "full_attention"]
GEMMA = {"num_hidden_layers": 6, "layer_types": EVERY_SIXTH, "query_pre_attn_scalar": 16}
# What tokka writes; the other families of that file are refused.
SHAPES = {
    "gemma3": GEMMA,
    "llama": {},
    "smollm2": {"hidden_size": 64, "intermediate_size": 128},
    "qwen2": {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}},
    "qwen3": {},
    "mistral": {},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def byte_level(cut: str = "gpt-2", **named: Any) -> Any:
    """A tokenizer of GPT-2's kind, its pieces learnt from the texts."""
    rules = Tokenizer(models.BPE())
    regex = [p for p in PRETOKENIZERS[cut][0] if p["type"] == "Split"]
    steps = [pre_tokenizers.Split(Regex(p["pattern"]["Regex"]), "isolated") for p in regex]
    if cut == "smollm":
        steps = [pre_tokenizers.Digits(individual_digits=True)]
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not regex)
    rules.pre_tokenizer = pre_tokenizers.Sequence([*steps, level]) if steps else level
    rules.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<s>", "</s>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rules.train_from_iterator(TEXTS * 3, trainer)
    if cut == "llama-bpe":
        rules.model.ignore_merges = True
    return wrapped(rules, **named)


def sentencepiece(**named: Any) -> Any:
    """A tokenizer of Gemma's kind: spaces are ▁, what has no piece is spelt in bytes."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.train_from_iterator(
        TEXTS[:2] * 3, trainers.BpeTrainer(vocab_size=160, show_progress=False)
    )
    learnt = json.loads(learner.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>", "<end>", *(f"<0x{n:02X}>" for n in range(256))]
    pieces += sorted(learnt["vocab"], key=lambda t: learnt["vocab"][t])
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    merges = [tuple(pair) for pair in learnt["merges"]]
    rules = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    rules.normalizer = normalizers.Replace(" ", "▁")
    rules.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    rules.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return wrapped(rules, unk_token="<unk>", **named)


def wrapped(rules: Any, **named: Any) -> Any:
    place = rules.token_to_id("<s>")
    rules.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", place)]
    )
    how = {"bos_token": "<s>", "eos_token": "</s>", **named}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=rules, extra_special_tokens=["<end>"], **how
    )


def model_folder(folder: Path, family: str, tokenizer: Any = None, **changes: Any) -> Path:
    tokenizer = tokenizer or (sentencepiece() if family == "gemma3" else byte_level())
    tokenizer.save_pretrained(str(folder))
    rows = len(tokenizer) + 3  # as many models have more rows than tokens
    named = {"vocab_size": rows, "max_position_embeddings": 512, "bos_token_id": 0}
    module = families.make(family, **{**named, **SHAPES.get(family, {}), **changes})
    module.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Start:
    return Start(model_folder(tmp_path_factory.mktemp("llama"), "llama"), "b" * 64)


def asked(renderer: Any) -> list[ScoreRequest]:
    """Two prompts, one longer than Gemma's window; four options."""
    encode = renderer._tokenizer
    prompts = [tuple(encode(text).input_ids) for text in (TEXTS[0][:30], TEXTS[2] + TEXTS[1])]
    options = [
        tuple(encode(o, add_special_tokens=False).input_ids) for o in ("blue", " 12", " the")
    ]
    return [ScoreRequest(prompt, (*options, options[0] + options[1])) for prompt in prompts]


def compare(folder: Path, start: Start, tolerance: float) -> None:
    """Ids of every text and scores of every option: llama.cpp's against the folder's own."""
    pytest.importorskip("xllamacpp", reason="needs tokka[llamacpp]")
    from tokka.models.llamacpp import open_llamacpp

    renderer = open_renderer(folder, "en")
    module = load_module(start.base, "float32", start.adapters)
    mine = TorchModel(module, renderer, name="folder", digest="")
    questions = asked(renderer)
    with open_llamacpp(folder / "model.gguf", renderer, "", context_tokens=512, threads=1) as model:
        for text in TEXTS:
            wanted = renderer._tokenizer(text).input_ids
            body = {"content": text, "add_special": True, "parse_special": True}
            assert model._client.post("/tokenize", json=body).json()["tokens"] == wanted, text
        for own, theirs in zip(mine.score(questions), model.score(questions), strict=True):
            assert theirs.loglikelihoods == pytest.approx(own.loglikelihoods, abs=tolerance)


def marks(folder: Path) -> dict[str, Any]:
    fields = gguf.GGUFReader(str(folder / "model.gguf")).fields
    return {name: field.contents() for name, field in fields.items()}


@pytest.mark.parametrize("family", SHAPES)
def test_a_gguf_tokenises_and_scores_as_the_folder_it_came_from(
    family: str, tmp_path: Path
) -> None:
    start = Start(model_folder(tmp_path / "model", family), "")
    quantise(tmp_path / "out", start, "f16")
    compare(tmp_path / "out", start, 0.05)


@pytest.mark.parametrize("cut", PRETOKENIZERS)
def test_every_way_to_cut_words_gives_the_folders_ids(cut: str, tmp_path: Path) -> None:
    start = Start(model_folder(tmp_path / "model", "smollm2", byte_level(cut)), "")
    quantise(tmp_path / "out", start, "f16")
    assert marks(tmp_path / "out")["tokenizer.ggml.pre"] == cut
    compare(tmp_path / "out", start, 0.05)


@pytest.mark.parametrize(("kind", "tolerance"), [("q8_0", 2.0), ("q4_k_m", 6.0)])
def test_fewer_bits_stay_near(kind: Any, tolerance: float, tmp_path: Path) -> None:
    pytest.importorskip("libgguf", reason="needs tokka[quantise]")
    changes = {"hidden_size": 256, "intermediate_size": 256}
    start = Start(model_folder(tmp_path / "model", "smollm2", **changes), "")
    for name in ("one", "two"):
        quantise(tmp_path / name, start, kind)
    one, two = (tmp_path / name / "model.gguf" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    told = json.loads((tmp_path / "one" / "quantise.json").read_text())
    wanted = {"q8_0": {"F32", "Q8_0"}, "q4_k_m": {"F32", "Q4_K", "Q6_K"}}[kind]
    assert set(told["tensors"]) == wanted
    weights = weights_files.Weights(start.base)
    tensor = next(t for t in gguf.GGUFReader(str(one)).tensors if t.name == "blk.0.ffn_up.weight")
    exact = weights["model.layers.0.mlp.up_proj.weight"].float().numpy()
    off = gguf.dequantize(tensor.data, tensor.tensor_type) - exact
    assert np.sqrt(np.mean(off**2)) < {"q8_0": 0.01, "q4_k_m": 0.1}[kind] * exact.std()
    compare(tmp_path / "one", start, tolerance)


def test_q4_k_m_gives_each_tensor_the_type_that_llama_cpp_gives_it() -> None:
    """The published Gemma 3 270M Q4_K_M (18 layers, width 640, head tied), tensor by tensor."""
    more = {0, 1, 4, 7, 10, 13, 15, 16, 17}
    for layer in range(18):
        found = {
            name: type_of(f"blk.{layer}.{name}.weight", shape, "q4_k_m", 18, True)
            for name, shape in {
                "attn_q": (1024, 640), "attn_k": (256, 640), "attn_v": (256, 640),
                "attn_output": (640, 1024), "ffn_up": (2048, 640), "ffn_down": (640, 2048),
                "attn_norm": (640,),
            }.items()
        }  # fmt: skip
        assert found == {
            "attn_q": "Q5_0", "attn_k": "Q5_0", "attn_v": "Q8_0" if layer in more else "Q5_0",
            "attn_output": "Q4_K", "ffn_up": "Q5_0",
            "ffn_down": "Q6_K" if layer in more else "Q4_K", "attn_norm": "F32",
        }  # fmt: skip
    assert type_of("token_embd.weight", (262_144, 640), "q4_k_m", 18, True) == "Q8_0"
    assert type_of("token_embd.weight", (32_000, 4096), "q4_k_m", 18, False) == "Q4_K"
    assert type_of("output.weight", (32_000, 4096), "q4_k_m", 18, False) == "Q6_K"


def test_adapters_are_folded_in(llama: Start, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="needs tokka[train]")
    adapted = peft.get_peft_model(
        load_module(llama.base, "float32"),
        peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False),
    )
    adapted.save_pretrained(str(tmp_path / "adapter"))
    start = Start(llama.base, llama.digest, (tmp_path / "adapter",))
    quantise(tmp_path / "out", start, "f16")
    assert not (tmp_path / "out" / "folded").exists()
    with pytest.raises(AssertionError):
        compare(tmp_path / "out", llama, 0.3)
    compare(tmp_path / "out", start, 0.3)  # the fold is rounded to bfloat16


def test_the_file_carries_what_other_programs_need(tmp_path: Path) -> None:
    """Template, begin, end, and the end of turn that is not EOS (ollama#8363)."""
    template = "{% for m in messages %}{{ m.content }}<end>{% endfor %}"
    tokenizer = byte_level(chat_template=template, pad_token="</s>")
    start = Start(model_folder(tmp_path / "model", "llama", tokenizer), "b" * 64)
    (start.base / "NOTICE").write_text("Terms that travel.")
    quantise(tmp_path / "out", start, "f16")
    found = marks(tmp_path / "out")
    for name, value in {
        "bos": 0, "eos": 1, "eot": 2, "padding": 1,
    }.items():  # fmt: skip
        assert found[f"tokenizer.ggml.{name}_token_id"] == value
    assert found["tokenizer.chat_template"] == template
    assert found["tokenizer.ggml.add_bos_token"] is True
    assert found["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]
    assert found["tokenizer.ggml.tokens"][-1].startswith("[PAD")
    beside = {path.name for path in (tmp_path / "out").iterdir()}
    assert beside >= {"tokenizer.json", "NOTICE", "config.json", "quantise.json", "model.gguf"}
    assert open_renderer(tmp_path / "out", "en").stop_ids == {1, 2}


@pytest.mark.parametrize("key", ["tokenizer.ggml.eos_token_id", "tokenizer.chat_template"])
def test_a_lost_mark_is_found_before_the_file_is_there(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = byte_level(chat_template="{% for m in messages %}{{ m.content }}</s>{% endfor %}")
    start = Start(model_folder(tmp_path / "model", "llama", tokenizer), "")
    whole = gguf_tokens.marks_of

    def without(tokenizer: Any) -> dict[str, Any]:
        return {name: value for name, value in whole(tokenizer).items() if name != key}

    monkeypatch.setattr(gguf_tokens, "marks_of", without)  # what is written, not what is checked
    with pytest.raises(IntegrityError, match=key):
        quantise(tmp_path / "out", start, "f16")
    assert not (tmp_path / "out" / "model.gguf").exists()


def test_a_finished_file_is_kept_and_another_one_is_not(llama: Start, tmp_path: Path) -> None:
    (tmp_path / "model.gguf.tmp").write_bytes(b"half of a file")
    quantise(tmp_path, llama, "f16")
    os.utime(tmp_path / "model.gguf", (1, 1))
    quantise(tmp_path, llama, "f16")
    assert (tmp_path / "model.gguf").stat().st_mtime == 1
    quantise(tmp_path, Start(llama.base, "another"), "f16")
    assert (tmp_path / "model.gguf").stat().st_mtime > 1


# ---- refused rather than wrong ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("gpt2", {}, "family gpt2 as GGUF; it knows gemma3_text, llama"),
        ("mistral-window", {}, "only the last 16 tokens"),
        ("qwen2-window", {}, "only the last 16 tokens"),
        ("llama", {"hidden_act": "gelu"}, "activation is gelu"),
        ("gemma3", {"layer_types": ["full_attention"] * 6}, "every 6th layer"),
        ("gemma3", {"query_pre_attn_scalar": 24}, "query_pre_attn_scalar is 24, not 16"),
        ("gemma3", {"final_logit_softcapping": 30.0}, "logits are capped"),
    ],
)
def test_a_model_that_llama_cpp_computes_otherwise_is_refused(
    family: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    start = Start(model_folder(tmp_path / "model", family, **changes), "")
    with pytest.raises(UsageError, match=message):
        quantise(tmp_path / "out", start, "f16")


def test_a_tokenizer_that_llama_cpp_does_not_know_is_refused(
    llama: Start, make_tokenizer: Callable[..., Any], tmp_path: Path
) -> None:
    def refused(tokenizer: Any, message: str) -> None:
        shutil.copytree(llama.base, tmp_path / "model", dirs_exist_ok=True)
        tokenizer.save_pretrained(str(tmp_path / "model"))
        with pytest.raises(UsageError, match=message):
            quantise(tmp_path / "out", Start(tmp_path / "model", ""), "f16")

    refused(make_tokenizer(), "kind WordLevel, not BPE")
    other = byte_level()
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(use_regex=False)
    refused(other, r"can't tokenise as this model does.*is cut by")
    folded = byte_level()
    folded.backend_tokenizer.normalizer = normalizers.NFKC()
    refused(folded, r"prepared by .*NFKC")
    refused(byte_level(eos_token=None), "names no EOS token")


def test_numbers_beyond_f16_are_refused(llama: Start, tmp_path: Path) -> None:
    module = load_module(llama.base, "float32")
    with torch.no_grad():
        module.model.layers[0].mlp.up_proj.weight[0, 0] = 1e6
    weights_files.write_model(tmp_path / "model", module, llama.base)
    with pytest.raises(UsageError, match=r"up_proj\.weight holds numbers beyond 65504.*q8_0"):
        quantise(tmp_path / "out", Start(tmp_path / "model", ""), "f16")


def test_the_bytes_of_a_rare_character_are_scored_as_the_folder_scores_them(
    llama: Start, tmp_path: Path
) -> None:
    """The server keeps silent about the first byte of a character until the last one is there."""
    pytest.importorskip("xllamacpp", reason="needs tokka[llamacpp]")
    from tokka.models.llamacpp import open_llamacpp

    quantise(tmp_path / "out", llama, "f16")
    renderer = open_renderer(tmp_path / "out", "ja")
    encode = renderer._tokenizer
    options = tuple(
        tuple(encode(text, add_special_tokens=False).input_ids)
        for text in ("鬱", "𠮷野家", "🎏", "薔薇")
    )
    assert min(map(len, options)) > 2
    asked = [ScoreRequest(tuple(encode(TEXTS[2]).input_ids), options)]
    mine = TorchModel(load_module(llama.base, "float32"), renderer, name="folder", digest="")
    path = tmp_path / "out" / "model.gguf"
    with open_llamacpp(path, renderer, "", context_tokens=512, threads=1) as model:
        (theirs,), (again,) = model.score(asked), model.score(asked)
    (own,) = mine.score(asked)
    assert theirs.loglikelihoods == pytest.approx(own.loglikelihoods, abs=0.05)
    assert theirs.loglikelihoods == again.loglikelihoods
