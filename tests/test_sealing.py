"""Stale, partial, foreign and hand-made results are found out on a real workspace."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from tokka import sealing
from tokka.errors import UsageError
from tokka.project import load_project
from tokka.release.gate import GateDecision, gate
from tokka.release.seal import Seal
from tokka.sealing import Looked, look
from tokka.store import read_record, sha256_file

ARM = "lora"
Decide = Callable[[], GateDecision]


@pytest.fixture(scope="module")
def made(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One copy for all tests of this file: each puts back what it changed (`workspace`)."""
    folder = tmp_path_factory.mktemp("sealing") / "project"
    shutil.copytree(finished.folder, folder)
    return folder


@pytest.fixture
def workspace(made: Path, here: None) -> Any:
    """The project's folder; reports, exams, candidates and the project file are put back after."""
    kept = made.parent / "kept"
    parts = ["tokka.yaml", "exam", ".tokka/reports", ".tokka/candidates"]
    for part in parts:
        target = kept / part
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (made / part).is_dir() else shutil.copy2
        copy(made / part, target)
    yield made
    for part in parts:
        remove = shutil.rmtree if (made / part).is_dir() else Path.unlink
        remove(made / part)
        shutil.move(kept / part, made / part)
    shutil.rmtree(kept)


@pytest.fixture
def decide(workspace: Path, listener: Any) -> Decide:
    def judged() -> GateDecision:
        project = load_project(workspace)
        looked = look(project, ARM, listener)
        return gate(looked.results, project.policy, looked.evidence, ARM)

    return judged


def reports(workspace: Path) -> Path:
    return workspace / ".tokka" / "reports" / "tokka"


def sealed_again(workspace: Path) -> None:
    """As a forger would: the seal's digests are made to fit the files as they are."""
    folder = reports(workspace)
    seal = read_record(folder / "evidence.json", Seal)
    sittings = tuple(
        s.model_copy(
            update={"scores_sha256": sha256_file(folder / "scores" / s.exam / f"{s.arm}.jsonl")}
        )
        for s in seal.sittings
    )
    changed = {
        "results_sha256": sha256_file(folder / "results.json"),
        "timings_sha256": sha256_file(folder / "timings.json"),
        "sittings": sittings,
    }
    (folder / "evidence.json").write_text(seal.model_copy(update=changed).model_dump_json())


def edit(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def reasons(decision: GateDecision) -> str:
    assert not decision.passed
    return "\n".join(check.en for check in decision.reasons if check.name == "results")


# ---- what holds ---------------------------------------------------------------------------------


def test_a_finished_run_is_sealed_and_holds(decide: Decide, workspace: Path) -> None:
    decision = decide()
    assert decision.passed, decision.texts("en")
    assert decision.checks[0].en.startswith("results: sealed, unchanged")


def test_looking_builds_nothing_and_writes_nothing(decide: Decide, workspace: Path) -> None:
    def files() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in workspace.rglob("*") if p.is_file()}

    before = files()
    decide()
    assert files() == before


def test_the_build_that_was_found_is_what_a_run_would_make(workspace: Path, listener: Any) -> None:
    looked: Looked = look(load_project(workspace), ARM, listener)
    assert looked.evidence.again == looked.results
    assert looked.build is not None and looked.candidate is not None
    assert looked.candidate.id == looked.results.arms[4].candidate.id
    assert listener.tasks == []


# ---- stale --------------------------------------------------------------------------------------


def test_a_changed_project_file_makes_results_stale(decide: Decide, workspace: Path) -> None:
    path = workspace / "tokka.yaml"
    path.write_text(path.read_text().replace("max_forgetting: 0.6", "max_forgetting: 0.7"))
    assert "project file says something else" in reasons(decide())


def test_a_corrected_key_makes_results_stale(decide: Decide, workspace: Path) -> None:
    path = workspace / "exam" / "retention.jsonl"
    path.write_text(path.read_text().replace('"Saturn"', '"Jupiter"'))
    said = reasons(decide())
    assert "exam retention" in said
    assert "the step 'exam' of retention isn't there" in said


def test_a_changed_document_makes_results_stale(decide: Decide, workspace: Path) -> None:
    path = workspace / "documents" / "piers.md"
    text = path.read_text()
    try:
        path.write_text(text.replace("3 years", "4 years"))
        said = reasons(decide())
    finally:
        path.write_text(text)
    assert "the step 'read' isn't there" in said and "tokka run" in said


def test_a_candidate_that_was_built_anew_makes_results_stale(
    decide: Decide, workspace: Path
) -> None:
    """As after a run that was killed before it wrote its results."""
    path = workspace / ".tokka" / "candidates" / "tokka" / f"{ARM}.json"
    edit(path, lambda candidate: candidate.update(id="0123456789abcdef"))
    said = reasons(decide())
    assert f"arm {ARM}" in said and "0123456789abcdef" in said


