"""A project whose model is a service: letters for options, money counted, the key never shown."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tokka.errors import UsageError
from tokka.exam.sitting import score_all
from tokka.pipeline import Build, Sat, load_candidate, prepare
from tokka.project import load_project
from tokka.records import Answer
from tokka.reporting import results_of
from tokka.store import read_records

Tell = Callable[..., Any]  # see conftest.py: arguments → code, out, err, json
KEY_NAME, SECRET = "TOKKA_TEST_HARBOUR_KEY", "sk-harbour-0123456789abcdef"


@dataclass
class Service:
    """An OpenAI-compatible server on loopback that knows that everything is blue.

    It fails on questions that hold a word of `fails_on`, and repeats the caller's key when it does.
    """

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    fails_on: str = ""
    status: int = 500

    def answer(self, text: str) -> str:
        if "Answer with the letter" in text:
            options = dict(re.findall(r"^([A-D])\. (.+)$", text, re.MULTILINE))
            blue = [letter for letter, option in options.items() if option == "blue"]
            return f"The answer is {(blue or ['A'])[0]}."
        return "It is blue."


@pytest.fixture
def service() -> Iterator[Service]:
    told = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            key = self.headers.get("Authorization", "")
            told.asked.append(body)
            told.keys.add(key)
            text = body["messages"][-1]["content"]
            status, reply = 200, {
                "choices": [{"message": {"content": told.answer(text)}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 10},
            }  # fmt: skip
            if told.fails_on and told.fails_on in text:
                status, reply = told.status, {"error": f"out of order, {key}"}
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_port}/v1#harbour-1"
    yield told
    server.shutdown()
    server.server_close()


@pytest.fixture
def project(
    fresh: Path,
    service: Service,
    only_arms: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    endpoint = {
        "api_key_env": KEY_NAME, "retries": 0, "input_usd_per_million": 1000,
        "output_usd_per_million": 2000,
    }  # fmt: skip
    only_arms(fresh, "base", "rag", base_model=service.url, endpoint=endpoint)
    monkeypatch.setenv(KEY_NAME, SECRET)
    return fresh


def read_results(folder: Path) -> Any:
    return json.loads((folder / ".tokka" / "reports" / "tokka" / "results.json").read_bytes())


def secrets_in(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 20  # the workspace is among them
    return [path for path in files if SECRET.encode() in path.read_bytes()]


def test_a_service_sits_the_exams_by_letter_and_is_paid(
    project: Path, service: Service, tokka: Tell
) -> None:
    code, out, err = tokka("run", project, "--json")
    assert code == 0, err
    assert json.loads(out)["verdicts"] == {"rag": "inconclusive"}
    asked = [json.dumps(body["messages"]) for body in service.asked]
    assert service.keys == {f"Bearer {SECRET}"}
    base, rag = read_results(project)["arms"]
    domain = base["sittings"][0]
    assert domain["settings"]["scoring"] == "choice: letter, short: text"
    assert domain["primary"]["estimate"] == 1.0  # letters are read, texts are scored
    assert domain["cost_usd"] == pytest.approx(12 * (100 * 1000 + 10 * 2000) / 1e6)
    assert rag["sittings"][0]["retrieval"]["recall@2"]["estimate"] > 0.5
    assert sum("Documents:\\n[1]" in text for text in asked) > 12  # not all find a passage
    answers = (project / ".tokka" / "steps").glob("sit-*/answers.jsonl")
    rows = [json.loads(line) for path in answers for line in path.read_text().splitlines()]
    assert {row["hash_kind"] for row in rows} == {"messages"}
    assert tokka("run", project)[0] == 0
    assert len(service.asked) == len(asked) == len(set(asked))  # nothing is paid twice

    code, out, _ = tokka("ask", "rag", "Which colour is the tug?", "--project", project)
    assert code == 0 and out.startswith("It is blue.") and "] tug.txt 0–28" in out
    code, out, _ = tokka("check", project)
    assert code == 0 and "the endpoint hides its tokens" in out


def test_letters_are_asked_in_every_order_and_a_failed_order_alone_again(
    project: Path, service: Service, tokka: Tell
) -> None:
    path = project / "tokka.yaml"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["exams"]["domain"]["rotate"] = True
    path.write_text(json.dumps(settings), encoding="utf-8")
    service.fails_on = "A. green"
    assert tokka("run", project)[0] == 5
    domain = read_results(project)["arms"][0]["sittings"][0]
    assert (domain["errors"], domain["primary"], domain["positions"]) == (4, None, [])
    service.fails_on, service.asked[:] = "", []
    assert tokka("run", project)[0] == 0
    assert len(service.asked) == 2 * 4  # one order of four choices, for two arms
    domain = read_results(project)["arms"][0]["sittings"][0]
    assert domain["settings"]["scoring"] == "choice: letter rotated, short: text"
    assert domain["primary"]["estimate"] == 1.0
    assert domain["cost_usd"] == pytest.approx((8 + 4 * 4) * (100 * 1000 + 10 * 2000) / 1e6)
    (bias,) = domain["positions"]
    assert (bias["unchanged"]["estimate"], bias["p_value"], bias["unnamed"]) == (1.0, 1.0, 0)


def test_a_failing_question_returns_5_and_is_the_only_one_asked_again(
    project: Path, service: Service, tokka: Tell
) -> None:
    service.fails_on = "the hull of the tug"
    code, _, err = tokka("run", project)
    assert code == 5, err
    assert "base: 1 of 12 questions of domain failed; run again to ask only these" in err
    results = read_results(project)
    assert results["winner"] is None
    domain, retention = results["arms"][0]["sittings"]
    assert (domain["asked"], domain["answered"], domain["errors"]) == (12, 11, 1)
    assert domain["primary"] is None and retention["primary"] is not None
    verdict = results["arms"][1]["verdict"]
    assert verdict["outcome"] == "inconclusive" and "is incomplete" in verdict["reasons"][0]
    service.fails_on, service.asked[:] = "", []
    assert tokka("run", project)[0] == 0
    assert len(service.asked) == 2  # by base and by rag
    assert all("the hull of the tug" in a["messages"][-1]["content"] for a in service.asked)
    assert read_results(project)["arms"][0]["sittings"][0]["errors"] == 0


def test_a_dead_service_returns_5(project: Path, service: Service, tokka: Tell) -> None:
    service.fails_on = " "
    code, out, err = tokka("run", project, "--json")
    assert (code, out) == (5, ""), err
    assert "no answer after 1 tries" in err and "finished answers are kept" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("status", [400, 401, 500])
def test_the_key_is_in_no_output_and_in_no_file(
    status: int, project: Path, service: Service, tokka: Tell
) -> None:
    """Not even where the service itself repeats it in its error."""
    service.fails_on, service.status = "the hull of the tug", status
    outputs = [tokka("run", project), tokka("run", project, "--json")]
    outputs += [tokka(command, project) for command in ("status", "check")]
    outputs += [tokka("ask", "base", "Paint the hull of the tug?", "--project", project)]
    assert outputs[0][0] == 5, outputs[0]
    assert service.keys == {f"Bearer {SECRET}"}
    assert not [text for _, *texts in outputs for text in texts if SECRET in text]
    assert secrets_in(project) == []


def test_letters_are_never_compared_with_likelihoods(
    finished: Any,
    project: Path,
    tokka: Tell,
    listener: Any,
) -> None:
    """base by letter against rag by likelihood, over the same questions: refused, and said why."""
    assert tokka("run", project)[0] == 0
    build = prepare(load_project(project), listener)
    rows = sat_by(build, "base", project) + sat_by(build, "rag", finished.folder)
    scores = [score_all(s.exam.exam, s.questions, s.exam.keys(), s.answers) for s in rows]
    (arm,) = results_of(build, rows, scores, None).arms[1:]
    by_exam = {c.exam: c for c in arm.comparisons}
    assert set(by_exam) == {"domain", "retention"}
    for comparison in by_exam.values():
        assert comparison.outcome == "inconclusive" and comparison.method == "not tested"
        assert "which can't be compared; examine both the same way" in comparison.reason
    assert "choice: letter" in by_exam["domain"].reason
    assert "choice: loglikelihood" in by_exam["domain"].reason
    alike = [s for name in ("base", "rag") for s in sat_by(build, name, project)]
    scores = [score_all(s.exam.exam, s.questions, s.exam.keys(), s.answers) for s in alike]
    (arm,) = results_of(build, alike, scores, None).arms[1:]
    assert all(c.draws == 200 for c in arm.comparisons)  # the same way: they are compared


def sat_by(build: Build, arm: str, folder: Path) -> list[Sat]:
    """The sittings of an arm as they stand in a project's folder, for this build's exams."""
    results = read_results(folder)
    wanted = next(a["candidate"]["id"] for a in results["arms"] if a["arm"]["name"] == arm)
    candidate = load_candidate(build, arm)
    found = []
    for step in build.exams.values():
        questions = [q for q in step.questions() if q.split == "test"]
        for path in (folder / ".tokka" / "steps").glob("sit-*/answers.jsonl"):
            answers = read_records(path, Answer)
            if (answers[0].candidate_id, answers[0].exam_digest) == (wanted, step.exam.digest):
                found.append(Sat(candidate, step, questions, answers, ""))
    assert len(found) == 2
    return found


def test_what_was_asked_in_every_order_is_asked_so_again_before_a_release(
    project: Path, service: Service, tokka: Tell, listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokka.exporting import export
    from tokka.pipeline import Models
    from tokka.reexamining import reexamine

    file = project / "tokka.yaml"
    said = json.loads(file.read_text(encoding="utf-8"))
    said["exams"]["domain"]["rotate"] = True
    file.write_text(json.dumps(said), encoding="utf-8")
    assert tokka("run", project).code == 0
    build = prepare(load_project(project), listener)
    candidate = load_candidate(build, "rag")
    models, before = Models(build), len(service.asked)
    try:
        found = reexamine(build, candidate, export(build, candidate, "endpoint"), models)
    finally:
        models.close()
    assert len(service.asked) > before + 6  # a choice once for each of its options
    assert set(found.same) == {"domain", "retention"} and set(found.same.values()) == {1.0}


def test_a_service_is_asked_again_before_it_is_released(
    project: Path, service: Service, tokka: Tell, listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights can't be seen: only that it still answers as it did."""
    from tokka.exporting import export, format_of
    from tokka.pipeline import Models
    from tokka.reexamining import reexamine

    assert tokka("run", project).code == 0
    build = prepare(load_project(project), listener)
    candidate = load_candidate(build, "rag")
    assert format_of(build, candidate) == "endpoint"
    with pytest.raises(UsageError, match="there is nothing to write as q8_0"):
        export(build, candidate, "q8_0")
    exported = export(build, candidate, "endpoint")
    assert exported.folder is None and exported.served == candidate

    def again() -> Any:
        models = Models(build)
        try:
            return reexamine(build, candidate, exported, models)
        finally:
            models.close()

    asked = len(service.asked)
    found = again()
    assert len(service.asked) == asked + 6  # three of each exam, whatever is remembered
    assert found.faults == () and set(found.same.values()) == {1.0}
    assert "can't be seen" in found.notes[0]
    monkeypatch.setattr(Service, "answer", lambda self, text: "It is mauve.")
    (fault,) = again().faults
    assert fault.startswith(f"{service.url} answers 6 of 6 questions otherwise than")
    service.fails_on = "capital of France"
    (fault,) = again().faults
    assert fault.startswith(f"{service.url} failed 1 of 6 questions") and SECRET not in fault
