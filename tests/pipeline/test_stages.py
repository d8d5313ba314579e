"""Weights stages chain: what each leaves behind, what is shared, what a rerun does again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from tokka.errors import IntegrityError, Mistakes, UsageError
from tokka.pipeline import Build, build_arm, load_candidate, preferences_of, prepare, run
from tokka.project import load_project
from tokka.stages import Weights, following, weights_of

TUNE = {"finetune": {"data": "examples.jsonl", "epochs": 1, "rank": 4, "batch_examples": 4}}
FULL = {"finetune": {**TUNE["finetune"], "method": "full"}}
PRETRAIN = {"pretrain": {"method": "lora", "epochs": 1, "rank": 4, "window_tokens": 64}}
PREFER = {"prefer": {"data": "pairs.jsonl", "rank": 4, "batch_examples": 2}}
FOLD = {"merge": {"method": "fold"}}
HALF = {"merge": {"method": "wise-ft", "alpha": 0.5}}
NOTHING = {"merge": {"method": "wise-ft", "alpha": 0}}
SMALL = {"quantise": {"type": "f16"}}
PAIRS = [
    {"question": f"Which colour is the {thing}?", "chosen": "green", "rejected": "red"}
    for thing in ("sail", "mast", "deck", "cabin")
]


@pytest.fixture(scope="module")
def shared(harbour: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose finished steps all tests of this file share, for they only add to them."""
    folder = tmp_path_factory.mktemp("stages") / "project"
    shutil.copytree(harbour, folder)
    prepare_data(folder)
    return folder


def prepare_data(folder: Path) -> None:
    examples = folder / "examples.jsonl"
    examples.write_text("".join(examples.read_text().splitlines(True)[:-1]))  # "copied"
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))


@pytest.fixture
def builds(shared: Path, here: None, listener: Any) -> Callable[..., Build]:
    """`builds(a=[stage, …], …)`: these arms beside the base."""

    def make(folder: Path = shared, **arms: list[dict[str, Any]]) -> Build:
        made = {
            name: {"weights": stages, "prompt": {"max_tokens": 6}} for name, stages in arms.items()
        }
        project = {
            "name": "blue-harbour",
            "language": "en",
            "base_model": "model/",
            "corpus": ["documents/"],
            "exams": {"domain": {"path": "exam/domain.jsonl", "role": "domain"}},
            "arms": {"base": {"prompt": {"max_tokens": 6}}, **made},
            "policy": {"draws": 200},
        }
        (folder / "tokka.yaml").write_text(json.dumps(project))
        return prepare(load_project(folder), listener)

    return make


def weights(build: Build, arm: str) -> Weights:
    found = weights_of(build, build.project.arms[arm])
    assert found is not None
    return found


def kinds(found: Weights) -> list[str]:
    return [folder.name.partition("-")[0] for folder in found.steps]


def opened(build: Build, found: Weights, dtype: str = "bfloat16") -> Any:
    from tokka.models.opening import open_model

    return open_model(
        "model/", root=build.project.root, language="en", weights=found.whole,
        adapters=found.adapters, dtype=dtype,
    )  # fmt: skip


def logits(build: Build, found: Weights, dtype: str = "bfloat16") -> Any:
    import torch

    with opened(build, found, dtype) as model, torch.inference_mode():
        return model.module(input_ids=torch.arange(2, 12)[None]).logits.float()


def files(build: Build) -> dict[str, int]:
    found = build.workspace.steps.rglob("*")
    return {str(path): path.stat().st_mtime_ns for path in found if path.is_file()}


def test_adapters_pile_up_and_are_opened_in_their_order(builds: Callable[..., Build]) -> None:
    build = builds(a=[PRETRAIN, TUNE])
    found = weights(build, "a")
    assert kinds(found) == ["pretrain", "finetune"]
    assert found.adapters == found.steps and found.whole is None
    candidate = build_arm(build, build.project.arms["a"])
    assert [entry.partition("-")[0] for entry in candidate.artifacts.values()] == [
        "pretrain", "finetune",
    ]  # fmt: skip
    assert list(candidate.artifacts) == ["adapter", "adapter-2"]
    with opened(build, found) as model:
        assert model.digest == found.digest
    turned = Weights(found.base, found.digest, found.adapters[::-1])
    with pytest.raises(IntegrityError, match="was trained on the weights"):
        opened(build, turned)


