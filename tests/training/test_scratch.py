"""A model from nothing is made of its texts and its seed alone, and opens like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tokka.errors import UsageError
from tokka.records import Message, ScratchSpec

pytest.importorskip("torch")

from tokka.models.opening import context_tokens_of, open_model, open_renderer
from tokka.models.protocol import GenerateRequest, ScoreRequest
from tokka.training.scratch import make

SMALL = ScratchSpec(vocabulary=420, layers=2, width=32, heads=2, context_tokens=64)
TEXTS = [
    "融資の限度額は三百万円である。締切は翌営業日の正午である。限度額を超える融資は部長が決裁する。",
    "融資の決裁者は店長である。限度額は店長が定める。ファイルはファイルサーバーに置く。",
    "The loan limit is 300 yen. The limit of the loan is set by the manager of the branch.",
] * 4
QUESTION = (Message(role="user", content="質問：限度額は。"),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scratch")
    make(path, TEXTS, SMALL, seed=3)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_texts_and_seed_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    import torch

    torch.rand(5)  # whatever was drawn before
    make(tmp_path / "again", iter(TEXTS), SMALL, seed=3)
    assert contents(tmp_path / "again") == contents(folder)
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(
        contents(folder)
    )


def test_another_seed_gives_other_weights_and_the_same_tokenizer(
    folder: Path, tmp_path: Path
) -> None:
    make(tmp_path, TEXTS, SMALL, seed=4)
    differ = {name for name, data in contents(tmp_path).items() if contents(folder)[name] != data}
    assert differ == {"model.safetensors"}


def test_the_callers_random_numbers_are_left_alone(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(1)
    before = torch.get_rng_state()
    make(tmp_path, TEXTS, SMALL, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_it_opens_scores_and_answers(folder: Path) -> None:
    with open_model(str(folder), language="ja") as model:
        prompt = model.renderer.prompt(QUESTION)
        options = (model.renderer.option("店長", prompt), model.renderer.option("円", prompt))
        (scored,) = model.score([ScoreRequest(prompt.ids, options)])
        assert all(likelihood < 0 for likelihood in scored.loglikelihoods)
        (said,) = model.generate([GenerateRequest(prompt, max_tokens=4)])
        assert (said.tokens_in, said.error) == (len(prompt.ids), "")
    assert context_tokens_of(folder) == SMALL.context_tokens


def test_weights_are_bfloat16_and_start_near_uniform(folder: Path) -> None:
    """A new model knows nothing: its guess is as good as any."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    weights = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    module = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    logits = module(torch.arange(2, 30)[None]).logits[0]
    loss = -logits.log_softmax(-1).mean()
    assert abs(loss - torch.tensor(float(logits.shape[-1])).log()) < 0.05


@pytest.mark.parametrize(
    "text",
    ["融資は店長が。", "The manager's 300 yen.\n\n  Two spaces", "𠮷野家 🍣 ｶﾞ １２３４"],
)
def test_every_text_is_spelled_back_after_nfkc(folder: Path, text: str) -> None:
    import unicodedata

    renderer = open_renderer(folder, "ja")
    running = renderer.running(text)
    assert renderer.decode(running.ids) == unicodedata.normalize("NFKC", text)
    assert (running.before, running.ids[-1]) == ((0,), 1)


def test_pieces_are_words_in_japanese_and_english(folder: Path) -> None:
    """Joined across scripts, a particle would grow onto each noun; cut at spaces only, a sentence
    would be one word."""
    renderer = open_renderer(folder, "ja")
    pieces = renderer.pieces(renderer.running("融資の限度額は店長が定める。The loan limit").ids)
    assert {"融資", "の", "限度額", "店長", " loan", " limit"} <= set(pieces)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    assert len(vocabulary) <= SMALL.vocabulary


def test_what_cant_be_made_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"width 36 must be a multiple of 2 × heads \(8\)"):
        make(tmp_path, TEXTS, ScratchSpec(width=36, heads=4), seed=0)
    with pytest.raises(UsageError, match="hold nothing to learn a tokenizer from"):
        make(tmp_path, [" ", ""], SMALL, seed=0)
