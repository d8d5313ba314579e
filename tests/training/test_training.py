"""What is trained learns, only that learns, and a killed training ends in the same bits."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from families import make

from tokka.errors import TokkaError
from tokka.models.rendering import TokenRenderer
from tokka.records import (
    FinetuneSpec,
    Message,
    PretrainSpec,
    PullSpec,
    ReplaySpec,
    TrainingSpec,
)
from tokka.training.lessons import Lesson, lesson, plan_batches
from tokka.training.packing import pack

torch = pytest.importorskip("torch")
pytest.importorskip("peft", reason="needs tokka[train]")
from tokka.models import torch_model  # noqa: E402
from tokka.training import step as step_module  # noqa: E402
from tokka.training.start import Start  # noqa: E402
from tokka.training.training import newest_checkpoint, train  # noqa: E402

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
    train(folder, Start(tiny_folder, "base digest"), lessons, SPEC, dtype="float32")
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
    tuned = mean_loss(torch_model.load_module(tiny_folder, "float32", [trained]), lessons)
    assert tuned < 0.6 * base


def test_the_first_loss_is_the_base_models_own(
    trained: Path, tiny_folder: Path, lessons: list[Lesson]
) -> None:
    """A new adapter changes nothing yet, so masks and positions must give the naive mean.

    Pitfalls 8 and 9: padding and neighbours don't leak into it, the mean is over tokens.
    """
    first = [lessons[i] for i in plan_batches(lessons, SPEC)[0]]
    assert len({len(item.ids) for item in first}) > 1
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
    spec = SPEC.model_copy(update={"epochs": 1})
    train(tmp_path, Start(tiny_folder, "d"), lessons, spec, dtype="float32")
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
        "place": "finetune",
        "learning_rate": 1e-2,
        "alpha": 8.0,
        "steps": len(plan),
        "lessons": 4 * len(lessons),
        "examples": len(lessons),
        "tokens": sum(len(item.ids) for item in used),
        "read_tokens": sum(len(pack([lessons[i] for i in batch]).ids) for batch in plan),
        "replay_tokens": 0,
        "supervised_tokens": sum(len(item.ids) - item.start for item in used),
        "packed": True,
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
    assert {path.name for path in trained.iterdir()} - {"tensorboard", "mlflow.db"} == {
        "adapter_config.json", "adapter_model.safetensors", "curve.jsonl", "speed.json",
        "training.json",
    }  # fmt: skip


def test_training_stops_at_max_train_tokens(
    tiny_folder: Path, lessons: list[Lesson], tmp_path: Path
) -> None:
    limit = sum(len(item.ids) for item in lessons) // 2
    spec = SPEC.model_copy(update={"max_train_tokens": limit, "alpha": 1.0})
    seen: list[int] = []
    start = Start(tiny_folder, "d")
    train(tmp_path, start, lessons, spec, progress=lambda n, _: seen.append(n), dtype="float32")
    told = json.loads((tmp_path / "training.json").read_text())
    assert limit / 2 < told["tokens"] <= limit
    assert told["alpha"] == 1.0
    assert sum(seen) == told["tokens"]
    assert len(seen) == told["steps"] == len(curve(tmp_path))


# ---- what a step is -----------------------------------------------------------------------------


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    (found,) = (load_file(p) for p in folder.glob("*model.safetensors"))
    return dict(found)


def opened(folder: Path, base: Path) -> Any:
    whole = (folder / "config.json").exists()
    return torch_model.load_module(folder if whole else base, "float32", [] if whole else [folder])


def distance(now: Any, first: Any, _: list[Lesson]) -> float:
    """Between the weights: a Euclidean length."""
    pairs = zip(now.parameters(), first.parameters(), strict=True)
    return float(sum((a - b).detach().double().square().sum() for a, b in pairs)) ** 0.5


def divergence(now: Any, first: Any, some: list[Lesson]) -> float:
    """KL(first ‖ now) in nats, a mean over what is learnt."""
    found = []
    with torch.inference_mode():
        for item in some:
            ids = torch.tensor([item.ids])
            own, base = (torch.log_softmax(m(ids).logits[0, item.start - 1 : -1], -1)
                         for m in (now, first))  # fmt: skip
            found.append((base.exp() * (base - own)).sum(dim=1))
    return float(torch.cat(found).mean())


@pytest.mark.parametrize("pull", [PullSpec(), PullSpec(kl=0.5, l2=0.5)], ids=["alone", "pulled"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_half_batches_make_the_step_that_one_batch_makes(
    tiny_folder: Path, lessons: list[Lesson], tmp_path: Path, method: str, pull: PullSpec
) -> None:
    """Pitfall 9: the mean is over the tokens of a step, not over batches of different size; a pull
    counts once a step."""
    assert len({item.supervised for item in lessons}) > 1
    found = []
    for accumulate in (1, 2):
        spec = SPEC.model_copy(
            update={"method": method, "accumulate": accumulate, "batch_examples": 4 // accumulate,
                    "learning_rate": 1e-3, "epochs": 2, "pull": pull}
        )  # fmt: skip
        folder = tmp_path / str(accumulate)
        train(folder, Start(tiny_folder, "d"), lessons[:12], spec, dtype="float32")
        found.append((weights(folder), curve(folder)))
    (one, rows), (two, other_rows) = found
    assert len(rows) == 6
    for row, other in zip(rows, other_rows, strict=True):
        assert row == {key: pytest.approx(value, rel=1e-4) for key, value in other.items()}
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=2e-5, rtol=1e-4, msg=name)


def test_a_pull_costs_nothing_at_the_start_and_shows_in_the_loss_later(
    tiny_folder: Path, lessons: list[Lesson], tmp_path: Path, trained: Path
) -> None:
    spec = SPEC.model_copy(update={"epochs": 1, "pull": PullSpec(kl=1.0, l2=1.0)})
    train(tmp_path, Start(tiny_folder, "d"), lessons, spec, dtype="float32")
    pulled, free = curve(tmp_path), curve(trained)
    assert pulled[0]["loss"] == pytest.approx(free[0]["loss"], abs=1e-6)
    assert pulled[-1]["loss"] > free[len(pulled) - 1]["loss"] + 0.05


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_strong_pull_holds_a_training_where_it_began(
    tiny_folder: Path, lessons: list[Lesson], tmp_path: Path, method: str
) -> None:
    """KL holds what is said, L2 the weights."""
    rate = 1e-2 if method == "lora" else 2e-3
    free = SPEC.model_copy(update={"method": method, "epochs": 2, "learning_rate": rate})
    first = torch_model.load_module(tiny_folder, "float32")
    found = {}
    for name, pull in (("free", PullSpec()), ("kl", PullSpec(kl=1e3)), ("l2", PullSpec(l2=1e3))):
        spec = free.model_copy(update={"pull": pull})
        train(tmp_path / name, Start(tiny_folder, "d"), lessons, spec, dtype="float32")
        found[name] = opened(tmp_path / name, tiny_folder)
    for name, measure in (("kl", divergence), ("l2", distance)):
        held, gone = (measure(found[n], first, lessons) for n in (name, "free"))
        assert held < 0.2 * gone, (name, held, gone)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_computing_layers_again_changes_no_bit(
    tiny_folder: Path,
    lessons: list[Lesson],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    calls: list[int] = []
    load = torch_model.load_module

    def counted(*how: Any) -> Any:
        module = load(*how)
        layer = module.get_decoder().layers[0].mlp
        layer.register_forward_pre_hook(lambda *_: calls.append(1))
        return module

    monkeypatch.setattr(torch_model, "load_module", counted)
    found = []
    for recompute in (False, True):
        spec = SPEC.model_copy(update={"epochs": 1, "recompute": recompute, "method": method})
        folder = tmp_path / str(recompute)
        train(folder, Start(tiny_folder, "d"), lessons, spec, dtype="float32")
        found.append((weights(folder), len(calls)))
        calls.clear()
    (kept, once), (again, twice) = found
    assert twice == 2 * once > 0
    assert all(torch.equal(again[name], value) for name, value in kept.items())


def test_replay_takes_its_share_of_the_tokens_and_is_learnt(
    tiny_folder: Path, lessons: list[Lesson], tmp_path: Path
) -> None:
    general = general_texts(tiny_folder)
    spec = SPEC.model_copy(update={"replay": ReplaySpec(data="-", share=0.25)})
    start = Start(tiny_folder, "d")
    train(tmp_path, start, lessons, spec, replay=general, dtype="float32")
    told = json.loads((tmp_path / "training.json").read_text())
    assert told["replay_tokens"] / told["tokens"] == pytest.approx(0.25, abs=0.02)
    assert told["examples"] == len(lessons) + len(general)
    base = mean_loss(torch_model.load_module(tiny_folder, "float32"), general)
    assert mean_loss(torch_model.load_module(tiny_folder, "float32", [tmp_path]), general) < base


def general_texts(base: Path) -> list[Lesson]:
    """Six texts of twenty tokens, all learnt."""
    words = json.loads((base / "config.json").read_text())["vocab_size"]
    draw = random.Random(4)
    texts = [tuple(draw.randrange(5, words) for _ in range(20)) for _ in range(6)]
    return [Lesson(f"g{n}", ids, ((1, 20),), "replay") for n, ids in enumerate(texts)]


def test_a_stage_goes_on_from_the_adapters_before_it(
    tiny_folder: Path, lessons: list[Lesson], trained: Path, tmp_path: Path
) -> None:
    spec = SPEC.model_copy(update={"epochs": 1, "learning_rate": 1e-3})
    start = Start(tiny_folder, "d", (trained,))
    train(tmp_path, start, lessons, spec, dtype="float32")
    first = [lessons[i] for i in plan_batches(lessons, spec)[0]]
    before = torch_model.load_module(tiny_folder, "float32", [trained])
    assert curve(tmp_path)[0]["loss"] == pytest.approx(mean_loss(before, first), abs=2e-4)
    after = torch_model.load_module(tiny_folder, "float32", [trained, tmp_path])
    assert mean_loss(after, lessons) < mean_loss(before, lessons)


# ---- whole weights ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tied_folder(
    make_module: Callable[..., Any],
    make_tokenizer: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A random Llama in bfloat16 that looks its words up in its head."""
    folder = tmp_path_factory.mktemp("tied")
    module = make_module("llama", num_hidden_layers=2, tie_word_embeddings=True)
    module.bfloat16().save_pretrained(str(folder))
    make_tokenizer().save_pretrained(str(folder))
    return folder