def test_a_fold_answers_as_what_it_folded(builds: Callable[..., Build]) -> None:
    build = builds(a=[PRETRAIN, TUNE], folded=[PRETRAIN, TUNE, FOLD])
    loose, folded = weights(build, "a"), weights(build, "folded")
    assert folded.steps[:2] == loose.steps
    assert folded.parts == {"weights": folded.steps[-1]}
    assert (logits(build, loose) == logits(build, folded)).all()
    with opened(build, folded) as model:
        assert model.digest == folded.digest != loose.digest


def test_half_of_what_an_arm_learnt_takes_the_place_of_the_whole(
    builds: Callable[..., Build],
) -> None:
    build = builds(a=[TUNE], half=[TUNE, HALF], none=[TUNE, NOTHING])
    all_of_it, half, none = (weights(build, arm) for arm in ("a", "half", "none"))
    assert len(half.adapters) == 1 and half.adapters != all_of_it.adapters
    start = logits(build, all_of_it.states[0], "float32")
    assert (logits(build, none, "float32") == start).all()
    distance = (logits(build, all_of_it, "float32") - start).abs().mean()
    assert 0.4 < (logits(build, half, "float32") - start).abs().mean() / distance < 0.6


def test_half_of_several_adapters_is_a_whole_model(builds: Callable[..., Build]) -> None:
    half = weights(build := builds(a=[PRETRAIN, TUNE, HALF]), "a")
    assert half.adapters == () and half.whole == half.steps[-1]
    with opened(build, half) as model:
        assert model.digest == half.digest


def test_what_comes_after_a_whole_model_begins_there(builds: Callable[..., Build]) -> None:
    build = builds(a=[FULL, TUNE], b=[TUNE])
    found = weights(build, "a")
    assert list(found.parts) == ["weights", "adapter"]
    evidence = json.loads((found.adapters[0] / "training.json").read_bytes())
    assert evidence["base_digest"] == found.states[1].digest != build.base_digest
    assert found.adapters[0] != weights(build, "b").adapters[0]


def test_preferences_teach_after_examples(builds: Callable[..., Build]) -> None:
    pytest.importorskip("trl")
    build = builds(a=[TUNE, PREFER])
    found = weights(build, "a")
    assert kinds(found) == ["finetune", "prefer"] and len(found.adapters) == 2
    first = Weights(found.base, found.states[1].digest, found.adapters[:1])
    assert (logits(build, found, "float32") != logits(build, first, "float32")).any()


def test_a_preference_in_which_an_exam_question_stands_is_refused_or_left_out(
    builds: Callable[..., Build], fresh: Path
) -> None:
    row = {"question": "Which colour is the hull of the tug?", "chosen": "x", "rejected": "y"}
    prepare_data(fresh)
    build = builds(fresh, a=[PREFER])
    with (fresh / "pairs.jsonl").open("a") as file:
        file.write(json.dumps({"id": "told", **row}) + "\n")
    spec = build.project.arms["a"].weights[0].prefer
    assert spec is not None
    with pytest.raises(Mistakes, match="leave_out_mistakes: true") as caught:
        preferences_of(build, spec)
    assert len(caught.value.items) == 1 and "told" in caught.value.items[0]
    folder = preferences_of(build, spec.model_copy(update={"leave_out_mistakes": True}))
    assert len((folder / "preferences.jsonl").read_text().splitlines()) == len(PAIRS)
    assert [d.item for d in build.dropped if "told" in d.item]


