"""Open a language model by its reference.

    embedded:NAME               a real model from a Python package
    path/to/folder              Hugging Face layout, safetensors only
    hub:ID                      the same, from the Hugging Face cache or hub
    path/to/model.gguf          llama.cpp
    http://host:port/v1#name    any OpenAI-compatible endpoint

`kind(reference)` tells which without touching anything; `digest(...)` names the weights without
loading them.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokka.errors import IntegrityError, UsageError
from tokka.models.protocol import LanguageModel
from tokka.records import fingerprint
from tokka.store import cache_folder, read_json, sha256_file, write_json

Kind = Literal["embedded", "folder", "hub", "gguf", "endpoint"]

GGUF = "model.gguf"  # of a folder of weights that were quantised
# Evidence and notes beside a model's files: they say where it came from and decide no answer.
_EVIDENCE = frozenset(
    f"{name}.json"
    for name in ("tokka", "manifest", "training", "speed", "trouble", "merge", "quantise", "choice")
)


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    hosts: tuple[str, ...] = ()
    api_key_env: str | None = None
    input_usd_per_million: float = 0.0
    output_usd_per_million: float = 0.0
    timeout_seconds: float = 120.0
    retries: int = 5
    concurrency: int = 2
    tokenizer: str | None = None  # folder, .gguf or embedded:NAME; see `open_endpoint`'s renderer


def kind(reference: str) -> Kind:
    if reference.startswith(("http://", "https://")):
        return "endpoint"
    if reference.startswith("embedded:"):
        return "embedded"
    if reference.startswith("hub:"):
        return "hub"
    return "gguf" if reference.lower().endswith(".gguf") else "folder"


def locate(
    reference: str,
    root: Path,
    notice: Callable[[str], None] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Path:
    """The folder or file of a local reference; embedded models are unpacked on first use, and
    `progress` is told the percent just done."""
    from tokka.models import embedded

    sort = kind(reference)
    if sort == "embedded":
        return embedded.folder(reference.removeprefix("embedded:"), notice, progress)
    if sort == "hub":
        return _from_hub(reference.removeprefix("hub:"))
    path = (root / reference).resolve()
    if not path.exists():
        raise UsageError(f"base_model: {path} doesn't exist; correct the path in the project file")
    return path


def context_tokens_of(folder: Path) -> int:
    """How many positions a model in Hugging Face's layout has; a large number where it doesn't
    say."""
    config = read_json(folder / "config.json")
    known = [config.get(k) for k in ("max_position_embeddings", "n_positions", "max_seq_len")]
    return min((int(n) for n in known if n), default=2**20)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["*.safetensors", "*.json", "*.model", "*.jinja", "*.txt", "LICENSE*", "NOTICE*"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UsageError(
            f"base_model: hub:{name} can't be fetched ({type(error).__name__}); check the name "
            f"and the "
            "network, or give a local folder instead"
        ) from error


def digest(reference: str, path: Path | None, language: str) -> str:
    """SHA-256 over a model's files, or over an endpoint's URL, model name and, at `path`, the files
    of the tokenizer that its prompts are rendered with.

    Digests of large files are kept by size and modification time in the cache folder.
    """
    endpoint = kind(reference) == "endpoint"
    if path is None:
        return fingerprint(["endpoint", reference])
    if not endpoint:
        return digest_of(path, language)
    files = [path] if path.is_file() else _decisive(path)
    names = [(p.name, cached_sha256(p)) for p in files if p.suffix != ".safetensors"]
    return fingerprint(["endpoint", reference, names, language])


def digest_of(path: Path, language: str) -> str:
    """SHA-256 over the files of a model's folder or GGUF file."""
    files = [path] if path.is_file() else _decisive(path)
    return fingerprint(["model", [(p.name, cached_sha256(p)) for p in files], language])


def adapted_digest(before: str, adapter: Path) -> str:
    """The digest of weights once `adapter` is folded into those whose digest is `before`.

    Of its config PEFT writes lists in any order. How the base was rounded while it was trained
    decides too (see `nf4`).
    """
    config = {
        key: sorted(value, key=str) if isinstance(value, list) else value
        for key, value in read_json(adapter / "adapter_config.json").items()
    }
    files = [(p.name, cached_sha256(p)) for p in sorted(adapter.glob("*.safetensors"))]
    return fingerprint(["adapter", before, files, config, rounding(adapter)])


def rounding(adapter: Path) -> str:
    """How the base was quantised when this adapter was trained; empty where it wasn't."""
    path = adapter / "training.json"
    return str(read_json(path).get("quantisation") or "") if path.is_file() else ""


def _decisive(folder: Path) -> list[Path]:
    kinds = {".safetensors", ".json", ".model", ".jinja", ".gguf"}
    return sorted(p for p in folder.iterdir() if p.suffix in kinds and p.name not in _EVIDENCE)


def cached_sha256(path: Path) -> str:
    """SHA-256 of a file, kept by its path, size and modification time in the cache folder."""
    status = path.stat()
    name = fingerprint([str(path.resolve()), status.st_size, status.st_mtime_ns])[:24]
    entry = cache_folder() / "digests" / f"{name}.json"
    if entry.exists():
        return str(read_json(entry)["sha256"])
    found = sha256_file(path)
    write_json(entry, {"sha256": found, "path": str(path)})
    return found


