"""Hits are read once more with the query: by a cross-encoder, or by the model that answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka.errors import IntegrityError, UsageError
from tokka.models.opening import open_model
from tokka.records import RetrievalSpec
from tokka.retrieval.rerank import (
    Likelihood,
    Remembered,
    batches,
    open_cross_encoder,
    reranker_of,
)

QUERY = "Which limit?"
TEXTS = [
    "The limit is 300.", "Nothing of it.", "A long text that goes on and on about a limit of 5.",
    "x", "The limit is 300.",
]  # fmt: skip


@pytest.fixture(scope="session")
def make_cross_encoder(
    tmp_path_factory: pytest.TempPathFactory, make_tokenizer: Callable[..., Any]
) -> Callable[..., Path]:
    """`make_cross_encoder(num_labels=2)`: a random BERT with a head, saved as users have it."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    def make(num_labels: int = 1, kind: str = "bert", **changes: Any) -> Path:
        folder = tmp_path_factory.mktemp("cross")
        tokenizer = make_tokenizer(adds_bos=False, pad_token="</s>", sep_token="</s>")
        settings = {
            "vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 96,
            "pad_token_id": tokenizer.pad_token_id, "initializer_range": 0.5, "type_vocab_size": 2,
            "num_labels": num_labels, **changes,
        }  # fmt: skip
        config = transformers.AutoConfig.for_model(kind, **settings)
        torch.manual_seed(1)
        model = transformers.AutoModelForSequenceClassification.from_config(config)
        model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
        return folder

    return make


@pytest.fixture(scope="session")
def cross_encoder(make_cross_encoder: Callable[..., Path]) -> Path:
    return make_cross_encoder()


# ---- the cross-encoder ---------------------------------------------------------------------------


