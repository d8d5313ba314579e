"""Preferred answers gain on the others, TRL reads our ids, and a killed stage ends in the same
bits."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokka.errors import TokkaError, UsageError
from tokka.models.rendering import TokenRenderer
from tokka.records import Message, Preference, PreferSpec
from tokka.training.start import Start

torch = pytest.importorskip("torch")
pytest.importorskip("trl", reason="needs tokka[prefer]")
from tokka.models import torch_model  # noqa: E402
from tokka.training import preference_trainer  # noqa: E402
from tokka.training.prefer import prefer  # noqa: E402
from tokka.training.preference_rows import plan_batches, rows_of  # noqa: E402

OBJECTIVES = ("dpo", "kto", "orpo")
CHATML = (
    "{{ bos_token }}{% for m in messages %}<turn>{{ m.role }}\n{{ m.content }}<end>\n"
    "{% endfor %}{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)


def spec(**fields: Any) -> PreferSpec:
    how = {"rank": 4, "epochs": 4, "batch_examples": 3, "learning_rate": 1e-2, "seed": 7}
    return PreferSpec(**{"data": "preferences.jsonl", **how, **fields})


def pairs(count: int = 8) -> list[Preference]:
    """Of different lengths; blue is better than red everywhere."""
    return [
        Preference(
            id=f"p{n}",
            messages=(Message(role="user", content=f"Question: {'very ' * (n % 3)}{n}?"),),
            chosen="blue" if n % 2 else "light blue",
            rejected="red and grey" if n % 3 else "red",
        )
        for n in range(count)
    ]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def renderer(make_tokenizer: Callable[..., Any]) -> TokenRenderer:
    return TokenRenderer(make_tokenizer(), "en")


@pytest.fixture(scope="module")
def start(tiny_folder: Path) -> Start:
    return Start(tiny_folder, "base digest")


@pytest.fixture(scope="module")
def trained(
    start: Start, renderer: TokenRenderer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """One uninterrupted stage of each objective, with two states kept."""
    folders = {name: tmp_path_factory.mktemp(name) for name in OBJECTIVES}
    for name, folder in folders.items():
        how = spec(objective=name, checkpoints=2)
        prefer(folder, start, pairs(), how, renderer, dtype="float32")
    return folders


def curve(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]


def told(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return found


def margin(module: Any, renderer: TokenRenderer) -> float:
    """Mean of log p(chosen) − log p(rejected), computed without TRL."""
    total = 0.0
    with torch.inference_mode():
        for one in pairs():
            for answer, sign in ((one.chosen, 1), (one.rejected, -1)):
                asked = renderer.prompt(one.messages)
                ids = torch.tensor([asked.ids + renderer.answer(answer, asked)])
                logits = module(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
                said = logits.gather(1, ids[0, 1:, None])[len(asked.ids) - 1 :]
                total += sign * float(said.sum()) / len(pairs())
    return total


# ---- what is learnt -----------------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_preferred_answers_gain_probability_against_the_others(
    trained: dict[str, Path], start: Start, renderer: TokenRenderer, objective: str
) -> None:
    before = margin(torch_model.load_module(start.base, "float32"), renderer)
    after = torch_model.load_module(start.base, "float32", (trained[objective],))
    assert margin(after, renderer) > before + 5
    margins = [
        row["rewards/margins"] for row in curve(trained[objective]) if "rewards/margins" in row
    ]
    assert sum(margins[-3:]) > sum(margins[:3])


@pytest.mark.parametrize(("objective", "loss"), [("dpo", math.log(2)), ("kto", 0.5)])
def test_the_reference_is_the_model_without_the_adapter(
    trained: dict[str, Path], objective: str, loss: float
) -> None:
    """A new adapter changes nothing yet, so no answer is likelier than under the reference."""
    losses = [row["loss"] for row in curve(trained[objective])]
    assert losses[0] == pytest.approx(loss, abs=1e-6)
    assert abs(losses[5] - loss) > 1e-2


def test_the_evidence_says_what_was_done(trained: dict[str, Path], renderer: TokenRenderer) -> None:
    for objective, folder in trained.items():
        how = spec(objective=objective, checkpoints=2)
        rows = rows_of(pairs(), how, renderer, 128)
        plan = plan_batches(rows, how)
        used = [rows[i] for batch in plan for i in batch]
        evidence = told(folder)
        assert evidence.pop("parameters") > 0
        assert evidence == {
            "base_digest": "base digest",
            "place": "prefer",
            "learning_rate": 1e-2,
            "spec": how.model_dump(mode="json"),
            "alpha": 8.0,
            "steps": len(plan),
            "lessons": 4 * len(rows),
            "examples": len(pairs()),
            "tokens": sum(row.tokens for row in used),
            "supervised_tokens": sum(row.supervised for row in used),
            "dtype": "float32",
        }
        assert [row["step"] for row in curve(folder)] == list(range(1, len(plan) + 1))
        rates = [row["learning_rate"] for row in curve(folder)]
        assert max(rates) == pytest.approx(1e-2) and rates[0] < max(rates) > 20 * rates[-1]
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] is None
        assert sorted(p.name for p in folder.iterdir()) == [
            "adapter_config.json", "adapter_model.safetensors", "curve.jsonl", "states",
            "training.json",
        ]  # fmt: skip


@pytest.mark.parametrize("method", ["lora", "full"])
def test_recomputing_activations_changes_no_number(
    start: Start,
    renderer: TokenRenderer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    seen: list[bool] = []
    made = preference_trainer.trainer_of

    def watch(model: Any, *rest: Any) -> Any:
        trainer = made(model, *rest)
        model.register_forward_hook(lambda *_: seen.append(model.is_gradient_checkpointing))
        return trainer

    monkeypatch.setattr("tokka.training.prefer.trainer_of", watch)
    for recompute in (False, True):
        how = spec(epochs=1, recompute=recompute, method=method, learning_rate=1e-3)
        prefer(tmp_path / str(recompute), start, pairs(), how, renderer, dtype="float32")
    kept, again = curve(tmp_path / "False"), curve(tmp_path / "True")
    assert [row["loss"] for row in again] == pytest.approx([row["loss"] for row in kept], abs=1e-6)
    assert True in seen and False in seen


def test_states_are_kept_along_the_way_in_order(
    trained: dict[str, Path], start: Start, renderer: TokenRenderer
) -> None:
    folder = trained["dpo"]
    states = [folder / "states" / "1", folder / "states" / "2", folder]
    assert sorted(p.name for p in (folder / "states").iterdir()) == ["1", "2"]
    margins = [
        margin(torch_model.load_module(start.base, "float32", (state,)), renderer)
        for state in states
    ]
    assert margins == sorted(margins) and len(set(margins)) == 3
    assert told(states[0]) == {"base_digest": "base digest", "step": told(folder)["steps"] // 3}


def test_a_full_stage_writes_a_whole_model(
    start: Start, renderer: TokenRenderer, tmp_path: Path
) -> None:
    seen: list[tuple[int, str]] = []
    how = spec(method="full", learning_rate=1e-3, checkpoints=1, epochs=2)
    prefer(tmp_path, start, pairs(), how, renderer, lambda *said: seen.append(said), "float32")
    assert curve(tmp_path)[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    before = margin(torch_model.load_module(start.base, "float32"), renderer)
    margins = [
        margin(torch_model.load_module(folder, "float32"), renderer)
        for folder in (tmp_path / "states" / "1", tmp_path)
    ]
    assert before < margins[0] < margins[1]
    assert (tmp_path / "tokenizer.json").read_bytes() == (
        start.base / "tokenizer.json"
    ).read_bytes()
    config = json.loads((tmp_path / "config.json").read_text())
    assert (
        config["pad_token_id"]
        == json.loads((start.base / "config.json").read_text())["pad_token_id"]
    )
    assert told(tmp_path)["alpha"] is None
    assert sum(tokens for tokens, _ in seen) == told(tmp_path)["tokens"]
    assert seen[0][1] == "loss 0.693"


def test_whole_weights_are_trained_in_float32_and_kept_in_the_bases_dtype(
    make_module: Callable[..., Any], start: Start, renderer: TokenRenderer, tmp_path: Path
) -> None:
    """A step of 1e-6 would be lost on bfloat16 weights."""
    from safetensors.torch import load_file

    base, folder = tmp_path / "base", tmp_path / "out"
    shutil.copytree(start.base, base)
    make_module("llama", num_hidden_layers=1).bfloat16().save_pretrained(str(base))
    seen: list[Any] = []
    made = preference_trainer.trainer_of

    def watch(model: Any, *rest: Any) -> Any:
        seen.extend(p.dtype for p in model.parameters())
        return made(model, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tokka.training.prefer.trainer_of", watch)
        how = spec(method="full", objective="orpo", epochs=1)
        prefer(folder, Start(base, "d"), pairs(), how, renderer)
    assert set(seen) == {torch.float32}
    weights = load_file(str(folder / "model.safetensors"))
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


def test_an_adapter_on_bfloat16_weights_learns(
    start: Start, renderer: TokenRenderer, tmp_path: Path
) -> None:
    prefer(tmp_path, start, pairs(), spec(accumulate=2), renderer)
    rows = rows_of(pairs(), spec(), renderer, 128)
    batches = plan_batches(rows, spec())
    assert told(tmp_path)["steps"] == len(curve(tmp_path)) == -(-len(batches) // 2)
    before = margin(torch_model.load_module(start.base, "bfloat16"), renderer)
    after = torch_model.load_module(start.base, "bfloat16", (tmp_path,))
    assert margin(after, renderer) > before + 3


@pytest.mark.parametrize(
    ("architecture", "changes", "fields"),
    [
        ("llama", {"num_key_value_heads": 2, "num_hidden_layers": 2}, {"method": "qlora"}),
        ("mixtral", {"num_key_value_heads": 2, "num_hidden_layers": 1}, {"objective": "kto"}),
    ],
)
def test_rounded_weights_and_experts_learn_preferences(
    make_module: Callable[..., Any],
    renderer: TokenRenderer,
    start: Start,
    tmp_path: Path,
    architecture: str,
    changes: dict[str, int],
    fields: dict[str, str],
) -> None:
    """No router learns, and TRL's copy of the untrained adapter is not kept."""
    from safetensors import safe_open

    if "qlora" in fields.values():
        pytest.importorskip("bitsandbytes", reason="needs tokka[qlora]")
    base, folder = tmp_path / "base", tmp_path / "out"
    shutil.copytree(start.base, base)
    make_module(architecture, **changes).save_pretrained(str(base))
    prefer(folder, Start(base, "d"), pairs(), spec(**fields), renderer)
    before = margin(torch_model.load_module(base, "bfloat16"), renderer)
    after = torch_model.load_module(base, "bfloat16", (folder,))
    assert margin(after, renderer) > before + 3
    with safe_open(folder / "adapter_model.safetensors", "pt") as saved:
        names = list(saved.keys())
    assert names and not [name for name in names if "ref" in name or ".gate." in name]
    assert told(folder).get("quantisation") == ("nf4" if architecture == "llama" else None)


