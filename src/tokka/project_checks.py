"""What no single key can say: paths that exist, a control, exams, arms that fit their base model.

Project → the same Project with what it left open filled in (`shots_from`), and the faults.

>>> project, faults = check(project, broken=frozenset())
"""

from __future__ import annotations

import glob
import os.path  # unlike Path, it answers False for a name that no file can have
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from tokka.errors import UsageError
from tokka.models.embedded import EMBEDDED
from tokka.models.hosts import check_host
from tokka.models.opening import kind
from tokka.project_settings import EMBEDDERS, Project
from tokka.project_stages import cycle_faults, stage_faults
from tokka.project_words import nearest
from tokka.project_yaml import Fault, Location
from tokka.records import Arm, RetrievalSpec

DEFAULT_EXAMPLES = "examples.jsonl"

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


def check(project: Project, broken: frozenset[Location]) -> tuple[Project, list[Fault]]:
    """Check a project whose single values are sound.

    `broken` holds the places that were found faulty and therefore left out of `project`: nothing
    is concluded from their absence.
    """
    faults = list(_names(project))
    faults += _base_model(project) if ("base_model",) not in broken else []
    faults += _corpus(project)
    faults += _exams(project, broken)
    faults += _control(project, broken)
    faults += _required_exams(project, broken)
    for name, arm in project.arms.items():
        faults += _arm(project, name, arm, broken)
    faults += cycle_faults(project)
    project, without_source = _with_shots(project, broken)
    return project, faults + without_source


def _names(project: Project) -> Iterator[Fault]:
    for top, names in (("arms", project.arms), ("exams", project.exams)):
        for name in names:
            if not _NAME.fullmatch(name) or len(name) > 60:
                text = "is no name: use a-z, 0-9 and -, at most 60 characters"
                yield Fault((top, name), text)


def _base_model(project: Project) -> Iterator[Fault]:
    reference, here = project.base_model, ("base_model",)
    sort = kind(reference)
    if sort == "embedded":
        name = reference.removeprefix("embedded:")
        if name not in EMBEDDED:
            yield Fault(
                here, f"names no embedded model: {name!r}; {nearest(name, tuple(EMBEDDED))}"
            )
    elif sort == "hub":
        if not re.fullmatch(r"hub:[\w.-]+/[\w.-]+", reference, re.ASCII):
            yield Fault(
                here, f"must be hub:OWNER/NAME such as hub:Qwen/Qwen3-4B, got {reference!r}"
            )
    elif sort == "endpoint":
        yield from _endpoint(project)
    elif sort == "gguf":
        if not os.path.isfile(project.resolve(reference)):
            yield Fault(here, f"is a file that doesn't exist: {project.resolve(reference)}")
    elif not os.path.isdir(project.resolve(reference)):
        meant = f"embedded:{reference}"
        other = (
            f"did you mean {meant}?"
            if reference in EMBEDDED
            else "write embedded:NAME, hub:OWNER/NAME, a folder, a .gguf file or http://HOST/v1#NAME"
        )
        yield Fault(here, f"is a folder that doesn't exist: {project.resolve(reference)}; {other}")


def _endpoint(project: Project) -> Iterator[Fault]:
    try:
        parts = urlsplit(project.base_model)
        check_host(project.base_model, project.endpoint.hosts)
    except (UsageError, ValueError) as error:
        yield Fault(("base_model",), f"is refused: {error}")
        return
    if not parts.fragment:
        yield Fault(
            ("base_model",), "names no model; append #NAME, e.g. http://127.0.0.1:8080/v1#m"
        )
    tokenizer = project.endpoint.tokenizer
    if tokenizer is not None and not _is_local(project, tokenizer):
        yield Fault(
            ("endpoint", "tokenizer"),
            "must be a folder with the served model's tokenizer, its .gguf file or embedded:NAME, "
            f"got {tokenizer!r}",
        )


def _is_local(project: Project, reference: str) -> bool:
    sort, path = kind(reference), project.resolve(reference)
    if sort == "embedded":
        return reference.removeprefix("embedded:") in EMBEDDED
    return os.path.isfile(path) if sort == "gguf" else sort == "folder" and os.path.isdir(path)


def _corpus(project: Project) -> Iterator[Fault]:
    for number, entry in enumerate(project.corpus):
        if "://" in entry:
            continue  # whether a store has it shows when it is read
        path = str(project.resolve(entry))
        if not os.path.exists(path):
            matches = glob.has_magic(path) and next(glob.iglob(path, recursive=True), None)
            what = "matches no file" if glob.has_magic(path) else "doesn't exist"
            if not matches:
                yield Fault(("corpus", number), f"{what}: {path}; mend the path")
    yield from _embedder(project)


def _embedder(project: Project) -> Iterator[Fault]:
    name, here = project.embedder, ("embedder",)
    if name in EMBEDDERS:
        return
    if kind(name) == "endpoint":
        try:
            check_host(name, project.endpoint.hosts)
        except UsageError as error:
            yield Fault(here, f"is refused: {error}")
        else:
            if not name.partition("#")[2]:
                yield Fault(here, "names no model; append #NAME, e.g. http://127.0.0.1:8080/v1#e5")
    elif not os.path.isdir(project.resolve(name)):
        known = nearest(name, EMBEDDERS)
        other = "; or name a sentence-transformers folder or http://HOST/v1#NAME"
        yield Fault(here, f"is not known: {name!r}; {known}{other}")


