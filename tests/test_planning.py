"""`tokka plan train` and `tokka check` say what a training takes, and refuse what doesn't fit."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokka import amounts, planning
from tokka.amounts import amount
from tokka.errors import UsageError
from tokka.pipeline import prepare, renderer_of, save_candidate, training_examples
from tokka.planning import duration, energy, plan_from_kept, plan_training, refuse_unfit_arms
from tokka.project import load_project
from tokka.records import FinetuneSpec, PretrainSpec, ReplaySpec
from tokka.training import calibration, fitting, pace
from tokka.training.pace import Pace

pytest.importorskip("torch")
SPEC = FinetuneSpec(data="examples.jsonl", epochs=2.0, batch_tokens=100)


@pytest.fixture(autouse=True)
def measured(
    tokka_cache: Path, here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, str]]:
    """No real measurement: 1 GFLOP/s, half of which a training reaches. Lists what was tried."""
    tried: list[tuple[str, str]] = []

    def train_cut(base: Any, folder: Path, shape: Any, spec: Any, *how: Any) -> Pace:
        tried.append((type(spec).__name__, spec.method))
        return Pace(efficiency=0.5, tokens_per_second=1.0, watts=20.0)

    # Not the session's cache: what is kept here would answer in other tests.
    monkeypatch.setenv("TOKKA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(calibration, "_product_rate", lambda dtype: 1e9)
    monkeypatch.setattr(calibration, "_copy_rate", lambda: 1e9)
    monkeypatch.setattr(pace, "_train_cut", train_cut)
    return tried


@pytest.fixture
def gigabytes(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """What is free on this machine."""

    def free(number: float) -> None:
        monkeypatch.setattr(fitting, "room_bytes", lambda: round(number * 1e9))

    free(64)
    return free


def test_a_plan_names_every_training_with_memory_time_energy_and_money(
    fresh: Path, tokka: Callable[..., Any], only_arms: Callable[..., None], gigabytes: Any
) -> None:
    only_arms(fresh, "base", "lora", "lora-rag", hourly_usd=3600.0)
    found = tokka("plan", "train", fresh, "--json").json
    assert [(one["arm"], one["stage"], one["kind"]) for one in found["stages"]] == [
        ("lora", 1, "finetune"),
        ("lora-rag", 1, "finetune"),
    ]
    assert found["machine"]["flops"] == 1e9
    for one in found["stages"]:
        assert one["fits"] and one["memory_bytes"]["total"] > 0 and one["free_bytes"] == 64e9
        assert one["seconds"] > 0 and one["joules"] == pytest.approx(20 * one["seconds"])
        assert one["cost_usd"] == pytest.approx(one["seconds"])
    assert found["stages"][1]["tokens"] > 0


def test_the_tokens_are_those_that_the_training_will_see(
    fresh: Path, listener: Any, only_arms: Callable[..., None], gigabytes: Any
) -> None:
    from tokka.arms.building import lessons_of

    only_arms(fresh, "base", "lora")
    project = load_project(fresh)
    arm = project.arms["lora"]
    spec = arm.weights[0].finetune
    assert spec is not None
    build = prepare(project, listener)
    (stage,) = plan_training(project, listener).stages
    examples = training_examples(build.examples[spec.data])
    lessons, _ = lessons_of(examples, arm, spec, renderer_of(build), "en", 512)
    assert stage.amount is not None
    assert stage.amount.tokens == spec.epochs * sum(len(one.ids) for one in lessons)
    assert stage.amount.supervised == spec.epochs * sum(one.supervised for one in lessons)
    assert stage.amount.longest == max(len(one.ids) for one in lessons)


def test_passages_are_counted_at_their_most(
    fresh: Path, listener: Any, only_arms: Callable[..., None], gigabytes: Any
) -> None:
    only_arms(fresh, "base", "lora", "lora-rag")
    plain, searching = plan_training(load_project(fresh), listener).stages
    assert plain.amount is not None and searching.amount is not None
    assert searching.amount.longest == plain.amount.longest + 2 * 48  # top_k chunks of max_tokens


def test_what_does_not_fit_is_refused_with_settings_that_do(
    fresh: Path, tokka: Callable[..., Any], only_arms: Callable[..., None]
) -> None:
    only_arms(fresh, "base", "lora")
    (whole,) = tokka("plan", "train", fresh, "--memory-gb", "64", "--json").json["stages"]
    room = whole["memory_bytes"]["total"] - whole["memory_bytes"]["activations"] // 3
    said = tokka("plan", "train", fresh, "--memory-gb", room / 1e9)
    assert said.code == 2
    assert "lora" in said.out and "GB of weights" in said.out  # the table comes first
    assert re.search(r"arm lora, stage 1 \(finetune, lora\): needs 0\.\d\d GB", said.err)
    assert "recompute: true" in said.err  # as the project file writes it
    assert said.err.count("\n  - ") == 3 and "batch_tokens: " in said.err
    found = tokka("plan", "train", fresh, "--memory-gb", room / 1e9, "--json")
    assert found.code == 2
    (stage,) = found.json["stages"]
    assert not stage["fits"] and len(stage["alternatives"]) == 3
    for alternative in stage["alternatives"]:
        assert alternative["memory_bytes"] <= room
    assert tokka("plan", "train", fresh, "--memory-gb", "4").code == 0


def test_an_unknown_arm_is_named(fresh: Path, tokka: Callable[..., Any]) -> None:
    said = tokka("plan", "train", fresh, "--arm", "lorra")
    assert said.code == 2 and "no arm 'lorra'" in said.err


def test_a_project_that_trains_nothing_measures_nothing(
    fresh: Path,
    tokka: Callable[..., Any],
    only_arms: Callable[..., None],
    measured: list[tuple[str, str]],
) -> None:
    only_arms(fresh, "base", "rag")
    said = tokka("plan", "train", fresh)
    assert said.code == 0 and "no arm of this project trains anything" in said.out
    assert not measured


def test_arms_that_train_alike_are_tried_once(
    fresh: Path,
    tokka: Callable[..., Any],
    only_arms: Callable[..., None],
    measured: list[tuple[str, str]],
    gigabytes: Any,
) -> None:
    only_arms(fresh, "base", "lora", "lora-search")
    tokka("plan", "train", fresh)
    assert measured == [("FinetuneSpec", "lora")]
    tokka("plan", "train", fresh)
    assert len(measured) == 1
    tokka("plan", "train", fresh, "--again")
    assert len(measured) > 1


def test_check_shows_memory_and_only_times_that_were_measured_before(
    fresh: Path,
    tokka: Callable[..., Any],
    only_arms: Callable[..., None],
    measured: list[tuple[str, str]],
    gigabytes: Callable[[float], None],
) -> None:
    only_arms(fresh, "base", "lora")
    line = r"arm lora, stage 1 \(finetune, lora\): 0\.\d\d GB of 64\.0 GB free"
    said = tokka("check", fresh)
    assert said.code == 0 and re.search(f"{line}, run tokka plan train for times", said.out)
    assert not measured
    tokka("plan", "train", fresh)
    assert re.search(f"{line}, about ", tokka("check", fresh).out)
    assert tokka("check", fresh, "--json").json["plans"][0]["seconds"] > 0
    gigabytes(0.1)
    said = tokka("check", fresh)
    assert said.code == 2
    assert "doesn't fit" in said.out and "but 0.10 GB are free" in said.err


def test_a_run_is_refused_before_anything_is_trained(
    fresh: Path, listener: Any, only_arms: Callable[..., None], gigabytes: Callable[[float], None]
) -> None:
    only_arms(fresh, "base", "lora")
    build = prepare(load_project(fresh), listener)
    refuse_unfit_arms(build)
    gigabytes(0.1)
    with pytest.raises(UsageError, match=r"arm lora, stage 1 .* needs 0\.\d\d GB"):
        refuse_unfit_arms(build)


def test_what_is_built_already_needs_no_memory(
    fresh: Path, listener: Any, only_arms: Callable[..., None], gigabytes: Callable[[float], None]
) -> None:
    from tokka.arms.building import candidate_of

    only_arms(fresh, "base", "lora")
    build = prepare(load_project(fresh), listener)
    candidate = candidate_of(
        build.project.arms["lora"],
        base_model=build.project.base_model,
        base_digest=build.base_digest,
        language="en",
        artifacts={},
    )
    gigabytes(0.1)
    save_candidate(build, candidate.model_copy(update={"base_digest": "of another model"}))
    with pytest.raises(UsageError, match="arm lora"):
        refuse_unfit_arms(build)
    save_candidate(build, candidate)
    refuse_unfit_arms(build)


def test_an_estimate_in_words() -> None:
    assert [duration(s) for s in (None, 0.2, 61, 600, 5400, 40_000, 900_000)] == [
        "", "about 1 s", "about 61 s", "about 10 min", "about 1.5 h", "about 11.1 h",
        "about 10.4 days",
    ]  # fmt: skip
    assert [energy(j) for j in (None, 1500.0, 7.2e6)] == ["", "1500 J", "2.00 kWh"]


def test_replay_and_a_limit_change_the_amount() -> None:
    counts = ([40, 60], [4, 6])
    plain = amount(counts, 1.0, SPEC)
    assert (plain.tokens, plain.supervised, plain.steps) == (200, 20, 2)
    assert (plain.mean, plain.longest, plain.supervised_share) == (50.0, 60, 0.1)
    replay = ReplaySpec(data="general.jsonl", share=0.5)
    mixed = amount(counts, 1.0, SPEC.model_copy(update={"replay": replay}))
    assert (mixed.tokens, mixed.supervised) == (400, 220)  # what is replayed is learnt throughout
    cut = amount(counts, 1.0, SPEC.model_copy(update={"max_train_tokens": 50}))
    assert (cut.tokens, cut.supervised, cut.steps) == (50, 5, 1)
    less = amount(counts, 1.0, SPEC.model_copy(update={"accumulate": 2}))
    assert less.steps == 1
    assert amount(counts, 3.0, SPEC).tokens == 600  # a sample of a third


def test_a_sample_holds_the_longest_and_is_scaled_by_characters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(amounts, "SAMPLED", 30)
    texts = ["x" * (1 + n % 7) for n in range(1000)] + ["x" * 500] + ["x"] * 99
    chosen, scale = amounts._sample(texts, len)
    assert len(chosen) <= 60 and "x" * 500 in chosen
    assert scale * sum(map(len, chosen)) == pytest.approx(sum(map(len, texts)))
    assert amounts._sample(texts[:5], len) == (texts[:5], 1.0)


def test_running_text_is_counted_as_the_windows_that_will_be_made(
    fresh: Path, listener: Any, only_arms: Callable[..., None], gigabytes: Any
) -> None:
    from tokka.documents_steps import documents_of
    from tokka.records import Document, Stage
    from tokka.store import read_records
    from tokka.training.texts import windows

    only_arms(fresh, "base")
    project = load_project(fresh)
    build = prepare(project, listener)
    spec = PretrainSpec(window_tokens=16, epochs=1.0)
    found = amounts.amount_of(build, project.arms["base"], Stage(pretrain=spec))
    step = documents_of(build, project.corpus, learnt=True)
    documents = read_records(step / "documents.jsonl", Document)
    lessons = windows(documents, renderer_of(build), 16)
    assert found.tokens == pytest.approx(sum(len(one.ids) for one in lessons), rel=0.15)
    assert found.supervised == pytest.approx(sum(one.supervised for one in lessons), rel=0.15)
    assert found.longest == 16


def test_check_without_a_measurement_still_plans_memory(
    fresh: Path, listener: Any, only_arms: Callable[..., None], gigabytes: Any
) -> None:
    only_arms(fresh, "base", "lora")
    (stage,) = plan_from_kept(prepare(load_project(fresh), listener))
    assert stage.seconds is None and stage.note == planning.UNMEASURED
    assert stage.fit.fits and stage.joules is None and stage.cost_usd is None
