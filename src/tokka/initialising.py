"""`tokka init`: a folder of documents → a commented project that passes every check.

The plan says what would be written, for `--dry-run`; writing it never touches a file that is there.

>>> plan = plan_init(Path("rules"))
>>> plan.language, plan.counts
('ja', {'.md': 21, '.pdf': 4})
>>> write_init(plan)
[PosixPath('rules/tokka.yaml'), PosixPath('rules/exam/domain.jsonl'), ...]
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokka.errors import TokkaError, UsageError
from tokka.models.opening import kind
from tokka.project import FILE_NAME
from tokka.starters import EXAMPLES, EXAMS, PROJECT

Language = Literal["ja", "en"]
Ask = Callable[[str, tuple[str, ...], str], str]

DOCUMENT_FOLDERS = ("documents", "docs", "corpus")
DEFAULT_MODELS: dict[Language, str] = {
    "ja": "embedded:gemma-3-270m",
    "en": "embedded:smollm2-135m-instruct",
}
SAMPLED_FILES = 12
SAMPLED_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class InitPlan:
    """`files` will be written, `kept` exist already; both are relative to `folder`.

    `counts` are the documents by suffix, `unread` the files whose format no reader knows.
    """

    folder: Path
    documents: str
    language: Language
    base_model: str
    counts: Mapping[str, int]
    unread: Mapping[str, int]
    files: Mapping[str, str]
    kept: tuple[str, ...]


def plan_init(
    folder: Path,
    language: str | None = None,
    base_model: str | None = None,
    ask: Ask | None = None,
) -> InitPlan:
    """Look at a folder and decide what its project says.

    The documents are those of its `documents/` (or `docs/`, `corpus/`), else of the folder itself.
    `ask(question, choices, default)` is called for what isn't given, at most twice; without it the
    defaults stand: the language that the documents are written in and its embedded model.
    Raises UsageError where `folder` is a file, or `language` is none that tokka knows.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"init: {folder} is a file; name the folder that holds the documents")
    documents = next((f"{d}/" for d in DOCUMENT_FOLDERS if (folder / d).is_dir()), "")
    skip = () if documents else _own_files()
    counts, unread, sample = _look(folder / documents, skip)
    if not documents and not counts:
        documents = f"{DOCUMENT_FOLDERS[0]}/"
    found = language or _written_in(sample)
    if language is None and ask is not None:
        found = ask("language", tuple(DEFAULT_MODELS), found)
    if found not in DEFAULT_MODELS:
        raise UsageError(f"init: language must be ja or en, got {found!r}")
    model = base_model or DEFAULT_MODELS[found]
    if base_model is None and ask is not None:
        model = ask("base model", tuple(DEFAULT_MODELS.values()), model)
    if kind(model) in ("folder", "gguf") and Path(model).expanduser().exists():
        model = str(Path(model).expanduser().absolute())
    files = {
        FILE_NAME: _project_text(folder, documents or "./", found, model, skip),
        "exam/domain.jsonl": _rows(EXAMS["domain"][found]),
        "exam/retention.jsonl": _rows(EXAMS["retention"][found]),
        "examples.jsonl": _rows(EXAMPLES[found]),
    }
    kept = tuple(name for name in files if (folder / name).exists())
    return InitPlan(
        folder=folder,
        documents=documents or "./",
        language=found,
        base_model=model,
        counts=counts,
        unread=unread,
        files={name: text for name, text in files.items() if name not in kept},
        kept=kept,
    )


def write_init(plan: InitPlan) -> list[Path]:
    """Write the planned files and return them. A file that appeared meanwhile is left as it is."""
    written = []
    for name, text in plan.files.items():
        path = plan.folder / name
        try:
            (plan.folder / plan.documents).mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(
                f"init: {path} can't be written ({error.strerror}); choose another folder"
            ) from error
        written.append(path)
    return written


def _own_files() -> tuple[str, ...]:
    return (FILE_NAME, "exam/*", "examples.jsonl")


def _look(folder: Path, skip: tuple[str, ...]) -> tuple[dict[str, int], dict[str, int], list[str]]:
    """Counts by suffix of what can be read and what can't, and texts to tell the language by."""
    from tokka.corpus.reading import BUILTIN, files

    if not folder.is_dir():
        return {}, {}, []
    known: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    paths: list[tuple[str, Path]] = []
    for document_id, path in files([folder], skip):
        suffix = ".jsonl.gz" if path.name.lower().endswith(".jsonl.gz") else path.suffix.lower()
        (known if suffix in BUILTIN else unknown)[suffix or "(no suffix)"] += 1
        if suffix in BUILTIN:
            paths.append((document_id, path))
    step = max(1, len(paths) // SAMPLED_FILES)
    return dict(known), dict(unknown), [_sample(*one) for one in paths[::step][:SAMPLED_FILES]]


def _sample(document_id: str, path: Path) -> str:
    from tokka.corpus.reading import read_file

    try:
        documents = read_file(path, document_id, dropped=[])
    except (TokkaError, ValueError):
        return ""  # reading tells the reason when the project runs
    return "".join(document.text for document in documents)[:SAMPLED_CHARACTERS]


def _written_in(texts: list[str]) -> Language:
    from tokka.corpus.documents import language_of

    votes = Counter(language_of(text) for text in texts if text.strip())
    return "ja" if votes["ja"] > votes["en"] else "en"


def _project_text(
    folder: Path, documents: str, language: Language, model: str, skip: tuple[str, ...]
) -> str:
    plain = unicodedata.normalize("NFKC", folder.resolve().name)
    name = re.sub(r"[^\w.-]+", "-", plain).strip("-") or "project"
    return PROJECT[language].format(
        name=json.dumps(name, ensure_ascii=False),
        language=language,
        base_model=json.dumps(model, ensure_ascii=False),
        corpus=documents,
        skip=f"skip: {json.dumps(list(skip))}\n" if skip else "",
    )


def _rows(rows: tuple[dict[str, object], ...]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
