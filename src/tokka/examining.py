"""One exam by itself: a bare model sits it, lm-evaluation-harness gets it, results get its layout.

Exam file → answers, scores, figures and results in a folder, without a project. Whole batches are
remembered in that folder, so a killed sitting goes on where it was.

    sat = sit_alone(Entry(Path("faq.jsonl"), "embedded:gemma-3-270m", out=Path("faq")), observer)
    sat.stored.sitting.primary.estimate
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from tokka.errors import UsageError
from tokka.exam.harness.results import About, HarnessResults, harness_results, write_results
from tokka.exam.harness.task_export import ExportedExam, Plain, Render, tasks_of
from tokka.exam.importing import Imported, exam_digest, import_exam
from tokka.exam.rescoring import Stored, is_stored, read_stored, rescore, write_stored
from tokka.exam.rows import read_rows
from tokka.exam.sitting import asked_digest, asked_in, sit
from tokka.models.opening import kind
from tokka.models.prompting import compose
from tokka.models.rendering import answer_lead, base_text
from tokka.pipeline import Observer
from tokka.project import Project, load_project
from tokka.records import Arm, Normalisation, PromptSpec, Question, ShortScorer, Split
from tokka.store import FolderMemo, read_json, run_lock, write_json

DTYPE = "bfloat16"
DTYPES = (DTYPE, "float32")
BASE_STOP = ("\n",)  # how an answer ends in the base format, see `TokenRenderer.stop`
SETTINGS, BATCHES, RESULTS = "settings.json", "batches", "lm-eval"


@dataclass(frozen=True, slots=True)
class Entry:
    """Who sits what. Without a `normalisation`, prompts that are given whole are scored by the sum
    (lm_eval's acc), the owner's own questions by tokens. `language` is guessed when empty."""

    path: Path
    model: str
    dtype: str = DTYPE
    limit: int | None = None
    out: Path | None = None
    normalisation: Normalisation | None = None
    scorer: str = "contained"
    language: str = ""
    split: Split = "test"
    leave_out_mistakes: bool = False


@dataclass(frozen=True, slots=True)
class Sat:
    """`files` are those of the harness's layout, empty where nothing was written."""

    stored: Stored
    results: HarnessResults
    files: tuple[Path, ...] = ()

    @property
    def errors(self) -> int:
        return sum(answer.status == "error" for answer in self.stored.answers)

    def as_json(self) -> dict[str, Any]:
        return {
            "exam": self.stored.exam.name,
            "exam_digest": self.stored.exam.digest,
            "sitting": self.stored.sitting and self.stored.sitting.model_dump(mode="json"),
            "results": self.results.results["results"],
            "files": [str(path) for path in self.files],
        }


def read_alone(
    path: Path,
    *,
    normalisation: Normalisation | None = None,
    scorer: str = "contained",
    language: str = "",
    leave_out_mistakes: bool = False,
) -> Imported:
    """An exam file without a project: every question that isn't marked as dev is asked."""
    if not path.is_file():
        raise UsageError(f"exam: {path} is no file; name an exam file (.jsonl, .json or .csv)")
    name = path.name.removesuffix(".gz").rpartition(".")[0] or path.name
    found = import_exam(
        path,
        name,
        "domain",
        normalisation or "tokens",
        scorer=scorer,
        dev_share=0.0,
        language=language,
        leave_out_mistakes=leave_out_mistakes,
    )
    choices = [question for question in found.questions if question.form == "choice"]
    if normalisation is not None or not choices or not all(q.completion for q in choices):
        return found
    digest = exam_digest(found.questions, found.keys, scorer, "sum")
    exam = found.exam.model_copy(update={"normalisation": "sum", "digest": digest})
    return Imported(exam, found.questions, found.keys, found.dropped)


def checked_entry(entry: Entry) -> Entry:
    """The entry as it came. Raises UsageError for an option's value that is none."""
    for name, value, known in (
        ("dtype", entry.dtype, DTYPES),
        ("normalisation", entry.normalisation, (None, *get_args(Normalisation))),
        ("scorer", entry.scorer, get_args(ShortScorer)),
        ("language", entry.language, ("", "ja", "en")),
        ("split", entry.split, get_args(Split)),
    ):
        if value not in known:
            names = ", ".join(one for one in known if one)
            raise UsageError(f"exam sit: --{name} {value!r} is none of {names}")
    return entry


def read_entry(entry: Entry) -> tuple[Imported, list[Question]]:
    """The exam, and those of its questions that are asked."""
    imported = read_alone(
        entry.path,
        normalisation=entry.normalisation,
        scorer=entry.scorer,
        language=entry.language,
        leave_out_mistakes=entry.leave_out_mistakes,
    )
    asked = asked_in(imported.questions, entry.split, entry.limit)
    if not asked:
        raise UsageError(
            f"exam: {entry.path} has no question of split {entry.split}; name another with --split"
        )
    return imported, asked


def sit_alone(entry: Entry, observer: Observer) -> Sat:
    """Sit one exam with an untouched model: no system text, no shots but those in the questions.

    Raises UsageError where `out` holds a sitting of another model or of other questions. A failed
    question is an error in the answers, and leaves the sitting without a mean.
    """
    imported, asked = read_entry(entry)
    for dropped in imported.dropped:
        observer.notice(f"left out: {dropped.reason}")
    if entry.out is not None:
        entry.out.mkdir(parents=True, exist_ok=True)
    with run_lock(entry.out / "run.lock") if entry.out else nullcontext():
        return _sit(entry, imported, asked, observer)


def _sit(entry: Entry, imported: Imported, asked: Sequence[Question], observer: Observer) -> Sat:
    from tokka.arms.building import candidate_of
    from tokka.candidates.specialist import Specialist
    from tokka.models.opening import open_model

    exam, out = imported.exam, entry.out
    with open_model(
        entry.model, language=exam.language, dtype=entry.dtype, notice=observer.notice
    ) as model:
        able = model.capabilities
        plain = able.token_ids and (not able.chat_template or all(q.completion for q in asked))
        about = _begun(entry, asked, exam.language, model.digest, plain)
        candidate = candidate_of(
            Arm(name="model"),
            base_model=entry.model,
            base_digest=model.digest,
            language=exam.language,
            artifacts={},
        )
        with observer.task(f"sit {exam.name}", len(asked)) as task:
            answers = sit(
                Specialist(candidate, model),
                exam,
                asked,
                FolderMemo(out / BATCHES) if out else None,
                lambda n: task.advance(n),
            )
    stored = Stored(
        exam,
        tuple(imported.questions),
        tuple(imported.keys),
        tuple(answers),
        arm=candidate.arm.name,
        candidate_id=candidate.id,
        split=entry.split,
        partial=entry.limit is not None,
        language=exam.language,
    )
    stored = rescore(stored)
    about = replace(about, seconds=_seconds(stored))
    results = results_of(stored, about)
    if out is None:
        return Sat(stored, results)
    files = write_results(results, out / RESULTS)
    write_stored(out, stored)
    return Sat(stored, results, tuple(files))


def _begun(
    entry: Entry, asked: Sequence[Question], language: str, model_digest: str, plain: bool
) -> About:
    """What this sitting is, kept in its folder: a resumed one keeps its date, so that it writes the
    same files again. Raises UsageError where the folder holds another sitting."""
    own = {
        "questions": asked_digest(asked),
        "model": entry.model,
        "model_digest": model_digest,
        "dtype": entry.dtype,
        "language": language,
        "split": entry.split,
        "limit": entry.limit,
        "shots": _shots(entry.path),
        "plain": plain,
    }
    begun = {**own, "started": round(time.time(), 3)}
    if entry.out is None:
        return _about(begun)
    path = entry.out / SETTINGS
    if not path.exists():
        write_json(path, begun)
        return _about(begun)
    before = read_json(path)
    changed = [name for name, value in own.items() if before.get(name) != value]
    if changed:
        name = changed[0]
        raise UsageError(
            f"exam sit: {entry.out} holds another sitting ({name} {before.get(name)!r} there, "
            f"{own[name]!r} here); choose another folder with --out"
        )
    return _about(before)


def _about(begun: Mapping[str, Any]) -> About:
    return About(
        model=str(begun["model"]),
        dtype=str(begun["dtype"]),
        limit=begun["limit"],
        shots=int(begun["shots"]),
        date=float(begun["started"]),
        plain=bool(begun["plain"]),
    )


def _seconds(stored: Stored) -> float:
    return round(sum(answer.seconds for answer in stored.answers), 3)


def _shots(path: Path) -> int:
    """How many examples the prompts of an imported task hold."""
    listed = [row.fields.get("shots") for row in read_rows(path).rows]
    return max((len(one) for one in listed if isinstance(one, list)), default=0)


# ---- lm-evaluation-harness --------------------------------------------------------------------


def plain_render(language: str) -> Render:
    """How a plain arm asks a base model; a prompt that is given whole stays as it is."""
    spec = PromptSpec()

    def render(question: Question) -> Plain:
        stop = BASE_STOP if question.stop is None else question.stop
        most = question.max_tokens or spec.max_tokens
        if question.completion:
            return Plain(question.completion, question.delimiter, stop, most)
        messages = compose(question.messages, spec=spec, language=language)
        return Plain(base_text(messages, language), answer_lead(language), stop, most)

    return render


def export_file(
    path: Path, exam: str | None = None, *, leave_out_mistakes: bool = False
) -> ExportedExam:
    """The tasks of an exam file, or of one exam of a project. Nothing is written."""
    if path.is_dir() or path.suffix in (".yaml", ".yml"):
        imported = _of_project(load_project(path), exam)
    else:
        imported = read_alone(path, leave_out_mistakes=leave_out_mistakes)
    render = plain_render(imported.exam.language)
    return tasks_of(imported.exam, imported.questions, imported.keys, render)


def _of_project(project: Project, exam: str | None) -> Imported:
    from tokka.pipeline import imported

    if exam is None and len(project.exams) == 1:
        (exam,) = project.exams
    if exam not in project.exams:
        raise UsageError(
            f"exam export: {'name one' if exam is None else f'no exam {exam!r}'}; the project has "
            f"--exam {', --exam '.join(project.exams)}"
        )
    found = imported(project, exam)
    language = found.exam.model_copy(update={"language": project.language})
    return Imported(language, found.questions, found.keys, found.dropped)


def results_of(stored: Stored, about: About) -> HarnessResults:
    """A sitting in the harness's layout."""
    return harness_results(
        stored.exam,
        stored.questions,
        stored.keys,
        stored.answers,
        stored.scores,
        plain_render(stored.language),
        about,
        split=stored.split,
    )


def stored_results(path: Path) -> dict[str, HarnessResults]:
    """By name, the results of a folder that `exam sit` wrote, or of a project's last run (by arm
    and exam)."""
    if is_stored(path):
        stored = read_stored(path)
        if not (path / SETTINGS).is_file():
            raise UsageError(
                f"exam results: {path} wasn't written by exam sit; it has no {SETTINGS}"
            )
        about = replace(_about(read_json(path / SETTINGS)), seconds=_seconds(stored))
        return {path.resolve().name: results_of(stored, about)}
    from tokka.sittings import rescored

    project = load_project(path)
    found: dict[str, HarnessResults] = {}
    for stored in (one.new for one in rescored(path).sittings):
        arm = project.arms[stored.arm]
        bare = PromptSpec(max_tokens=arm.prompt.max_tokens)
        spec = project.exams[stored.exam.name]
        plain = arm.prompt == bare and arm.retrieval is None and not spec.show_options
        about = About(
            model=f"{project.base_model}+{stored.arm}",
            dtype=DTYPE,
            shots=arm.prompt.shots,
            seconds=_seconds(stored),
            plain=plain and kind(project.base_model) != "endpoint",
        )
        found[f"{stored.arm}/{stored.exam.name}"] = results_of(stored, about)
    return found