def test_a_model_from_scratch_brings_its_own_tokenizer(builds: Callable[..., Build]) -> None:
    shape = {"vocabulary": 400, "layers": 1, "width": 32, "heads": 2, "context_tokens": 64}
    scratch = {"pretrain": {"scratch": shape, "epochs": 1, "window_tokens": 64}}
    build = builds(a=[scratch, TUNE])
    found = weights(build, "a")
    assert kinds(found) == ["scratch", "pretrain", "finetune"]
    assert list(found.parts) == ["weights", "adapter"] and found.whole == found.steps[1]
    with opened(build, found) as model:
        vocabulary = model.module.config.vocab_size
        assert vocabulary <= 400 < 480  # of the base model
        assert max(model.renderer.running("The flag of the ferry is blue.").ids) < vocabulary
    assert model.digest == found.digest


def test_arms_that_begin_alike_share_their_steps(builds: Callable[..., Build]) -> None:
    build = builds(a=[PRETRAIN, TUNE], b=[PRETRAIN, FULL])
    a, b = weights(build, "a"), weights(build, "b")
    assert a.steps[0] == b.steps[0] and a.steps[1] != b.steps[1]
    ids = {build_arm(build, arm).id for arm in build.project.arms.values()}
    assert len(ids) == 3


def test_arms_are_joined_and_built_first(builds: Callable[..., Build]) -> None:
    other = {"finetune": {**TUNE["finetune"], "seed": 1}}
    join = {"merge": {"method": "ties", "arms": ["b", "c"], "density": 0.5}}
    build = builds(a=[join], b=[TUNE], c=[other])
    found = weights(build, "a")
    assert set(build.weights) == {"a", "b", "c"}
    assert kinds(found) == ["finetune", "finetune", "merge"]
    assert list(found.parts) == ["weights"]
    weighed = {"merge": {**join["merge"], "weights": [1, 0.5]}}
    others = [
        weights(builds(a=[weighed], b=[TUNE], c=[other]), "a").whole,
        weights(builds(a=[join], b=[TUNE], c=[PRETRAIN]), "a").whole,
    ]
    assert len({found.whole, *others}) == 3


def test_arms_that_learnt_from_other_weights_are_not_joined(builds: Callable[..., Build]) -> None:
    build = builds(a=[PRETRAIN], b=[TUNE])
    from tokka.stages import _branch

    with pytest.raises(UsageError, match="give both the same first stages"):
        _branch(build, build.project.arms["b"], "a", weights(build, "b"))


def test_a_quantised_arm_is_opened_by_llama_cpp(builds: Callable[..., Build]) -> None:
    pytest.importorskip("xllamacpp")
    pytest.importorskip("tokka.training.quantise")
    build = builds(a=[TUNE, SMALL])
    found = weights(build, "a")
    assert list(found.parts) == ["weights"] and (found.base / "model.gguf").is_file()
    own = (build.project.root / "model" / "tokenizer.json").read_bytes()
    assert (found.base / "tokenizer.json").read_bytes() == own
    with opened(build, found) as model:
        assert "llamacpp" in model.capabilities.engine and model.digest == found.digest


def test_a_finished_chain_is_not_built_again(builds: Callable[..., Build]) -> None:
    build = builds(a=[PRETRAIN, TUNE, FOLD])
    first, before = weights(build, "a"), files(build)
    again = builds(a=[PRETRAIN, TUNE, FOLD])
    assert weights(again, "a") == first and files(again) == before