def test_a_second_stage_begins_where_the_first_ended(
    trained: dict[str, Path], start: Start, renderer: TokenRenderer, tmp_path: Path
) -> None:
    after = Start(start.base, "second digest", (trained["dpo"],))
    prefer(tmp_path, after, pairs(), spec(epochs=1), renderer, dtype="float32")
    first, last = curve(tmp_path)[0], curve(trained["dpo"])[-1]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)  # the reference moved too
    assert first["logps/chosen"] > curve(trained["dpo"])[0]["logps/chosen"]
    assert last["rewards/margins"] > 0
    assert told(tmp_path)["base_digest"] == "second digest"


def test_a_loss_that_is_no_number_stops_training_with_what_to_change(
    start: Start, renderer: TokenRenderer, tmp_path: Path
) -> None:
    how = spec(learning_rate=1e30)
    with pytest.raises(TokkaError, match=r"the loss is nan at step \d+ \(preferences p\d") as e:
        prefer(tmp_path, start, pairs(), how, renderer, dtype="float32")
    assert "lower learning_rate (it is 1e+30)" in str(e.value)
    trouble = json.loads((tmp_path / "trouble.json").read_text())
    assert trouble["what"] == "the loss is nan" and trouble["step"] > 1
    ids = {row["preference"] for row in trouble["rows"]}
    assert ids and all(f"{name}" in str(e.value) for name in ids)
    assert not (tmp_path / "adapter_model.safetensors").exists()


