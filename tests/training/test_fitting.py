"""What doesn't fit is refused with settings that do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokka.errors import UsageError
from tokka.records import FinetuneSpec, PreferSpec, PretrainSpec, ScratchSpec, TrainingSpec
from tokka.training import fitting as fitting_module
from tokka.training.fitting import fitting, refuse, refuse_unfit
from tokka.training.lessons import Lesson
from tokka.training.memory import estimate
from tokka.training.shape import Matrix, Shape, scratch_shape

SHAPE = Shape(
    layers=24,
    width=2048,
    feedforward=5632,
    queries=2048,
    keys=512,
    vocabulary=50_000,
    matrices=(Matrix(2048, 2048, 48), Matrix(512, 2048, 48), Matrix(5632, 2048, 72)),
    embedding=50_000 * 2048,
    head=0,
    other=49 * 2048,
    windows=(0,) * 24,
)
SPECS: list[TrainingSpec] = [
    FinetuneSpec(data="examples.jsonl", method="full", batch_tokens=8192),
    FinetuneSpec(data="examples.jsonl", batch_tokens=8192, rank=256),
    FinetuneSpec(data="examples.jsonl", method="qlora", batch_tokens=8192, rank=64),
    PretrainSpec(batch_tokens=8192, window_tokens=8192),
    PreferSpec(data="pairs.jsonl", batch_tokens=8192),
]


@pytest.mark.parametrize("spec", SPECS)
def test_every_alternative_fits_by_its_own_estimate(spec: TrainingSpec) -> None:
    needed = estimate(SHAPE, spec, 100).total
    for share in (0.9, 0.6, 0.45):
        fit = fitting(SHAPE, spec, round(needed * share), longest=100)
        assert not fit.fits
        for alternative in fit.alternatives:
            changed = spec.model_copy(update=alternative.changes)
            assert type(changed).model_validate(changed.model_dump()) == changed
            again = estimate(
                SHAPE, changed, 100 if "window_tokens" not in alternative.changes else 0
            )
            assert again == alternative.memory
            assert again.total <= round(needed * share)
        assert len({str(alternative) for alternative in fit.alternatives}) == 3


def test_what_fits_has_no_alternatives() -> None:
    spec = SPECS[0]
    needed = estimate(SHAPE, spec).total
    assert fitting(SHAPE, spec, needed).fits and not fitting(SHAPE, spec, needed).alternatives
    assert not fitting(SHAPE, spec, needed - 1).fits
    assert fitting(SHAPE, spec, None).fits  # nobody knows: nobody is refused


def test_the_nearest_alternative_gives_up_least() -> None:
    """A smaller batch before a smaller rank, and both before another method."""
    spec = SPECS[1]
    needed = estimate(SHAPE, spec).total
    fit = fitting(SHAPE, spec, round(0.9 * needed))
    assert fit.alternatives[0].changes == {"batch_tokens": 4096, "accumulate": 2}
    fit = fitting(SHAPE, spec, needed - 1)  # now any of them is enough
    assert [tuple(one.changes) for one in fit.alternatives] == [
        ("batch_tokens", "accumulate"),
        ("recompute",),
        ("rank",),
    ]
    small = FinetuneSpec(data="e", batch_tokens=256, rank=4, recompute=True)
    fit = fitting(SHAPE, small, estimate(SHAPE, small).total - 1)
    assert [tuple(one.changes) for one in fit.alternatives[:2]] == [
        ("batch_tokens", "accumulate"),
        ("method",),
    ]


def test_a_smaller_batch_keeps_the_step() -> None:
    spec = FinetuneSpec(data="e", batch_tokens=8192, accumulate=3)
    fit = fitting(SHAPE, spec, round(0.7 * estimate(SHAPE, spec).total))
    changed = [one.changes for one in fit.alternatives if "batch_tokens" in one.changes]
    assert changed
    assert all(one["batch_tokens"] * one["accumulate"] == 8192 * 3 for one in changed)


def test_a_full_training_beyond_its_weights_becomes_an_adapter() -> None:
    room = 12 * SHAPE.parameters  # less than AdamW alone holds
    fit = fitting(SHAPE, SPECS[0], room, longest=64)
    assert [one.changes["method"] for one in fit.alternatives]
    assert {one.changes["method"] for one in fit.alternatives} <= {"lora", "qlora"}


def test_from_scratch_there_is_nothing_to_adapt() -> None:
    spec = PretrainSpec(scratch=ScratchSpec(width=1024, layers=24, heads=16), batch_tokens=8192)
    assert spec.scratch is not None
    shape = scratch_shape(spec.scratch)
    fit = fitting(shape, spec, round(0.8 * estimate(shape, spec).total))
    assert fit.alternatives
    assert all("method" not in one.changes for one in fit.alternatives)


def test_the_refusal_names_the_need_the_room_and_what_fits() -> None:
    fit = fitting(SHAPE, SPECS[0], 8_000_000_000)
    with pytest.raises(UsageError) as refused:
        refuse("arm tuned, stage 1 (finetune, full)", fit)
    said = str(refused.value)
    assert said.startswith("arm tuned, stage 1 (finetune, full): needs ")
    assert "8.00 GB are free" in said
    assert said.count("\n  - ") == 3 and "method: lora" in said
    assert refused.value.exit_code == 2
    with pytest.raises(UsageError, match="take a smaller base_model"):
        refuse("arm tuned", fitting(SHAPE, SPECS[0], 1000))


def test_before_a_training_its_own_longest_lesson_decides(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = FinetuneSpec(data="examples.jsonl", batch_tokens=16)
    short = Lesson("short", (1, 2, 3), ((1, 3),))
    long = Lesson("long", (1,) * 100_000, ((1, 3),))
    room = estimate(fitting_module.shape_of(tiny_folder), spec, 1000).total
    monkeypatch.setattr(fitting_module, "room_bytes", lambda: room)
    refuse_unfit("arm a", tiny_folder, spec, [short])
    with pytest.raises(UsageError, match="arm a: needs"):
        refuse_unfit("arm a", tiny_folder, spec, [short, long])