def test_a_full_training_leaves_a_whole_model_that_opens(
    tied_folder: Path, lessons: list[Lesson], tmp_path: Path
) -> None:
    from tokka.models.opening import open_model

    spec = SPEC.model_copy(update={"method": "full", "learning_rate": 3e-3, "checkpoints": 1})
    train(tmp_path, Start(tied_folder, "base digest"), lessons, spec)
    base = torch_model.load_module(tied_folder, "float32")
    for folder in (tmp_path, tmp_path / "states" / "1"):
        for path in tied_folder.iterdir():
            if path.name != "model.safetensors":
                assert (folder / path.name).read_bytes() == path.read_bytes(), path.name
        stored = weights(folder)
        assert {value.dtype for value in stored.values()} == {torch.bfloat16}
        assert set(stored) == set(weights(tied_folder))  # the head once
        module = torch_model.load_module(folder, "float32")
        head, embedding = module.get_output_embeddings(), module.get_input_embeddings()
        assert head.weight.data_ptr() == embedding.weight.data_ptr()
        assert mean_loss(module, lessons) < 0.8 * mean_loss(base, lessons)
        moved = dict(module.named_parameters())
        assert all(not torch.equal(moved[n], p) for n, p in base.named_parameters())
    told = json.loads((tmp_path / "training.json").read_text())
    assert told["parameters"] == sum(p.numel() for p in base.parameters())
    assert told["alpha"] is None and told["dtype"] == "bfloat16"
    with open_model(str(tied_folder), weights=tmp_path, dtype="float32") as model:
        assert model.capabilities.max_context_tokens == 128


