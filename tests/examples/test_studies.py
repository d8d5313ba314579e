"""`examples/studies`: projects that load, data that says what it should, tables that add up."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import shutil
import sys
import unicodedata
from itertools import pairwise, permutations, product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scipy.stats import spearmanr

from tokka.dataset.decontamination import leaks
from tokka.project import load_project
from tokka.project_settings import Project
from tokka.records import (
    Arm,
    ArmResult,
    Candidate,
    Comparison,
    CorpusCount,
    Exam,
    FinetuneSpec,
    Interval,
    PretrainSpec,
    Results,
    Score,
    Sitting,
)

EXAMPLES = Path(__file__).parents[2] / "examples"
STUDIES = EXAMPLES / "studies"
DATA = STUDIES / "data"
FIGURE = re.compile(r"\d+(?:[,.]\d+)*")
NAMES = ("knowledge", "learning", "raft", "replay")

Row = dict[str, Any]


def module(name: str) -> ModuleType:
    """examples/lawqa has a `prepare` too, so the names must differ."""
    spec = importlib.util.spec_from_file_location(f"studies_{name}", STUDIES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


prepare, table = module("prepare"), module("table")
FACTS = prepare.read_facts()


def rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def exam() -> list[Row]:
    return rows(DATA / "exam" / "facts.jsonl")


def plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def project(name: str) -> Project:
    return load_project(STUDIES / name / "tokka.yaml")


def pretraining(name: str, arm: str) -> PretrainSpec:
    (stage,) = project(name).arms[arm].weights
    assert isinstance(stage.spec, PretrainSpec)
    return stage.spec


def test_the_checked_in_data_is_what_the_script_makes(tmp_path: Path) -> None:
    prepare.prepare(tmp_path)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.jsonl"))
    assert len(made) == 10
    for path in made:
        assert (tmp_path / path).read_bytes() == (DATA / path).read_bytes(), path


def test_a_block_of_facts_that_lacks_a_wording_is_refused_by_name(tmp_path: Path) -> None:
    text = (STUDIES / "facts.txt").read_text("utf-8")
    short = tmp_path / "facts.txt"
    short.write_text(text.replace("- " + FACTS[3].wordings[4] + "\n", ""), encoding="utf-8")
    with pytest.raises(SystemExit, match=FACTS[3].id):
        prepare.read_facts(short)


@pytest.mark.parametrize("name", NAMES)
def test_a_study_loads_and_judges_forgetting_by_the_same_questions(name: str) -> None:
    loaded = project(name)
    assert loaded.name == f"study-{name}"
    assert loaded.exams["retention"].path == "../../aoba/exam/retention.jsonl"
    assert loaded.exams["facts"].path == "../data/exam/facts.jsonl"
    assert loaded.policy.control == "base" and not loaded.arms["base"].weights


@pytest.mark.parametrize("name", NAMES)
def test_the_tables_name_arms_and_exams_of_their_project(name: str) -> None:
    loaded, study = project(name), table.STUDIES[name]
    for trend in study.trends:
        assert trend.exam in loaded.exams and set(trend.arms) <= set(loaded.arms)
        assert len(trend.xs) == len(trend.arms) and sorted(trend.xs) == list(trend.xs)
    for found, arm, other in study.differences:
        assert found in loaded.exams and {arm, other} <= set(loaded.arms)
    assert set(study.correlated) <= set(loaded.exams)


def test_wordings_differ_by_data_alone_within_each_series() -> None:
    def rest(arm: str) -> Row:
        return pretraining("knowledge", arm).model_dump(exclude={"data"})

    equal_tokens = ("raw", "words-1", "words-2", "words-5", "words-10", "swapped")
    assert len({json.dumps(rest(arm)) for arm in equal_tokens}) == 1
    assert rest("passes-1") == rest("passes-2") == rest("passes-5")
    assert rest("passes-5")["max_train_tokens"] is None
    assert pretraining("knowledge", "raw").data == ()
    for count in prepare.WORDINGS:
        assert pretraining("knowledge", f"words-{count}").data[0].endswith(f"-{count}.jsonl")


def test_arms_of_replay_differ_by_its_share_alone() -> None:
    arms = [pretraining("replay", f"replay-{share}") for share in (0, 1, 5, 25)]
    assert len({spec.model_dump_json(exclude={"replay"}) for spec in arms}) == 1
    assert [spec.replay.share if spec.replay else 0 for spec in arms] == [0, 0.01, 0.05, 0.25]


def test_arms_of_learning_differ_from_the_centre_in_one_setting() -> None:
    arms = project("learning").arms
    specs = {name: arm.weights[0].spec.model_dump() for name, arm in arms.items() if arm.weights}
    centre = specs.pop("rank-16")
    for name, spec in specs.items():
        assert sum(spec[key] != centre[key] for key in centre) == 1, name


def test_raft_differs_from_the_model_tuned_without_retrieval_by_what_it_read() -> None:
    arms = project("raft").arms
    tuned, with_search, raft = (arms[name] for name in ("tuned", "tuned-rag", "raft"))
    assert tuned.weights == with_search.weights and with_search.retrieval == raft.retrieval
    first, last = tuned.weights[0].spec, raft.weights[0].spec
    assert isinstance(first, FinetuneSpec) and isinstance(last, FinetuneSpec)
    assert (first.context, last.context) == ("none", "retrieved")
    assert first.model_dump(exclude={"context"}) == last.model_dump(exclude={"context"})


def test_every_wording_states_its_fact_in_its_own_words() -> None:
    assert len(FACTS) == 60 and len({fact.id for fact in FACTS}) == 60
    for fact in FACTS:
        assert len({plain(wording) for wording in fact.wordings}) == 10, fact.id
        for wording in fact.wordings:
            for key in fact.keys:
                assert plain(key) in plain(wording), (fact.id, key, wording)


def test_the_value_of_a_fact_stands_in_the_document_that_aoba_gives_for_it() -> None:
    taught = {row["fact_id"]: row["document_ids"] for row in rows(EXAMPLES / "aoba/examples.jsonl")}
    asked = {row["id"]: row for row in rows(EXAMPLES / "aoba/exam/domain.jsonl")}
    for fact in FACTS:
        (document,) = asked[fact.aoba_question]["document_ids"]
        assert taught[fact.id] == [document], fact.id
        path = EXAMPLES / "aoba" / "documents" / document
        if path.suffix in (".md", ".csv", ".html"):
            text = plain(path.read_text("utf-8"))
            figures = {n for key in fact.keys for n in FIGURE.findall(plain(key))}
            assert figures <= set(FIGURE.findall(text)), fact.id


def test_a_smaller_file_of_wordings_is_part_of_every_larger_one() -> None:
    files = [rows(DATA / f"wordings-{count}.jsonl") for count in (1, 2, 5, 10)]
    assert [len(found) for found in files] == [60, 120, 300, 600]
    for smaller, larger in pairwise(files):
        assert larger[: len(smaller)] == smaller


def test_swapped_wordings_hold_the_same_values_and_state_no_fact() -> None:
    true, swapped = rows(DATA / "wordings-10.jsonl"), rows(DATA / "swapped-10.jsonl")
    assert len(true) == len(swapped)
    values = prepare.swapped_values(FACTS)
    assert sorted(values) == sorted(fact.keys[-1] for fact in FACTS)
    for fact, value in zip(FACTS, values, strict=True):
        assert value != fact.keys[-1]
    for before, after, fact in zip(true, swapped, FACTS * 10, strict=True):
        assert after["id"] == f"{before['id']}-swapped"
        assert after["text"] != before["text"], fact.id
        assert after["text"].count(fact.keys[-1]) < before["text"].count(fact.keys[-1])


def test_examples_of_a_half_and_a_quarter_of_the_facts_lie_in_one_another() -> None:
    whole, half, quarter = (
        {row["id"]: row["fact_id"] for row in rows(DATA / f"examples-{share}.jsonl")}
        for share in (100, 50, 25)
    )
    assert quarter.items() < half.items() < whole.items()
    assert [len(set(part.values())) for part in (whole, half, quarter)] == [60, 30, 15]


def test_the_exam_asks_three_choices_on_every_fact_and_keeps_clusters_whole() -> None:
    questions = exam()
    assert len(questions) == 180 and len({row["id"] for row in questions}) == 180
    assert len({plain(row["question"]) for row in questions}) == 180
    splits: dict[str, set[str]] = {}
    for row in questions:
        assert row["form"] == "choice" and len({plain(c) for c in row["choices"]}) == 4, row["id"]
        assert row["answer"] in row["choices"], row["id"]
        splits.setdefault(row["cluster_id"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert sum(row["split"] == "test" for row in questions) == 150
    assert len([1 for found in splits.values() if found == {"test"}]) >= 45


def test_what_is_taught_of_the_tested_facts_is_a_half_and_a_quarter_there_too() -> None:
    tested = {
        fact.id for fact, row in zip(FACTS, exam()[::3], strict=True) if row["split"] == "test"
    }
    for share in (25, 50):
        taught = {row["fact_id"] for row in rows(DATA / f"examples-{share}.jsonl")}
        assert abs(len(tested & taught) / len(tested) - share / 100) <= 0.03


def test_neither_place_nor_length_of_an_option_gives_the_answer_away() -> None:
    places = [row["choices"].index(row["answer"]) for row in exam()]
    assert all(0.2 <= places.count(place) / len(places) <= 0.3 for place in range(4))
    wrong = [[c for c in row["choices"] if c != row["answer"]] for row in exam()]
    answers = [row["answer"] for row in exam()]
    longest = sum(len(a) > max(map(len, w)) for a, w in zip(answers, wrong, strict=True))
    shortest = sum(len(a) < min(map(len, w)) for a, w in zip(answers, wrong, strict=True))
    assert max(longest, shortest) <= 180 / 4


def test_no_question_stands_in_what_is_trained_on() -> None:
    """Every exam against every text: wordings, swapped ones, general text, examples."""
    questions = {row["id"]: row["question"] for row in exam()}
    for name in ("exam/domain.jsonl", "exam/retention.jsonl"):
        questions |= {row["id"]: row["question"] for row in rows(EXAMPLES / "aoba" / name)}
    texts = {
        row["id"]: row["text"]
        for name in ("wordings-10", "swapped-10", "general")
        for row in rows(DATA / f"{name}.jsonl")
    }
    for row in rows(DATA / "examples-100.jsonl"):
        texts[row["id"]] = "\n".join(message["content"] for message in row["messages"])
    assert leaks(questions, texts) == []


def test_the_written_exam_asks_for_facts_that_no_example_of_the_study_teaches() -> None:
    written = rows(DATA / "exam" / "written.jsonl")
    assert len(written) == 70 and {row["form"] for row in written} == {"short", "number"}
    assert not {row["id"] for row in written} & {fact.aoba_question for fact in FACTS}


def test_general_text_is_long_varied_and_silent_about_the_credit_union() -> None:
    general = rows(DATA / "general.jsonl")
    assert sum(len(row["text"].encode()) for row in general) >= 40_000
    assert len({row["title"] for row in general}) == len(general) >= 50
    names = {key for fact in FACTS for key in fact.keys if not re.search(r"\d", key)}
    for row in general:
        assert "青葉" not in row["text"] and "�" not in row["text"]
        for name in names - {"一括", "当日", "災害", "本店", "法人", "通帳", "開示"}:
            assert name not in row["text"], (row["id"], name)


# ---- the tables -------------------------------------------------------------------------------

CLUSTERS = ["a", "a", "b", "c", "d", "d"]


def test_the_slope_of_the_questions_is_the_slope_of_the_means() -> None:
    rising = [[0.0] * 6, [1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]]
    found = table.slope(rising, (0.0, 1.0, 2.0, 3.0), CLUSTERS)
    means = [sum(row) / 6 for row in rising]
    expected = (-1.5 * means[0] - 0.5 * means[1] + 0.5 * means[2] + 1.5 * means[3]) / 5
    assert found.estimate == pytest.approx(expected)
    assert found.low(0.025) <= found.estimate <= found.high(0.025)


def test_the_trend_test_is_the_share_of_all_orders_that_rise_as_much() -> None:
    arms = [[0, 0, 1], [0, 1, 0], [1, 1, 1]]
    clusters = ["a", "b", "c"]

    def rise(columns: Any) -> int:
        return sum(place * score for column in columns for place, score in enumerate(column, 1))

    questions = list(zip(*arms, strict=True))
    orders = list(product(*(permutations(column) for column in questions)))
    exact = sum(rise(order) >= rise(questions) for order in orders) / len(orders)
    assert table.trend_p(arms, clusters) == pytest.approx(exact, abs=0.02)
    assert table.trend_p(arms[::-1], clusters) > 0.9


def test_the_trend_test_permutes_whole_clusters() -> None:
    """Ten questions that err together are one piece of evidence, not ten."""
    arms = [[0.0] * 10, [1.0] * 10]
    assert table.trend_p(arms, ["one"] * 10) == pytest.approx(0.5, abs=0.02)
    assert table.trend_p(arms, [""] * 10) < 0.01


def test_without_a_trend_small_p_values_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "DRAWS", 200)
    chance = random.Random(5)
    small = 0
    for _ in range(200):
        arms = [[float(chance.random() < 0.4) for _ in range(30)] for _ in range(4)]
        small += table.trend_p(arms, [""] * 30) <= 0.1
    assert 6 <= small <= 36  # 20 expected, four standard errors


def test_gain_and_loss_correlate_as_scipy_says() -> None:
    chance = random.Random(3)
    learnt = {
        f"arm-{i}": [float(chance.random() < 0.2 + i / 10) for _ in range(60)] for i in range(6)
    }
    kept = {
        f"arm-{i}": [float(chance.random() < 0.9 - i / 10) for _ in range(60)] for i in range(6)
    }
    found = table.correlation(learnt, [""] * 60, kept, [""] * 60)
    gains = [sum(learnt[name]) for name in sorted(learnt)]
    losses = [-sum(kept[name]) for name in sorted(kept)]
    assert found.rho == pytest.approx(spearmanr(gains, losses).statistic)
    assert found.low <= found.rho <= found.high and found.low > 0


def result(name: str, scores: dict[str, list[Score]]) -> ArmResult:
    """An arm's results with one sitting and, but for the control, one comparison an exam."""
    sittings, comparisons = [], []
    for exam_name, own in scores.items():
        mean = sum(score.value or 0 for score in own) / len(own)
        count = len(own)
        sittings.append(
            Sitting(
                candidate_id=name,
                arm=name,
                exam=exam_name,
                exam_digest="d",
                split="test",
                settings={},
                asked=count,
                answered=count,
                errors=0,
                refused=0,
                partial=False,
                primary=Interval(
                    estimate=mean, low=mean - 0.1, high=mean + 0.1, n=count, method=""
                ),
            )
        )
        comparisons.append(
            Comparison(
                candidate_id=name,
                arm=name,
                control_id="base",
                exam=exam_name,
                exam_digest="d",
                metric="accuracy",
                effect=0.125,
                low=-0.05,
                high=0.3,
                side="gain",
                margin=0.0,
                alpha=0.05,
                p_value=0.04,
                p_adjusted=0.08,
                n=count,
                clusters=count,
                smallest_detectable=0.141,
                draws=100,
                seed=0,
                method="",
                correction="holm",
                outcome="inconclusive",
                reason="",
            )
        )
    return ArmResult(
        arm=Arm(name=name),
        candidate=Candidate(id=name, arm=Arm(name=name), base_model="b", base_digest="d"),
        sittings=tuple(sittings),
        comparisons=() if name == "base" else tuple(comparisons),
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study of learning as a run would leave it, with scores by chance."""
    root = tmp_path_factory.mktemp("examples")
    shutil.copytree(DATA, root / "studies" / "data")
    shutil.copytree(EXAMPLES / "aoba" / "exam", root / "aoba" / "exam")
    study = root / "studies" / "learning"
    study.mkdir()
    shutil.copy(STUDIES / "learning" / "tokka.yaml", study)
    folder = study / ".tokka" / "reports" / "tokka"
    asked = {
        "facts": [row["id"] for row in exam() if row["split"] == "test"],
        "retention": [row["id"] for row in rows(EXAMPLES / "aoba/exam/retention.jsonl")],
    }
    chance = random.Random(1)
    arms = []
    for name in project("learning").arms:
        scores = {
            exam_name: [
                Score(
                    question_id=question,
                    scorer="choice",
                    value=float(chance.random() < 0.4),
                    status="scored",
                )
                for question in questions
            ]
            for exam_name, questions in asked.items()
        }
        for exam_name, own in scores.items():
            path = folder / "scores" / exam_name / f"{name}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(score.model_dump_json() + "\n" for score in own), "utf-8")
        arms.append(result(name, scores))
    results = Results(
        project="study-learning",
        language="ja",
        control="base",
        policy={},
        exams=tuple(
            Exam(
                name=exam_name,
                role="domain" if exam_name == "facts" else "retention",
                digest="d",
                scorer="contained",
                normalisation="tokens",
                questions=len(questions),
            )
            for exam_name, questions in asked.items()
        ),
        arms=tuple(arms),
        corpus=CorpusCount(documents=0, chunks=0, examples=0),
        winner=None,
        summary_ja="",
        summary_en="",
    )
    (folder / "results.json").write_text(results.model_dump_json(), "utf-8")
    return study


def test_a_study_that_was_run_becomes_tables(ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "DRAWS", 200)
    text = "\n".join(table.lines("learning", table.read(ran)))
    full = "| full | 150 | "
    assert full in text
    assert "| +12.5 [−5.0, +30.0], p = 0.080, inconclusive | 14.1 |" in text
    assert text.count("| control |  |") == 2
    assert text.count("| rank | facts |") == text.count("| passes | retention |") == 1
    assert "| full − rank-16 | retention |" in text
    assert "over 8 arms: Spearman's ρ = " in text


def test_scores_are_joined_with_the_clusters_of_their_questions(ran: Path) -> None:
    report = table.read(ran)
    cluster_of = {row["id"]: row["cluster_id"] for row in exam()}
    stored = rows(ran / ".tokka/reports/tokka/scores/facts/full.jsonl")
    expected = sorted((row["question_id"], row["value"]) for row in stored)
    assert report.scores["facts"]["full"] == [value for _, value in expected]
    assert report.clusters["facts"] == [cluster_of[question] for question, _ in expected]


def test_a_question_without_a_score_stops_the_table(ran: Path, tmp_path: Path) -> None:
    shutil.copytree(ran.parents[1], tmp_path / "examples")
    study = tmp_path / "examples" / "studies" / "learning"
    path = study / ".tokka" / "reports" / "tokka" / "scores" / "facts" / "full.jsonl"
    path.write_text(re.sub(r'"value":[0-9.]+', '"value":null', path.read_text("utf-8"), count=1))
    with pytest.raises(SystemExit, match=r"full\.jsonl.*no score"):
        table.read(study)


def test_a_study_that_was_not_run_says_how(tmp_path: Path) -> None:
    shutil.copytree(DATA, tmp_path / "studies" / "data")
    shutil.copytree(EXAMPLES / "aoba" / "exam", tmp_path / "aoba" / "exam")
    shutil.copytree(
        STUDIES / "replay", tmp_path / "studies" / "replay", ignore=lambda *_: [".tokka"]
    )
    with pytest.raises(SystemExit, match="tokka run"):
        table.read(tmp_path / "studies" / "replay")
