"""Merged weights are what the formulas say, and what is examined is what was merged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokka.errors import UsageError
from tokka.training.start import Start

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft", reason="needs tokka[train]")
from safetensors.torch import load_file, save_file  # noqa: E402

from tokka.models.torch_model import load_module  # noqa: E402
from tokka.training import merge, weights_files  # noqa: E402
from tokka.training.merge import fold, interpolate, join, scaled_adapter  # noqa: E402

IDS = torch.tensor([[1, 9, 30, 12, 77, 41, 8]])
MATRIX = "model.layers.0.self_attn.q_proj.weight"
Make = Callable[..., Any]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def base(make_module: Make, make_tokenizer: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tied, with a template, a generation config of its own, and terms that travel."""
    folder = tmp_path_factory.mktemp("base")
    make_module("llama", num_hidden_layers=2, tie_word_embeddings=True).save_pretrained(str(folder))
    make_tokenizer(chat_template="{{ messages[0].content }}").save_pretrained(str(folder))
    (folder / "generation_config.json").write_text('{"do_sample": false, "temperature": 0.5}')
    (folder / "NOTICE").write_text("Terms that travel.")
    (folder / "README.md").write_text("Not this one.")
    return folder


@pytest.fixture(scope="module")
def adapter_of(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`adapter_of(seed, use_rslora=True)`: random, so that every layer differs."""

    def make(seed: int, base: Path = base, **how: Any) -> Path:
        folder = tmp_path_factory.mktemp("adapter")
        torch.manual_seed(seed)
        chosen = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear", **how}
        model = peft.get_peft_model(
            load_module(base, "float32"), peft.LoraConfig(task_type="CAUSAL_LM", **chosen)
        )
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name or "magnitude" in name:
                    weight.add_(0.1 * torch.randn_like(weight))
        model.save_pretrained(str(folder))
        return folder

    return make


@pytest.fixture(scope="module")
def start(base: Path, adapter_of: Callable[..., Path]) -> Start:
    return Start(base, "b" * 64, (adapter_of(1),))


@pytest.fixture(scope="module")
def origin(base: Path) -> Start:
    return Start(base, "b" * 64)


def logits(module: Any) -> Any:
    with torch.inference_mode():
        return module(input_ids=IDS).logits


def weights(folder: Path) -> dict[str, Any]:
    return dict(load_module(folder, "float32").state_dict())


def tuned(start: Start) -> dict[str, Any]:
    return dict(load_module(start.base, "float32", start.adapters).state_dict())


def furthest(some: dict[str, Any], others: dict[str, Any]) -> float:
    assert some.keys() == others.keys()
    return max(float((some[name] - others[name]).abs().max()) for name in some)


def test_a_folded_model_answers_as_base_and_adapters_do(
    start: Start, adapter_of: Callable[..., Path], tmp_path: Path
) -> None:
    """The unfolded side is PEFT's own forward of two adapters, the second trained on the first."""
    both = Start(start.base, start.digest, (*start.adapters, adapter_of(2, use_dora=True)))
    fold(tmp_path, both, "float32")
    once = load_module(start.base, "float32", start.adapters)
    unfolded = peft.PeftModel.from_pretrained(once, str(both.adapters[1])).eval()
    found = logits(load_module(tmp_path, "float32"))
    assert torch.allclose(found, logits(unfolded), atol=1e-5)
    assert not torch.allclose(found, logits(load_module(start.base, "float32")), atol=0.1)


def test_a_folded_folder_is_a_whole_model_and_says_from_what(start: Start, tmp_path: Path) -> None:
    fold(tmp_path, start)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "model.safetensors", "config.json", "generation_config.json", "tokenizer.json",
        "tokenizer_config.json", "chat_template.jinja", "NOTICE", "merge.json",
    }  # fmt: skip
    kept = names - {"model.safetensors", "config.json", "merge.json"}
    assert all((tmp_path / n).read_bytes() == (start.base / n).read_bytes() for n in kept)
    stored = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in stored  # tied embeddings stay tied
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["tie_word_embeddings"] is True and config["dtype"] == "bfloat16"
    assert str(start.base) not in (tmp_path / "config.json").read_text()
    assert json.loads((tmp_path / "merge.json").read_text()) == {
        "method": "fold",
        "dtype": "bfloat16",
        "tensors": len(stored),
        "inputs": [
            {
                "base": start.digest,
                "adapters": [merge.adapter_digest(start.adapters[0])],
            }
        ],
    }


