"""A run that might have been: five arms, two exams, 120 questions of a fictional credit union."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev

import pytest

from tokka.records import (
    Answer,
    Arm,
    ArmResult,
    Candidate,
    Choice,
    ChoicePoint,
    Citation,
    Comparison,
    CorpusCount,
    Decoding,
    Dropped,
    Exam,
    FinetuneSpec,
    Interval,
    Key,
    Message,
    Outcome,
    Passage,
    PromptSpec,
    Question,
    Reproduction,
    Results,
    RetrievalSpec,
    RiskCoverage,
    Score,
    Sitting,
    Stage,
    Timing,
    Verdict,
    fingerprint,
)
from tokka.report.html import write_report
from tokka.report.sheet import ExamSheet
from tokka.stats.coverage import curve

RULES = (
    ("融資限度額", "無担保の事業者ローンの上限", ("500万円", "300万円", "1,000万円", "800万円")),
    ("融資限度額", "支店長が単独で決裁できる金額", ("2,000万円", "500万円", "5,000万円", "1億円")),
    ("稟議", "追加融資の稟議書を回付する期限", ("3営業日", "5営業日", "10営業日", "当日")),
    ("稟議", "本部審査を省ける残高の上限", ("100万円", "50万円", "200万円", "30万円")),
    ("手数料", "残高証明書の発行手数料", ("880円", "550円", "1,100円", "330円")),
    ("手数料", "他行あて振込の窓口手数料", ("770円", "660円", "440円", "990円")),
    ("口座開設", "法人口座の開設に要する日数", ("10営業日", "3営業日", "7営業日", "20営業日")),
    ("口座開設", "屋号つき口座に必要な書類の数", ("3点", "1点", "2点", "5点")),
    ("情報管理", "顧客名簿の持ち出しを承認する者", ("情報管理責任者", "支店長", "理事長", "課長")),
    ("情報管理", "退職者の権限を消す期限", ("当日", "翌営業日", "1週間", "1か月")),
)
GENERAL = (
    ("地理", "日本で最も長い川", ("信濃川", "利根川", "石狩川", "天塩川")),
    ("地理", "青森県の県庁所在地", ("青森市", "弘前市", "八戸市", "むつ市")),
    ("科学", "水の沸点（1気圧）", ("100℃", "90℃", "80℃", "120℃")),
    ("Science", "the planet nearest to the Sun", ("Mercury", "Venus", "Mars", "Earth")),
    ("History", "the year in which the Berlin Wall fell", ("1989", "1985", "1991", "1979")),
)
CHANCE = {
    "domain": {"base": 0.28, "few-shot": 0.34, "rag": 0.62, "lora": 0.45, "lora-rag": 0.78},
    "retention": {"base": 0.64, "few-shot": 0.66, "rag": 0.60, "lora": 0.48, "lora-rag": 0.60},
}
ARMS = (
    Arm(name="base"),
    Arm(name="few-shot", prompt=PromptSpec(shots=4)),
    Arm(name="rag", retrieval=RetrievalSpec(top_k=2)),
    Arm(name="lora", weights=(Stage(finetune=FinetuneSpec(data="examples.jsonl")),)),
    Arm(
        name="lora-rag",
        weights=(Stage(finetune=FinetuneSpec(data="examples.jsonl", context="retrieved")),),
        retrieval=RetrievalSpec(top_k=2, silence=0.375),
    ),
)
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
QUESTIONS = 60
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Run:
    results: Results
    timings: dict[str, Timing]
    reproduction: Reproduction
    sheets: dict[str, ExamSheet]

    def write(self, path: Path, language: str = "ja") -> Path:
        write_report(path, self.results, self.timings, self.reproduction, self.sheets, language)
        return path


def wilson(values: list[float]) -> Interval:
    n, p, z = len(values), fmean(values), 1.96
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Interval(estimate=p, low=centre - half, high=centre + half, n=n, method="Wilson 95%")


def compared(
    arm: str, exam: Exam, mine: list[float], control: list[float], margin: float
) -> Comparison:
    differences = [a - b for a, b in zip(mine, control, strict=True)]
    effect, n = fmean(differences), len(differences)
    error = pstdev(differences) / math.sqrt(n)
    side = "gain" if exam.role == "domain" else "loss"
    line = margin if side == "gain" else -margin
    low, high = effect - 1.645 * error, effect + 1.645 * error
    outcome: Outcome = "pass" if low > line else "fail" if high < line else "inconclusive"
    needed = round(n * (1.645 * error / max(0.01, abs(effect - line))) ** 2) + 1
    p = 0.5 * math.erfc((effect - line) / error / math.sqrt(2)) if error else 1.0
    return Comparison(
        candidate_id=fingerprint(arm)[:16],
        arm=arm,
        control_id=fingerprint("base")[:16],
        exam=exam.name,
        exam_digest=exam.digest,
        metric="accuracy",
        effect=effect,
        low=low,
        high=high,
        side=side,
        margin=margin,
        alpha=ALPHA,
        p_value=p,
        p_adjusted=min(1.0, 4 * p),
        n=n,
        clusters=n // 2,
        smallest_detectable=2.49 * error,
        draws=10_000,
        seed=0,
        method="paired bootstrap by cluster",
        correction="Holm over 4 arms",
        mcnemar_p=None,
        discordant=(differences.count(1.0), differences.count(-1.0)),
        questions_needed=needed if outcome == "inconclusive" else None,
        outcome=outcome,
        reason=f"effect {effect:+.3f}",
    )


def make_question(exam: str, index: int, rules: tuple[tuple[str, str, tuple[str, ...]], ...]):
    topic, subject, options = rules[index % len(rules)]
    form = "choice" if index % 3 else ("short" if index % 2 else "number")
    order = [(index + k) % 4 for k in range(4)]
    choices = tuple(options[k] for k in order) if form == "choice" else ()
    identifier = f"{exam}-{index:03d}"
    question = Question(
        id=identifier,
        messages=(Message(role="user", content=f"（{index + 1}）{subject}はどれですか。"),),
        form=form,
        choices=choices,
        topic=topic,
        cluster_id=f"c{index // 2}",
        document_ids=(f"規程-{index % len(rules):02d}",) if exam == "domain" else (),
    )
    key = Key(
        question_id=identifier,
        targets=(options[0],),
        choice=order.index(0) if form == "choice" else None,
        unit="円" if options[0].endswith("円") else "",
    )
    return question, key, options


def make_passage(number: int, index: int, subject: str, fact: str, hostile: bool) -> Passage:
    text = f"𠮷第{index + 1}条　{subject}は、{fact}とする。ただし、別に定めるときはこの限りでない。"
    if hostile:
        text += HOSTILE
    start = 120 * index
    return Passage(
        number=number,
        chunk_id=f"chunk-{index:02d}",
        document_id=f"規程-{index:02d}",
        title=f"業務規程 第{index + 1}号",
        text=text,
        start=start,
        end=start + len(text),
        page=index + 1 if index % 2 else None,
        score=0.0325,
    )


def make_answer(
    arm: Arm, exam: Exam, question: Question, key: Key, options, right: bool, index: int
):
    passages: tuple[Passage, ...] = ()
    citations: tuple[Citation, ...] = ()
    text = options[0] if right else options[1 + index % 3]
    if arm.retrieval:
        rules = RULES if exam.name == "domain" else GENERAL
        near = index % len(rules)
        passages = tuple(
            make_passage(
                k + 1,
                (near + k) % len(rules),
                rules[(near + k) % len(rules)][1],
                rules[(near + k) % len(rules)][2][0],
                (near + k) % len(rules) == 3,
            )
            for k in range(2)
        )
        first = passages[0]
        offset = first.text.find(text)
        if offset >= 0:
            citations = (
                Citation(
                    passage=1,
                    chunk_id=first.chunk_id,
                    document_id=first.document_id,
                    page=first.page,
                    start=first.start + offset,
                    end=first.start + offset + len(text),
                    answer_start=0,
                    answer_end=len(text),
                    support=0.93,
                ),
            )
    choice = question.choices.index(text) if question.choices else None
    loglikelihoods = tuple(
        -3.1 if k == choice else -4.0 - 0.7 * k for k in range(len(question.choices))
    )
    refused = index == 7 and arm.name == "few-shot"
    return Answer(
        candidate_id=fingerprint(arm.name)[:16],
        exam_digest=exam.digest,
        question_id=question.id,
        text="" if refused else text,
        choice=None if refused else choice,
        choice_loglikelihoods=() if refused else loglikelihoods,
        choice_lengths=() if refused else tuple(len(c) for c in question.choices),
        passages=passages,
        citations=citations,
        prompt_sha256=fingerprint((arm.name, question.id)),
        hash_kind="tokens",
        decoding=Decoding(method="loglikelihood" if question.choices else "text"),
        tokens_in=380 if arm.retrieval else 45,
        tokens_out=6,
        seconds=0.31,
        status="refused" if refused else "answered",
    )


def make_run(chance=CHANCE) -> Run:
    exams = tuple(
        Exam(
            name=name,
            role=name,
            digest=fingerprint(name),
            scorer="accuracy",
            normalisation="characters",
            questions=QUESTIONS * 2,
            language="ja",
        )
        for name in ("domain", "retention")
    )
    sheets: dict[str, ExamSheet] = {}
    values: dict[str, dict[str, list[float]]] = {}
    sittings: dict[str, list[Sitting]] = {arm.name: [] for arm in ARMS}
    for exam in exams:
        rules = RULES if exam.name == "domain" else GENERAL
        made = [make_question(exam.name, index, rules) for index in range(QUESTIONS)]
        answers: dict[str, dict[str, Answer]] = {}
        scores: dict[str, dict[str, Score]] = {}
        values[exam.name] = {}
        for arm in ARMS:
            answers[arm.name], scores[arm.name] = {}, {}
            for index, (question, key, options) in enumerate(made):
                dice = random.Random(f"{exam.name} {index}").random() * 0.7
                dice += random.Random(f"{exam.name} {index} {arm.name}").random() * 0.3
                answer = make_answer(
                    arm, exam, question, key, options, dice < chance[exam.name][arm.name], index
                )
                answers[arm.name][question.id] = answer
                value = float(answer.text == options[0])
                scores[arm.name][question.id] = Score(
                    question_id=question.id,
                    scorer="accuracy",
                    value=value,
                    status="refused" if answer.status == "refused" else "scored",
                )
            mine = [scores[arm.name][question.id].value or 0.0 for question, _, _ in made]
            values[exam.name][arm.name] = mine

            def by(attribute: str, mine=mine, made=made) -> dict[str, Interval]:
                groups: dict[str, list[float]] = {}
                for value, (question, _, _) in zip(mine, made, strict=True):
                    groups.setdefault(getattr(question, attribute), []).append(value)
                return {name: wilson(group) for name, group in groups.items()}

            recall = wilson([1.0] * 54 + [0.0] * 6)
            sittings[arm.name].append(
                Sitting(
                    candidate_id=fingerprint(arm.name)[:16],
                    arm=arm.name,
                    exam=exam.name,
                    exam_digest=exam.digest,
                    split="test",
                    settings={},
                    asked=QUESTIONS,
                    answered=QUESTIONS,
                    errors=0,
                    refused=1 if arm.name == "few-shot" else 0,
                    partial=False,
                    primary=wilson(mine),
                    by_topic=by("topic"),
                    by_form=by("form"),
                    retrieval={
                        "recall@2": recall,
                        "citation_precision": recall,
                        "citation_recall": recall,
                        "support": recall,
                    }
                    if arm.retrieval and exam.name == "domain"
                    else {},
                    coverage=make_coverage(arm.name, mine) if arm.retrieval else None,
                    tokens_in=QUESTIONS * (380 if arm.retrieval else 45),
                    tokens_out=QUESTIONS * 6,
                )
            )
        sheets[exam.name] = ExamSheet(
            exam=exam,
            questions=tuple(question for question, _, _ in made),
            keys={question.id: key for question, key, _ in made},
            answers=answers,
            scores=scores,
        )
    return Run(
        results=make_results(exams, sittings, values),
        timings={
            arm.name: Timing(
                arm=arm.name,
                build_seconds=3.0 if not arm.weights else 210.4,
                exam_seconds=21.0 + 17 * bool(arm.retrieval) + 2 * len(arm.weights),
                answers=2 * QUESTIONS,
                cost_usd=0.0,
            )
            for arm in ARMS
        },
        reproduction=Reproduction(
            command="tokka run examples/aoba/tokka.yaml",
            version="0.1.0",
            python="3.11.9",
            platform="Linux-6.1-x86_64",
            packages={"torch": "2.13.0", "transformers": "5.23.0", "peft": "0.18.1"},
            digests={exam.name: exam.digest for exam in exams},
            seeds={"bootstrap": 0, "lora": 0},
            machine="2 cores, 24 GiB, no GPU",
        ),
        sheets=sheets,
    )


def make_coverage(arm: str, values: list[float]) -> RiskCoverage:
    """`lora-rag` is silent on a fifth of the questions."""
    silent = 0.2 if arm == "lora-rag" else 0.0
    spoken = len(values) - round(silent * len(values))
    sure = [round(1 - n / len(values), 6) for n in range(spoken)]
    return RiskCoverage(
        points=tuple(curve(sure, values[:spoken], questions=len(values))),
        aurc=Interval(estimate=0.21, low=0.12, high=0.33, n=spoken, method="bootstrap 95 %"),
        silent=silent,
    )


def make_choice() -> Choice:
    """Two checkpoints and the end at two α: the end at α = 0.5 was taken."""
    held = {"domain": 0.25, "retention": 0.70}
    found = [
        (0, 0.0, 0.25, 0.70), (1, 0.5, 0.33, 0.70), (1, 1.0, 0.41, 0.65), (2, 0.5, 0.40, 0.67),
        (2, 1.0, 0.50, 0.58), (3, 0.5, 0.46, 0.63), (3, 1.0, 0.55, 0.49),
    ]  # fmt: skip
    return Choice(
        points=tuple(
            ChoicePoint(
                state=state,
                alpha=alpha,
                digest=fingerprint((state, alpha)),
                scores={"domain": domain, "retention": retention},
                domain=domain,
                loss=0.70 - retention,
            )
            for state, alpha, domain, retention in found
        ),
        taken=5,
        end=3,
        max_loss=0.10,
        met=True,
        control=held,
        questions={"domain": 24, "retention": 30},
        reason="state 3 of 3 at α = 0.5",
    )


def make_results(exams, sittings, values) -> Results:
    margins = {"domain": 0.0, "retention": 0.10}
    arms: list[ArmResult] = []
    for arm in ARMS:
        comparisons = tuple(
            compared(
                arm.name,
                exam,
                values[exam.name][arm.name],
                values[exam.name]["base"],
                margins[exam.name],
            )
            for exam in exams
            if arm.name != "base"
        )
        outcomes = {c.outcome for c in comparisons}
        outcome: Outcome = (
            "fail" if "fail" in outcomes else "pass" if outcomes == {"pass"} else "inconclusive"
        )
        arms.append(
            ArmResult(
                arm=arm,
                candidate=Candidate(
                    id=fingerprint(arm.name)[:16],
                    arm=arm,
                    base_model="embedded:gemma-3-270m",
                    base_digest=fingerprint("base model"),
                ),
                sittings=tuple(sittings[arm.name]),
                comparisons=comparisons,
                verdict=None
                if arm.name == "base"
                else Verdict(
                    arm=arm.name,
                    candidate_id=fingerprint(arm.name)[:16],
                    outcome=outcome,
                    reasons=tuple(c.reason for c in comparisons),
                ),
                choice=make_choice() if arm.name == "lora" else None,
            )
        )
    passing = [result for result in arms if result.verdict and result.verdict.outcome == "pass"]
    best = max(passing, key=lambda r: r.comparisons[0].effect, default=None)
    return Results(
        project="青葉信用金庫",
        language="ja",
        control="base",
        policy={"control": "base", "min_gain": 0.0, "max_forgetting": 0.10, "alpha": ALPHA},
        exams=exams,
        arms=tuple(arms),
        corpus=CorpusCount(
            documents=31,
            chunks=214,
            examples=312,
            dropped=(
                Dropped(
                    item="旧規程.pdf",
                    reason="page 3 is encrypted",
                    stage="read",
                    next_action="decrypt it or list it under skip",
                ),
                *(
                    Dropped(
                        item=f"通達-{k}.md", reason="near-duplicate of 通達-1.md", stage="dedupe"
                    )
                    for k in range(2, 8)
                ),
            ),
        ),
        winner=best.arm.name if best else None,
        summary_ja="",
        summary_en="",
    )


@pytest.fixture(scope="session")
def run() -> Run:
    return make_run()


@pytest.fixture(scope="session")
def undecided() -> Run:
    """Every arm a little better than the control, none proven."""
    near = {"base": 0.40, "few-shot": 0.41, "rag": 0.42, "lora": 0.43, "lora-rag": 0.42}
    return make_run({"domain": near, "retention": CHANCE["retention"]})


@pytest.fixture(scope="session")
def report(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run.write(tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="session")
def hostile_text() -> str:
    return HOSTILE
