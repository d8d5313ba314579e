"""`tokka release`: an examined arm becomes a release that others may validate and approve.

    gate → export → the exported files sit the exams → release folder → act in the ledger

>>> made = release(load_project(path), "lora", actor="aoi", observer=bars)
>>> made.release.name, made.is_new
('aoba-shinkin-3', True)

Each part is kept once it is done, so a killed release goes on where it was, and a second one of the
same candidate only shows the version that there is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokka.drafting import Draft, Entered, entered, entered_before, model_name, write_beside
from tokka.errors import GateRefused, IntegrityError, Mistakes, UsageError
from tokka.licences import Licence, licence_of
from tokka.pipeline import Build, Models, Observer
from tokka.project import Project
from tokka.records import Candidate
from tokka.release.gate import GateDecision, gate
from tokka.release.records import Entry, Format, ModelEntry, Reexam, Release, Stage
from tokka.sealing import Looked, look
from tokka.store import Workspace

if TYPE_CHECKING:
    from tokka.exporting import Exported
    from tokka.release.keys import ActorKey
    from tokka.release.ledger import Ledger
    from tokka.release.registry import Waiting

Told = Callable[[GateDecision], None]


class Refused(GateRefused):
    """`decision` is the gate's; `faults` are those of exported files, by format."""

    def __init__(
        self,
        arm: str,
        decision: GateDecision,
        language: str,
        faults: dict[Format, tuple[str, ...]] | None = None,
    ) -> None:
        self.decision, self.faults = decision, faults or {}
        reasons = [*decision.texts(language)]
        reasons += [f"{form}: {fault}" for form, own in self.faults.items() for fault in own]
        listed = "\n".join(f"  - {reason}" for reason in reasons)
        super().__init__(f"release: {arm} is refused, for {len(reasons)} reasons\n{listed}")


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be released. `version` is the next one as the ledger stands."""

    decision: GateDecision
    model: str
    version: int
    serves: Format
    also: tuple[Format, ...]
    actor: str
    is_new_model: bool
    released: Release | None = None  # where it is already

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "version": self.version,
            "name": f"{self.model}-{self.version}",
            "serves": self.serves,
            "also": list(self.also),
            "actor": self.actor,
            "new_model": self.is_new_model,
            "released": self.released is not None,
        }


@dataclass(frozen=True, slots=True)
class Released:
    """`is_new` is False where the same candidate had been released before. `stage` is where the
    version stands, `waiting` what it still waits for, in both languages."""

    release: Release
    folder: Path
    entry: Entry
    decision: GateDecision
    is_new: bool
    stage: Stage
    waiting: tuple[Waiting, ...]

    def as_json(self) -> dict[str, Any]:
        found = self.release
        return {
            "model": found.model,
            "version": found.version,
            "name": found.name,
            "digest": found.digest,
            "serves": found.serves,
            "new": self.is_new,
            "stage": self.stage,
            "waiting_for": [{"ja": one.ja, "en": one.en} for one in self.waiting],
            "folder": str(self.folder),
            "entry": self.entry.number,
            "artefacts": {
                one.format: {
                    "bytes": one.total_bytes,
                    "engine": one.engine,
                    "same": one.reexam.same,
                }
                for one in found.artefacts
            },
        }


def release(
    project: Project,
    arm: str,
    *,
    observer: Observer,
    actor: str | None = None,
    format: Format | None = None,
    also: Sequence[Format] | None = None,
    told: Told | None = None,
) -> Released:
    """Judge, export, examine again, write down and enter into the ledger.

    `actor` signs (see `release.keys.load_key`); `format` is served, `also` are other formats; left
    out, both are the project's. `told` hears the gate's decision as soon as it is there. Raises
    Refused with every reason; UsageError for what the project file or the ledger lacks, before
    anything is exported; IntegrityError for a release's folder that isn't what was released.
    """
    workspace = Workspace(project.root / ".tokka")
    workspace.prepare()
    with workspace.lock():
        looked, decision = _judged(project, arm, observer, told)
        build, candidate = _found(looked)
        wanted = _formats(build, candidate, format, also)
        with _ledger(project) as ledger:
            there = entered_before(ledger, build, candidate, looked, wanted)
            if there is not None:
                write_beside(ledger, there.folder, there.entry)  # a kill may have kept it back
                return _standing(ledger, there, decision, is_new=False)
            key = _key(ledger, actor)
            licence = licence_of(build)
            model = _model_entry(ledger, build, licence)
            if model is not None:
                _refuse_unless_owner(ledger, key, model)
            exported = _exported(build, candidate, wanted, decision)
            if model is not None:
                _register(ledger, key, model)
            draft = Draft(build, candidate, looked, licence, key, exported)
            return _standing(ledger, entered(ledger, draft), decision, is_new=True)


def plan(
    project: Project,
    arm: str,
    *,
    observer: Observer,
    actor: str | None = None,
    format: Format | None = None,
    also: Sequence[Format] | None = None,
    told: Told | None = None,
) -> Plan:
    """What `release` would do; it writes nothing. Raises as `release` does before it exports."""
    looked, decision = _judged(project, arm, observer, told)
    build, candidate = _found(looked)
    wanted = _formats(build, candidate, format, also)
    with _ledger(project) as ledger:
        there = entered_before(ledger, build, candidate, looked, wanted)
        name = model_name(project)
        version = there.release.version if there else ledger.next_version(name)
        signer = there.release.built_by if there else _key(ledger, actor).name
        model = None if there else _model_entry(ledger, build, licence_of(build))
        if model is not None:
            _refuse_unless_owner(ledger, _key(ledger, actor), model)
    return Plan(
        decision=decision,
        model=name,
        version=version,
        serves=wanted[0],
        also=wanted[1:],
        actor=signer,
        is_new_model=model is not None,
        released=there.release if there else None,
    )


def export_arm(
    project: Project, arm: str, format: Format, out: Path, observer: Observer
) -> list[Path]:
    """Write an arm's weights in `format` into a new folder; nothing is judged or released.

    Raises UsageError where the arm isn't built as the project says, or can't have the format.
    """
    from tokka.exporting import export_to
    from tokka.pipeline import load_candidate, prepare

    if arm not in project.arms:
        raise UsageError(f"no arm {arm!r}; the project has: {', '.join(project.arms)}")
    workspace = Workspace(project.root / ".tokka")
    workspace.prepare()
    with workspace.lock():
        build = prepare(project, observer)
        return export_to(build, load_candidate(build, arm), format, out)


# ---- the gate -----------------------------------------------------------------------------------


def _judged(
    project: Project, arm: str, observer: Observer, told: Told | None
) -> tuple[Looked, GateDecision]:
    with observer.task(f"{arm}: gate", None):
        looked = look(project, arm, observer)
        decision = gate(looked.results, project.policy, looked.evidence, arm)
    if told is not None:
        told(decision)
    if not decision.passed:
        raise Refused(arm, decision, project.language)
    return looked, decision


def _found(looked: Looked) -> tuple[Build, Candidate]:
    """The build that was looked up, which from here on may build what is missing."""
    build, candidate = looked.build, looked.candidate
    if build is None or candidate is None:
        raise IntegrityError("release: the gate passed results whose steps aren't there; run again")
    build.workspace = Workspace(build.workspace.root)
    return build, candidate


# ---- formats ------------------------------------------------------------------------------------


def _formats(
    build: Build, candidate: Candidate, format: Format | None, also: Sequence[Format] | None
) -> tuple[Format, ...]:
    """The format that is served, then the others."""
    from tokka.exporting import format_of

    asked = build.project.release
    serves = format_of(build, candidate, format or asked.format)
    others = dict.fromkeys(asked.also if also is None else also)
    return (serves, *(format_of(build, candidate, one) for one in others if one != serves))


def _exported(
    build: Build, candidate: Candidate, wanted: Sequence[Format], decision: GateDecision
) -> list[tuple[Exported, Reexam]]:
    """Every format, written and examined again. Raises Refused with the faults of all of them."""
    from tokka.exporting import export
    from tokka.reexamining import reexamine

    found = []
    models = Models(build)
    try:
        for one in wanted:
            exported = export(build, candidate, one)
            found.append((exported, reexamine(build, candidate, exported, models)))
    finally:
        models.close()
    faults = {exported.format: reexam.faults for exported, reexam in found if reexam.faults}
    if faults:
        raise Refused(candidate.arm.name, decision, build.project.language, faults)
    return found


# ---- the ledger ---------------------------------------------------------------------------------


def _ledger(project: Project) -> Ledger:
    from tokka.release.ledger import open_ledger

    return open_ledger(project.ledger, project.root, create=False)


def _key(ledger: Ledger, actor: str | None) -> ActorKey:
    """The key that will sign. Raises UsageError where its owner may not release, so that nobody
    waits for an export that can't be entered."""
    from tokka.release.duties import RULES
    from tokka.release.keys import load_key
    from tokka.release.registry import books_of

    key = load_key(actor)
    known = books_of(ledger).active().get(key.name)
    duties = " or ".join(sorted(RULES["release"].duties))
    if known is None or not RULES["release"].duties & set(known.duties):
        holds = f"is {' and '.join(known.duties)}" if known else "isn't enrolled"
        raise UsageError(
            f"release: {key.name} {holds}, and releasing takes the duty {duties}; an owner enrols "
            f"with: tokka actor new NAME --duty {duties}"
        )
    return key