def test_another_base_model_makes_results_stale(decide: Decide, workspace: Path) -> None:
    path = workspace / "model" / "config.json"
    text = path.read_text()
    try:
        path.write_text(text.replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
        said = reasons(decide())
    finally:
        path.write_text(text)
    assert "base model" in said


# ---- partial and foreign ------------------------------------------------------------------------


def test_partial_results_put_in_place_of_whole_ones_are_refused(
    decide: Decide, workspace: Path, tokka: Any
) -> None:
    assert tokka("run", workspace, "--limit", "2", "--json").code == 0
    trial = reports(workspace).with_name("tokka-limit-2")
    shutil.rmtree(reports(workspace))
    shutil.copytree(trial, reports(workspace))
    said = decide().texts("en")
    assert any("first 2 questions" in text for text in said)
    assert any("2 questions only" in text for text in said)


def test_results_of_another_project_are_refused(decide: Decide, workspace: Path) -> None:
    path = workspace / "tokka.yaml"
    path.write_text(path.read_text().replace("name: blue-harbour", "name: red-harbour"))
    said = reasons(decide())
    assert "'blue-harbour'" in said and "'red-harbour'" in said


def test_results_without_a_seal_are_refused(decide: Decide, workspace: Path) -> None:
    (reports(workspace) / "evidence.json").unlink()
    assert "evidence.json is missing" in reasons(decide())


def test_a_damaged_seal_is_refused(decide: Decide, workspace: Path) -> None:
    (reports(workspace) / "evidence.json").write_text("{}")
    assert "evidence.json: not a Seal" in reasons(decide())


# ---- changed by hand ----------------------------------------------------------------------------


def forge_results(workspace: Path) -> None:
    def better(results: Any) -> None:
        results["arms"][4]["comparisons"][1]["effect"] = 0.5

    edit(reports(workspace) / "results.json", better)


def test_changed_results_are_found_and_a_run_writes_the_right_ones_again(
    decide: Decide, workspace: Path, tokka: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (reports(workspace) / "results.json").read_bytes()
    forge_results(workspace)
    assert "results.json isn't the file that was written" in reasons(decide())
    monkeypatch.chdir(workspace)  # the same command: only the changed file is a reason to write
    assert tokka("run", "--json").code == 0
    assert (reports(workspace) / "results.json").read_bytes() == before
    assert decide().passed


def test_results_by_hand_with_a_seal_that_fits_differ_from_the_answers(
    decide: Decide, workspace: Path
) -> None:
    forge_results(workspace)
    sealed_again(workspace)
    assert reasons(decide()).endswith(
        "they differ at arms[4].comparisons[1].effect; delete results.json, and run again: "
        "tokka run, which writes it anew"
    )


def test_changed_scores_and_timings_are_found(decide: Decide, workspace: Path) -> None:
    path = reports(workspace) / "scores" / "domain" / f"{ARM}.jsonl"
    path.write_text(path.read_text().replace("1.0", "0.5", 1))
    timings = reports(workspace) / "timings.json"
    edit(timings, lambda found: found[ARM].update(exam_seconds=0.0))
    said = reasons(decide())
    assert "exam domain: the scores of lora" in said and "timings.json" in said


@pytest.mark.parametrize("wrong", ["[]", '{"lora": {"arm": "lora"}}'])
def test_timings_that_are_none_are_refused(decide: Decide, workspace: Path, wrong: str) -> None:
    (reports(workspace) / "timings.json").write_text(wrong)
    assert f"holds no timing of {ARM} as a run writes it" in reasons(decide())


def test_a_changed_answer_is_found(decide: Decide, workspace: Path) -> None:
    seal = read_record(reports(workspace) / "evidence.json", Seal)
    (folder,) = [s.folder for s in seal.sittings if (s.arm, s.exam) == (ARM, "domain")]
    path = workspace / ".tokka" / "steps" / folder / "answers.jsonl"
    text = path.read_text()
    try:
        path.write_text(text.replace("blue", "grey", 1))
        said = reasons(decide())
    finally:
        path.write_text(text)
    assert "answers.jsonl: missing or changed since it was made" in said


def test_a_changed_answer_with_a_manifest_that_fits_is_found(
    decide: Decide, workspace: Path
) -> None:
    seal = read_record(reports(workspace) / "evidence.json", Seal)
    (folder,) = [s.folder for s in seal.sittings if (s.arm, s.exam) == (ARM, "domain")]
    path = workspace / ".tokka" / "steps" / folder / "answers.jsonl"
    manifest = path.with_name("manifest.json")
    kept = path.read_text(), manifest.read_text()
    try:
        path.write_text(kept[0].replace("blue", "grey", 1))
        edit(manifest, lambda m: m["digests"].update({"answers.jsonl": sha256_file(path)}))
        said = reasons(decide())
    finally:
        path.write_text(kept[0])
        manifest.write_text(kept[1])
    assert "exam domain: the answers of lora aren't those that were scored" in said


# ---- before anything ran ------------------------------------------------------------------------


def test_an_unknown_arm_and_a_project_that_never_ran_say_what_to_do(
    workspace: Path, fresh: Path, listener: Any
) -> None:
    with pytest.raises(UsageError, match="no arm 'nobody'; the project has: base"):
        look(load_project(workspace), "nobody", listener)
    with pytest.raises(UsageError, match="no results yet; make them with: tokka run"):
        look(load_project(fresh), ARM, listener)


def test_a_step_is_never_built_while_looking(
    workspace: Path, listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = sealing.FinishedWorkspace(workspace / ".tokka")
    with pytest.raises(sealing.NotBuilt, match="the step 'read' of x isn't there"):
        found.step("read", {"version": 0}, lambda folder: pytest.fail("built"), label="x")
