"""What stands beside a model's weights and decides how they are opened: JSON files and templates.

File → nothing, or IntegrityError. A config can ask for code (`auto_map`), for a kernel from a hub,
for a pickle in place of safetensors, for a module to import; a tokenizer.json can fill all memory.
Every key is looked at, at any depth, whatever the file is called.

>>> check_json(Path("model/tokenizer_config.json"))
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokka.errors import IntegrityError
from tokka.models.safety.json_outline import outline
from tokka.models.safety.kinds import CONVERT, kind_of, shown
from tokka.models.safety.refusals import lies, oversized
from tokka.models.safety.templates import check_template

MAX_JSON_BYTES = 16 * 2**20
MAX_LARGE_BYTES = 256 * 2**20
LARGE = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json"})
MAX_SECTION_BYTES = 2**20  # of a tokenizer's rules, without its vocabulary
MAX_GROWTH = 1_000  # by how much a tokenizer's rules may lengthen a text
MAX_PADDING = 2**20
_CODE = "asks for the model's own code, which tokka never runs; use a model that transformers "
_CODE += "knows without it"
_ATTENTION = re.compile(r"_?(?:attn|experts)_implementation(?:_internal)?")
_TOKENIZER = re.compile(r"(?!Rag)\w*(?:Tokenizer(?:Fast)?|TokenizersBackend|CommonBackend|Backend)")
# Adapters whose numbers stand in their own safetensors; others open files of other folders.
_ADAPTERS = frozenset(
    {"ADALORA", "BOFT", "FOURIERFT", "HRA", "IA3", "LN_TUNING", "LOHA", "LOKR", "LORA", "OFT"}
    | {"RANDLORA", "VERA"}
)
_PATHS = frozenset(  # of dictionaries that a tokenizer's native library opens
    {"mecab_option", "sudachi_config_path", "sudachi_resource_dir", "jumanpp_dir"}
)


def check_json(path: Path) -> None:
    """Raise IntegrityError for a JSON file that asks for code or more room than it may have."""
    size = path.stat().st_size
    most = MAX_LARGE_BYTES if path.name in LARGE else MAX_JSON_BYTES
    if size > most:
        raise oversized(path, size, most)
    text = path.read_bytes()
    try:
        if path.name in LARGE and text.lstrip()[:1] != b"{":
            raise ValueError("it doesn't begin with a brace")
        sections = outline(text)
    except (ValueError, RecursionError) as error:
        raise lies(path, f"is not valid JSON ({shown(error)})") from error
    if path.name == "tokenizer.json":
        _check_tokenizer(path, text, sections)
    elif path.name not in LARGE:
        _check_keys(path, parsed(path, text))


def parsed(path: Path, text: bytes) -> Any:
    """UTF-8 and nothing else: what tokka reads must be what transformers reads."""
    try:
        return json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise lies(path, f"is not valid JSON ({shown(error)})") from error


def check_text(path: Path) -> None:
    """Raise IntegrityError for a vocabulary or a template's file that holds something else."""
    kind = kind_of(path)
    if kind:
        raise IntegrityError(f"{path}: is {kind} under the name of a text; {CONVERT}")


def check_jinja(path: Path) -> None:
    """Raise IntegrityError for a chat template that could do more than render a chat."""
    size = path.stat().st_size
    if size > MAX_SECTION_BYTES:
        raise oversized(path, size, MAX_SECTION_BYTES)
    check_text(path)
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise lies(path, "is no UTF-8 text") from error
    check_template(text, str(path))


def _check_keys(path: Path, value: Any) -> None:
    for key, found in _entries(value):
        reason = _asks(key, found)
        if reason:
            raise IntegrityError(f"{path}: {reason}")
        if key in ("chat_template", "chat_templates"):
            for template in _texts(found):
                check_template(template, str(path))


def _asks(key: str, found: Any) -> str:
    """What is wrong with one entry of a config; empty where nothing is."""
    text = shown(found)
    if key == "auto_map" or (
        key in ("trust_remote_code", "custom_pipelines", "custom_generate") and found
    ):
        return f"{key} {_CODE}"
    if key in ("use_safetensors", "weights_only") and found is False:
        return f"{key} false asks for a pickle; delete the entry"
    if key == "pickle_module" or (key in ("cache_file", "covariance_file") and found):
        return f"{key} names a pickle that would be loaded; delete the entry"
    if _ATTENTION.fullmatch(key) and re.search(r"[/:@]", str(found)):
        return f"{key} {text} asks for a program from a hub; delete the entry"
    if key == "tokenizer_class" and found and not _TOKENIZER.fullmatch(str(found)):
        return f"tokenizer_class {text} is no tokenizer of transformers; correct or delete it"
    if key == "parent_library" and found and str(found).split(".")[0] != "transformers":
        return f"parent_library {text} would be imported; only transformers' own modules may be"
    if key in ("megatron_config", "megatron_core") and found not in (None, {}, "megatron.core"):
        return f"{key} {text} would import a module; delete the entry"
    if key == "peft_type" and found is not None and found not in _ADAPTERS:
        return f"peft_type {text} opens more than its own safetensors; tokka opens LoRA and its kin"
    if key in _PATHS and found:
        return f"{key} {text} would open a dictionary from there; delete the entry"
    return ""


def _check_tokenizer(path: Path, text: bytes, sections: dict[str, tuple[int, int]]) -> None:
    """The rules without the vocabulary: how long they are, and how much longer a text becomes."""
    rules: dict[str, Any] = {}
    for name, (begin, end) in sections.items():
        if name in ("model", "added_tokens"):
            continue
        if end - begin > MAX_SECTION_BYTES:
            raise oversized(path, end - begin, MAX_SECTION_BYTES)
        rules[name] = parsed(path, text[begin:end])
    growth = 1.0
    for key, found in _entries(rules):
        if key in ("Fixed", "pad_to_multiple_of") and not _at_most(found, MAX_PADDING):
            raise IntegrityError(
                f"{path}: {key} {shown(found)} would fill every text up to that many tokens; "
                "delete the entry"
            )
        if key == "content" and isinstance(found, str):
            growth *= max(1, len(found))
    if growth > MAX_GROWTH:
        raise IntegrityError(
            f"{path}: its rules could make a text {growth:,.0f} times as long, so a prompt might "
            "fill all memory; take the tokenizer of the model's own publisher"
        )


def _at_most(value: Any, most: int) -> bool:
    return value is None or (isinstance(value, (int, float)) and math.isfinite(value)
                             and value <= most)  # fmt: skip


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth; without recursion, since the file isn't trusted."""
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, dict):
            yield from ((str(key), found) for key, found in inner.items())
            waiting += inner.values()
        elif isinstance(inner, list):
            waiting += inner


def _texts(value: Any) -> Iterator[str]:
    """Templates stand alone, by name, or in a list of names and templates."""
    if isinstance(value, str):
        yield value
    for key, found in _entries(value):
        if isinstance(found, str) and key != "name":
            yield found