def _model_entry(ledger: Ledger, build: Build, licence: Licence) -> ModelEntry | None:
    """The inventory's row as the project says it, where the ledger says something else or nothing.
    What the project leaves out stays. Raises Mistakes that list what the project file must say."""
    from tokka.release.registry import books_of

    project, asked, name = build.project, build.project.release, model_name(build.project)
    known = books_of(ledger).models.get(name)
    said = {key: getattr(asked, key).strip() for key in ("owner", "use", "tier_reason")}
    said = {key: text or (getattr(known, key) if known else "") for key, text in said.items()}
    wanted = {
        "owner": "who answers for the model",
        "use": "what it is for, and what not",
        "tier_reason": f"why its risk tier is {asked.tier}",
    }
    lacking = [key for key in wanted if not said[key]]
    if lacking:
        raise Mistakes(
            f"release: {name} is new to the inventory; write under release: in {project.file}",
            [f"{key}: {wanted[key]}" for key in lacking],
        )
    entry = ModelEntry(
        name=name,
        tier=known.tier if known and "tier" not in asked.model_fields_set else asked.tier,
        base_model=project.base_model,
        base_digest=build.base_digest,
        licence=licence.name,
        validation_due=known.validation_due if known else None,
        **said,
    )
    return None if entry == known else entry


