"""The steps in order: documents and exams in; every arm built, examined and compared; a report out.

    read → chunk → index ─┐
    examples ─────────────┼→ weights (see `stages`) → candidate → sit → results.json, report.html
    exams ────────────────┘

Each step is a folder named by the fingerprint of its inputs (see `store`), so a second run finds
everything done, and after a change only what depends on it runs. This file joins the folders of the
package; nothing else does but `cli`.

    outcome = run(load_project(path), observer)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tokka.errors import UsageError
from tokka.models.opening import digest as model_digest
from tokka.models.opening import kind, locate, open_model, open_renderer
from tokka.models.protocol import Embedder, LanguageModel, Renderer
from tokka.project import Project
from tokka.records import (
    Answer,
    Arm,
    Candidate,
    Dropped,
    Exam,
    Example,
    Key,
    PreferSpec,
    Question,
    TrainingSpec,
    fingerprint,
)
from tokka.store import (
    Workspace,
    cache_folder,
    read_record,
    read_records,
    sha256_file,
    write_json,
    write_records,
)

if TYPE_CHECKING:
    from tokka.exam.importing import Imported
    from tokka.stages import Weights

# Raise a step's number when its results may change; the step and all that depend on it run again.
VERSIONS = {
    "read": 2, "prepare": 1, "overlaps": 1, "distinct": 1, "chunk": 2, "index": 2, "tune": 1,
    "silence": 1, "exam": 2, "examples": 1, "preferences": 1, "replay": 1, "scratch": 1,
    "pretrain": 2, "finetune": 3, "prefer": 1, "merge": 1, "quantise": 1, "choose": 1, "export": 1,
    "sit": 5,
}  # fmt: skip
# Tantivy names its segments at random, PEFT writes sets in any order: what decides is named here.
WEIGHTS_FILES = (
    "*.safetensors", "model.gguf", "config.json", "tokenizer*", "training.json", "choice.json",
)  # fmt: skip
WEIGHTS_STEPS = ("scratch", "pretrain", "finetune", "prefer", "merge", "quantise", "choose")
DECISIVE = {"index": ("content.json",), **dict.fromkeys(WEIGHTS_STEPS, WEIGHTS_FILES)}
PARTS_BESIDE = ("index", "examples", "reranker", "synonyms")  # of a candidate, beside its weights
DTYPE = "bfloat16"


class Task(Protocol):
    def advance(self, n: float = 1, note: str = "") -> None: ...


class Observer(Protocol):
    """Who is told what happens: the CLI draws bars, a test listens."""

    def task(self, label: str, total: float | None) -> AbstractContextManager[Task]: ...
    def notice(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class ExamStep:
    name: str
    folder: Path
    exam: Exam
    show_options: bool
    rotate: bool = False

    def questions(self) -> list[Question]:
        from tokka.exam.importing import load_questions

        return load_questions(self.folder)

    def keys(self) -> list[Key]:
        from tokka.exam.importing import load_keys

        return load_keys(self.folder)


@dataclass
class Build:
    """One run's state: the project, its workspace, and the finished steps so far."""

    project: Project
    workspace: Workspace
    observer: Observer
    base: Path | None = None  # the model's folder or file; of an endpoint, its tokenizer's
    base_digest: str = ""
    embedder_digest: str = ""
    exams: dict[str, ExamStep] = field(default_factory=dict)
    examples: dict[str, Path] = field(default_factory=dict)  # by file, as the project names it
    dropped: list[Dropped] = field(default_factory=list)
    documents: int = 0
    chunks: Path | None = None
    weights: dict[str, Weights] = field(default_factory=dict)  # by arm, of those that change any
    seconds: dict[str, float] = field(default_factory=dict)  # step folder → seconds

    def step(
        self, name: str, inputs: dict[str, Any], build: Callable[[Path], None], label: str = ""
    ) -> Path:
        full = {"version": VERSIONS[name], **inputs}
        decisive = DECISIVE.get(name, ())
        folder = self.workspace.step(name, full, build, decisive=decisive, label=label)
        self.seconds[folder.name] = self.workspace.manifest(folder).seconds
        return folder

    def drop(self, file: Path) -> None:
        """Report what a step left out; once, where arms share the step."""
        known = {(d.item, d.reason) for d in self.dropped}
        found = read_records(file, Dropped) if file.exists() else []
        self.dropped += [d for d in found if (d.item, d.reason) not in known]