# ---- the ids ------------------------------------------------------------------------------------


def sequences(batch: dict[str, Any], prefix: str) -> list[tuple[tuple[int, ...], int]]:
    """Ids without their padding, and where the answer begins, of one block of TRL's batch."""
    ids, mask = batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"]
    if f"{prefix}labels" in batch:
        learnt = batch[f"{prefix}labels"] != -100
    else:
        learnt = batch[f"{prefix}completion_mask"].bool()
    found = []
    for row, seen, said in zip(ids, mask.bool(), learnt, strict=True):
        begins = int(said.int().argmax())
        assert said[begins : int(seen.sum())].all() and not said[int(seen.sum()) :].any()
        found.append((tuple(row[seen].tolist()), begins))
    return found


@pytest.mark.parametrize("template", [None, CHATML])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_trl_reads_the_ids_that_the_exam_sends(
    make_tokenizer: Callable[..., Any],
    make_module: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
    template: str | None,
) -> None:
    """Pitfall: a trainer's own template, a second BOS, a lost end, a silent cut."""
    base = tmp_path / "base"
    make_module("llama", num_hidden_layers=1).save_pretrained(str(base))
    tokenizer = make_tokenizer(chat_template=template)
    tokenizer.save_pretrained(str(base))
    renderer = TokenRenderer(tokenizer, "en")
    seen: list[tuple[tuple[int, ...], int]] = []

    def watch(base: Any, known: Any, made: Any = preference_trainer._planned) -> Any:
        class Watched(made(base, known)):  # type: ignore[misc]
            def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
                blocks = ("chosen_", "rejected_") if objective == "orpo" else ("",)
                for block in blocks:
                    seen.extend(sequences(inputs, block))
                return super().compute_loss(model, inputs, *args, **kwargs)

        return Watched

    monkeypatch.setattr(preference_trainer, "_planned", watch)
    how = spec(objective=objective, epochs=1)
    prefer(tmp_path / "out", Start(base, "d"), pairs(), how, renderer, dtype="float32")
    wanted = []
    for one in pairs():
        asked = renderer.prompt(one.messages)
        for answer in (one.chosen, one.rejected):
            wanted.append((asked.ids + renderer.answer(answer, asked), len(asked.ids)))
    assert sorted(seen) == sorted(wanted)
    bos = tokenizer.bos_token_id
    assert all(ids[0] == bos and bos not in ids[1:] for ids, _ in seen)
    assert all(ids[-1] in renderer.stop_ids for ids, _ in seen)


