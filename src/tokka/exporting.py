"""A candidate → the files that will serve it: merged safetensors or a GGUF.

    exported = export(build, candidate, "q8_0")        # a step; exported.served is a Candidate
    reexam = reexamine(build, candidate, exported, models)               # `reexamining`
    folder = assemble(build, candidate, exported, (), {"q8_0": reexam}, facts)   # `assembling`

What is exported is an ordinary weights step, so the served candidate is opened, examined and
compared as any other. A base model gets its format as a chat template, so that other programs give
it the prompt that was examined.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokka.errors import UsageError
from tokka.models.opening import (
    GGUF,
    adapted_digest,
    context_tokens_of,
    digest_of,
    kind,
    open_renderer,
)
from tokka.pipeline import DTYPE, PARTS_BESIDE
from tokka.records import Candidate, Example
from tokka.release.records import Format
from tokka.store import read_json, read_records, write_json, write_text

if TYPE_CHECKING:
    from tokka.models.rendering import TokenRenderer
    from tokka.pipeline import Build
    from tokka.training.start import Start

MODELFILE = "Modelfile"
CONTEXT_TOKENS = 4096  # what llama.cpp is opened with in the exam
QUANTISED: tuple[Format, ...] = ("f16", "q8_0", "q4_k_m")
_TERMS = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY", "COPYING")
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty")
_MODEL_FILES = ("config.json", "model.safetensors.index.json")
_BESIDE = ("manifest.json", "merge.json", "quantise.json")  # of a step, not of the model


@dataclass(frozen=True, slots=True)
class Exported:
    """`folder` is the step's, None for an endpoint, which keeps its weights. `source`: what it was
    made from, a model's folder or GGUF file, with `adapters` folded in. `template`: the chat
    template that it was given, where the source has none."""

    format: Format
    folder: Path | None
    served: Candidate
    source: Path | None = None
    adapters: tuple[Path, ...] = ()
    template: str = ""

    @property
    def is_gguf(self) -> bool:
        return self.folder is not None and (self.folder / GGUF).is_file()


@dataclass(frozen=True, slots=True)
class _Weights:
    """What a candidate answers with: a model's folder, a GGUF file, or nothing of ours. `own` is
    the format that it has already, and can have no other."""

    base: Path | None
    adapters: tuple[Path, ...]
    own: Format | None


def format_of(build: Build, candidate: Candidate, asked: Format | None = None) -> Format:
    """The format to serve a candidate in: `asked`, else the one that changes nothing about it.

    Raises UsageError for a format that its weights can't have.
    """
    own = _weights(build, candidate).own
    if asked in (None, own):
        return own or "safetensors"
    if own == "endpoint":
        raise UsageError(
            f"export: {candidate.base_model} keeps its weights, so there is nothing to write as "
            f"{asked}; leave the format out"
        )
    if own is not None:
        raise UsageError(
            f"export: what was examined is a GGUF ({own}), and {asked} would be another model; "
            "leave the format out, or examine an arm without the quantise stage"
        )
    if asked == "endpoint":
        raise UsageError(
            f"export: {candidate.base_model} is no endpoint; use safetensors, "
            f"{', '.join(QUANTISED)}"
        )
    if asked == "gguf":
        raise UsageError(
            f"export: the base model is no .gguf file; use one of {', '.join(QUANTISED)}"
        )
    return asked or "safetensors"


def export(build: Build, candidate: Candidate, format: Format) -> Exported:
    """Write the candidate's weights in `format`, once; the same weights are never written twice.

    Raises UsageError for a format that its weights can't have, and for a model that llama.cpp would
    compute otherwise than it was trained (see `training.quantise`).
    """
    format = format_of(build, candidate, format)
    weights = _weights(build, candidate)
    if weights.base is None:
        return Exported("endpoint", None, candidate)
    source = weights.base
    if format in QUANTISED and weights.own is None and weights.adapters:
        merged = export(build, candidate, "safetensors").folder
        assert merged is not None  # only endpoints have none
        source = merged
    start = _start(build, source, weights.adapters if source is weights.base else ())
    template = "" if weights.own else _template(build, source, format)

    def make(folder: Path) -> None:
        with build.observer.task(f"{candidate.arm.name}: export ({format})", None):
            _write(folder, start, format, weights.own, template, build)

    inputs = {
        "weights": start.digest,
        "format": format,
        "language": build.project.language,
        "dtype": DTYPE,
    }
    folder = build.step("export", inputs, make, f"{candidate.arm.name} ({format})")
    served = _served(build, candidate, folder)
    return Exported(format, folder, served, source, start.adapters, template)


def export_to(build: Build, candidate: Candidate, format: Format, out: Path) -> list[Path]:
    """Export into a folder of the caller's, with a Modelfile beside a GGUF; the files written.

    Raises UsageError where `out` holds anything, and for an endpoint.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"export: {out} isn't an empty folder; name a new one")
    exported = export(build, candidate, format)
    if exported.folder is None:
        raise UsageError(
            f"export: {candidate.base_model} keeps its weights, there is nothing to write"
        )
    out.mkdir(parents=True, exist_ok=True)
    written = copy_model(exported.folder, out)
    if exported.is_gguf:
        try:
            write_text(out / MODELFILE, modelfile_of(build, candidate, exported))
            written.append(out / MODELFILE)
        except UsageError as error:
            build.observer.notice(str(error))
    return written