def prepare(project: Project, observer: Observer, workspace: Workspace | None = None) -> Build:
    """Everything that costs nothing: where the base model is, the exams, the examples."""
    workspace = workspace or Workspace(project.root / ".tokka")
    workspace.prepare()
    build = Build(project, workspace, observer)
    if kind(project.base_model) != "endpoint":
        build.base = _base(project, observer)
    elif project.endpoint.tokenizer is not None:
        build.base = locate(project.endpoint.tokenizer, project.root, observer.notice)
    build.base_digest = model_digest(project.base_model, build.base, project.language)
    for arm in project.arms.values():
        if arm.retrieval is not None and arm.retrieval.where:
            from tokka.retrieval.filters import Wanted

            Wanted.read(arm.retrieval.where)  # before anything is built
    for name in project.exams:
        build.exams[name] = _exam(build, name)
    if any(arm.choose for arm in project.arms.values()):
        from tokka.choosing import refuse_unchoosable

        refuse_unchoosable(build)  # before hours of training, not after
    if any(a.retrieval and a.retrieval.silence == "tuned" for a in project.arms.values()):
        from tokka.silence_steps import refuse_unhearable

        refuse_unhearable(build)
    for file in example_files(project):
        build.examples[file] = _examples(build, file)
    for file in replay_files(project):
        _vet_replay(build, file)
    return build


def _base(project: Project, observer: Observer) -> Path:
    from tokka.models.embedded import is_unpacked

    name = project.base_model.removeprefix("embedded:")
    if kind(project.base_model) != "embedded" or is_unpacked(name):
        return locate(project.base_model, project.root, observer.notice)
    with observer.task(f"unpack {name} (once)", 100) as task:
        return locate(
            project.base_model, project.root, observer.notice, lambda percent: task.advance(percent)
        )


def example_files(project: Project) -> list[str]:
    stages = [stage for arm in project.arms.values() for stage in arm.weights]
    named = {stage.finetune.data for stage in stages if stage.finetune is not None}
    named |= {a.prompt.shots_from for a in project.arms.values() if a.prompt.shots}
    return sorted(named)


def leaves_out_mistakes(project: Project, file: str) -> bool:
    """Every stage that learns from the file says so; what only gives shots is never refused."""
    stages = [stage.finetune for arm in project.arms.values() for stage in arm.weights]
    return all(s.leave_out_mistakes for s in stages if s is not None and s.data == file)


def preference_files(project: Project) -> list[str]:
    stages = [stage for arm in project.arms.values() for stage in arm.weights]
    return sorted({stage.prefer.data for stage in stages if stage.prefer is not None})


def replay_files(project: Project) -> list[str]:
    specs = [stage.spec for arm in project.arms.values() for stage in arm.weights]
    replays = [spec.replay for spec in specs if isinstance(spec, TrainingSpec)]
    return sorted({replay.data for replay in replays if replay is not None})


def _exam(build: Build, name: str) -> ExamStep:
    from tokka.exam.importing import load_exam, write_exam

    spec = build.project.exams[name]
    path = build.project.resolve(spec.path)

    def make(folder: Path) -> None:
        got = imported(build.project, name)
        write_exam(folder, got.exam, got.questions, got.keys)
        write_records(folder / "dropped.jsonl", got.dropped)

    inputs = {
        "file": sha256_file(path),
        "name": name,
        "role": spec.role,
        "normalisation": spec.normalisation,
        "scorer": spec.scorer,
        "leave_out_mistakes": spec.leave_out_mistakes,
    }
    folder = build.step("exam", inputs, make, name)
    build.dropped += read_records(folder / "dropped.jsonl", Dropped)
    if spec.rotate and not spec.show_options and kind(build.project.base_model) != "endpoint":
        build.observer.notice(
            f"exam {name}: rotate is on, but without show_options the options aren't in the prompt "
            "and their order can't matter; each question is asked once"
        )
    return ExamStep(name, folder, load_exam(folder), spec.show_options, spec.rotate)


def imported(project: Project, name: str) -> Imported:
    """An exam of the project, read from its file."""
    from tokka.exam.importing import import_exam

    spec = project.exams[name]
    return import_exam(
        project.resolve(spec.path),
        name,
        spec.role,
        spec.normalisation,
        scorer=spec.scorer,
        leave_out_mistakes=spec.leave_out_mistakes,
    )