def test_a_chain_that_broke_off_goes_on_after_its_last_finished_stage(
    builds: Callable[..., Build], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    chain = [PRETRAIN, TUNE, {"merge": {"method": "wise-ft", "alpha": 0.25}}]
    build = builds(a=chain)
    with monkeypatch.context() as patched:
        patched.setattr("tokka.training.merge.interpolate", killed)
        with pytest.raises(KeyboardInterrupt):
            weights(build, "a")
    before = files(build)
    found = weights(builds(a=chain), "a")
    after = files(build)
    assert {name: after[name] for name in before if ".partial" not in name} == {
        name: stamp for name, stamp in before.items() if ".partial" not in name
    }
    assert set(map(Path, set(after) - set(before))) == set(found.steps[-1].rglob("*"))


def test_a_chain_gives_the_same_bytes_anew(builds: Callable[..., Build], fresh: Path) -> None:
    first = weights(build := builds(a=[FULL, TUNE]), "a")
    digests = [build.workspace.digest(folder) for folder in first.steps]
    prepare_data(fresh)
    again = weights(build := builds(fresh, a=[FULL, TUNE]), "a")
    assert [build.workspace.digest(folder) for folder in again.steps] == digests
    assert again.digest == first.digest


def test_replay_and_its_text_decide_the_step(builds: Callable[..., Build], shared: Path) -> None:
    (shared / "general.txt").write_text("The sea is deep. " * 20)
    tuned = {"finetune": {**TUNE["finetune"], "replay": {"data": "general.txt", "share": 0.3}}}
    plain = weights(builds(a=[TUNE]), "a")
    first = weights(builds(a=[tuned]), "a")
    (shared / "general.txt").write_text("The sky is high. " * 20)
    second = weights(builds(a=[tuned]), "a")
    assert len({plain.digest, first.digest, second.digest}) == 3


def test_an_adapter_from_another_base_is_refused(builds: Callable[..., Build]) -> None:
    """Its shapes fit and its digests are in order: only what it was trained on tells."""
    build = builds(a=[TUNE], b=[FULL, TUNE])
    a, b = weights(build, "a"), weights(build, "b")
    with pytest.raises(IntegrityError) as caught:
        opened(build, following(build, a.states[0], b.adapters[0]))
    said = str(caught.value)
    assert b.states[1].digest in said and build.base_digest in said
    assert "give it the base model that it was trained on" in said


def test_an_adapter_that_names_no_base_is_refused(
    builds: Callable[..., Build], tmp_path: Path
) -> None:
    found = weights(build := builds(a=[TUNE]), "a")
    planted = tmp_path / "planted"
    shutil.copytree(found.adapters[0], planted)
    (planted / "training.json").unlink()
    with pytest.raises(IntegrityError, match="on weights that it doesn't name"):
        opened(build, Weights(found.base, "", (planted,)))


def test_chained_arms_are_examined_and_served(
    builds: Callable[..., Build], shared: Path, listener: Any, tokka: Callable[..., Any]
) -> None:
    builds(a=[PRETRAIN, TUNE], folded=[PRETRAIN, TUNE, FOLD])
    outcome = run(load_project(shared), listener)
    results = json.loads(outcome.results.read_bytes())
    answers = {
        arm["arm"]["name"]: arm["sittings"][0]["primary"]["estimate"] for arm in results["arms"]
    }
    assert answers["a"] == answers["folded"]
    assert "adapter folded in" in outcome.report.read_text(encoding="utf-8")
    for arm in ("a", "folded"):
        said = tokka("ask", arm, "Which colour is the rope?", "--project", shared)
        assert said.code == 0, said.err
    build = prepare(load_project(shared), listener)
    assert list(load_candidate(build, "a").artifacts) == ["adapter", "adapter-2"]


def test_all_weights_are_trained_twice_and_carry_nothing_of_the_step_between(
    builds: Callable[..., Build],
) -> None:
    build = builds(twice=[FULL, FULL])
    first, second = _twice(build)
    for folder in (first, second):
        build.workspace.check(folder)  # every byte, against its manifest
    learnt = {"curve.jsonl", "dropped.jsonl", "manifest.json", "speed.json", "training.json"}
    for folder in (first, second):
        assert {p.name for p in folder.iterdir() if p.is_file()} - learnt == {
            p.name for p in (build.project.root / "model").iterdir() if p.is_file()
        }
    told = json.loads((second / "training.json").read_text())
    assert told["base_digest"] != json.loads((first / "training.json").read_text())["base_digest"]


def _twice(build: Build) -> tuple[Path, Path]:
    found = weights_of(build, build.project.arms["twice"])
    assert found is not None
    one, two = found.steps
    return one, two
