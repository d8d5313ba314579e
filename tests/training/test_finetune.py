"""An adapter learns, only an adapter learns, and a killed training ends in the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokka.errors import TokkaError
from tokka.models.rendering import TokenRenderer
from tokka.records import FinetuneSpec, Message
from tokka.training.lessons import Lesson, lesson, plan_batches

torch = pytest.importorskip("torch")
pytest.importorskip("peft", reason="needs tokka[train]")
from tokka.models import torch_model  # noqa: E402
from tokka.training.finetune import finetune  # noqa: E402

SOURCE = Path(__file__).parents[2] / "src"
SPEC = FinetuneSpec(
    data="examples.jsonl", rank=4, epochs=4, batch_examples=3, learning_rate=1e-2, seed=7
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def lessons(make_tokenizer: Callable[..., Any]) -> list[Lesson]:
    """Fourteen of them, of different lengths: 20 steps under SPEC."""
    renderer = TokenRenderer(make_tokenizer(), "en")
    return [
        lesson(f"e{n}", (Message(role="user", content=f"Question: {'very ' * (n % 3)}{n}?"),),
               "blue" if n % 2 else "blue and grey", renderer, 128)
        for n in range(14)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(
    tiny_folder: Path, lessons: list[Lesson], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """One uninterrupted training."""
    folder = tmp_path_factory.mktemp("trained")
    finetune(folder, tiny_folder, "base digest", lessons, SPEC, dtype="float32")
    return folder


def curve(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]


def mean_loss(module: Any, some: list[Lesson]) -> float:
    """Naive cross-entropy over the answers' tokens."""
    total = count = 0.0
    with torch.inference_mode():
        for item in some:
            logits = module(input_ids=torch.tensor([item.ids])).logits[0, item.start - 1 : -1]
            goal = torch.tensor(item.ids[item.start :])
            total += float(torch.nn.functional.cross_entropy(logits, goal, reduction="sum"))
            count += len(goal)
    return total / count


def test_the_loss_falls_and_the_opened_adapter_has_learnt(
    trained: Path, tiny_folder: Path, lessons: list[Lesson]
) -> None:
    losses = [row["loss"] for row in curve(trained)]
    assert len(losses) == len(plan_batches(lessons, SPEC))
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])
    base = mean_loss(torch_model.load_module(tiny_folder, "float32"), lessons)
    tuned = mean_loss(torch_model.load_module(tiny_folder, "float32", trained), lessons)
    assert tuned < 0.6 * base


def test_the_first_loss_is_the_base_models_own(
    trained: Path, tiny_folder: Path, lessons: list[Lesson]
) -> None:
    """A new adapter changes nothing yet, so masks and positions must give the naive mean.

    Pitfalls 8 and 9: padding and neighbours don't leak into it, the mean is over tokens.
    """
    first = [lessons[i] for i in plan_batches(lessons, SPEC)[0]]
    assert len({len(item.ids) for item in first}) > 1  # some of it is padded
    naive = mean_loss(torch_model.load_module(tiny_folder, "float32"), first)
    assert curve(trained)[0]["loss"] == pytest.approx(naive, abs=2e-4)