def _examples(build: Build, file: str) -> Path:
    """Training examples less those in which an exam question stands."""
    from tokka.dataset.vetting import vet

    path = build.project.resolve(file)
    leave_out = leaves_out_mistakes(build.project, file)

    def make(folder: Path) -> None:
        kept = vet(path, asked_in_exams(build), leave_out_mistakes=leave_out)
        write_records(folder / "examples.jsonl", kept.examples)
        write_records(folder / "dropped.jsonl", kept.dropped)

    inputs = {
        "file": sha256_file(path),
        "exams": sorted(e.exam.digest for e in build.exams.values()),
        "leave_out_mistakes": leave_out,
    }
    folder = build.step("examples", inputs, make, file)
    build.dropped += read_records(folder / "dropped.jsonl", Dropped)
    return folder


def _vet_replay(build: Build, file: str) -> None:
    """Replayed exam questions would hide what was forgotten."""
    from tokka.dataset.vetting import vet_texts
    from tokka.training.texts import read_general

    path = build.project.resolve(file)

    def make(folder: Path) -> None:
        general = read_general(path)
        vet_texts(path, general.texts, asked_in_exams(build))
        write_json(folder / "replay.json", {"texts": len(general.texts)})

    inputs = {
        "file": sha256_file(path),
        "exams": sorted(e.exam.digest for e in build.exams.values()),
    }
    build.step("replay", inputs, make, file)


def preferences_of(build: Build, spec: PreferSpec) -> Path:
    """Preferences less those in which an exam question stands."""
    from tokka.dataset.vetting import vet_preferences

    path = build.project.resolve(spec.data)

    def make(folder: Path) -> None:
        kept = vet_preferences(
            path,
            spec.objective,
            asked_in_exams(build),
            leave_out_mistakes=spec.leave_out_mistakes,
        )
        write_records(folder / "preferences.jsonl", kept.preferences)
        write_records(folder / "dropped.jsonl", kept.dropped)

    inputs = {
        "file": sha256_file(path),
        "objective": spec.objective,
        "leave_out_mistakes": spec.leave_out_mistakes,
        "exams": sorted(e.exam.digest for e in build.exams.values()),
    }
    folder = build.step("preferences", inputs, make, spec.data)
    build.drop(folder / "dropped.jsonl")
    return folder


def asked_in_exams(build: Build) -> dict[str, str]:
    """What each exam question asks, by exam and id."""
    return {
        f"{exam.name}/{q.id}": q.messages[-1].content
        for exam in build.exams.values()
        for q in exam.questions()
    }


def renderer_of(build: Build) -> Renderer:
    if build.base is None:
        from tokka.models.messages import MessagesRenderer

        return MessagesRenderer()
    renderer: Renderer = open_renderer(build.base, build.project.language)
    return renderer


def embedder_of(build: Build) -> Embedder:
    from tokka.models.embedder import open_embedder
    from tokka.models.hosts import host_of
    from tokka.models.opening import EndpointOptions

    project = build.project
    options = EndpointOptions(**project.endpoint.model_dump())
    both = project.embedder, project.base_model
    if all(kind(one) == "endpoint" for one in both) and len({host_of(one) for one in both}) > 1:
        options = replace(options, api_key_env=None)  # the key is for the model's host alone
    return open_embedder(
        project.embedder, cache_folder() / "embeddings", root=project.root, endpoint=options
    )


def embedder_name(build: Build) -> str:
    """What stands for the embedder: opening it only to learn its digest would cost a second."""
    from tokka.models.embedder import embedder_identity

    return embedder_identity(build.project.embedder, build.project.root)


def training_examples(examples: Path) -> list[Example]:
    found = read_records(examples / "examples.jsonl", Example)
    return [example for example in found if example.split == "train"]


def build_arm(build: Build, arm: Arm) -> Candidate:
    """Build every part that the arm needs; return what identifies it."""
    from tokka.arms.building import candidate_of
    from tokka.silence_steps import silenced, unheard
    from tokka.stages import weights_of
    from tokka.tuning_steps import tuned

    if arm.retrieval is not None:
        from tokka.index_steps import index_of

        arm = tuned(build, arm, index_of(build, arm.retrieval))
    asked, arm = arm, unheard(arm)
    artifacts: dict[str, str] = {}

    def keep(name: str, folder: Path) -> None:
        artifacts[name] = f"{folder.name}@{build.workspace.digest(folder)}"

    weights = weights_of(build, arm)
    parts = weights.parts if weights is not None else {}
    for name, folder in (parts | served_with(build, arm)).items():
        keep(name, folder)
    artifacts |= files_with(build, arm)
    candidate = candidate_of(
        arm,
        base_model=build.project.base_model,
        base_digest=build.base_digest,
        language=build.project.language,
        artifacts=artifacts,
        embedder=embedder_name(build) if arm.retrieval and arm.retrieval.dense else "",
    )
    return silenced(build, asked, candidate)


