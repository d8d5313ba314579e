"""Look at a model before anything opens it: safetensors and GGUF are loaded, nothing is unpickled.

Path → names of what is left alone, or a refusal. A pickle runs code when it is loaded, and so does
a model that brings its own Python; both are refused unopened. A header that lies makes native code
read what isn't there; a chat template is a program. Headers are read, weights are not.

>>> refuse_unsafe(Path("models/gemma-3-270m"))
()

    kinds                 what unknown bytes are          folders   which files count
    safetensors_header    GGUF's: gguf_header             papers    configs, tokenizers
    templates, rehearsal  chat templates
"""

from __future__ import annotations

import stat
from pathlib import Path

from tokka.errors import IntegrityError, UsageError
from tokka.models.safety.folders import check_folder
from tokka.models.safety.gguf_header import check_gguf
from tokka.models.safety.kinds import CONVERT, HEAD_BYTES, PICKLES, described, opens_json, shown
from tokka.models.safety.papers import check_json
from tokka.models.safety.refusals import lies
from tokka.models.safety.safetensors_header import check_safetensors
from tokka.models.safety.templates import check_template

__all__ = ["PICKLES", "check_json", "refuse_unsafe", "refuse_unsafe_papers"]


def refuse_unsafe(path: Path, *, adapter: bool = False) -> tuple[str, ...]:
    """Raise IntegrityError if loading `path` could run code or its headers are not what they claim.

    A folder is a Hugging Face model, or with `adapter` an adapter's; a file is a `.gguf` or a
    `.safetensors`. Returns the names of files in a folder that nothing opens and that could run
    code where another program opens them: a pickle beside safetensors. Raises UsageError where
    there is nothing at `path`.
    """
    if path.is_dir():
        return check_folder(path, adapter=adapter)
    _check_file(path)
    return ()


def refuse_unsafe_papers(path: Path) -> tuple[str, ...]:
    """`refuse_unsafe` for a folder of which no weights are wanted: a tokenizer's, a pooling's."""
    if path.is_dir():
        return check_folder(path, weights=False)
    _check_file(path)
    return ()


def _check_file(path: Path) -> None:
    try:
        kind = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path}: there is no such file or folder; check the model's path"
        ) from error
    if not stat.S_ISREG(kind):
        raise IntegrityError(f"{path}: is no ordinary file; name a model's file or folder")
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"GGUF"):
        for key, template in check_gguf(path).items():
            check_template(template, f"{path}: {shown(key)}")
    elif opens_json(head):
        check_safetensors(path)
    else:
        _refuse_other(path, head)


def _refuse_other(path: Path, head: bytes) -> None:
    with path.open("rb") as file:
        kind = described(file.read(HEAD_BYTES))
    if kind:
        raise IntegrityError(f"{path}: is {kind} and was not opened; {CONVERT}")
    start = ascii(head[:4])[1:]
    if path.suffix == ".gguf":
        raise lies(path, f"does not begin with GGUF but with {start}")
    if path.suffix == ".safetensors":
        raise lies(path, f"is not a safetensors file (begins with {start})")
    raise IntegrityError(
        f"{path}: is neither safetensors nor GGUF (begins with {start}); {CONVERT}"
    )