def open_model(
    reference: str,
    *,
    root: Path = Path(),
    language: str = "en",
    weights: Path | None = None,
    adapters: Sequence[Path] = (),
    dtype: str | None = None,
    threads: int | None = None,
    endpoint: EndpointOptions | None = None,
    notice: Callable[[str], None] | None = None,
) -> LanguageModel:
    """Open any model. Weights are read only from safetensors and GGUF, custom code never runs.

    `weights` is a folder that stands in place of the reference's own weights: safetensors, or
    `model.gguf` and the tokenizer's files. `adapters` are folded in, in their order; each names in
    its `training.json` the digest of what it was trained on, and IntegrityError is raised where
    that isn't what it would be folded into. `dtype` is "bfloat16" where nothing is said (float32
    for tests of exactness). Raises UsageError for what can't be opened, MissingExtra where a
    library is missing.
    """
    sort = kind(reference)
    if sort == "endpoint":
        from tokka.models.endpoint import open_endpoint

        options = endpoint or EndpointOptions()
        return open_endpoint(
            reference,
            hosts=options.hosts,
            api_key_env=options.api_key_env,
            input_usd_per_million=options.input_usd_per_million,
            output_usd_per_million=options.output_usd_per_million,
            timeout_seconds=options.timeout_seconds,
            retries=options.retries,
            concurrency=options.concurrency,
            renderer=(
                open_renderer(locate(options.tokenizer, root, notice), language)
                if options.tokenizer
                else None
            ),
        )
    sort, path = located(reference, root, weights, notice)
    name = digest_of(path if weights is None else weights, language)
    if sort == "gguf":
        if adapters:
            raise UsageError(
                "a .gguf model takes no adapter; train on the safetensors it came from"
            )
        from tokka.models.llamacpp import open_llamacpp

        renderer = open_renderer(path if weights is None else weights, language)
        return open_llamacpp(path, renderer, name, threads=threads)
    from tokka.extras import require
    from tokka.models.safety import refuse_unsafe

    torch = require("torch", extra="local")
    require("transformers", extra="local")
    if threads:
        torch.set_num_threads(threads)
    from tokka.models.torch_model import TorchModel, load_module

    for adapter in adapters:
        refuse_unsafe(adapter, adapter=True)
        refuse_foreign(adapter, name)
        name = adapted_digest(name, adapter)
    quiet()
    return TorchModel(
        load_module(path, dtype or "bfloat16", adapters),
        open_renderer(path, language),
        name=reference,
        digest=name,
        notice=notice,
    )


def located(
    reference: str, root: Path, weights: Path | None, notice: Callable[[str], None] | None = None
) -> tuple[Kind, Path]:
    """What computes the weights of a local reference, or those in their place, and the folder or
    GGUF file to open. Raises IntegrityError for files that aren't safe."""
    from tokka.models.safety import refuse_unsafe

    path = weights or locate(reference, root, notice)
    left = refuse_unsafe(path)
    if left and notice is not None:
        notice(f"{path}: left alone, since opening it could run code: {', '.join(left[:5])}")
    if (path / GGUF).is_file():
        return "gguf", path / GGUF
    return kind(reference), path


def refuse_foreign(adapter: Path, before: str) -> None:
    """Raise IntegrityError unless `adapter` was trained on the weights with the digest `before`.

    Folded into other weights of the same shape, an adapter gives a model that answers, and answers
    wrongly, without a word.
    """
    evidence = adapter / "training.json"
    trained_on = read_json(evidence).get("base_digest") if evidence.is_file() else None
    if trained_on != before:
        said = f"on the weights {trained_on}" if trained_on else "on weights that it doesn't name"
        raise IntegrityError(
            f"{adapter}: this adapter was trained {said} and would be folded into {before}; give "
            "it the base model that it was trained on, or delete that folder and run again"
        )


def open_renderer(path: Path, language: str) -> Any:
    """The renderer of a local model: tokenizer from the folder, or from the GGUF's own tables.

    Raises IntegrityError where a file that decides the tokenizer isn't safe.
    """
    from tokka.extras import require
    from tokka.models.safety import refuse_unsafe, refuse_unsafe_papers

    transformers = require("transformers", extra="local")
    from tokka.models.rendering import TokenRenderer

    refuse_unsafe_papers(path)
    quiet()
    where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if path.is_dir():
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(path), **where)
        except (OSError, ValueError, KeyError) as error:
            refuse_unsafe(path)  # pickles instead of a model: that is the better reason
            raise UsageError(
                f"{path}: holds no tokenizer that transformers opens ({type(error).__name__}); "
                "save the model's own beside it (tokenizer.json, tokenizer_config.json)"
            ) from error
    else:
        # A tokenizer_config.json that happens to lie beside a GGUF would change its tokenizer.
        with tempfile.TemporaryDirectory(prefix="tokka-") as alone:
            link(path, Path(alone) / GGUF)
            tokenizer = transformers.AutoTokenizer.from_pretrained(alone, gguf_file=GGUF, **where)
    return TokenRenderer(tokenizer, language)


def link(path: Path, target: Path) -> None:
    """A second name for a file that is only read; a copy where the system knows no links."""
    for way in (os.symlink, os.link, shutil.copyfile):
        with contextlib.suppress(OSError, NotImplementedError):
            way(path.resolve(), target)
            return
    raise UsageError(
        f"{target}: can't be written; free some room in the folder for temporary files"
    )


def quiet() -> None:
    """Progress bars of our own are enough."""
    # Where PEFT finds bitsandbytes, that asks for a package which would look on a hub.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    theirs: Any = importlib.import_module("transformers.utils.logging")
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
