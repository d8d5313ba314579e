"""Exported files beside what they were made from: whatever got lost shows here, before any exam.

Folder and source → faults, each a sentence. Tensor by tensor: safetensors must hold the source's
very numbers, a GGUF numbers as near to them as its bits allow. Tokens, template and the marks that
end an answer must be the source's.

    checked = check_export(folder, source, adapters, dtype="bfloat16", template="")
    checked.faults, checked.identical
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokka.models.opening import GGUF
from tokka.store import read_json, sha256_file
from tokka.training.gguf_file import Header, Tensor, read_header, rows_of
from tokka.training.weights_files import Weights, tokenizer_digest

ROWS = 4096  # of a matrix, in float32 at a time
SHOWN = 3
# Root mean square of what was lost, as a share of the numbers' own: of a whole tensor, and of its
# worst row. Normal weights lose 0.5, 1.8, 4.3 and 7.1 % as Q8_0, Q6_K, Q5_0 and Q4_K, heavy-tailed
# ones (Student's t, 3 degrees of freedom) 0.8, 2.6, 6.6 and 9.3 %, a worst row of them 11 %.
LIMITS = {
    "F32": (1e-3, 1e-2),
    "F16": (2e-3, 2e-2),
    "Q8_0": (0.02, 0.06),
    "Q6_K": (0.06, 0.2),
    "Q5_0": (0.12, 0.4),
    "Q4_K": (0.2, 0.6),
}


@dataclass(frozen=True, slots=True)
class Checked:
    """`identical`: the weights are the source's, bit for bit."""

    faults: tuple[str, ...]
    identical: bool


def check_export(
    folder: Path,
    source: Path,
    adapters: Sequence[Path] = (),
    *,
    dtype: str = "bfloat16",
    template: str = "",
) -> Checked:
    """Check an exported folder against the folder or GGUF file that it was made from. `template` is
    the chat template that it was given, where the source has none."""
    if source.is_file():
        same = sha256_file(folder / GGUF) == sha256_file(source)
        return Checked(() if same else ("model.gguf isn't the base model's file",), same)
    faults = _tokenizer_faults(folder, source)
    if (source / GGUF).is_file():
        same = sha256_file(folder / GGUF) == sha256_file(source / GGUF)
        if not same:
            faults.append("model.gguf isn't the file that was examined")
        return Checked(tuple(faults), same)
    faults += _end_faults(folder, source)
    if (folder / GGUF).is_file():
        faults += _gguf_faults(folder / GGUF, source, template)
        return Checked(tuple(faults), False)
    lost = _safetensors_faults(folder, source, adapters, dtype)
    return Checked((*faults, *lost), not lost)


# ---- tokens and ends --------------------------------------------------------------------------


def _tokenizer_faults(folder: Path, source: Path) -> list[str]:
    if tokenizer_digest(folder) == tokenizer_digest(source):
        return []
    return ["its tokenizer's files aren't those of the model that was examined"]


def _end_faults(folder: Path, source: Path) -> list[str]:
    """generation_config.json must name what ends an answer: other programs go by it."""
    from tokka.models.opening import open_renderer

    ends = set(open_renderer(source, "en").stop_ids)
    path = folder / "generation_config.json"
    told = read_json(path).get("eos_token_id") if path.is_file() else None
    named = {told} if isinstance(told, int) else set(told or ())
    if named == ends:
        return []
    return [
        f"generation_config.json ends an answer at the tokens {sorted(named)}, the examined model "
        f"at {sorted(ends)}"
    ]


def _tokenizer(source: Path, template: str) -> Any:
    from transformers import AutoTokenizer

    where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(str(source), **where)
    if template:
        tokenizer.chat_template = template
    return tokenizer


def _mark_faults(header: Header, tokenizer: Any) -> list[str]:
    from tokka.training.gguf_tokens import marks_of

    faults = []
    for key, wanted in marks_of(tokenizer).items():
        found = header.settings.get(key)
        if found == wanted:
            continue
        if key == "tokenizer.chat_template":
            faults.append("the chat template in model.gguf isn't the one that was examined")
        else:
            faults.append(f"{key} in model.gguf is {found}, in the examined tokenizer {wanted}")
    return faults


def _token_faults(header: Header, tokenizer: Any) -> list[str]:
    from tokka.training.gguf_tokens import texts_of

    wanted = texts_of(tokenizer, len(header.tokens))
    pairs = zip(header.tokens, wanted, strict=True)
    different = [place for place, (mine, theirs) in enumerate(pairs) if mine != theirs]
    if not different:
        return []
    return [
        f"{len(different)} of {len(wanted)} tokens in model.gguf aren't the examined tokenizer's, "
        f"the first is token {different[0]}"
    ]


# ---- tensors ----------------------------------------------------------------------------------


def _safetensors_faults(
    folder: Path, source: Path, adapters: Sequence[Path], dtype: str
) -> list[str]:
    import torch

    if not adapters and read_json(folder / "config.json") != read_json(source / "config.json"):
        return ["config.json isn't the examined model's"]
    found = Weights(folder)
    wanted: Mapping[str, Any] = Weights(source)
    if adapters:
        from tokka.models.torch_model import load_module

        wanted = load_module(source, dtype, adapters).state_dict()
        wanted = {name: wanted[name] for name in wanted if name in found or not _tied(wanted, name)}
    faults = _name_faults(
        {name: tuple(found[name].shape) for name in found},
        {name: tuple(wanted[name].shape) for name in wanted},
    )
    if faults:
        return faults
    changed, wild = [], []
    for name in found:
        mine, theirs = found[name], wanted[name]
        if mine.is_floating_point() and not bool(torch.isfinite(mine).all()):
            wild.append(name)
        if mine.dtype != theirs.dtype or not torch.equal(mine, theirs):
            changed.append(name)
    return _named("no numbers (NaN or infinity) stand in", wild) + _named(
        "these tensors aren't the examined ones:", [n for n in changed if n not in wild]
    )


