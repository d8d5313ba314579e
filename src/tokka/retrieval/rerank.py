"""The best hits once more, each read together with the query: by a cross-encoder, or by how likely
the local model finds the query after the passage.

Query and texts → one score each, higher is better, comparable between queries. Both kinds are
slower by orders of magnitude than a search, so only the best `rerank_depth` hits come here.

>>> with open_cross_encoder(folder) as reranker:
...     reranker.scores("融資の限度額は？", ["上限は300万円とする。", "翌月末日とする。"])
[4.21, -3.07]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from tokka.errors import IntegrityError, UsageError
from tokka.extras import require
from tokka.models.base_template import QUESTION_LABEL
from tokka.models.opening import context_tokens_of, digest_of, quiet
from tokka.models.prompting import CONTEXT_LABEL
from tokka.models.protocol import LanguageModel, Memo, Prompt, ScoreRequest
from tokka.models.safety import refuse_unsafe
from tokka.records import Message, RetrievalSpec, fingerprint

VERSION = 1  # raise when scores may change: it is part of every digest
BATCH_TOKENS = 4096  # of a batch of the cross-encoder, padding included
DIGITS = 5  # float results differ in the last bits between batches of other shapes
_VOCABULARIES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model",
    "spm.model", "tokenizer.model",
)  # fmt: skip
_ASK = {
    "ja": "次の資料を読めば答えられる質問を一つ書く。",
    "en": "Write one question that the following document answers.",
}


class Reranker(Protocol):
    """`digest` changes whenever a score could."""

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    def scores(self, query: str, texts: Sequence[str]) -> list[float]: ...
    def close(self) -> None: ...


def reranker_of(
    spec: RetrievalSpec, model: LanguageModel | None, root: Path, language: str
) -> Reranker | None:
    """The reranker that a retrieval setting asks for; None where it asks for none.

    `model` is the one that answers, so that nothing is loaded twice; `root` is the folder that
    `spec.reranker` is relative to. Raises UsageError where one of them is needed and missing.
    """
    if spec.rerank == "none":
        return None
    if spec.rerank == "cross-encoder":
        if not spec.reranker:
            raise UsageError(
                "retrieval: rerank: cross-encoder needs its folder; add reranker: models/NAME"
            )
        return open_cross_encoder(root / spec.reranker)
    if model is None:
        raise UsageError("retrieval: rerank: likelihood needs the arm's model; run the project")
    return Likelihood(model, language)


# ---- the query's likelihood ---------------------------------------------------------------------


class Likelihood:
    """Mean log-likelihood per token of the query behind "資料：{passage} 質問：".

    The query likelihood model (Ponte and Croft 1998) with a language model in place of counts
    (Sachan et al. 2022, UPR, eq. 4: (1/|q|) Σ log p(q_t | q_<t, z)). A base model reads the labels
    of the exam's own prompts, an instruct model is asked for a question. Closing it leaves the
    model open: it belongs to whoever opened it.
    """

    name = "likelihood"

    def __init__(self, model: LanguageModel, language: str) -> None:
        if not (model.capabilities.scores_options and model.capabilities.token_ids):
            raise UsageError(
                f"retrieval: rerank: likelihood needs a model that scores given texts, and "
                f"{model.name} hides that; use a cross-encoder, or none"
            )
        able = model.capabilities
        self.digest = fingerprint(
            ["likelihood", VERSION, model.digest, able.dtype, able.engine, language]
        )
        self._model = model
        self._language = "ja" if language == "ja" else "en"

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """Nats per token, at most 0. The beginning of a text that doesn't fit the model's context
        together with the query isn't read, nor is the end of a query longer than half of it."""
        asked = " ".join(query.split())
        if not asked or not texts:
            return [0.0] * len(texts)
        prompts = [self._prompt(text) for text in texts]
        room = max(1, self._model.capabilities.max_context_tokens // 2)
        options = self._model.renderer.options(prompts, [[asked]] * len(prompts))
        requests = [
            ScoreRequest(prompt.ids, (ids[:room],))
            for prompt, (ids,) in zip(prompts, options, strict=True)
        ]
        results = self._model.score(requests)
        return [
            round(result.loglikelihoods[0] / len(request.options[0]), DIGITS)
            for request, result in zip(requests, results, strict=True)
        ]

    def close(self) -> None:
        """Nothing is owned."""

    def _prompt(self, text: str) -> Prompt:
        shown = f"{CONTEXT_LABEL[self._language]}\n{' '.join(text.split())}"
        renderer = self._model.renderer
        if renderer.chat_template:
            asked = f"{_ASK[self._language]}\n\n{shown}"
            return renderer.prompt((Message(role="user", content=asked),))
        # What stands `before` is only text: a document can't write special tokens.
        return renderer.completion(QUESTION_LABEL[self._language], before=shown, scored=True)


# ---- a cross-encoder ----------------------------------------------------------------------------


def open_cross_encoder(folder: Path) -> CrossEncoder:
    """Open a sequence classifier in Hugging Face's layout, from safetensors only; code that comes
    with it never runs.

    Raises UsageError where there is none or it tells more than two labels apart, IntegrityError
    for files that aren't safe, MissingExtra without transformers.
    """
    refuse_unsafe(folder)
    transformers = require("transformers", extra="local")
    torch = require("torch", extra="local")
    quiet()
    if not any((folder / name).is_file() for name in _VOCABULARIES):
        # Where there is none, transformers makes an empty tokenizer, and every text is unknown.
        raise UsageError(
            f"reranker: {folder} holds no tokenizer ({', '.join(_VOCABULARIES)}); save the "
            "cross-encoder's own beside it"
        )
    where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **where)
        module, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
            str(folder),
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            **where,
        )
    except (OSError, ValueError) as error:
        raise UsageError(
            f"reranker: {folder} holds no sequence classifier that transformers knows "
            f"({error}); name a cross-encoder's folder"
        ) from error
    missing = sorted(loading["missing_keys"])
    if missing:
        # Weights that aren't there are filled with random numbers: such a model ranks at random.
        raise IntegrityError(
            f"reranker: {folder} has no weights for {missing[0]}, so it is no trained "
            "cross-encoder; name one, or use rerank: likelihood"
        )
    if module.config.num_labels > 2:
        raise UsageError(
            f"reranker: {folder} tells {module.config.num_labels} labels apart; a cross-encoder "
            "has one, or two of which the second is relevant"
        )
    return CrossEncoder(module, tokenizer, digest_of(folder, ""), _room(folder, tokenizer, module))