def copy_model(step: Path, out: Path) -> list[Path]:
    """Copy a model's files out of its step's folder; what tells of the step stays there."""
    written = []
    for path in sorted(p for p in step.rglob("*") if p.is_file()):
        place = path.relative_to(step)
        if place.as_posix() not in _BESIDE:
            (out / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / place)
            written.append(out / place)
    return written


def modelfile_of(build: Build, candidate: Candidate, exported: Exported, path: str = "./") -> str:
    """The Modelfile of an exported GGUF in the folder `path`: the arm's prompt without its search.

    Raises UsageError where Ollama's template language can't say what the chat template says.
    """
    from tokka.candidates.opening import artifact
    from tokka.candidates.shots import shots_of
    from tokka.models.ollama import modelfile, pieces_of
    from tokka.models.prompting import compose

    assert exported.folder is not None
    arm, language = candidate.arm, build.project.language
    renderer: TokenRenderer = open_renderer(exported.folder, language)
    examples = artifact(candidate, "examples", build.workspace)
    shots: tuple[Example, ...] = ()
    if examples is not None and arm.prompt.selection == "fixed":
        pick = shots_of(arm, read_records(examples / "examples.jsonl", Example))
        shots = tuple(pick(_nothing_asked())) if pick is not None else ()
    spec = arm.prompt.model_copy(update={"system": ""})
    pieces = pieces_of(
        lambda said: renderer.text(compose(tuple(said), spec=spec, shots=shots, language=language)),
        renderer.bos,
    )
    notes = [f"{build.project.name}, arm {arm.name}, candidate {candidate.id}, {exported.format}"]
    if arm.retrieval is not None:
        notes.append("Without the search in the documents, which only tokka serve does.")
    if arm.prompt.shots and not shots:
        notes.append("Without the examples that were shown before each question, nearest last.")
    licence = "\n\n".join(
        path.read_text(encoding="utf-8", errors="replace").strip()
        for path in sorted(exported.folder.iterdir())
        if path.name.upper().startswith(_TERMS) and path.suffix not in (".html", ".pdf")
    )
    stop = renderer.stop if arm.prompt.stop is None else arm.prompt.stop
    return modelfile(
        f"{path}{GGUF}",
        pieces,
        stop=(*renderer.pieces(sorted(renderer.stop_ids)), *stop),
        context_tokens=min(CONTEXT_TOKENS, context_tokens_of(exported.folder)),
        system=arm.prompt.system,
        licence=licence,
        notes=notes,
    )


def _nothing_asked() -> Any:
    from tokka.candidates.opening import asked

    return asked("")