def _refuse_unless_owner(ledger: Ledger, key: ActorKey, entry: ModelEntry) -> None:
    """A model that is in the inventory changes there by an owner alone."""
    from tokka.release.registry import books_of

    books = books_of(ledger)
    known = books.models.get(entry.name)
    if known is None or "owner" in books.actors[key.name].duties:
        return
    said = [
        f"{name} {getattr(known, name)!r}, the project {getattr(entry, name)!r}"
        for name in type(entry).model_fields
        if getattr(entry, name) != getattr(known, name)
    ]
    raise UsageError(
        f"release: the inventory says of {entry.name} {'; '.join(said)}; an owner enters the "
        "change with: tokka registry update --as OWNER"
    )


def update_model(project: Project, *, observer: Observer, actor: str | None = None) -> ModelEntry:
    """Enter the model as the project file and its base model are now, signed by an owner; nothing
    is written where the inventory says that already. Raises NotPermitted for anybody else."""
    from tokka.pipeline import prepare
    from tokka.release.approval import register
    from tokka.release.keys import load_key
    from tokka.release.registry import books_of

    workspace = Workspace(project.root / ".tokka")
    workspace.prepare()
    with workspace.lock():
        build = prepare(project, observer)
        with _ledger(project) as ledger:
            entry = _model_entry(ledger, build, licence_of(build))
            if entry is None:
                return books_of(ledger).models[model_name(project)]
            register(ledger, load_key(actor), entry)
            return entry


def _register(ledger: Ledger, key: ActorKey, model: ModelEntry) -> None:
    from tokka.release.approval import register
    from tokka.release.duties import NotPermitted
    from tokka.release.registry import books_of

    try:
        register(ledger, key, model)
    except NotPermitted:
        if model.name not in books_of(ledger).models:  # else another process was first
            raise


def _standing(ledger: Ledger, found: Entered, decision: GateDecision, *, is_new: bool) -> Released:
    from tokka.release.registry import standing_of

    now = standing_of(ledger, found.release.name)
    return Released(
        found.release, found.folder, found.entry, decision, is_new, now.stage, now.waiting
    )
