"""READ FIRST: every value that crosses a folder.

All records are frozen, refuse unknown fields and carry `schema_version`; they are written as JSON
lines and read back by the next step, so a record is also a file format.

    Source → Document ─┬→ Chunk ───────┐
                       └→ Example ─────┼→ Arm → Candidate → Specialist
    Exam: Question ────────────────────┘                        └→ Answer + Key → Score
    Score × Score(control) → Comparison → Verdict → Results

Tuples, not lists: a record never changes. Units live in names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Role = Literal["domain", "retention", "safety"]
Form = Literal["choice", "short", "number"]
Split = Literal["dev", "test"]
Outcome = Literal["pass", "fail", "inconclusive"]
ScoreStatus = Literal["scored", "refused", "abstained", "error", "waiting"]
ShortScorer = Literal["contained", "exact", "f1", "letters", "spans", "judge"]
Normalisation = Literal["sum", "tokens", "characters", "bytes"]
HashKind = Literal["tokens", "messages"]
ScoringMethod = Literal["loglikelihood", "letter", "text"]
Objective = Literal["dpo", "kto", "orpo"]
OPTION_ORDER, ROTATED = "option order", "rotated"  # a setting of a sitting, and its value


class Record(BaseModel):
    # A likelihood that is no number stays in the file as such: null could not be read back.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
    schema_version: Literal[1] = 1


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, records as plain data."""
    return json.dumps(
        value,
        sort_keys=True,
        ensure_ascii=False,
        separators=(",", ":"),
        default=lambda v: v.model_dump(mode="json") if isinstance(v, BaseModel) else str(v),
    )


