"""What can be said without running: mistakes, what the model will see, what is done already.

    found = check_project(project)        # tokka check
    steps = status_of(project)["steps"]   # tokka status

`check` proves prompt parity: the same question rendered for training, for the exam and for service
must give the same token ids.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokka.documents_steps import places_of, read_settings
from tokka.errors import Mistakes, TokkaError, UsageError
from tokka.models.opening import kind
from tokka.models.prompting import compose, pose
from tokka.models.protocol import Prompt
from tokka.pipeline import (
    Build,
    Observer,
    prepare,
    renderer_of,
    training_examples,
)
from tokka.planning import StagePlan, plan_from_kept
from tokka.project import Project
from tokka.project_stages import from_scratch
from tokka.records import (
    Arm,
    Candidate,
    Dropped,
    Example,
    FinetuneSpec,
    MergeSpec,
    Message,
    Messages,
    PreferSpec,
    PretrainSpec,
    PromptSpec,
    Question,
    Results,
    Stage,
)
from tokka.store import Workspace, read_records


class Quiet:
    """An observer that says nothing."""

    def task(self, label: str, total: float | None) -> Any:
        from contextlib import nullcontext

        class Nothing:
            def advance(self, n: float = 1, note: str = "") -> None:
                """Nobody is watching."""

        return nullcontext(Nothing())

    def notice(self, text: str) -> None:
        """Nobody is listening."""


@dataclass(frozen=True, slots=True)
class TokenView:
    """A conversation as tokens. `pieces[learnt_from:]` is learnt; `special` are places of special
    ids."""

    title: str
    pieces: tuple[str, ...]
    ids: tuple[int, ...]
    learnt_from: int
    special: frozenset[int]


@dataclass(frozen=True, slots=True)
class Proof:
    text: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Checked:
    summary: str
    views: tuple[TokenView, ...]
    shared: int
    proofs: tuple[Proof, ...]
    dropped: tuple[Dropped, ...]
    plans: tuple[StagePlan, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "summary": self.summary,
            "views": [{**asdict(v), "special": sorted(v.special)} for v in self.views],
            "shared_prefix_tokens": self.shared,
            "proofs": [asdict(p) for p in self.proofs],
            "dropped": [d.model_dump(mode="json") for d in self.dropped],
            "plans": [plan.as_json() for plan in self.plans],
        }


def check_project(
    project: Project, arm_name: str | None = None, observer: Observer | None = None
) -> Checked:
    """Read everything, change nothing but caches. Raises Mistakes with all mistakes of all
    files."""
    if arm_name is not None and arm_name not in project.arms:
        raise UsageError(f"no arm {arm_name!r}; the project has: {', '.join(project.arms)}")
    from tokka.candidates.letters import with_options

    build = _prepared(project, observer or Quiet())
    arm = _shown_arm(project, arm_name)
    dropped = [*build.dropped, *_unreadable(project)]
    questions = [
        with_options(q, project.language) if step.show_options else q
        for step in build.exams.values()
        for q in step.questions()
    ]
    counts = ", ".join(f"{n}: {s.exam.questions} questions" for n, s in build.exams.items())
    examples = _examples(build, arm)
    summary = (
        f"{project.file.name}: no mistakes. {len(project.arms)} arms; {counts}; "
        f"{len(examples)} training examples; shown: arm {arm.name}"
    )
    if build.base is None:
        note = Proof("the endpoint hides its tokens: prompts are hashed as messages", True)
        return Checked(summary, (), 0, (note,), tuple(dropped))
    plans = plan_from_kept(build)
    if from_scratch(arm.weights):
        note = Proof(
            f"not shown: the tokenizer of arm {arm.name} is learnt in its first stage", True
        )
        return Checked(summary, (), 0, (note,), tuple(dropped), plans)
    views, shared, proofs = _tokens(build, arm, examples, questions)
    return Checked(summary, views, shared, proofs, tuple(dropped), plans)


def _prepared(project: Project, observer: Observer) -> Build:
    """Every exam and example file is read, so that the mistakes of all of them arrive together."""
    from tokka.dataset.vetting import vet
    from tokka.exam.importing import import_exam
    from tokka.pipeline import example_files, leaves_out_mistakes

    mistakes: list[str] = []
    asked: dict[str, str] = {}
    for name, spec in project.exams.items():
        try:
            exam = import_exam(
                project.resolve(spec.path),
                name,
                spec.role,
                spec.normalisation,
                scorer=spec.scorer,
                leave_out_mistakes=spec.leave_out_mistakes,
            )
            asked.update({f"{name}/{q.id}": q.messages[-1].content for q in exam.questions})
        except Mistakes as found:
            mistakes += found.items
        except TokkaError as error:
            mistakes.append(str(error))
    for file in example_files(project):
        leave_out = leaves_out_mistakes(project, file)
        try:
            vet(project.resolve(file), asked, leave_out_mistakes=leave_out)
        except Mistakes as found:
            mistakes += found.items
        except TokkaError as error:
            mistakes.append(str(error))
    if mistakes:
        raise Mistakes(f"{project.file}: {len(mistakes)} mistakes in its files", mistakes)
    build = prepare(project, observer)
    if mistakes := _unlearnable(build):
        raise Mistakes(f"{project.file}: {len(mistakes)} examples can't be learnt", mistakes)
    return build


def _unlearnable(build: Build) -> list[str]:
    """Examples that don't become a lesson: rendered as training does, but without passages, for
    which the whole corpus would have to be indexed."""
    from tokka.arms.building import lessons_of
    from tokka.stages import training_context_tokens

    stages = [
        (arm, stage.finetune)
        for arm in build.project.arms.values()
        if not from_scratch(arm.weights)  # its tokenizer is not made yet
        for stage in arm.weights
        if stage.finetune is not None
    ]
    if build.base is None or not stages:
        return []
    renderer = renderer_of(build)
    mistakes: dict[str, None] = {}
    seen: set[tuple[object, ...]] = set()
    for arm, spec in stages:
        decisive = (
            spec.data,
            spec.thought,
            spec.leave_out_mistakes,
            arm.prompt.system,
            arm.prompt.format,
        )
        if decisive in seen:
            continue
        seen.add(decisive)
        try:
            lessons_of(
                training_examples(build.examples[spec.data]),
                arm,
                spec,
                renderer,
                build.project.language,
                training_context_tokens(build.base),
                file=build.project.resolve(spec.data),
            )
        except Mistakes as found:
            mistakes |= dict.fromkeys(found.items)
    return list(mistakes)


def _unreadable(project: Project) -> list[Dropped]:
    """What reading would leave out; nothing is kept of it, since a check writes nothing."""
    from tokka.corpus.reading import read_corpus

    if not project.corpus:
        return []
    places, skip, _ = places_of(project, project.corpus)
    with tempfile.TemporaryDirectory(prefix="tokka-check-") as kept:
        rows = read_corpus(places, skip, kept=Path(kept), settings=read_settings(project))
        return [row for row in rows if isinstance(row, Dropped)]


def _shown_arm(project: Project, name: str | None) -> Arm:
    if name is not None:
        return project.arms[name]
    trained = [
        arm for arm in project.arms.values() if arm.weights and not from_scratch(arm.weights)
    ]
    return (trained or list(project.arms.values()))[0]


def _examples(build: Build, arm: Arm) -> list[Example]:
    tuned = [stage.finetune.data for stage in arm.weights if stage.finetune is not None]
    files = tuned or list(build.examples)[:1]
    return training_examples(build.examples[files[0]]) if files else []


def _tokens(
    build: Build, arm: Arm, examples: Sequence[Example], questions: Sequence[Question]
) -> tuple[tuple[TokenView, ...], int, tuple[Proof, ...]]:
    from tokka.candidates.letters import letter_messages
    from tokka.candidates.opening import asked
    from tokka.candidates.shots import shots_of
    from tokka.training.lessons import lesson

    renderer = renderer_of(build)
    language, scores = build.project.language, kind(build.project.base_model) != "endpoint"
    taught_spec = PromptSpec(system=arm.prompt.system, format=arm.prompt.format)
    shots = shots_of(arm, _shots(build, arm))

    def taught(turns: Messages) -> Messages:
        return compose(turns, spec=taught_spec, language=language)

    def posed(question: Question) -> Prompt:
        chosen, choice = shots(question) if shots else (), question.form == "choice"
        said = letter_messages(question, language) if choice and not scores else ()
        how: dict[str, Any] = {"said": said, "scored": choice and scores, "language": language}
        return pose(question, renderer, spec=arm.prompt, shots=chosen, **how)

    def view(title: str, ids: tuple[int, ...], learnt_from: int) -> TokenView:
        pieces = tuple(renderer.pieces(ids))  # type: ignore[attr-defined]
        ends = renderer.stop_ids | {getattr(renderer, "bos_id", None)}
        special = frozenset(i for i, token in enumerate(ids) if token in ends)
        return TokenView(title, pieces, ids, learnt_from, special)

    views: list[TokenView] = []
    if examples:
        first = examples[0]
        learnt = lesson(
            first.id, taught(first.messages[:-1]), first.messages[-1].content, renderer, 10**9
        )
        views.append(view(f"training example {first.id}", learnt.ids, learnt.start))
    question = next((q for q in questions if len(q.messages) == 1), questions[0])
    prompt = posed(question)
    ids = prompt.ids
    title = f"exam question {question.id}"
    if question.choices and scores:
        ids += renderer.option(question.choices[0], prompt)
        title += ", first option"
    views.append(view(title, ids, len(ids)))
    text = "この規程の改定日はいつですか。" if language == "ja" else "When was this rule revised?"
    served = posed(asked(text)).ids
    views.append(view("served request", served, len(served)))
    shared = _common([v.ids for v in views])
    as_served = question.form != "choice" or scores
    proofs = [_parity(question, posed, taught, renderer, arm, as_served), *_ends(views, renderer)]
    if arm.retrieval is not None:
        proofs.append(
            Proof(
                "not shown: the passages, which stand before the question wherever it is asked",
                True,
            )
        )
    return tuple(views), shared, tuple(proofs)


def _shots(build: Build, arm: Arm) -> list[Example]:
    if not arm.prompt.shots:
        return []
    return read_records(build.examples[arm.prompt.shots_from] / "examples.jsonl", Example)


def _common(rows: Sequence[tuple[int, ...]]) -> int:
    count = 0
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return count


def _parity(
    question: Question, posed: Any, taught: Any, renderer: Any, arm: Arm, as_served: bool
) -> Proof:
    """The same question in the exam, as a request and, without shots, as a training example."""
    from tokka.candidates.opening import asked
    from tokka.training.lessons import lesson

    if len(question.messages) > 1:
        return Proof("parity not checked: every exam question has several turns", True)
    if not as_served:
        return Proof(f"parity not checked: question {question.id} is asked by letter", True)
    if question.completion:
        return Proof(f"question {question.id} is a whole text, sent as it stands", True)
    text = question.messages[-1].content
    exam, service = posed(question), posed(asked(text))
    same = exam.ids == service.ids
    where = "exam and service; training leaves the shots out"
    if not arm.prompt.shots:
        learnt = lesson(
            "parity", taught((Message(role="user", content=text),)), "x", renderer, 10**9
        )
        same = same and exam.ids == learnt.ids[: learnt.start]
        where = "training, exam and service"
    return Proof(
        f"question {question.id} has the same {len(exam.ids)} prompt tokens in {where} "
        f"(sha256 {exam.sha256[:16]})",
        same,
    )


def _ends(views: Sequence[TokenView], renderer: Any) -> list[Proof]:
    proofs = []
    bos = getattr(renderer, "bos_id", None)
    if bos is not None and not renderer.chat_template:
        proofs.append(
            Proof(
                "BOS stands exactly once, at the start", all(v.ids.count(bos) == 1 for v in views)
            )
        )
    for v in views:
        if v.learnt_from < len(v.ids):
            learnt = set(v.ids[v.learnt_from :])
            proofs.append(
                Proof("the answer's end (EOS) is learnt", bool(renderer.stop_ids & learnt))
            )
    return proofs


def planned_steps(project: Project) -> list[str]:
    """What a run would do, in words."""
    steps = [f"read and chunk {', '.join(project.corpus)}"] if project.corpus else []
    for arm in project.arms.values():
        parts = [_in_words(stage, project) for stage in arm.weights]
        if arm.choose:
            parts.append("choose among its states by the development questions")
        if arm.retrieval:
            parts.append("build its index")
            if arm.retrieval.weights == "tuned":
                parts.append("weigh its searches by the development questions")
        steps.append(f"arm {arm.name}: {', '.join(parts) or 'nothing to build'}")
    steps += [f"sit exam {name} with every arm" for name in project.exams]
    return [*steps, f"compare with {project.policy.control} and write the report"]


def _in_words(stage: Stage, project: Project) -> str:
    spec = stage.spec
    if isinstance(spec, PretrainSpec):
        start = "from scratch" if spec.scratch else f"({spec.method})"
        return f"pretrain {start} on {', '.join(spec.data or project.corpus)}"
    if isinstance(spec, FinetuneSpec):
        return f"finetune ({spec.method}) on {spec.data}"
    if isinstance(spec, PreferSpec):
        return f"prefer ({spec.objective}, {spec.method}) on {spec.data}"
    if isinstance(spec, MergeSpec):
        return f"merge ({spec.method})" + (f" with {', '.join(spec.arms)}" if spec.arms else "")
    return f"quantise to {spec.type}"


def status_of(project: Project) -> dict[str, Any]:
    """Steps finished, unfinished and to do; whether a run is at work; the last summary."""
    from filelock import FileLock, Timeout

    from tokka.store import read_json

    workspace = Workspace(project.root / ".tokka")
    current = _current_candidates(project, workspace)
    rows, earlier = [], 0
    for folder in workspace.finished():
        manifest = workspace.manifest(folder)
        candidate = manifest.inputs.get("candidate")
        if candidate is not None and candidate not in current:
            earlier += 1
            continue
        rows.append(_row(manifest.step, manifest.label, "done", manifest.seconds))
    for folder in workspace.unfinished():
        rows.append(_row(folder.name.split("-")[0], "", "unfinished", None))
    running = False
    lock = workspace.root / "run.lock"
    if lock.exists():
        try:
            with FileLock(str(lock)).acquire(timeout=0):
                running = False
        except Timeout:
            running = True
    out = workspace.root / "reports" / project.file.stem
    rows += [
        {
            "step": "arm",
            "of": arm,
            "state": "done" if arm in current.values() else "to do",
            "seconds": None,
        }
        for arm in project.arms
    ]
    results = read_json(out / "results.json") if (out / "results.json").exists() else None
    key = "summary_ja" if project.language == "ja" else "summary_en"
    return {
        "project": project.name,
        "workspace": str(workspace.root),
        "steps": rows,
        "steps_of_earlier_candidates": earlier,
        "running": running,
        "verdict": results[key] if results else None,
        "report": str(out / "report.html") if results else None,
    }


def _row(step: str, of: str, state: str, seconds: float | None) -> dict[str, Any]:
    return {"step": step, "of": of, "state": state, "seconds": seconds}


def _current_candidates(project: Project, workspace: Workspace) -> dict[str, str]:
    """Candidate id → arm, of those built by the last run that the project still describes."""
    from tokka.store import read_record

    folder = workspace.root / "candidates" / project.file.stem
    found = (read_record(path, Candidate) for path in sorted(folder.glob("*.json")))
    return {c.id: c.arm.name for c in found if c.arm == project.arms.get(c.arm.name)}


@dataclass(frozen=True, slots=True)
class LastReport:
    results: Results
    path: Path


def last_report(project: Project) -> LastReport:
    from tokka.store import read_record

    folder = project.root / ".tokka" / "reports" / project.file.stem
    if not (folder / "report.html").exists():
        raise UsageError(f"no report yet; make one with: tokka run {project.file}")
    return LastReport(read_record(folder / "results.json", Results), folder / "report.html")