def test_only_the_adapter_learns(
    tiny_folder: Path, lessons: list[Lesson], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    load = torch_model.load_module

    def keep(*how: Any) -> Any:
        kept.append(load(*how))
        return kept[0]

    monkeypatch.setattr(torch_model, "load_module", keep)
    before = dict(load(tiny_folder, "float32").named_parameters())
    finetune(tmp_path, tiny_folder, "d", lessons, SPEC.model_copy(update={"epochs": 1}),
             dtype="float32")  # fmt: skip
    parameters = dict(kept[0].named_parameters())
    frozen = {name: p for name, p in parameters.items() if "lora_" not in name}
    assert {name.replace(".base_layer", "") for name in frozen} == set(before)
    for name, parameter in frozen.items():
        assert torch.equal(parameter, before[name.replace(".base_layer", "")]), name
        assert not parameter.requires_grad
    moved = [p for name, p in parameters.items() if "lora_B" in name]
    assert moved and all(p.abs().max() > 0 for p in moved)  # B is zero until it learns
    from safetensors import safe_open

    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as saved:
        assert all("lora_" in name for name in saved.keys())  # noqa: SIM118
    learnt = json.loads((tmp_path / "training.json").read_text())["parameters"]
    assert learnt == sum(p.numel() for name, p in parameters.items() if "lora_" in name)


def test_the_evidence_says_what_was_done(trained: Path, lessons: list[Lesson]) -> None:
    plan = plan_batches(lessons, SPEC)
    used = [lessons[i] for batch in plan for i in batch]
    told = json.loads((trained / "training.json").read_text())
    assert told.pop("parameters") > 0
    assert told == {
        "base_digest": "base digest",
        "spec": SPEC.model_dump(mode="json"),
        "alpha": 8.0,
        "steps": len(plan),
        "lessons": 4 * len(lessons),
        "examples": len(lessons),
        "tokens": sum(len(item.ids) for item in used),
        "supervised_tokens": sum(len(item.ids) - item.start for item in used),
        "dtype": "float32",
    }
    assert [row["step"] for row in curve(trained)] == list(range(1, len(plan) + 1))
    rates = [row["learning_rate"] for row in curve(trained)]
    assert max(rates) == pytest.approx(1e-2) and rates[0] < max(rates) > 20 * rates[-1]
    config = json.loads((trained / "adapter_config.json").read_text())
    # Neither this machine's path nor this process's order of a set: they would reach the digest.
    assert config["base_model_name_or_path"] is None
    assert config["target_modules"] == sorted(config["target_modules"])
    assert (config["r"], config["lora_alpha"]) == (4, 8.0)
    assert sorted(p.name for p in trained.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "curve.jsonl", "training.json",
    ]  # fmt: skip


def test_training_stops_at_max_train_tokens(
    tiny_folder: Path, lessons: list[Lesson], tmp_path: Path
) -> None:
    limit = sum(len(item.ids) for item in lessons) // 2
    spec = SPEC.model_copy(update={"max_train_tokens": limit, "alpha": 1.0})
    seen: list[int] = []
    finetune(tmp_path, tiny_folder, "d", lessons, spec,
             lambda tokens, loss: seen.append(tokens), dtype="float32")  # fmt: skip
    told = json.loads((tmp_path / "training.json").read_text())
    assert limit / 2 < told["tokens"] <= limit
    assert told["alpha"] == 1.0
    assert sum(seen) == told["tokens"]
    assert len(seen) == told["steps"] == len(curve(tmp_path))


def test_a_loss_that_is_no_number_stops_training_with_what_to_change(
    tiny_folder: Path, lessons: list[Lesson], tmp_path: Path
) -> None:
    spec = SPEC.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TokkaError, match=r"the loss is nan at step \d+; lower learning_rate") as e:
        finetune(tmp_path, tiny_folder, "d", lessons, spec, dtype="float32")
    assert "1e+30" in str(e.value)
    assert not (tmp_path / "adapter_model.safetensors").exists()


# ---- kills --------------------------------------------------------------------------------------

CHILD = """
import json, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from tokka.records import FinetuneSpec
from tokka.training.finetune import finetune
from tokka.training.lessons import Lesson
folder, base, lessons, spec = sys.argv[1:]
rows = [Lesson(e, tuple(ids), start) for e, ids, start in json.loads(lessons)]
finetune(Path(folder), Path(base), "base digest", rows, FinetuneSpec.model_validate_json(spec),
         lambda tokens, loss: time.sleep(0.1), dtype="float32")
"""


def test_a_killed_training_resumes_to_the_same_bits(
    trained: Path, tiny_folder: Path, lessons: list[Lesson], tmp_path: Path
) -> None:
    """SIGKILL after the first checkpoint. Pitfall 10: resuming changes the order of the data."""
    folder = tmp_path / "finetune.partial"
    rows = json.dumps([[item.example_id, item.ids, item.start] for item in lessons])
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, folder, tiny_folder, rows, SPEC.model_dump_json()],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(folder.glob("checkpoints/checkpoint-*/trainer_state.json")):
        assert child.poll() is None, child.stderr.read() if child.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.15)  # into the steps after it, which are lost
    child.kill()
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert not (folder / "adapter_model.safetensors").exists()
    # A kill in the middle of a later checkpoint leaves one that can't be read.
    half = folder / "checkpoints" / "checkpoint-9999"
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"half")

    seen: list[int] = []
    finetune(folder, tiny_folder, "base digest", lessons, SPEC,
             lambda tokens, loss: seen.append(tokens), dtype="float32")  # fmt: skip
    assert 0 < len(seen) < len(curve(trained))  # it did go on, not start again
    for name in [p.name for p in trained.iterdir()]:
        assert (folder / name).read_bytes() == (trained / name).read_bytes(), name
    assert not (folder / "checkpoints").exists()
    assert sum(seen) == json.loads((folder / "training.json").read_text())["tokens"]


@pytest.mark.parametrize("state", [None, "", '{"global_step": 5, "log_hi'])
def test_a_checkpoint_killed_while_it_was_written_is_passed_over(
    tmp_path: Path, state: str | None
) -> None:
    from tokka.training.finetune import _checkpoint

    for step, text in ((9, '{"global_step": 9}'), (10, '{"global_step": 10}'), (100, state)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if text is not None:
            (folder / "trainer_state.json").write_text(text)
    assert _checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert _checkpoint(tmp_path / "absent") is None
