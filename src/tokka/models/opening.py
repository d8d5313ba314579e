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

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokka.errors import UsageError
from tokka.models.protocol import LanguageModel
from tokka.records import fingerprint
from tokka.store import cache_folder, read_json, sha256_file, write_json

Kind = Literal["embedded", "folder", "hub", "gguf", "endpoint"]


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
    files = [path] if path.is_file() else _decisive(path)
    names = [
        (p.name, _cached_sha256(p)) for p in files if not (endpoint and p.suffix == ".safetensors")
    ]
    if endpoint:
        return fingerprint(["endpoint", reference, names, language])
    return fingerprint(["model", names, language])


def _decisive(folder: Path) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        if p.suffix in {".safetensors", ".json", ".model", ".jinja"} and p.name != "tokka.json"
    )


def _cached_sha256(path: Path) -> str:
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
    adapter: Path | None = None,
    dtype: str | None = None,
    threads: int | None = None,
    endpoint: EndpointOptions | None = None,
    notice: Callable[[str], None] | None = None,
) -> LanguageModel:
    """Open any model. Weights are read only from safetensors and GGUF, custom code never runs.

    `dtype` is "bfloat16" where nothing is said (float32 for tests of exactness). Raises UsageError
    for what can't be opened, MissingExtra where a library is missing.
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
    from tokka.models.safety import refuse_unsafe

    path = locate(reference, root, notice)
    refuse_unsafe(path)
    name = digest(reference, path, language)
    if sort == "gguf":
        if adapter is not None:
            raise UsageError(
                "a .gguf model takes no adapter; train on the safetensors it came from"
            )
        from tokka.models.llamacpp import open_llamacpp

        return open_llamacpp(path, open_renderer(path, language), name, threads=threads)
    from tokka.extras import require

    torch = require("torch", extra="local")
    require("transformers", extra="local")
    if threads:
        torch.set_num_threads(threads)
    from tokka.models.torch_model import TorchModel, load_module

    if adapter is not None:
        refuse_unsafe(adapter)
        name = fingerprint([name, sorted((p.name, sha256_file(p)) for p in _decisive(adapter))])
    _quiet()
    return TorchModel(
        load_module(path, dtype or "bfloat16", adapter),
        open_renderer(path, language),
        name=reference,
        digest=name,
        notice=notice,
    )


def open_renderer(path: Path, language: str) -> Any:
    """The renderer of a local model: tokenizer from the folder, or from the GGUF's own tables."""
    from tokka.extras import require

    transformers = require("transformers", extra="local")
    from tokka.models.rendering import TokenRenderer

    _quiet()
    where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if path.is_file():
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(path.parent), gguf_file=path.name, **where
        )
    else:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(path), **where)
    return TokenRenderer(tokenizer, language)


def _quiet() -> None:
    """Progress bars of our own are enough."""
    logging: Any = importlib.import_module("transformers.utils.logging")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
