"""Learning rates by method: the default, the range outside of which a training is refused, sources.

Too small teaches nothing in the time, too large destroys the model; both look like a finished run.

>>> learning_rate(FinetuneSpec(data="examples.jsonl")).default
0.0005
"""

from __future__ import annotations

from dataclasses import dataclass

from tokka.records import PreferSpec, PretrainSpec, TrainingSpec


@dataclass(frozen=True, slots=True)
class LearningRate:
    default: float
    low: float
    high: float
    source: str


_ADAPTER = LearningRate(
    5e-4,
    1e-6,
    5e-3,
    "ten times the rate of full fine-tuning (Schulman 2025, LoRA Without Regret); QLoRA (Dettmers "
    "et al. 2023) uses 2e-4 at 7B, and small models bear more",
)
_FULL = LearningRate(
    5e-5, 1e-7, 1e-3, "transformers' TrainingArguments; 2e-5 to 5e-5 in Devlin et al. 2019 (BERT)"
)
_CONTINUED = LearningRate(
    1e-4, 1e-7, 2e-3, "Ibrahim et al. 2024 warm up again to a third of the rate of pretraining"
)
_SCRATCH = LearningRate(
    1e-3, 1e-5, 1e-2, "6e-4 at 125M parameters (Brown et al. 2020, table 2.1), more below"
)
_PREFER = {
    "dpo": LearningRate(1e-6, 1e-8, 1e-4, "Rafailov et al. 2023, appendix B"),
    "kto": LearningRate(1e-6, 1e-8, 1e-4, "Ethayarajh et al. 2024: 5e-7 to 5e-6"),
    "orpo": LearningRate(8e-6, 1e-7, 5e-4, "Hong et al. 2024, section 5"),
}


def learning_rate(spec: TrainingSpec) -> LearningRate:
    """What holds for a stage's method. An adapter bears ten times the rate of all weights."""
    full = spec.method == "full"
    if isinstance(spec, PretrainSpec):
        if spec.scratch is not None:
            return _SCRATCH
        return _CONTINUED if full else _ADAPTER
    if isinstance(spec, PreferSpec):
        known = _PREFER[spec.objective]
        if full:
            return known
        more = f"{known.source}, times ten for an adapter (Schulman 2025)"
        return LearningRate(10 * known.default, known.low, 10 * known.high, more)
    return _FULL if full else _ADAPTER


def chosen_learning_rate(spec: TrainingSpec) -> float:
    return spec.learning_rate if spec.learning_rate is not None else learning_rate(spec).default