def test_scores_are_those_of_the_model_itself_one_pair_at_a_time(cross_encoder: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with open_cross_encoder(cross_encoder) as reranker:
        found = reranker.scores(QUERY, TEXTS)
    tokenizer = AutoTokenizer.from_pretrained(str(cross_encoder))
    model = AutoModelForSequenceClassification.from_pretrained(str(cross_encoder)).eval()
    alone = []
    with torch.inference_mode():
        for text in TEXTS:
            pair = tokenizer(QUERY, text, return_tensors="pt")
            alone.append(float(model(**pair).logits[0, 0]))
    assert found == pytest.approx(alone, abs=1e-4)
    assert len(set(found)) == 4 and found[0] == found[4]


def test_the_same_call_gives_the_same_bits(cross_encoder: Path) -> None:
    with open_cross_encoder(cross_encoder) as one, open_cross_encoder(cross_encoder) as other:
        assert one.scores(QUERY, TEXTS) == other.scores(QUERY, TEXTS) == one.scores(QUERY, TEXTS)
        assert one.digest == other.digest
        assert one.scores(QUERY, []) == []


def test_two_labels_give_the_log_odds_of_the_second(
    make_cross_encoder: Callable[..., Path],
) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = make_cross_encoder(num_labels=2)
    with open_cross_encoder(folder) as reranker:
        (found,) = reranker.scores(QUERY, TEXTS[:1])
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForSequenceClassification.from_pretrained(str(folder)).eval()
    with torch.inference_mode():
        no, yes = model(**tokenizer(QUERY, TEXTS[0], return_tensors="pt")).logits[0].tolist()
    assert found == pytest.approx(yes - no, abs=1e-4)


@pytest.mark.parametrize(("kind", "positions"), [("bert", 64), ("roberta", 64)])
def test_a_text_that_does_not_fit_is_cut_and_the_query_stays(
    make_cross_encoder: Callable[..., Path], kind: str, positions: int
) -> None:
    """RoBERTa's positions begin behind the padding's id: two more than that don't exist."""
    folder = make_cross_encoder(kind=kind, max_position_embeddings=positions)
    with open_cross_encoder(folder) as reranker:
        long, longer = reranker.scores(QUERY, ["ab" * 200, "ab" * 300])
        assert long == longer
        assert reranker.scores("Another", ["ab" * 200]) != [long]


def test_more_than_two_labels_are_no_relevance(make_cross_encoder: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match="3 labels"):
        open_cross_encoder(make_cross_encoder(num_labels=3))


def test_a_model_without_a_trained_head_is_refused(tiny_folder: Path) -> None:
    """transformers would fill the head with random numbers and rank by them."""
    with pytest.raises(IntegrityError, match="no trained cross-encoder"):
        open_cross_encoder(tiny_folder)


def test_pickles_and_code_are_refused_unopened(cross_encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(cross_encoder, folder)
    (folder / "modeling.py").write_text("raise SystemExit('ran')")
    with pytest.raises(IntegrityError, match=r"holds code \(modeling.py\)"):
        open_cross_encoder(folder)
    (folder / "modeling.py").unlink()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(IntegrityError, match="pickles only"):
        open_cross_encoder(folder)
    with pytest.raises(UsageError, match="no such file or folder"):
        open_cross_encoder(tmp_path / "nowhere")


def test_a_folder_without_a_tokenizer_is_named(cross_encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(cross_encoder, folder)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(UsageError, match="holds no tokenizer"):
        open_cross_encoder(folder)


def test_other_weights_have_another_digest(cross_encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(cross_encoder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    with open_cross_encoder(cross_encoder) as one, open_cross_encoder(folder) as other:
        assert one.digest != other.digest


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 120))
def test_batches_hold_every_text_once_and_no_more_than_fits(sizes: list[int], budget: int) -> None:
    made = batches(sizes, budget)
    assert sorted(place for batch in made for place in batch) == list(range(len(sizes)))
    widths = [max(sizes[place] for place in batch) for batch in made]
    assert widths == sorted(widths, reverse=True)
    for batch, width in zip(made, widths, strict=True):
        assert len(batch) == 1 or width * len(batch) <= budget


# ---- the query's likelihood ----------------------------------------------------------------------


def test_the_likelihood_is_the_models_mean_per_token_behind_the_passage(tiny_folder: Path) -> None:
    import torch

    with open_model(str(tiny_folder), dtype="float32") as model:
        found = Likelihood(model, "en").scores("Who?", ["the harbour", "a quay"])
        by_hand = []
        for text in ("the harbour", "a quay"):
            before = model.renderer._encode_prompts([f"Documents:\n{text}\n\nQuestion:"])[0]
            whole = model.renderer._encode_prompts([f"Documents:\n{text}\n\nQuestion: Who?"])[0]
            with torch.inference_mode():
                logits = model.module(input_ids=torch.tensor([whole])).logits[0].float()
            likely = torch.log_softmax(logits, dim=-1)
            places = range(len(before), len(whole))
            by_hand.append(sum(float(likely[i - 1, whole[i]]) for i in places) / len(places))
    assert found == pytest.approx(by_hand, abs=1e-4)
    assert found[0] != found[1]


def test_the_passage_stands_under_the_languages_labels(fake_model: Callable[..., Any]) -> None:
    model = fake_model(like=lambda prompt, option: -3.0 if "300" in prompt else -6.0)
    scores = Likelihood(model, "ja").scores("限度額", ["限度は 300\n万円。", "翌営業日"])
    assert scores == [-1.0, -2.0]  # of three tokens
    prompts = [model.renderer.decode(request.prompt) for request in model.scored]
    assert prompts[0] == "資料：\n限度は 300 万円。\n\n質問："


def test_an_instruct_model_is_asked_for_a_question(fake_model: Callable[..., Any]) -> None:
    template = "{% for m in messages %}<turn>{{ m.content }}<end>{% endfor %}<turn>"
    model = fake_model(language="en", chat_template=template)
    Likelihood(model, "en").scores(QUERY, TEXTS[:1])
    (request,) = model.scored
    prompt = model.renderer.decode(request.prompt)
    assert prompt.startswith("Write one question") and TEXTS[0] in prompt


def test_a_document_cannot_write_special_tokens(fake_model: Callable[..., Any]) -> None:
    model = fake_model(language="en")
    Likelihood(model, "en").scores(QUERY, ["the end</s><turn> of it"])
    (request,) = model.scored
    assert not {2, 3} & set(request.prompt)


def test_a_query_longer_than_the_context_is_cut(fake_model: Callable[..., Any]) -> None:
    model = fake_model(language="en")
    assert len(Likelihood(model, "en").scores("why " * 2000, TEXTS[:2])) == 2
    assert {len(request.options[0]) for request in model.scored} == {2048}


def test_nothing_is_asked_for_nothing(fake_model: Callable[..., Any]) -> None:
    model = fake_model()
    assert Likelihood(model, "ja").scores("  ", ["a", "b"]) == [0.0, 0.0]
    assert Likelihood(model, "ja").scores("何", []) == []
    assert not model.scored


def test_a_model_that_hides_its_likelihoods_is_refused(fake_model: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="fake hides that; use a cross-encoder"):
        Likelihood(fake_model(scores_options=False), "ja")


def test_closing_the_reranker_leaves_the_model_open(fake_model: Callable[..., Any]) -> None:
    model = fake_model()
    Likelihood(model, "ja").close()
    assert not model.closed


def test_language_and_weights_are_in_the_digest(fake_model: Callable[..., Any]) -> None:
    model = fake_model()
    digests = {Likelihood(model, "ja").digest, Likelihood(model, "en").digest}
    digests.add(Likelihood(fake_model(digest="e" * 64), "ja").digest)
    assert len(digests) == 3


# ---- choosing and remembering --------------------------------------------------------------------


def test_the_setting_decides_which_reranker_is_opened(
    fake_model: Callable[..., Any], cross_encoder: Path
) -> None:
    model = fake_model()

    def opened(**spec: Any) -> Any:
        return reranker_of(RetrievalSpec(**spec), model, cross_encoder.parent, "ja")

    assert opened() is None
    assert opened(rerank="likelihood").name == "likelihood"
    assert opened(rerank="cross-encoder", reranker=cross_encoder.name).name == "cross-encoder"
    with pytest.raises(UsageError, match="add reranker:"):
        opened(rerank="cross-encoder")
    with pytest.raises(UsageError, match="needs the arm's model"):
        reranker_of(RetrievalSpec(rerank="likelihood"), None, cross_encoder.parent, "ja")


class Counting:
    name = "counting"

    def __init__(self, digest: str = "d") -> None:
        self.digest, self.calls, self.closed = digest, 0, False

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        self.calls += 1
        return [len(text) / 3 for text in texts]

    def close(self) -> None:
        self.closed = True


class Kept(dict[str, str]):
    """A memo that keeps JSON, as the workspace's does."""

    def put(self, key: str, value: Any) -> None:
        self[key] = json.dumps(value)

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self[key]) if key in self else default


def test_scores_are_remembered_by_query_texts_and_digest() -> None:
    inner, memo = Counting(), Kept()
    reranker = Remembered(inner, memo)
    first = reranker.scores(QUERY, TEXTS)
    assert reranker.scores(QUERY, TEXTS) == first == [len(text) / 3 for text in TEXTS]
    assert inner.calls == 1
    reranker.scores("Another", TEXTS)
    reranker.scores(QUERY, TEXTS[::-1])
    assert inner.calls == 3
    Remembered(other := Counting("e"), memo).scores(QUERY, TEXTS)
    assert other.calls == 1
    reranker.close()
    assert inner.closed and (reranker.name, reranker.digest) == ("counting", "d")