def served_with(build: Build, arm: Arm) -> dict[str, Path]:
    """What the arm needs beside its weights: artifact names → step folders."""
    found = {}
    if arm.retrieval is not None:
        from tokka.index_steps import index_of

        found["index"] = index_of(build, arm.retrieval)
    if arm.prompt.shots:
        found["examples"] = build.examples[arm.prompt.shots_from]
    return found


def files_with(build: Build, arm: Arm) -> dict[str, str]:
    """Files of the project that the search reads, as artifacts by their digests: the setting only
    names them."""
    from tokka.candidates.opening import search_files

    return {
        name: f"{name}@{digest}"
        for name, digest in search_files(arm.retrieval, build.project.root).items()
    }


def candidate_folder(build: Build) -> Path:
    return build.workspace.root / "candidates" / build.project.file.stem


def save_candidate(build: Build, candidate: Candidate) -> None:
    write_json(candidate_folder(build) / f"{candidate.arm.name}.json", candidate)


def load_candidate(build: Build, arm: str) -> Candidate:
    path = candidate_folder(build) / f"{arm}.json"
    if not path.exists():
        raise UsageError(
            f"arm {arm!r} isn't built yet; build it with: tokka run {build.project.file}"
        )
    found = read_record(path, Candidate)
    if not is_current(build, found):
        raise UsageError(
            f"arm {arm!r} was changed since it was built; build it again with: "
            f"tokka run {build.project.file}"
        )
    return found


def is_current(build: Build, candidate: Candidate) -> bool:
    """Whether the project still says what this candidate was built from."""
    from tokka.tuning_steps import stands_for

    project = build.project
    built = (candidate.base_digest, candidate.language)
    asked = project.arms.get(candidate.arm.name)
    return built == (build.base_digest, project.language) and stands_for(candidate.arm, asked)


class Models:
    """Keeps the last opened model: arms that share weights are examined one after the other."""

    def __init__(self, build: Build) -> None:
        self._build = build
        self._key: str | None = None
        self._model: LanguageModel | None = None

    def open(self, weights: Path | None, adapters: Sequence[Path] = ()) -> LanguageModel:
        key = str([weights, *adapters])
        if self._model is None or self._key != key:
            self.close()
            self._model = open_language_model(self._build, weights, adapters)
            self._key = key
        return self._model

    def close(self) -> None:
        if self._model is not None:
            self._model.close()
        self._model = None


def open_language_model(
    build: Build, weights: Path | None = None, adapters: Sequence[Path] = ()
) -> LanguageModel:
    """The project's base model, or `weights` in its place, with `adapters` folded in."""
    from tokka.models.opening import EndpointOptions

    project = build.project
    return open_model(
        project.base_model,
        root=project.root,
        language=project.language,
        weights=weights,
        adapters=adapters,
        dtype=DTYPE,
        threads=project.threads,
        endpoint=EndpointOptions(**project.endpoint.model_dump()),
        notice=build.observer.notice,
    )


def open_arm(build: Build, candidate: Candidate, models: Models) -> Any:
    """The candidate as one object that answers (`candidates.Specialist`)."""
    return open_with(build, candidate, models.open)


def open_with(
    build: Build,
    candidate: Candidate,
    open_model: Callable[[Path | None, Sequence[Path]], LanguageModel],
) -> Any:
    """As `open_arm`, with a way of opening the model of its own."""
    from tokka.candidates.opening import artifact, open_candidate
    from tokka.candidates.shots import shots_of

    folder = artifact(candidate, "examples", build.workspace)
    shots = None
    if folder is not None:
        shots = shots_of(candidate.arm, read_records(folder / "examples.jsonl", Example))
    return open_candidate(candidate, build.workspace, open_model, lambda: embedder_of(build), shots)


@dataclass(frozen=True, slots=True)
class Sat:
    """One candidate's answers to one exam. `folder` is unfinished when an answer failed."""

    candidate: Candidate
    exam: ExamStep
    questions: list[Question]
    answers: list[Answer]
    digest: str


