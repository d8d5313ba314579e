"""The command line: what it returns, what it prints where, and what it never prints."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

COLOUR = re.compile(r"\x1b\[([\d;]*;)?[349]\d[;m]")
ASKED = "Which colour is the hull of the tug?"


Tell = Callable[..., Any]  # see conftest.py: arguments → code, out, err, json


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns)
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


# ---- exit codes ---------------------------------------------------------------------------------


def test_mistakes_in_the_project_file_come_together_with_their_lines(
    fresh: Path, tokka: Tell
) -> None:
    file = fresh / "tokka.yaml"
    text = file.read_text().replace("draws: 200", "draws: 20").replace("top_k: 2}", "topk: 2}")
    file.write_text(text)
    said = tokka("check", fresh)
    assert said.code == 2 and said.out == ""
    lines = text.splitlines()
    draws = next(n for n, line in enumerate(lines, 1) if "draws" in line)
    top_k = next(n for n, line in enumerate(lines, 1) if "topk" in line)
    assert f"draws must be >= 100, got 20 (tokka.yaml:{draws})" in said.err
    assert f"did you mean top_k? (tokka.yaml:{top_k})" in said.err
    assert "Traceback" not in said.err


def test_mistakes_in_exams_and_examples_come_together_with_their_lines(
    fresh: Path, tokka: Tell
) -> None:
    with (fresh / "exam" / "domain.jsonl").open("a") as file:
        file.write('{"id": "d00", "question": "", "answer": "blue"}\n')
    with (fresh / "examples.jsonl").open("a") as file:
        file.write('{"question": "Who?"}\n')
    said = tokka("check", fresh)
    assert said.code == 2
    assert "domain.jsonl:15)" in said.err and "examples.jsonl:14)" in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--limit", "0"),
        ("run", "--fast"),
        ("ask", "rag"),
        ("nonsense",),
        ("run", "gone.yaml"),
    ],
)
def test_a_wrong_call_returns_2(
    arguments: tuple[str, ...], tokka: Tell, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    said = tokka(*arguments)
    assert said.code == 2 and said.out == ""
    assert said.err.startswith("tokka: ") and "Traceback" not in said.err


def test_an_unknown_or_unbuilt_arm_returns_2(fresh: Path, tokka: Tell) -> None:
    unknown = tokka("ask", "rga", ASKED, "--project", fresh)
    assert unknown.code == 2 and "no arm 'rga'; the project has: base," in unknown.err
    unbuilt = tokka("ask", "rag", ASKED, "--project", fresh)
    assert unbuilt.code == 2 and "isn't built yet; build it with: tokka run " in unbuilt.err
    empty = tokka("ask", "rag", "  ", "--project", fresh)
    assert empty.code == 2 and "the question is empty" in empty.err
    assert tokka("report", fresh).code == 2


def test_the_gate_lets_only_a_proven_arm_through(
    copied: Path, tokka: Tell, only_arms: Callable[..., None]
) -> None:
    passed = tokka("run", copied, "--gate", "--json")
    assert (passed.code, passed.json["winner"]) == (0, "lora")
    only_arms(copied, "base", "rag")
    refused = tokka("run", copied, "--gate")
    assert refused.code == 3
    assert "no arm passed the policy" in refused.err
    assert tokka("run", copied).code == 0


@pytest.mark.parametrize("step", ["read", "index", "finetune", "sit"])
def test_a_changed_file_of_a_finished_step_returns_6(step: str, copied: Path, tokka: Tell) -> None:
    folder = next((copied / ".tokka" / "steps").glob(f"{step}-*"))
    names = json.loads((folder / "manifest.json").read_bytes())["files"]
    path = folder / sorted(names)[0]
    path.write_bytes(path.read_bytes() + b"\n")
    said = tokka("run", copied)
    assert said.code == 6
    assert f"{path}: missing or changed since it was made; delete {folder}" in said.err
    path.unlink()
    assert tokka("run", copied).code == 6


# ---- what is printed where ----------------------------------------------------------------------


def test_json_is_the_only_thing_on_standard_output(
    copied: Path, tokka: Tell, only_arms: Callable[..., None], finished: Any
) -> None:
    assert finished.said.json["verdicts"]["lora"] == "pass"  # a whole run, with training in it
    assert set(tokka("init", copied / "new", "--json").json) == {"files", "written", "dry_run"}
    checked = tokka("check", copied, "--json").json
    assert [len(view["pieces"]) == len(view["ids"]) for view in checked["views"]] == [True] * 3
    assert all(proof["holds"] for proof in checked["proofs"])
    status = tokka("status", copied, "--json").json
    assert status["running"] is False
    assert {s["state"] for s in status["steps"]} == {"done"}
    report = tokka("report", copied, "--json").json
    assert report["winner"] == "lora" and Path(report["report"]).exists()
    steps = tokka("run", copied, "--dry-run", "--json").json
    assert steps["dry_run"] is True and any("lora" in line for line in steps["steps"])
    answer = tokka("ask", "lora", ASKED, "--project", copied, "--json")
    assert answer.json["text"].startswith("blue") and answer.err == ""


def test_a_dry_run_writes_nothing(fresh: Path, tokka: Tell) -> None:
    before = tree(fresh)
    said = tokka("run", fresh, "--dry-run")
    assert said.code == 0
    assert "arm lora-rag: finetune (lora) on examples.jsonl, build its index" in said.out
    assert tokka("init", fresh / "new", "--dry-run").code == 0
    assert tree(fresh) == before and not (fresh / "new").exists()


def test_init_in_a_pipe_asks_nothing_and_its_project_passes_check(
    fresh: Path, processes: Any, tokka: Tell, tmp_path: Path
) -> None:
    folder = tmp_path / "rules"
    (fresh / "documents").rename(tmp_path / "documents")
    folder.mkdir()
    (tmp_path / "documents").rename(folder / "documents")
    said = processes.run("init", folder, "--model", fresh / "model")
    assert (said.code, said.err) == (0, "")
    assert "next: tokka check" in said.out and "?" not in said.out
    assert "1 .csv documents" in said.out and "4 .md documents" in said.out
    checked = tokka("check", folder)
    assert checked.code == 0, checked.err
    assert "no mistakes" in checked.out
    again = tree(folder)
    assert processes.run("init", folder).code == 0
    assert tree(folder) == again


def test_check_shows_the_tokens_and_proves_that_the_prompts_are_the_same(
    copied: Path, tokka: Tell
) -> None:
    before = tree(copied / ".tokka")
    said = tokka("check", copied)
    assert said.code == 0
    assert "training example e00" in said.out
    assert "exam question d00, first option" in said.out
    assert "served request" in said.out
    assert "✓ question d00 has the same" in said.out
    assert "✓ BOS stands exactly once" in said.out
    assert "✓ the answer's end (EOS) is learnt" in said.out
    assert "✗" not in said.out
    assert tree(copied / ".tokka") == before
    served = json.loads(tokka("check", copied, "--json").out)["views"][0]
    assert "".join(served["pieces"][served["learnt_from"] :]) == " blue</s>"


def test_a_proof_that_fails_returns_6(
    copied: Path, tokka: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training that begins with one token more than the exam, as a renderer's slip would."""
    import tokka.training.lessons as lessons

    right = lessons.lesson

    def slipped(*arguments: Any) -> Any:
        made = right(*arguments)
        moved = tuple((start + 1, stop + 1) for start, stop in made.learnt)
        return type(made)(made.example_id, (5, *made.ids), moved)

    monkeypatch.setattr(lessons, "lesson", slipped)
    said = tokka("check", copied)
    assert "✗ question d00" in said.out
    assert said.code == 6
    assert "prompt" in said.err and "Traceback" not in said.err
    as_json = tokka("check", copied, "--json")
    assert as_json.code == 6
    assert as_json.json["proofs"][0]["holds"] is False


