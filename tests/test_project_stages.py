"""Every mistake in an arm's weights stages is named, with its line and what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tokka.errors import Mistakes
from tokka.project import Project, load_project

HEAD = """\
name: x
language: en
base_model: {model}
corpus: [documents/]
exams: {{domain: {{path: domain.jsonl, role: domain}}}}
arms:
  base: {{}}
"""
TUNE = "{finetune: {data: examples.jsonl}}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("documents", "model"):
        (tmp_path / name).mkdir()
    for name in ("domain.jsonl", "examples.jsonl", "pairs.jsonl", "general.txt"):
        (tmp_path / name).write_text("")
    return tmp_path


def load(folder: Path, *arms: str, model: str = "model/") -> Project:
    text = HEAD.format(model=model) + "".join(f"  {arm}\n" for arm in arms)
    (folder / "tokka.yaml").write_text(text)
    return load_project(folder)


def mistakes(folder: Path, *arms: str, model: str = "model/") -> list[str]:
    with pytest.raises(Mistakes) as caught:
        load(folder, *arms, model=model)
    return caught.value.items


def one(folder: Path, arm: str) -> str:
    (said,) = mistakes(folder, arm)
    assert said.endswith("(tokka.yaml:8)")
    return said


def weights(*stages: str, more: str = "") -> str:
    return f"a: {{weights: [{', '.join(stages)}]{more}}}"


PRETRAIN, PREFER = "{pretrain: {}}", "{prefer: {data: pairs.jsonl}}"
FOLD, HALF, SMALL = "{merge: {method: fold}}", "{merge: {method: wise-ft}}", "{quantise: {}}"
SCRATCH = "{pretrain: {scratch: {}}}"


@pytest.mark.parametrize(
    "arm",
    [
        weights(PRETRAIN, TUNE, FOLD),
        weights(TUNE, PREFER, HALF, SMALL),
        weights(TUNE, HALF, FOLD),
        weights(SCRATCH, TUNE, HALF),
        weights("{pretrain: {data: [documents/, general.txt], method: qlora, rslora: true}}"),
        weights(TUNE, more=", choose: {alphas: [0, 0.5, 1]}"),
        weights("{finetune: {data: examples.jsonl, checkpoints: 3}}", more=", choose: {}"),
        weights(
            "{finetune: {data: examples.jsonl, replay: {data: general.txt}, "
            "pull: {kl: 0.1}, method: full, learning_rate: 1e-5}}"
        ),
    ],
)
def test_stages_chain_in_any_order_that_makes_sense(folder: Path, arm: str) -> None:
    assert load(folder, arm).arms["a"].weights


@pytest.mark.parametrize(
    ("arm", "place", "expected"),
    [
        (weights(TUNE, SMALL, TUNE), "[2]: finetune", "stands after quantise, whose GGUF file"),
        (weights(FOLD), "merge: method", "no adapter comes out of the stages before it"),
        (weights(PRETRAIN, FOLD), "merge: method", "is fold, and no adapter"),
        (weights(TUNE, FOLD, FOLD), "[2].merge: method", "is fold, and no adapter"),
        (weights(HALF, TUNE), "merge: method", "is wise-ft, and no stage stands before it"),
        (weights(SCRATCH, HALF), "merge: method", "there are only random weights"),
        (
            weights(TUNE, "{merge: {method: fold, arms: [base, a]}}"),
            "merge: arms",
            "is for ties and dare, and method is fold",
        ),
        (
            weights("{finetune: {data: examples.jsonl, method: full, learning_rate: 2e-3}}"),
            "finetune: learning_rate",
            "must be between 1e-07 and 0.001 for finetune with full, got 0.002; leave it out for "
            "5e-05 (transformers'",
        ),
        (
            weights("{prefer: {data: pairs.jsonl, objective: kto, learning_rate: 5e-3}}"),
            "prefer: learning_rate",
            "between 1e-08 and 0.001 for prefer with lora, got 0.005; leave it out for 1e-05 (Etha",
        ),
        (
            weights("{prefer: {data: pairs.jsonl, pull: {kl: 1}}}"),
            "prefer: pull",
            "is not for preferences; remove it and raise beta (it is 0.1)",
        ),
        (
            weights("{prefer: {data: pairs.jsonl, replay: {data: general.txt}}}"),
            "prefer: replay",
            "has no preferences to learn from",
        ),
        (weights("{prefer: {data: none.jsonl}}"), "prefer: data", "none.jsonl; mend the path"),
        (
            weights("{pretrain: {data: [documents/, none/]}}"),
            "pretrain.data: item 2",
            "doesn't exist: ",
        ),
        (
            weights("{pretrain: {replay: {data: none.txt}}}"),
            "pretrain.replay: data",
            "none.txt; mend the path",
        ),
        (
            weights("{pretrain: {dora: true}}"),
            "pretrain: dora",
            "shapes an adapter, and method: full trains none",
        ),
        (
            weights("{finetune: {data: examples.jsonl, method: full, rslora: true}}"),
            "finetune: rslora",
            "shapes an adapter",
        ),
        (weights(TUNE, SCRATCH), "pretrain: scratch", "make it the first stage"),
        (
            weights("{pretrain: {scratch: {}, method: lora}}"),
            "pretrain: scratch",
            "needs method: full, got lora",
        ),
        (
            weights("{pretrain: {scratch: {context_tokens: 256}}}"),
            "pretrain: window_tokens",
            "must be at most scratch.context_tokens, 256, got 512",
        ),
        (
            weights("{pretrain: {scratch: {width: 100, heads: 8}}}"),
            "pretrain.scratch: width",
            "must be a multiple of 2 × heads, 16, got 100",
        ),
        (
            weights("{pretrain: {scratch: {}, pull: {l2: 1}}}"),
            "pretrain: pull",
            "would pull towards random weights",
        ),
        (
            weights("{finetune: {data: examples.jsonl, checkpoints: 2}}"),
            "finetune: checkpoints",
            "keeps 2 states, and nothing chooses among them; add choose: {}",
        ),
        (
            weights("{finetune: {data: examples.jsonl, checkpoints: 2}}", PREFER,
                    more=", choose: {alphas: [0.5]}"),
            "finetune: checkpoints",
            "after an arm's last stage only",
        ),
        ("a: {choose: {alphas: [0.5]}}", "a: choose", "has no weights to choose from"),
        (
            weights(TUNE, SMALL, more=", choose: {alphas: [0.5]}"),
            "a: choose",
            "needs a last stage that trains, and it is quantise",
        ),
        (
            weights(TUNE, HALF, more=", choose: {alphas: [0.5]}"),
            "a: choose",
            "needs a last stage that trains, and it is merge",
        ),
        (weights(TUNE, more=", choose: {}"), "a: choose", "has one state to choose from"),
        (weights(TUNE, more=", choose: {alphas: []}"), "choose: alphas", "is empty"),
        (weights(TUNE, more=", choose: {alphas: [0]}"), "choose: alphas", "one above 0"),
        (weights(TUNE, more=", choose: {alphas: [0, 1]}"), "a: choose", "has one state"),
        (
            weights(TUNE, more=", choose: {alphas: [1, 1.5]}"),
            "choose.alphas: item 2",
            "must be from 0 (what was before) to 1 (all that was learnt), got 1.5",
        ),
        (
            weights(SCRATCH, more=", choose: {alphas: [0.5]}"),
            "choose: alphas",
            "they go back towards random weights",
        ),
        (
            weights("{finetune: {data: examples.jsonl}, quantise: {}}"),
            "weights: item 1",
            "a stage is one of pretrain, finetune, prefer, merge, quantise; got finetune, quantise",
        ),
        (weights("{}"), "weights: item 1", "got none"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_stages_is_named(
    folder: Path, arm: str, place: str, expected: str
) -> None:
    said = one(folder, arm)
    assert f"{place} " in said and expected in said


B, C = f"b: {{weights: [{TUNE}]}}", f"c: {{weights: [{PRETRAIN}]}}"


def joins(arms: str, *before: str, more: str = "") -> str:
    return weights(*before, f"{{merge: {{method: ties, arms: {arms}{more}}}}}")


def test_arms_that_learnt_from_the_same_weights_are_joined(folder: Path) -> None:
    assert load(folder, joins("[b, c]"), B, C)
    deep = f"c: {{weights: [{PRETRAIN}, {PREFER}]}}"
    assert load(folder, joins("[b, c]", PRETRAIN), f"b: {{weights: [{PRETRAIN}, {TUNE}]}}", deep)


@pytest.mark.parametrize(
    ("arm", "others", "expected"),
    [
        (joins("[b]"), [B], "arms must name two or more different arms to join, got b"),
        (joins("[b, b]"), [B], "two or more different arms to join, got b, b"),
        (joins("[b, cc]"), [B, C], "item 2 is 'cc', which is no arm; "),
        (joins("[b, a]"), [B], "item 2 is a, this arm itself"),
        (joins("[b, base]"), [B], "item 2 is base, which learns nothing from where"),
        (joins("[b, c]", PRETRAIN), [f"b: {{weights: [{PRETRAIN}, {TUNE}]}}", C],
         "item 2 is c, which learns nothing from where this merge begins"),
        (joins("[b, c]"), [B, f"c: {{weights: [{SCRATCH}]}}"], "item 2 is c, which learns nothing"),
        (joins("[b, c]"), [B, f"c: {{weights: [{TUNE}, {SMALL}]}}"], "c, which ends in quantise"),
        (joins("[b, c]", more=", weights: [1]"), [B, C],
         "weights must hold a number for each of the 2 arms, got 1"),
    ],
)  # fmt: skip
def test_what_can_not_be_joined_is_named(
    folder: Path, arm: str, others: list[str], expected: str
) -> None:
    (said,) = mistakes(folder, arm, *others)
    assert expected in said and said.endswith("(tokka.yaml:8)")


def test_merges_that_wait_for_each_other_are_named(folder: Path) -> None:
    round_trip = f"b: {{weights: [{TUNE}, {{merge: {{method: dare, arms: [a, c]}}}}]}}"
    said = mistakes(folder, joins("[b, c]"), round_trip, C)
    lines = [item for item in said if "wait for each other in a circle" in item]
    assert [item.rpartition(":")[2] for item in lines] == ["8)", "9)"]


def test_a_stage_that_is_wrong_in_itself_makes_no_other_look_wrong(folder: Path) -> None:
    (said,) = mistakes(folder, weights("{finetune: {data: examples.jsonl, rank: 0}}", FOLD))
    assert "rank must be >= 1" in said
    (said,) = mistakes(folder, weights("{finetune: {method: lora}}", FOLD))
    assert "data is missing" in said


@pytest.mark.parametrize("model", ["http://127.0.0.1:8080/v1#small", "model.gguf"])
def test_no_stage_trains_a_model_that_hides_its_weights(folder: Path, model: str) -> None:
    (folder / "model.gguf").write_bytes(b"GGUF")
    said = mistakes(folder, weights(PRETRAIN, SMALL), model=model)
    assert len(said) == 2 and all("needs weights that can be trained" in item for item in said)


def test_pretraining_needs_texts(folder: Path) -> None:
    text = HEAD.format(model="model/").replace("corpus: [documents/]\n", "")
    (folder / "tokka.yaml").write_text(text + f"  a: {{weights: [{PRETRAIN}]}}\n")
    with pytest.raises(Mistakes, match=re.escape("pretrain has no text to learn from")):
        load_project(folder)


def test_the_control_chooses_nothing(folder: Path) -> None:
    (folder / "tokka.yaml").write_text(
        HEAD.format(model="model/").replace("base: {}", f"base: {weights(TUNE)[3:]}")
    )
    with pytest.raises(Mistakes, match="weights is set, but this arm is the control"):
        load_project(folder)