def test_a_fold_gives_the_weights_that_were_examined(start: Start, tmp_path: Path) -> None:
    fold(tmp_path, start)
    examined = load_module(start.base, "bfloat16", start.adapters).state_dict()
    found = load_module(tmp_path, "bfloat16").state_dict()
    assert all(torch.equal(found[name], examined[name]) for name in examined)


def test_a_fold_without_an_adapter_is_refused(origin: Start, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fold found no adapter"):
        fold(tmp_path, origin)


# ---- part of the way ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 11}}])
def test_a_scaled_adapter_adds_that_much_of_what_the_adapter_adds(
    base: Path, origin: Start, adapter_of: Callable[..., Path], how: Any, tmp_path: Path
) -> None:
    adapter = adapter_of(3, **how)
    scaled_adapter(tmp_path, adapter, 0.3)
    begin, end = tuned(origin), tuned(Start(base, "", (adapter,)))
    between = {name: begin[name] + 0.3 * (end[name] - begin[name]) for name in begin}
    found = tuned(Start(base, "", (tmp_path,)))
    assert furthest(found, between) < 1e-6 < furthest(found, begin)
    same = (tmp_path / "adapter_config.json").read_bytes()
    assert same == (adapter / "adapter_config.json").read_bytes()


def test_a_scaled_adapter_still_names_the_base_it_belongs_to(start: Start, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(start.adapters[0], adapter)
    (adapter / "training.json").write_text('{"base_digest": "b"}')
    scaled_adapter(tmp_path / "half", adapter, 0.5)
    assert (tmp_path / "half" / "training.json").read_text() == '{"base_digest": "b"}'


@pytest.mark.parametrize("alpha", [0.0, 0.37, 1.0])
def test_an_adapter_goes_as_far_as_whole_weights_do(
    base: Path, start: Start, origin: Start, alpha: float, tmp_path: Path
) -> None:
    """The same tuned model twice: once as base and adapter, once as a whole model."""
    fold(tmp_path / "full", start, "float32")
    interpolate(tmp_path / "adapter", start, origin, alpha, "float32")
    full = Start(tmp_path / "full", "f" * 64)
    interpolate(tmp_path / "whole", full, origin, alpha, "float32")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    assert not (tmp_path / "whole" / "parts").exists()
    scaled = tuned(Start(base, "", (tmp_path / "adapter",)))
    assert furthest(weights(tmp_path / "whole"), scaled) < 1e-6


def test_alpha_0_is_the_origin_and_alpha_1_what_was_learnt_bit_for_bit(
    start: Start, origin: Start, adapter_of: Callable[..., Path], tmp_path: Path
) -> None:
    """Two adapters, so that the weights are written whole; bfloat16, as they are examined."""
    both = Start(start.base, start.digest, (*start.adapters, adapter_of(4)))
    interpolate(tmp_path / "0", both, origin, 0.0)
    interpolate(tmp_path / "1", both, origin, 1.0)
    fold(tmp_path / "fold", both)
    before = load_module(origin.base, "bfloat16").state_dict()
    at_0 = load_module(tmp_path / "0", "bfloat16").state_dict()
    assert all(torch.equal(at_0[name], before[name]) for name in before)
    one = (tmp_path / "1" / "model.safetensors").read_bytes()
    assert one == (tmp_path / "fold" / "model.safetensors").read_bytes()
    assert (tmp_path / "1" / "NOTICE").exists()


@pytest.mark.parametrize("how", [{"use_dora": True}, {"modules_to_save": ["norm"]}])
def test_what_is_no_plain_lora_is_not_scaled_but_written_whole(
    base: Path, origin: Start, adapter_of: Callable[..., Path], how: Any, tmp_path: Path
) -> None:
    adapter = adapter_of(5, **how)
    with pytest.raises(UsageError, match=r"can't be scaled.*merge\.interpolate"):
        scaled_adapter(tmp_path / "no", adapter, 0.5)
    start = Start(base, "", (adapter,))
    interpolate(tmp_path / "half", start, origin, 0.5, "float32")
    begin, end = tuned(origin), tuned(start)
    between = {name: begin[name] + 0.5 * (end[name] - begin[name]) for name in begin}
    assert furthest(weights(tmp_path / "half"), between) < 1e-6


def test_half_of_an_nf4_adapter_is_half_the_way_from_the_unrounded_base(
    start: Start, origin: Start, tmp_path: Path
) -> None:
    """Folding it rounds the base as well, which a scaled adapter would not undo."""
    pytest.importorskip("bitsandbytes", reason="needs tokka[qlora]")
    adapter = tmp_path / "adapter"
    shutil.copytree(start.adapters[0], adapter)
    (adapter / "training.json").write_text('{"quantisation": "nf4"}')
    rounded = Start(start.base, "", (adapter,))
    interpolate(tmp_path / "0", rounded, origin, 0.0, "float32")
    interpolate(tmp_path / "1", rounded, origin, 1.0, "float32")
    assert furthest(weights(tmp_path / "0"), weights(start.base)) == 0
    assert furthest(weights(tmp_path / "1"), tuned(rounded)) == 0
    assert furthest(tuned(rounded), tuned(start)) > 1e-3


@pytest.mark.parametrize("alpha", [-0.1, 1.5])
def test_an_alpha_beyond_both_ends_is_refused(
    start: Start, origin: Start, alpha: float, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"alpha must be .* got {alpha}"):
        scaled_adapter(tmp_path, start.adapters[0], alpha)
    with pytest.raises(UsageError, match="alpha must be"):
        interpolate(tmp_path, start, origin, alpha)


# ---- several together ---------------------------------------------------------------------------


def moved(folder: Path, base: Path, difference: list[float]) -> Start:
    """The base with these numbers added at the start of one matrix, and nothing else."""
    shutil.copytree(base, folder)
    tensors = load_file(folder / "model.safetensors")
    flat = tensors[MATRIX].reshape(-1)
    flat[: len(difference)] += torch.tensor(difference)
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return Start(folder, folder.name)


def learnt(folder: Path, base: Path, size: int) -> list[float]:
    found = weights(folder)[MATRIX] - weights(base)[MATRIX]
    return [round(number, 4) for number in found.reshape(-1)[:size].tolist()]


@pytest.fixture
def rounded(base: Path, tmp_path: Path) -> Path:
    """The base with zeros in the matrix that moves, so that differences are what was added."""
    folder = tmp_path / "rounded"
    shutil.copytree(base, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[MATRIX].zero_()
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return folder


def test_ties_trims_elects_and_averages_as_worked_out_by_hand(
    rounded: Path, tmp_path: Path
) -> None:
    """Yadav et al. 2023, algorithm 1, on a matrix of 1024 numbers at density 4/1024.

    Trim (the four largest magnitudes):   a:  3  -5   4   .   2   (0.5 is trimmed)
                                          b: -1   .   6   2  -8   (0.1 is trimmed)
    Elect the sign of the sum:                2  -5  10   2  -6
    Mean of those that agree:                 3  -5   5   2  -8
    """
    a = moved(tmp_path / "a", rounded, [3.0, -5.0, 4.0, 0.5, 2.0])
    b = moved(tmp_path / "b", rounded, [-1.0, 0.1, 6.0, 2.0, -8.0])
    origin = Start(rounded, "rounded")
    size = weights(rounded)[MATRIX].numel()
    join(tmp_path / "ties", origin, [a, b], "ties", density=4 / size, dtype="float32")
    assert learnt(tmp_path / "ties", rounded, 6) == [3.0, -5.0, 5.0, 2.0, -8.0, 0.0]
    told = json.loads((tmp_path / "ties" / "merge.json").read_text())
    assert told["method"] == "ties" and told["weights"] == [1.0, 1.0]
    assert [part["base"] for part in told["inputs"]] == ["rounded", "a", "b"]


def test_ties_weights_multiply_what_each_arm_learnt(rounded: Path, tmp_path: Path) -> None:
    a = moved(tmp_path / "a", rounded, [3.0, 4.0])
    b = moved(tmp_path / "b", rounded, [1.0, -1.0])
    origin = Start(rounded, "")
    join(tmp_path / "o", origin, [a, b], "ties", [0.5, 2.0], density=1.0, dtype="float32")
    assert learnt(tmp_path / "o", rounded, 3) == [(0.5 * 3 + 2 * 1) / 2, 0.5 * 4, 0.0]


def test_dare_that_drops_nothing_is_the_weighted_sum(rounded: Path, tmp_path: Path) -> None:
    a = moved(tmp_path / "a", rounded, [3.0, -5.0, 0.25])
    b = moved(tmp_path / "b", rounded, [-1.0, 0.5, 4.0])
    origin = Start(rounded, "")
    join(tmp_path / "o", origin, [a, b], "dare", [1.0, 2.0], density=1.0, dtype="float32")
    assert learnt(tmp_path / "o", rounded, 4) == [1.0, -4.0, 8.25, 0.0]


def test_dare_drops_by_its_seed_and_rescales_what_stays(rounded: Path, tmp_path: Path) -> None:
    """Each of 1,000 ones is 0 or 1 / density; the same seed drops the same, another does not."""
    a = moved(tmp_path / "a", rounded, [1.0] * 1000)
    b = moved(tmp_path / "b", rounded, [0.0])
    origin = Start(rounded, "")
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        torch.manual_seed(len(name))  # whatever the process drew before
        join(tmp_path / name, origin, [a, b], "dare", density=0.25, seed=seed, dtype="float32")
    one, other = (learnt(tmp_path / name, rounded, 1000) for name in ("one", "other"))
    assert set(one) == {0.0, 4.0} and 200 < one.count(4.0) < 300
    assert one != other
    for file in ("model.safetensors", "merge.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_small_differences_of_adapters_are_joined_before_they_are_rounded(
    base: Path, start: Start, origin: Start, adapter_of: Callable[..., Path], tmp_path: Path
) -> None:
    """DARE without dropping is the sum of both adapters, rounded to bfloat16 once."""
    other = adapter_of(6)
    join(tmp_path, origin, [start, Start(base, "", (other,))], "dare", density=1.0)
    exact = load_module(base, "float32", (*start.adapters, other)).state_dict()
    found = load_module(tmp_path, "bfloat16").state_dict()
    off = max(
        float((found[n].float() - exact[n]).abs().max() / exact[n].abs().max()) for n in exact
    )
    assert off < 2**-8
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["dtype"] == "bfloat16" and config["tie_word_embeddings"] is True
    assert not (tmp_path / "parts").exists()


def test_shards_change_no_number_and_are_kept(
    base: Path, rounded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = moved(tmp_path / "a", rounded, [1.0] * 50)
    b = moved(tmp_path / "b", rounded, [2.0] * 50)
    origin = Start(rounded, "")
    join(tmp_path / "one", origin, [a, b], "dare", density=0.5, dtype="float32")
    monkeypatch.setattr(weights_files, "SHARD_BYTES", 20_000)
    weights_files.write_model(tmp_path / "many", load_module(a.base, "float32"), rounded)
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    sharded = Start(tmp_path / "many", "")
    join(tmp_path / "two", origin, [sharded, b], "dare", density=0.5, dtype="float32")
    assert len(list((tmp_path / "two").glob("*.safetensors"))) > 2
    assert furthest(weights(tmp_path / "one"), weights(tmp_path / "two")) == 0


def test_an_origin_that_stores_its_tied_head_twice_is_still_merged(
    base: Path, start: Start, tmp_path: Path
) -> None:
    """Older checkpoints keep `lm_head.weight` beside the embedding that it is tied to."""
    twice = tmp_path / "twice"
    shutil.copytree(base, twice)
    tensors = load_file(twice / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, str(twice / "model.safetensors"), metadata={"format": "pt"})
    fold(tmp_path / "full", start, "float32")
    interpolate(tmp_path / "o", Start(tmp_path / "full", ""), Start(twice, ""), 0.0, "float32")
    assert "lm_head.weight" not in load_file(tmp_path / "o" / "model.safetensors")
    assert furthest(weights(tmp_path / "o"), weights(base)) == 0


def test_models_that_do_not_match_are_refused_with_both_digests(
    base: Path, origin: Start, make_module: Make, make_tokenizer: Make, tmp_path: Path
) -> None:
    deeper = tmp_path / "deeper"
    make_module("llama", num_hidden_layers=3, tie_word_embeddings=True).save_pretrained(str(deeper))
    weights_files.copy_papers(base, deeper)
    with pytest.raises(UsageError, match=f"deeper.*{'d' * 64}.*{'b' * 64}.*layers.2"):
        interpolate(tmp_path / "o", Start(deeper, "d" * 64), origin, 0.5)
    spoken = tmp_path / "spoken"
    shutil.copytree(base, spoken)
    make_tokenizer(specials=("<a>", "<b>")).save_pretrained(str(spoken))
    other = Start(spoken, "s" * 64)
    with pytest.raises(UsageError, match=f"{'s' * 64}.*another tokenizer.*{'b' * 64}"):
        join(tmp_path / "o", origin, [origin, other], "ties")


@pytest.mark.parametrize(
    ("others", "how"), [(1, {}), (2, {"weights": [1.0]}), (2, {"density": 0.0})]
)
def test_a_join_that_says_too_little_is_refused(
    origin: Start, others: int, how: Any, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="merge:"):
        join(tmp_path, origin, [origin] * others, "ties", **how)