def _weights(build: Build, candidate: Candidate) -> _Weights:
    from tokka.candidates.opening import adapters_of, artifact

    if kind(candidate.base_model) == "endpoint":
        return _Weights(None, (), "endpoint")
    folder = artifact(candidate, "weights", build.workspace) or build.base
    if folder is None:
        raise UsageError(f"export: {candidate.base_model} can't be found; check base_model")
    adapters = tuple(adapters_of(candidate, build.workspace))
    if folder.is_file():
        return _Weights(folder, adapters, "gguf")
    if (folder / GGUF).is_file():
        own: Format = read_json(folder / "quantise.json")["type"]
        return _Weights(folder, adapters, own)
    return _Weights(folder, adapters, None)


def _start(build: Build, base: Path, adapters: tuple[Path, ...]) -> Start:
    from tokka.training.start import Start

    digest = digest_of(base, build.project.language)
    for adapter in adapters:
        digest = adapted_digest(digest, adapter)
    return Start(base, digest, adapters)


def _served(build: Build, candidate: Candidate, folder: Path) -> Candidate:
    """The candidate with the exported weights in place of its own."""
    from tokka.arms.building import candidate_of

    beside = {name: e for name, e in candidate.artifacts.items() if name in PARTS_BESIDE}
    return candidate_of(
        candidate.arm,
        base_model=candidate.base_model,
        base_digest=candidate.base_digest,
        language=candidate.language,
        artifacts={"weights": f"{folder.name}@{build.workspace.digest(folder)}", **beside},
        embedder=candidate.embedder,
    )


# ---- one folder -------------------------------------------------------------------------------


def _write(
    folder: Path, start: Start, format: Format, own: Format | None, template: str, build: Build
) -> None:
    if own == "gguf":
        _copy_gguf(folder, start.base)
    elif own is not None:
        copy_model(start.base, folder)
    elif format == "safetensors":
        _write_safetensors(folder, start, template, build.project.language)
    else:
        _quantise(folder, start, format, template, build)


def _copy_gguf(folder: Path, path: Path) -> None:
    """A base model that is a GGUF, as it is; its tokenizer in files of its own."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, folder / GGUF)
    where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        str(path.parent), gguf_file=path.name, **where
    )
    tokenizer.save_pretrained(str(folder))
    for paper in path.parent.iterdir():
        if paper.is_file() and paper.name.upper().startswith(_TERMS):
            shutil.copyfile(paper, folder / paper.name)


def _write_safetensors(folder: Path, start: Start, template: str, language: str) -> None:
    from tokka.training.merge import fold
    from tokka.training.weights_files import copy_papers

    shutil.rmtree(folder, ignore_errors=True)  # of an export that was killed
    folder.mkdir(parents=True)
    if start.adapters:
        fold(folder, start, DTYPE)
    else:
        for path in sorted(start.base.iterdir()):
            if path.suffix == ".safetensors" or path.name in _MODEL_FILES:
                shutil.copyfile(path, folder / path.name)
        copy_papers(start.base, folder)
    if template:
        write_text(folder / "chat_template.jinja", template)
    _write_ends(folder, open_renderer(folder, language))


def _quantise(folder: Path, start: Start, format: Format, template: str, build: Build) -> None:
    from tokka.training.quantise import quantise

    assert format in ("f16", "q8_0", "q4_k_m")
    quantise(folder, start, format, build.observer.notice, template)
    _write_ends(folder, open_renderer(start.base, build.project.language))


def _template(build: Build, source: Path, format: Format) -> str:
    """The chat template of a model that has none, as programs of that format want it: llama.cpp and
    Ollama put BOS before a template's text, vLLM and others leave it to the template."""
    from tokka.models.base_template import base_template

    language = build.project.language
    renderer: TokenRenderer = open_renderer(source, language)
    if renderer.chat_template:
        return ""
    return base_template(language, bos=bool(renderer.bos) and format == "safetensors")


def _write_ends(folder: Path, renderer: TokenRenderer) -> None:
    """What ends an answer, and greedily, as it was examined, in generation_config.json."""
    path = folder / "generation_config.json"
    told = read_json(path) if path.is_file() else {}
    ends = sorted(renderer.stop_ids)
    kept = {name: value for name, value in told.items() if name not in _SAMPLING}
    write_json(
        path, {**kept, "eos_token_id": ends if len(ends) > 1 else ends[0], "do_sample": False}
    )