class CrossEncoder:
    """Query and text in one sequence; the logit of "relevant", or with two labels its log-odds
    (Nogueira and Cho 2019). float32; a text that doesn't fit is cut at its end."""

    name = "cross-encoder"

    def __init__(self, module: Any, tokenizer: Any, weights_digest: str, max_tokens: int) -> None:
        torch = require("torch", extra="local")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._module = module.eval().to(device)
        self._tokenizer, self._max_tokens = tokenizer, max_tokens
        engine = f"torch {torch.__version__} on {device}"
        self.digest = fingerprint(["cross-encoder", VERSION, weights_digest, max_tokens, engine])

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """One score a text. Batches hold texts of like lengths and depend on nothing but the
        texts."""
        if not texts:
            return []
        pairs = [self._encoded(query, text) for text in texts]
        sizes = [len(pair["input_ids"]) for pair in pairs]
        found = [0.0] * len(texts)
        for batch in batches(sizes, BATCH_TOKENS):
            for place, score in zip(batch, self._read([pairs[i] for i in batch]), strict=True):
                found[place] = round(score, DIGITS)
        return found

    def _encoded(self, query: str, text: str) -> Any:
        return self._tokenizer(query, text, truncation="longest_first", max_length=self._max_tokens)

    def _read(self, pairs: Sequence[Any]) -> list[float]:
        torch = require("torch", extra="local")
        padded = self._tokenizer.pad(pairs, return_tensors="pt").to(self._module.device)
        with torch.inference_mode():
            logits = self._module(**padded).logits.float()
        relevant = logits[:, -1] - (logits[:, 0] if logits.shape[1] == 2 else 0.0)
        scores: list[float] = relevant.tolist()
        return scores

    def close(self) -> None:
        self._module = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def batches(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Places in batches of like sizes, longest first; none above `budget` when padded, unless it
    holds a single one."""
    made: list[list[int]] = []
    width = 0
    for place in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        if made and width * (len(made[-1]) + 1) <= budget:
            made[-1].append(place)
        else:
            made.append([place])
            width = sizes[place]
    return made


def _room(folder: Path, tokenizer: Any, module: Any) -> int:
    """How many tokens fit. RoBERTa counts its positions from behind the padding's id."""
    positions = context_tokens_of(folder)
    if "roberta" in module.config.model_type or module.config.model_type == "camembert":
        positions -= int(module.config.pad_token_id) + 1
    return int(min(positions, tokenizer.model_max_length))


# ---- remembering --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Remembered:
    """A reranker whose scores are kept in `memo`, all of one query's together: a killed sitting
    doesn't compute them again."""

    inner: Reranker
    memo: Memo

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def digest(self) -> str:
        return self.inner.digest

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        key = fingerprint(["rerank", self.inner.digest, query, list(texts)])
        kept = self.memo.get(key)
        if kept is None:
            kept = self.inner.scores(query, texts)
            self.memo.put(key, kept)
        return [float(score) for score in kept]

    def close(self) -> None:
        self.inner.close()