def test_an_embeddings_gradient_as_rows_trains_the_same_weights(
    tied_folder: Path, lessons: list[Lesson], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SPEC.model_copy(update={"method": "full", "learning_rate": 3e-3, "max_grad_norm": 0.5})
    start = Start(tied_folder, "base digest")
    train(tmp_path / "rows", start, lessons, spec, dtype="float32")
    monkeypatch.setattr("tokka.training.training._among_others", lambda: True)
    train(tmp_path / "matrix", start, lessons, spec, dtype="float32")
    rows, matrix = weights(tmp_path / "rows"), weights(tmp_path / "matrix")
    for name, value in matrix.items():
        torch.testing.assert_close(rows[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("family", ["gemma3", "phi3", "mixtral", "gpt2"])
def test_families_learn_in_bfloat16_and_load_as_they_were_trained(
    family: str, method: str, tmp_path: Path
) -> None:
    """Packed with layers of ours or theirs, experts in stacks, padded rows."""
    base = tmp_path / "base"
    make(family).bfloat16().save_pretrained(str(base))
    texts = [
        Lesson(str(n), tuple(5 + (7 * n + i * i) % 200 for i in range(30)), ((20, 30),))
        for n in range(6)
    ]
    spec = FinetuneSpec(
        data="-", method=method, epochs=6, learning_rate=1e-2 if method == "lora" else 3e-3,
        rank=4, batch_examples=3,
    )  # fmt: skip
    train(tmp_path / "out", Start(base, "d"), texts, spec)
    losses = [row["loss"] for row in curve(tmp_path / "out")]
    if method == "full":
        module = torch_model.load_module(tmp_path / "out", "bfloat16")
    else:
        module = torch_model.load_module(base, "bfloat16", [tmp_path / "out"])
    assert mean_loss(module, texts) < 0.9 * losses[0]
    assert mean_loss(module, texts) == pytest.approx(losses[-1], rel=0.3)


def test_states_are_kept_along_the_way_in_their_order(
    tiny_folder: Path, lessons: list[Lesson], tmp_path: Path
) -> None:
    spec = SPEC.model_copy(update={"checkpoints": 3})
    train(tmp_path / "long", Start(tiny_folder, "d"), lessons, spec, dtype="float32")
    states = sorted((tmp_path / "long" / "states").iterdir())
    assert [folder.name for folder in states] == ["1", "2", "3"]
    told = [json.loads((folder / "training.json").read_text()) for folder in states]
    assert told == [{"base_digest": "d", "step": step} for step in (5, 10, 15)]  # of 20
    losses = [
        mean_loss(torch_model.load_module(tiny_folder, "float32", [folder]), lessons)
        for folder in [*states, tmp_path / "long"]
    ]
    assert len(set(losses)) == 4 and losses[0] > losses[-1]
    # Fewer steps than states that were asked for: as many as there are, numbered from 1 on.
    short = spec.model_copy(update={"checkpoints": 9, "batch_examples": 5, "epochs": 1})
    train(tmp_path / "short", Start(tiny_folder, "d"), lessons, short, dtype="float32")
    assert sorted(p.name for p in (tmp_path / "short" / "states").iterdir()) == ["1", "2"]


# ---- trouble ------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_training_and_keeps_the_batch(
    tiny_folder: Path, lessons: list[Lesson], tmp_path: Path
) -> None:
    spec = SPEC.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TokkaError, match=r"is nan at step \d+ \(.*lower learning_rate") as e:
        train(tmp_path, Start(tiny_folder, "d"), lessons, spec, dtype="float32")
    assert "1e+30" in str(e.value)
    told = json.loads((tmp_path / "trouble.json").read_text())
    batch = plan_batches(lessons, spec)[told["step"] - 1]
    assert told["lessons"] == [json.loads(json.dumps(asdict(lessons[i]))) for i in batch]
    assert f"examples {lessons[batch[0]].example_id}, " in str(e.value)
    assert str(tmp_path / "trouble.json") in str(e.value)
    assert not list(tmp_path.glob("*.safetensors"))
    assert not (tmp_path / "training.json").exists()


def test_a_gradient_that_is_no_number_stops_it_before_the_weights_are_spoilt(
    tiny_folder: Path, lessons: list[Lesson], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is still a number then. Any batch of the step may be to blame: all are kept."""
    compute, calls = step_module.answer_loss, []

    def spoilt(hidden: Any, *others: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:  # the first of the second step's two batches
            hidden.register_hook(lambda slope: slope * torch.nan)
        return compute(hidden, *others)

    monkeypatch.setattr(step_module, "answer_loss", spoilt)
    spec = SPEC.model_copy(update={"accumulate": 2})
    with pytest.raises(TokkaError, match="gradient's norm is nan at step 2"):
        train(tmp_path, Start(tiny_folder, "d"), lessons, spec, dtype="float32")
    held = json.loads((tmp_path / "trouble.json").read_text())["lessons"]
    plan = plan_batches(lessons, spec)
    assert [item["example_id"] for item in held] == [
        lessons[i].example_id for batch in plan[2:4] for i in batch
    ]
    assert not list(tmp_path.glob("*.safetensors"))


# ---- trackers -----------------------------------------------------------------------------------


def test_tensorboard_gets_the_curve_where_it_is_installed(trained: Path) -> None:
    pytest.importorskip("tensorboard", reason="no tensorboard here")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "tensorboard"))
    events.Reload()
    rows = curve(trained)
    assert [e.step for e in events.Scalars("train/loss")] == [row["step"] for row in rows]
    assert [e.value for e in events.Scalars("train/loss")] == pytest.approx(
        [row["loss"] for row in rows]
    )


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="no mlflow here")
def test_mlflow_gets_the_curve_where_it_is_installed(
    tiny_folder: Path, lessons: list[Lesson], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow: Any = importlib.import_module("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    spec = SPEC.model_copy(update={"epochs": 1})
    train(tmp_path, Start(tiny_folder, "d"), lessons, spec, dtype="float32")
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
    assert [m.value for m in history] == pytest.approx([row["loss"] for row in curve(tmp_path)])


# ---- kills --------------------------------------------------------------------------------------

CHILD = """
import json, os, sys, time
import torch
from pathlib import Path
from tokka import records
from tokka.training import step, training, watching
from tokka.training.lessons import Lesson
from tokka.training.start import Start

torch.set_num_threads(1)

def lessons(rows):
    return [Lesson(r["example_id"], tuple(r["ids"]), tuple(map(tuple, r["learnt"])), r["origin"])
            for r in rows]

def run(job, environment):
    os.environ.update(environment)
    calls = []
    def progress(tokens, note):
        calls.append(tokens)
        if len(calls) == job["stop"]:
            print("stopped", flush=True)
            time.sleep(600)
    spec = getattr(records, job["kind"]).model_validate(job["spec"])
    folder = Path(environment.get("FOLDER", job["folder"]))
    training.train(folder, Start(Path(job["base"]), "base digest"),
                   lessons(job["lessons"]), spec, replay=lessons(job["replay"]),
                   progress=progress, dtype=job["dtype"])

for line in sys.stdin:
    job = json.loads(line)
    for environment in job["processes"]:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                run(job, environment)
                status = 0
            finally:
                sys.stderr.flush()
                os._exit(status)
        print(pid, flush=True)
    for _ in job["processes"]:
        print("ended", os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


class Nursery:
    """A process that has imported everything, and a fork of it for each training."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def train(
        self,
        folder: Path,
        base: Path,
        lessons: list[Lesson],
        spec: TrainingSpec,
        *,
        replay: list[Lesson] | None = None,
        stop: int = 0,
        dtype: str = "float32",
        processes: list[dict[str, str]] | None = None,
    ) -> list[int]:
        """Train to the end, or until `progress` is called for the `stop`th time: then SIGKILL.
        Returns the exit codes."""
        job = {
            "folder": str(folder), "base": str(base), "lessons": [asdict(x) for x in lessons],
            "replay": [asdict(x) for x in replay or []], "kind": type(spec).__name__,
            "spec": spec.model_dump(mode="json"), "stop": stop, "dtype": dtype,
            "processes": processes or [{}],
        }  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        pids, codes = [], []
        while len(codes) < len(job["processes"]):
            line = self._line()
            if line == "stopped":
                os.kill(pids[0], signal.SIGKILL)
            elif line.startswith("ended "):
                codes.append(int(line.split()[1]))
            else:
                pids.append(int(line))
        return codes

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    made = Nursery()
    yield made
    made.close()


def files(folder: Path) -> dict[str, bytes]:
    """All that a training leaves but its speed and what trackers keep."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("speed.json", "mlflow.db")
        and "tensorboard" not in path.parts
    }  # fmt: skip


PRETRAIN = PretrainSpec(epochs=2, learning_rate=3e-3, batch_tokens=48, checkpoints=2, seed=3)
KILLED: dict[str, tuple[TrainingSpec, int]] = {  # the call of progress at which it is killed
    "lora": (SPEC, 7),
    "full": (SPEC.model_copy(update={"method": "full", "learning_rate": 1e-3}), 8),
    "pretrain": (PRETRAIN, 13),
    "accumulate and replay": (
        SPEC.model_copy(update={"accumulate": 2, "replay": ReplaySpec(data="-", share=0.3),
                                "pull": PullSpec(kl=0.2, l2=0.1), "checkpoints": 2}),
        7,
    ),
    "qlora": (SPEC.model_copy(update={"method": "qlora", "dora": True}), 6),
}  # fmt: skip


@pytest.mark.parametrize("kind", KILLED)
def test_a_killed_training_resumes_to_the_same_bits(
    kind: str, tiny_folder: Path, lessons: list[Lesson], tmp_path: Path, nursery: Nursery
) -> None:
    """SIGKILL after a checkpoint. Pitfall 10: resuming changes the order of the data."""
    spec, stop = KILLED[kind]
    dtype = "float32"
    if spec.method == "qlora":
        pytest.importorskip("bitsandbytes", reason="needs tokka[qlora]")
        dtype = "bfloat16"
    replay = general_texts(tiny_folder) if spec.replay else []
    if isinstance(spec, PretrainSpec):  # 20 steps, 10 an epoch
        lessons = [Lesson(x.example_id, x.ids, ((1, 20),)) for x in general_texts(tiny_folder) * 4]
        lessons = lessons[:20]
        assert len(plan_batches(lessons, spec)) == 20 and stop > 11
    start = Start(tiny_folder, "base digest")
    whole, folder = tmp_path / "whole", tmp_path / "killed.partial"
    train(whole, start, lessons, spec, replay=replay, dtype=dtype)

    codes = nursery.train(folder, tiny_folder, lessons, spec, replay=replay, stop=stop, dtype=dtype)
    assert codes == [-signal.SIGKILL]
    assert not list(folder.glob("*.safetensors"))
    (kept,) = (folder / "checkpoints").glob("checkpoint-*")
    done = int(kept.name.partition("-")[2])
    assert 0 < done < stop
    # A kill in the middle of a later checkpoint leaves one that can't be read.
    half = folder / "checkpoints" / "checkpoint-9999"
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"half")

    seen: list[int] = []
    train(folder, start, lessons, spec, replay=replay, dtype=dtype,
          progress=lambda n, _: seen.append(n))  # fmt: skip
    assert len(seen) == 1 + len(curve(whole)) - done  # it did go on, not start again
    assert files(folder) == files(whole)
    assert sum(seen) == json.loads((folder / "training.json").read_text())["tokens"]


def test_two_processes_make_the_steps_that_one_makes_of_two_batches(
    tiny_folder: Path, lessons: list[Lesson], tmp_path: Path, nursery: Nursery
) -> None:
    """`Trainer`'s own distribution (DDP over gloo): a step's mean is over the tokens of both."""
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    spec = SPEC.model_copy(
        update={"batch_examples": 2, "epochs": 2, "learning_rate": 1e-3, "checkpoints": 1,
                "pull": PullSpec(kl=0.3, l2=0.3)}
    )  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    accumulated = spec.model_copy(update={"accumulate": 2})
    train(one, Start(tiny_folder, "base digest"), lessons[:12], accumulated, dtype="float32")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    other = tmp_path / "other"  # a machine of its own
    processes = [{**told, "RANK": rank, "LOCAL_RANK": rank, "FOLDER": str(folder)}
                 for rank, folder in (("0", two), ("1", other))]  # fmt: skip
    assert nursery.train(two, tiny_folder, lessons[:12], spec, processes=processes) == [0, 0]
    for place in ("", "states/1"):
        for name, value in weights(one / place).items():
            torch.testing.assert_close(weights(two / place)[name], value, atol=1e-6, rtol=1e-5)
    assert [row["step"] for row in curve(two)] == [row["step"] for row in curve(one)]
    for mine, theirs in zip(curve(two), curve(one), strict=True):
        assert mine == {key: pytest.approx(value, rel=1e-5) for key, value in theirs.items()}
    assert not (two / "checkpoints").exists()
    assert {path.name for path in other.iterdir()} <= {"checkpoints"}  # the first one writes


@pytest.mark.parametrize("state", [None, "", '{"global_step": 5, "log_hi'])
def test_a_checkpoint_killed_while_it_was_written_is_passed_over(
    tmp_path: Path, state: str | None
) -> None:
    for step, text in ((9, '{"global_step": 9}'), (10, '{"global_step": 10}'), (100, state)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if text is not None:
            (folder / "trainer_state.json").write_text(text)
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert newest_checkpoint(tmp_path / "absent") is None