@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_the_head_runs_at_the_answers_alone(
    start: Start,
    renderer: TokenRenderer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
) -> None:
    from trl.trainer import utils

    positions: list[int] = []

    class Spied:
        made = utils._ChunkedLogProbFunction

        @classmethod
        def apply(cls, hidden: Any, *rest: Any) -> Any:
            positions.append(len(hidden))
            return cls.made.apply(hidden, *rest)

    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", Spied)
    before = utils._use_triton
    prefer(tmp_path, start, pairs(), spec(objective=objective, epochs=1), renderer, dtype="float32")
    assert utils._use_triton is before
    # The model's own and the reference's; KTO reads as many again for its KL term.
    times = 4 if objective == "kto" else 2
    assert sum(positions) == times * told(tmp_path)["supervised_tokens"]


def test_the_kl_term_pairs_prompts_with_their_neighbours_answers() -> None:
    rows = [{"prompt_ids": [n], "completion_ids": [10 + n], "label": True} for n in range(3)]
    assert [row["KL_completion_ids"] for row in preference_trainer._mismatched(rows)] == [
        [12],
        [10],
        [11],
    ]


# ---- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"replay": {"data": "general.txt"}}, "replay"), ({"pull": {"kl": 0.1}}, "pull")],
)
def test_settings_without_a_place_in_these_losses_are_refused(
    start: Start, renderer: TokenRenderer, tmp_path: Path, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(UsageError, match=f"prefer: {named}"):
        prefer(tmp_path, start, pairs(), spec(**fields), renderer, dtype="float32")


# ---- kills --------------------------------------------------------------------------------------


class Killed(Exception):
    pass


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_stage_that_was_cut_off_resumes_to_the_same_bits(
    trained: dict[str, Path],
    start: Start,
    renderer: TokenRenderer,
    tmp_path: Path,
    objective: str,
) -> None:
    """Cut off two steps after its first checkpoint. Pitfall 10: resuming changes the order."""
    how = spec(objective=objective, checkpoints=2)
    seen: list[int] = []

    def cut(tokens: int, note: str) -> None:
        seen.append(tokens)
        if len(seen) == 7:
            raise Killed

    with pytest.raises(Killed):
        prefer(tmp_path, start, pairs(), how, renderer, cut, dtype="float32")
    assert [p.name for p in (tmp_path / "checkpoints").glob("checkpoint-*")] == ["checkpoint-5"]
    half = tmp_path / "checkpoints" / "checkpoint-9999"  # killed while it was written
    shutil.copytree(tmp_path / "checkpoints" / "checkpoint-5", half)
    (half / "trainer_state.json").write_text('{"global_step": 9999, "log_')

    again: list[int] = []
    prefer(tmp_path, start, pairs(), how, renderer, lambda t, _: again.append(t), dtype="float32")
    assert len(again) == len(curve(tmp_path)) - 5  # it did go on, not start again
    files = [p.relative_to(trained[objective]) for p in trained[objective].rglob("*.*")]
    assert len(files) == 10
    for name in files:
        assert (tmp_path / name).read_bytes() == (trained[objective] / name).read_bytes(), name
    assert not (tmp_path / "checkpoints").exists()
    assert sum(again) == told(tmp_path)["tokens"]