def test_status_and_report_speak_of_the_last_run(copied: Path, tokka: Tell) -> None:
    said = tokka("status", copied)
    assert said.code == 0 and "finetune" in said.out and "lora" in said.out
    report = tokka("report", copied)
    assert report.code == 0
    assert "lora" in report.out and "report.html" in report.out
    assert "example copied: exam question domain/d00 stands in it" in report.out


def test_a_project_that_never_ran_says_what_to_do(fresh: Path, tokka: Tell) -> None:
    status = tokka("status", fresh)
    assert status.code == 0 and "no report yet: tokka run" in status.out
    assert not (fresh / ".tokka").exists()
    report = tokka("report", fresh)
    assert report.code == 2 and "no report yet; make one with: tokka run" in report.err


def test_ask_answers_with_citations_that_stand_in_the_documents(copied: Path, tokka: Tell) -> None:
    said = tokka("ask", "lora-search", ASKED, "--project", copied)
    assert said.code == 0
    assert said.out.startswith("blue") and "[1] tug.txt" in said.out
    answer = tokka("ask", "lora-search", ASKED, "--project", copied, "--json").json
    assert [p["number"] for p in answer["passages"]] == [1, 2]
    assert answer["citations"]
    for citation in answer["citations"]:
        text = (copied / "documents" / citation["document_id"]).read_text()
        passage = answer["passages"][citation["passage"] - 1]
        assert citation["document_id"] == passage["document_id"]
        assert "blue" in text[citation["start"] : citation["end"]]
    base = tokka("ask", "base", ASKED, "--project", copied, "--json").json
    assert base["citations"] == [] == base["passages"]


@pytest.mark.parametrize("command", ["status", "report", "check"])
def test_colours_are_for_terminals(
    command: str, copied: Path, tokka: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped = tokka(command, copied)
    assert "\x1b" not in piped.out + piped.err
    monkeypatch.setenv("FORCE_COLOR", "1")
    forced = tokka(command, copied)
    assert COLOUR.search(forced.out)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not COLOUR.search(tokka(command, copied).out)  # bold and italics may stay