def sit_exam(
    build: Build, candidate: Candidate, step: ExamStep, models: Models, limit: int | None
) -> Sat:
    from tokka.exam.sitting import asked_in, decide_all, sit

    questions = asked_in(step.questions(), build.project.policy.split, limit)

    def make(folder: Path) -> None:
        with build.observer.task(f"{candidate.arm.name}: sit {step.name}", len(questions)) as task:
            specialist = open_arm(build, candidate, models)
            answers = sit(
                specialist,
                step.exam,
                questions,
                build.workspace.memo,
                lambda n: task.advance(n),
                step.show_options,
                step.rotate,
            )
        write_records(folder / "answers.jsonl", answers)
        write_shots(build, candidate, answers, folder)
        failed = sum(a.status == "error" for a in answers)
        if failed:
            raise _Incomplete(folder, failed)

    inputs = sitting_inputs(candidate, questions, step.show_options, step.rotate)
    try:
        folder = build.step("sit", inputs, make, f"{candidate.arm.name} · {step.name}")
    except _Incomplete as incomplete:
        build.observer.notice(
            f"{candidate.arm.name}: {incomplete.failed} of {len(questions)} questions of "
            f"{step.name} failed; run again to ask only these"
        )
        folder = incomplete.folder
    stored = read_records(folder / "answers.jsonl", Answer)
    answers = decide_all(step.exam, questions, stored, candidate.language)
    return Sat(candidate, step, questions, answers, fingerprint([_stable(a) for a in answers]))


def sitting_inputs(
    candidate: Candidate, questions: Sequence[Question], show_options: bool, rotate: bool
) -> dict[str, Any]:
    """What decides the answers: who is asked, and what. Keys, scorer and normalisation don't: after
    a correction of these the answers stand, and nobody is asked again."""
    from tokka.exam.sitting import asked_digest

    return {
        "candidate": candidate.id,
        "asked": asked_digest(questions),
        "show_options": show_options,
        "rotate": rotate,
        "dtype": DTYPE,
    }


def write_shots(
    build: Build, candidate: Candidate, answers: Sequence[Answer], folder: Path
) -> None:
    """The examples that stood in the prompts, each once; an answer names its own in `shots`."""
    from tokka.candidates.opening import artifact

    used = dict.fromkeys(name for answer in answers for name in answer.shots)
    examples = artifact(candidate, "examples", build.workspace) if used else None
    if examples is not None:
        by_id = {e.id: e for e in read_records(examples / "examples.jsonl", Example)}
        write_records(folder / "shots.jsonl", [by_id[name] for name in used])


class _Incomplete(Exception):
    def __init__(self, folder: Path, failed: int) -> None:
        super().__init__(folder, failed)
        self.folder, self.failed = folder, failed


def _stable(answer: Answer) -> Any:
    return answer.model_dump(mode="json", exclude={"seconds"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where the results are. `passed` tells whether an arm passed the policy."""

    results: Path
    report: Path
    seconds: float


def run(
    project: Project, observer: Observer, limit: int | None = None, command: str = ""
) -> Outcome:
    """Build, examine and compare every arm; write `results.json` and `report.html`.

    `limit` asks only the first questions of each exam; such sittings are partial and are not
    judged.
    """
    from tokka.documents_steps import read_and_chunk
    from tokka.overlap_steps import look_through_examples
    from tokka.planning import refuse_unfit_arms
    from tokka.reporting import conclude

    started = time.monotonic()
    workspace = Workspace(project.root / ".tokka")
    workspace.prepare()
    with workspace.lock():
        build = prepare(project, observer)
        refuse_unfit_arms(build)
        read_and_chunk(build)
        look_through_examples(build)
        candidates = []
        for arm in in_building_order(list(project.arms.values())):
            candidates.append(build_arm(build, arm))
            save_candidate(build, candidates[-1])
        models = Models(build)
        try:
            sat = [
                sit_exam(build, candidate, step, models, limit)
                for candidate in by_weights(candidates)
                for step in build.exams.values()
            ]
        finally:
            models.close()
        results, report = conclude(build, sat, limit, command)
    return Outcome(results, report, time.monotonic() - started)


def in_building_order(arms: Sequence[Arm]) -> list[Arm]:
    """Cheap arms first, so that mistakes show before hours of training."""
    return sorted(arms, key=lambda arm: len(arm.weights))


def by_weights(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that open the same model stand together."""

    def model(candidate: Candidate) -> list[str]:
        parts = candidate.artifacts.items()
        return sorted(f"{name}:{e}" for name, e in parts if name not in PARTS_BESIDE)

    return sorted(candidates, key=model)