def _tied(state: Mapping[str, Any], name: str) -> bool:
    """Whether a tensor shares its memory with one before it, and is written once."""
    address = state[name].data_ptr()
    return any(state[n].data_ptr() == address for n in state if n != name)


def _gguf_faults(path: Path, source: Path, template: str) -> list[str]:
    header = read_header(path)
    tokenizer = _tokenizer(source, template)
    wanted = _Wanted(source)
    faults = _mark_faults(header, tokenizer) + _token_faults(header, tokenizer)
    faults += wanted.setting_faults(header)
    named = _name_faults({n: t.shape for n, t in header.tensors.items()}, wanted.shapes())
    if named:
        return faults + named
    wild, far = [], []
    for name, tensor in header.tensors.items():
        loss = _lost(path, header, name, wanted.rows(name))
        if loss is None:
            wild.append(name)
        elif _too_much(tensor, *loss):
            far.append(f"{name} ({100 * loss[0]:.1f} %)")
    return (
        faults
        + _named("no numbers (NaN or infinity) stand in", wild)
        + _named("these tensors lost more than their bits explain:", far)
    )


class _Wanted:
    """The source's tensors as a GGUF names and orders them."""

    def __init__(self, source: Path) -> None:
        from transformers import AutoConfig

        from tokka.training.gguf_layers import family_of, name_of, rope_factors

        where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        self._config = AutoConfig.from_pretrained(str(source), **where).get_text_config()
        self._family = family_of(self._config)
        self._weights = Weights(source)
        self._factors = rope_factors(self._config)
        self._name = {
            target: name
            for name in self._weights
            if (target := name_of(self._family, self._config, name)) is not None
        }

    def setting_faults(self, header: Header) -> list[str]:
        """How wide, how deep, which rope: a wrong one computes, and computes something else."""
        import gguf
        import numpy as np

        from tokka.training.gguf_layers import write_settings

        writer = gguf.GGUFWriter("", self._family.architecture)
        write_settings(writer, self._family, self._config)
        faults = []
        for key, entry in writer.kv_data[0].items():
            value = entry.value
            wanted = float(np.float32(value)) if isinstance(value, float) else value
            if header.settings.get(key) != wanted:
                faults.append(f"{key} in model.gguf is {header.settings.get(key)}, not {wanted}")
        return faults

    def shapes(self) -> dict[str, tuple[int, ...]]:
        found = {t: self._weights.shape(n) for t, n in self._name.items()}
        if self._factors is not None:
            found["rope_freqs.weight"] = (len(self._factors),)
        return found

    def rows(self, name: str) -> Iterator[Any]:
        import numpy as np

        from tokka.training.gguf_layers import prepare

        if name == "rope_freqs.weight":
            yield np.array([self._factors], dtype=np.float32)
            return
        tensor = prepare(self._family, self._config, name, self._weights[self._name[name]])
        if tensor.ndim == 1:
            tensor = tensor[None]
        for first in range(0, tensor.shape[0], ROWS):
            yield tensor[first : first + ROWS].float().numpy()


def _lost(
    path: Path, header: Header, name: str, wanted: Iterator[Any]
) -> tuple[float, float] | None:
    """What a tensor lost, as a share: of the whole, and of its worst row; None where something in
    it is no number. A row far below the others is held against a tenth of their size."""
    import numpy as np

    gaps, sizes = [], []
    for mine, theirs in zip(rows_of(path, header, name, ROWS), wanted, strict=True):
        if not np.isfinite(mine).all():
            return None
        gaps.append(np.square(mine - theirs, dtype=np.float64).mean(axis=1))
        sizes.append(np.square(theirs, dtype=np.float64).mean(axis=1))
    gap, size = np.concatenate(gaps), np.concatenate(sizes)
    whole = float(size.mean())
    if whole == 0:
        return float(gap.max() > 0), float(gap.max() > 0)
    worst = np.sqrt(gap / np.maximum(size, whole / 100)).max()
    return float(np.sqrt(gap.mean() / whole)), float(worst)


def _too_much(tensor: Tensor, whole: float, worst: float) -> bool:
    import gguf

    of_all, of_row = LIMITS.get(gguf.GGMLQuantizationType(tensor.kind).name, (0.0, 0.0))
    return whole > of_all or worst > of_row


def _name_faults(
    found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]
) -> list[str]:
    different = sorted(found.keys() ^ wanted.keys()) or sorted(
        name for name in found if found[name] != wanted[name]
    )
    if not different:
        return []
    return [
        f"the file holds {len(found)} tensors and the examined model {len(wanted)}; {different[0]} "
        f"is {found.get(different[0], 'missing')} in the one and "
        f"{wanted.get(different[0], 'missing')} in the other"
    ]


def _named(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{what} {', '.join(names[:SHOWN])}{more}"]