def fingerprint(value: Any) -> str:
    """SHA-256 of the canonical JSON, in hex (64 characters)."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


# ---- corpus -----------------------------------------------------------------------------------


class Message(Record):
    role: Literal["system", "user", "assistant"]
    content: str


Messages = tuple[Message, ...]


class Document(Record):
    """`text[page_starts[i]:page_starts[i+1]]` is page i+1; empty where the format has no pages.
    Whoever holds one of the labels in `access` may see it; without labels, everybody."""

    id: str
    text: str
    source: str
    title: str
    language: str
    sha256: str
    licence: str = ""
    access: tuple[str, ...] = ()
    valid_from: str | None = None
    valid_to: str | None = None
    metadata: dict[str, str] = {}
    page_starts: tuple[int, ...] = ()

    @property
    def facts(self) -> DocumentFacts:
        """What is known of the document beside its text."""
        names = [name for name in DocumentFacts.model_fields if name != "document_id"]
        return DocumentFacts(document_id=self.id, **{n: getattr(self, n) for n in names})


class DocumentFacts(Record):
    """A document without its text: what a search can filter by, and what a passage is shown
    with."""

    document_id: str
    source: str
    title: str
    language: str
    licence: str = ""
    access: tuple[str, ...] = ()
    valid_from: str | None = None
    valid_to: str | None = None
    metadata: dict[str, str] = {}


class Chunk(Record):
    """`document.text[start:end] == text`. `before` is what stands between the chunk before it and
    this one (or the document's beginning): blank, or a heading's line; empty where they overlap."""

    id: str
    document_id: str
    text: str
    start: int
    end: int
    page: int | None = None
    headings: tuple[str, ...] = ()
    access: tuple[str, ...] = ()
    before: str = ""


class Caller(Record):
    """Who searches. `labels` None sees everything: the owner's own exam. A document with access
    labels is there for callers that hold one of them; a document without, for all."""

    labels: tuple[str, ...] | None = None

    def may_see(self, access: Collection[str]) -> bool:
        return self.labels is None or not access or not set(self.labels).isdisjoint(access)


class Dropped(Record):
    """Something that was left out, and why: it reaches the report."""

    item: str
    reason: str
    stage: str
    next_action: str = ""


# ---- examples and exams -----------------------------------------------------------------------


class Example(Record):
    """A training conversation. The last message is the assistant's and is the one that is
    learnt."""

    id: str
    messages: Messages
    fact_id: str = ""
    document_ids: tuple[str, ...] = ()
    origin: str = "label"
    split: Literal["train", "dev"] = "train"


class Preference(Record):
    """Two answers to the same prompt, `chosen` better than `rejected`. KTO also takes one answer
    alone: wanted as `chosen`, unwanted as `rejected`, the other empty."""

    id: str
    messages: Messages
    chosen: str = ""
    rejected: str = ""

    @model_validator(mode="after")
    def _has_an_answer(self) -> Self:
        if not (self.chosen or self.rejected):
            raise ValueError(f"preference {self.id}: chosen and rejected are both empty; give one")
        return self


class Question(Record):
    """`messages` is what is asked (usually one user message); the key lives elsewhere.

    Where `completion` is given, it is the whole prompt, shots included, and goes to the model as it
    stands; `messages` then holds the question alone, for display and search. `delimiter` stands
    between that prompt and an answer, and belongs to the answer. `stop` and `max_tokens` say how
    its written answer ends; None leaves that to the arm. `gold` are the words of the documents that
    hold the answer.
    """

    id: str
    messages: Messages
    form: Form
    choices: tuple[str, ...] = ()
    completion: str = ""
    delimiter: str = ""
    stop: tuple[str, ...] | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=8192)
    topic: str = ""
    cluster_id: str = ""
    document_ids: tuple[str, ...] = ()
    gold: tuple[str, ...] = ()
    split: Split = "test"


class TextFilter(Record):
    """One step from a written text to what is compared (`tokka.exam.harness.marking`)."""

    function: Literal["regex", "remove_whitespace", "lowercase", "uppercase", "map"]
    pattern: str = ""
    match: int = 0
    fallback: str = "[invalid]"
    mapping: dict[str, str] = {}
    default: str | None = None


class FilterChain(Record):
    name: str
    steps: tuple[TextFilter, ...] = ()


class Marking(Record):
    """How lm-evaluation-harness marks a text: each chain of filters, then an exact match. The first
    chain decides the score, the others are reported."""

    chains: tuple[FilterChain, ...] = Field(min_length=1)
    regexes_to_ignore: tuple[str, ...] = ()
    ignore_case: bool = False
    ignore_punctuation: bool = False
    ignore_numbers: bool = False


class Key(Record):
    """`choice` indexes `Question.choices`; `targets` are the accepted texts or numbers, none where
    the question is `unanswerable`: the documents don't hold the answer, and saying so is right.
    `marking` replaces the exam's own scorer of texts."""

    question_id: str
    targets: tuple[str, ...]
    choice: int | None = None
    unanswerable: bool = False
    marking: Marking | None = None
    unit: str = ""
    tolerance: float = 0.0
    points: tuple[str, ...] = ()
    prohibited: tuple[str, ...] = ()


class Exam(Record):
    name: str
    role: Role
    digest: str
    scorer: str
    normalisation: Normalisation
    questions: int
    language: str = ""


# ---- arms -------------------------------------------------------------------------------------


class PromptSpec(Record):
    """`selection: nearest` picks the shots by similarity to each question; `format` is appended to
    it. `stop` None is the model's habit: base models end at a line's end, instruct models by EOS.
    """

    system: str = ""
    shots: int = Field(default=0, ge=0, le=64)
    shots_from: str = ""
    selection: Literal["fixed", "nearest"] = "fixed"
    seed: int = Field(default=0, ge=0, lt=2**32)
    max_tokens: int = Field(default=48, ge=1, le=8192)
    stop: tuple[str, ...] | None = None
    format: str = ""


class RetrievalSpec(Record):
    """How passages are searched for. Rankings of lexical and dense search, one for each of the
    `queries`, are fused by their weighted scores or reciprocal ranks (`pairs` is what adjacent
    words that the query and a text share count in the lexical one, `named` what a document gets
    that the query calls by its numbered title); the best `rerank_depth` may be reranked;
    references in them followed; then each is widened by its neighbours or to its whole section.
    `weights: tuned` and `silence: tuned` are chosen on the development split. Below `silence` the
    arm says that the documents don't hold the answer. `where` keeps to documents with these facts.
    """

    top_k: int = Field(default=4, ge=1, le=50)
    lexical: bool = True
    dense: bool = True
    candidates: int = Field(default=50, ge=1)
    fusion: Literal["scores", "ranks"] = "scores"
    rrf_k: int = Field(default=60, ge=1)  # of ranks
    weights: tuple[float, float] | Literal["tuned"] = (1.0, 1.0)  # of lexical, of dense
    pairs: float = Field(default=1.0, ge=0)
    named: float = Field(default=1.0, ge=0)
    queries: Literal["question", "options", "together", "rewrite"] = "question"
    rerank: Literal["none", "cross-encoder", "likelihood"] = "none"
    rerank_depth: int = Field(default=20, ge=1, le=200)
    reranker: str = ""  # the folder of a cross-encoder
    follow: int = Field(default=0, ge=0, le=10)  # passages that references may add
    neighbours: int = Field(default=0, ge=0, le=10)  # chunks on each side
    parent: bool = False
    synonyms: str = ""  # a file of lines such as: 融資, 貸付, ローン
    silence: float | Literal["tuned"] | None = None
    where: dict[str, str] = {}

    @model_validator(mode="after")
    def _needs_a_way(self) -> Self:
        if not (self.lexical or self.dense):
            raise ValueError("retrieval: lexical and dense are both off; turn one on")
        if isinstance(self.silence, float) and not 0 <= self.silence <= 1:
            raise ValueError(
                f"retrieval: silence must be a number from 0 to 1 or tuned, got {self.silence:g}"
            )
        return self


class ReplaySpec(Record):
    """General text or examples mixed into training against forgetting: `share` of all tokens
    (Ibrahim et al. 2024: 5 % keeps most of what 25 % keeps)."""

    data: str
    share: float = Field(default=0.05, ge=0, lt=1)


class PullSpec(Record):
    """A pull towards the weights that the stage began with: `kl` nats per supervised token between
    both models' next-token distributions, `l2` half the squared distance of the weights (L2-SP, Li
    et al. 2018); each times its number."""

    kl: float = Field(default=0.0, ge=0)
    l2: float = Field(default=0.0, ge=0)


class TrainingSpec(Record):
    """What every stage that trains shares. `learning_rate` None is the method's default
    (`tokka.learning_rates`); `accumulate` batches make a step; `checkpoints` states are kept
    along the way for `choose`. `rank`, `alpha` (None: 2 × rank), `rslora` and `dora` shape an
    adapter and mean nothing to `full`. `together` puts lessons that begin alike into one batch,
    where their beginning is read once. `recompute` forgets what is between the layers and computes
    it again on the way back: a third more time for a fraction of the memory."""

    method: Literal["lora", "qlora", "full"] = "lora"
    learning_rate: float | None = Field(default=None, gt=0)
    epochs: float = Field(default=3.0, gt=0)
    max_train_tokens: int | None = Field(default=None, ge=1)
    batch_tokens: int = Field(default=1024, ge=16)
    accumulate: int = Field(default=1, ge=1, le=1024)
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    rank: int = Field(default=16, ge=1, le=1024)
    alpha: float | None = Field(default=None, gt=0)
    rslora: bool = False
    dora: bool = False
    replay: ReplaySpec | None = None
    pull: PullSpec = PullSpec()
    checkpoints: int = Field(default=0, ge=0, le=50)
    together: bool = True
    recompute: bool = False
    seed: int = Field(default=0, ge=0, lt=2**32)


class FinetuneSpec(TrainingSpec):
    """Learning from examples: the answer is learnt, the prompt is read. `thought`: what a
    reasoning model's <think> part is to the loss: learnt, only read, or taken out of the text.
    Mistakes among the examples are an error unless they are left out."""

    data: str
    context: Literal["none", "retrieved"] = "none"
    batch_examples: int = Field(default=8, ge=1)
    thought: Literal["learn", "read", "drop"] = "learn"
    leave_out_mistakes: bool = False


class ScratchSpec(Record):
    """A small Llama with random weights and a tokenizer learnt from the stage's own texts."""

    vocabulary: int = Field(default=8000, ge=300, le=262_144)
    layers: int = Field(default=4, ge=1, le=48)
    width: int = Field(default=256, ge=32, le=4096)
    heads: int = Field(default=4, ge=1, le=64)
    context_tokens: int = Field(default=1024, ge=64, le=32_768)


class PretrainSpec(TrainingSpec):
    """Learning from running text. `data` empty: the project's corpus. A document longer than
    `window_tokens` is cut into windows; none holds parts of two documents. `scratch` begins with
    random weights instead of the base model's (method full)."""

    method: Literal["lora", "qlora", "full"] = "full"
    data: tuple[str, ...] = ()
    window_tokens: int = Field(default=512, ge=16, le=32_768)
    scratch: ScratchSpec | None = None


class PreferSpec(TrainingSpec):
    """Learning from preferences through TRL. `beta` is DPO's and KTO's β, ORPO's λ. A preference in
    which an exam question stands is an error unless `leave_out_mistakes`."""

    method: Literal["lora", "qlora", "full"] = "lora"
    objective: Objective = "dpo"
    data: str
    beta: float = Field(default=0.1, gt=0)
    epochs: float = Field(default=1.0, gt=0)
    batch_examples: int = Field(default=4, ge=1)
    leave_out_mistakes: bool = False


class MergeSpec(Record):
    """Weights from weights. `fold`: adapters into the base. `wise-ft`: base + α (now − base),
    Wortsman et al. 2022. `ties` (Yadav et al. 2023) and `dare` (Yu et al. 2024) join what other
    `arms` learnt, each times its weight (1 each where none is given), at `density`."""

    method: Literal["fold", "wise-ft", "ties", "dare"]
    alpha: float = Field(default=0.5, ge=0, le=1)
    arms: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    density: float = Field(default=0.5, gt=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**32)


class QuantiseSpec(Record):
    """A GGUF file, answered by llama.cpp. Always an arm's last stage."""

    type: Literal["f16", "q8_0", "q4_k_m"] = "q4_k_m"


StageSpec = FinetuneSpec | PretrainSpec | PreferSpec | MergeSpec | QuantiseSpec


class Stage(Record):
    """One weights stage; exactly one kind is set."""

    pretrain: PretrainSpec | None = None
    finetune: FinetuneSpec | None = None
    prefer: PreferSpec | None = None
    merge: MergeSpec | None = None
    quantise: QuantiseSpec | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [name for name in STAGE_KINDS if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(
                f"a stage is one of {', '.join(STAGE_KINDS)}; got {', '.join(kinds) or 'none'}"
            )
        return self

    @property
    def kind(self) -> str:
        return next(name for name in STAGE_KINDS if getattr(self, name) is not None)

    @property
    def spec(self) -> StageSpec:
        found: StageSpec = getattr(self, self.kind)
        return found


STAGE_KINDS = ("pretrain", "finetune", "prefer", "merge", "quantise")


class ChooseSpec(Record):
    """Pick the state of the arm's weights by the development split: every kept checkpoint and the
    end of the last stage, each at every α of WiSE-FT. The best in the domain exams wins among those
    that lose at most `max_loss` in the retention exams (None: the policy's `max_forgetting`)."""

    alphas: tuple[float, ...] = (1.0,)
    max_loss: float | None = Field(default=None, ge=0, le=1)


class Arm(Record):
    name: str
    weights: tuple[Stage, ...] = ()
    choose: ChooseSpec | None = None
    prompt: PromptSpec = PromptSpec()
    retrieval: RetrievalSpec | None = None


class Candidate(Record):
    """A built arm. `artifacts`: what it is made of → step folder's name and digest, joined by "@":
    "weights" (in place of the base model's), "adapter", "adapter-2", … (folded in this order),
    "index", "examples". `id` covers all that decides answers."""

    id: str
    arm: Arm
    base_model: str
    base_digest: str
    artifacts: dict[str, str] = {}
    embedder: str = ""
    language: str = ""


# ---- answers and scores -----------------------------------------------------------------------


class Passage(Record):
    """A chunk as it stood in the prompt. `number` is 1-based, as shown to the model. `score` is
    the fused one that it is ranked by; `lexical` (BM25), `dense` (cosine) and `rerank` are the
    single ones, None where that search didn't find it or wasn't asked. `parts` are the chunks that
    a widened passage is made of: id, start, end, page."""

    number: int
    chunk_id: str
    document_id: str
    title: str
    text: str
    start: int
    end: int
    page: int | None = None
    score: float = 0.0
    lexical: float | None = None
    dense: float | None = None
    rerank: float | None = None
    parts: tuple[tuple[str, int, int, int | None], ...] = ()


class Citation(Record):
    """`text[answer_start:answer_end]` of the answer rests on `document[start:end]`."""

    passage: int
    chunk_id: str
    document_id: str
    page: int | None
    start: int
    end: int
    answer_start: int
    answer_end: int
    support: float


class Decoding(Record):
    """All that decides an answer beside its prompt. `normalisation` is a scored choice's, None
    elsewhere; `dtype` and `engine` (name and version) are empty where a service hides them."""

    method: ScoringMethod
    max_tokens: int = 0
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    normalisation: Normalisation | None = None
    dtype: str = ""
    engine: str = ""


class Rotation(Record):
    """One asking of a choice whose options were shown in another order.

    `order[i]` is the place in `Question.choices` of the option that was shown at place i; all else
    counts by `Question.choices`. `choice` and `text` are what a letter named and what was said.
    """

    order: tuple[int, ...]
    prompt_sha256: str
    choice: int | None = None
    text: str = ""
    choice_loglikelihoods: tuple[float, ...] = ()
    choice_lengths: tuple[int, ...] = ()
    truncated: bool = False


class Answer(Record):
    """`text` is what was said; for a scored choice, the chosen option. `shots` are the ids of the
    examples in the prompt. `rotations` hold every asking where the options were rotated; the
    likelihoods are then their means, tokens, seconds and costs their sums. `seconds` is measured,
    not compared."""

    candidate_id: str
    exam_digest: str
    question_id: str
    text: str
    choice: int | None = None
    choice_loglikelihoods: tuple[float, ...] = ()
    choice_lengths: tuple[int, ...] = ()
    rotations: tuple[Rotation, ...] = ()
    shots: tuple[str, ...] = ()
    passages: tuple[Passage, ...] = ()
    citations: tuple[Citation, ...] = ()
    confidence: float | None = None  # that the passages hold the answer, 0 to 1
    prompt_sha256: str
    hash_kind: HashKind
    decoding: Decoding
    truncated: bool = False
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    cost_usd: float = 0.0
    status: Literal["answered", "refused", "abstained", "error"] = "answered"
    error: str = ""


class Score(Record):
    """A refused or abstained answer is worth 0 and says so; an error has no value, and neither has
    an answer that waits for somebody to judge it."""

    question_id: str
    scorer: str
    value: float | None
    status: ScoreStatus
    explanation: str = ""


class Interval(Record):
    estimate: float
    low: float
    high: float
    n: int
    method: str


class PositionBias(Record):
    """What asking in every order showed, over the choice questions with `options` options.

    `picks[i]`: share of the askings that chose what stood at place i. `accuracy[i]`: share of the
    questions answered right when the right option stood at place i. `unchanged`: share of the
    questions whose pick is the same option in every order. `unnamed`: askings that chose nothing.
    `p_value` is of "every place is picked equally often", by `method`.
    """

    options: int
    questions: int
    picks: tuple[Interval, ...]
    accuracy: tuple[Interval, ...]
    unchanged: Interval
    unnamed: int
    p_value: float
    method: str


class RiskCoverage(Record):
    """How wrong an arm is among the answers that it is surest of, questions ordered by
    `Answer.confidence`. Each of `points` is (confidence, coverage, risk): the share of all
    questions answered at that confidence or above, and 1 − their mean score. `aurc` is the mean
    risk along the curve. An arm with a threshold of silence answers nothing below it, so its curve
    ends before a coverage of 1; `silent` is the share of the questions that it was silent on."""

    points: tuple[tuple[float, float, float], ...]
    aurc: Interval
    silent: float = 0.0


class Sitting(Record):
    """One candidate in one exam. `primary` is None when the sitting is incomplete: it has no mean.
    `positions`: by number of options, where the options were rotated. `coverage`: where all answers
    have a confidence and some were given."""

    candidate_id: str
    arm: str
    exam: str
    exam_digest: str
    split: Split
    settings: dict[str, str]
    asked: int
    answered: int
    errors: int
    refused: int
    waiting: int = 0
    partial: bool
    primary: Interval | None
    by_topic: dict[str, Interval] = {}
    by_form: dict[str, Interval] = {}
    retrieval: dict[str, Interval] = {}
    positions: tuple[PositionBias, ...] = ()
    coverage: RiskCoverage | None = None
    truncated: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0

    @property
    def complete(self) -> bool:
        scored = self.errors == 0 and self.waiting == 0
        return not self.partial and scored and self.answered == self.asked


# ---- statistics -------------------------------------------------------------------------------


class Comparison(Record):
    """Effect = mean(candidate) − mean(control) over the same questions; `side` is what was tested.

    `gain`: H0 effect ≤ margin. `loss`: H0 effect ≤ −margin (non-inferiority). `p_value` is adjusted
    when `correction` says so. `low`/`high` are the two-sided 1−2α bounds that match the one-sided
    test.
    """

    candidate_id: str
    arm: str
    control_id: str
    exam: str
    exam_digest: str
    metric: str
    effect: float
    low: float
    high: float
    side: Literal["gain", "loss"]
    margin: float
    alpha: float
    p_value: float
    p_adjusted: float
    n: int
    clusters: int
    smallest_detectable: float
    draws: int
    seed: int
    method: str
    correction: str
    mcnemar_p: float | None = None
    discordant: tuple[int, int] | None = None
    questions_needed: int | None = None
    outcome: Outcome
    reason: str


class Verdict(Record):
    arm: str
    candidate_id: str
    outcome: Outcome
    reasons: tuple[str, ...]


class ChoicePoint(Record):
    """One state of an arm's weights, as the development questions found it.

    `state`: 0 is where the last stage began, then its checkpoints by number, `Choice.end` its end;
    `alpha` of what that state learnt is in it. `scores` by exam; `domain` is their mean over the
    domain exams, `loss` the largest loss in any other against the control, None where there is
    none.
    """

    state: int
    alpha: float
    digest: str
    scores: dict[str, float]
    domain: float
    loss: float | None


class Choice(Record):
    """How the state of an arm's weights was chosen: `points[taken]`, which loses at most `max_loss`
    where `met`, else the least of all. `control` holds the control's scores and `questions` the
    number of development questions, both by exam."""

    points: tuple[ChoicePoint, ...]
    taken: int
    end: int
    max_loss: float
    met: bool
    control: dict[str, float]
    questions: dict[str, int]
    reason: str


class ArmResult(Record):
    arm: Arm
    candidate: Candidate
    sittings: tuple[Sitting, ...]
    comparisons: tuple[Comparison, ...] = ()
    verdict: Verdict | None = None
    choice: Choice | None = None


class CorpusCount(Record):
    documents: int
    chunks: int
    examples: int
    dropped: tuple[Dropped, ...] = ()


class Results(Record):
    """The deterministic core, `results.json`: what reruns and kills are compared by. No
    durations."""

    project: str
    language: str
    control: str
    policy: dict[str, float | str]
    exams: tuple[Exam, ...]
    arms: tuple[ArmResult, ...]
    corpus: CorpusCount
    winner: str | None
    summary_ja: str
    summary_en: str


class Timing(Record):
    """What a rerun may not repeat: seconds and money by arm, kept apart from `Results`."""

    arm: str
    build_seconds: float
    exam_seconds: float
    answers: int
    cost_usd: float


class Reproduction(Record):
    """How to get the same again."""

    command: str
    version: str
    python: str
    platform: str
    packages: dict[str, str]
    digests: dict[str, str]
    seeds: dict[str, int]
    machine: str = ""