def _exams(project: Project, broken: frozenset[Location]) -> Iterator[Fault]:
    for name, exam in project.exams.items():
        if not os.path.isfile(project.resolve(exam.path)):
            text = f"is a file that doesn't exist: {project.resolve(exam.path)}; mend the path"
            yield Fault(("exams", name, "path"), text)
    whole = not any(place[0] == "exams" and len(place) <= 2 for place in broken)
    if whole and not any(exam.role == "domain" for exam in project.exams.values()):
        yield Fault(("exams",), "has none with role: domain; add one, it decides which arm wins")


def _control(project: Project, broken: frozenset[Location]) -> Iterator[Fault]:
    name = project.policy.control
    if ("arms",) in broken or ("arms", name) in broken or ("policy", "control") in broken:
        return
    arm = project.arms.get(name)
    if arm is None:
        names = ", ".join(project.arms) or "none"
        text = f"is {name!r}, which is no arm (arms: {names}); add the arm {name}: {{}}"
        yield Fault(("policy", "control"), text)
        return
    changed = {
        "weights": arm.weights,
        "choose": arm.choose,
        "retrieval": arm.retrieval,
        "shots": arm.prompt.shots,
    }
    for key in (key for key, value in changed.items() if value):
        place: Location = ("arms", name, "prompt", key) if key == "shots" else ("arms", name, key)
        text = "is set, but this arm is the control, the untouched base model; write the arm as {}"
        yield Fault(place, text)


def _required_exams(project: Project, broken: frozenset[Location]) -> Iterator[Fault]:
    if any(place[0] == "exams" and len(place) <= 2 for place in broken):
        return
    for number, name in enumerate(project.policy.required_exams):
        if name not in project.exams:
            text = f"names no exam: {name!r}; {nearest(name, tuple(project.exams))}"
            yield Fault(("policy", "required_exams", number), text)


def _arm(project: Project, name: str, arm: Arm, broken: frozenset[Location]) -> Iterator[Fault]:
    here: Location = ("arms", name)
    no_corpus = not project.corpus and not any(place[:1] == ("corpus",) for place in broken)
    if arm.retrieval and no_corpus:
        text = "has nothing to search; add corpus: [documents/] to the project"
        yield Fault((*here, "retrieval"), text)
    if arm.retrieval:
        yield from _retrieval(project, (*here, "retrieval"), arm.retrieval)
    yield from stage_faults(project, name, arm, broken)
    shots_from = arm.prompt.shots_from
    if shots_from and not os.path.isfile(project.resolve(shots_from)):
        text = f"is a file that doesn't exist: {project.resolve(shots_from)}; mend the path"
        yield Fault((*here, "prompt", "shots_from"), text)


def _retrieval(project: Project, here: Location, spec: RetrievalSpec) -> Iterator[Fault]:
    if spec.synonyms and not os.path.isfile(project.resolve(spec.synonyms)):
        text = f"is a file that doesn't exist: {project.resolve(spec.synonyms)}; mend the path"
        yield Fault((*here, "synonyms"), text)
    if spec.rerank == "cross-encoder" and not spec.reranker:
        text = "is cross-encoder and needs its folder; add reranker: models/NAME"
        yield Fault((*here, "rerank"), text)
    elif spec.reranker and not os.path.isdir(project.resolve(spec.reranker)):
        text = f"is a folder that doesn't exist: {project.resolve(spec.reranker)}; mend the path"
        yield Fault((*here, "reranker"), text)
    if spec.rerank == "likelihood" and kind(project.base_model) == "endpoint":
        text = "is likelihood, which an endpoint hides; write cross-encoder, or none"
        yield Fault((*here, "rerank"), text)
    weights = spec.weights
    if weights != "tuned" and (min(weights) < 0 or max(weights) == 0):
        text = f"must be two numbers of at least 0, one of them more, got {list(weights)}"
        yield Fault((*here, "weights"), text)


def _with_shots(project: Project, broken: frozenset[Location]) -> tuple[Project, list[Fault]]:
    """Arms with shots but no source take the first fine-tuning data, else `examples.jsonl`."""
    stages = [stage for arm in project.arms.values() for stage in arm.weights]
    sources = [stage.finetune.data for stage in stages if stage.finetune is not None]
    if os.path.isfile(project.resolve(DEFAULT_EXAMPLES)):
        sources.append(DEFAULT_EXAMPLES)
    arms, faults = {}, []
    for name, arm in project.arms.items():
        wanting = arm.prompt.shots > 0 and not arm.prompt.shots_from
        if wanting and sources:
            prompt = arm.prompt.model_copy(update={"shots_from": sources[0]})
            arm = arm.model_copy(update={"prompt": prompt})
        elif wanting and not any(place[:1] == ("arms",) for place in broken):
            text = f"needs training examples; write {DEFAULT_EXAMPLES} or set shots_from: FILE"
            faults.append(Fault(("arms", name, "prompt", "shots"), text))
        arms[name] = arm
    return project.model_copy(update={"arms": arms}), faults
