"""How much memory a training takes at its peak, before it starts.

    estimate(shape_of(folder), FinetuneSpec(data="examples.jsonl"))
    → Memory(weights=…, optimiser=…, gradients=…, activations=…, loss=…, runtime=…), in bytes

Weights, gradients and optimiser are counted by parameter: AdamW holds two float32 moments for each
trained one (Loshchilov & Hutter 2019), so a full training in mixed precision takes 16 bytes a
parameter (Rajbhandari et al. 2020, ZeRO, section 3.1; here float32 weights, multiplied in copies
that are made for each product) and LoRA 2 bytes a frozen one and 16 a
trained one. Activations are counted by token, since batches are packed without padding; the idea is
Korthikanti et al. 2022 (Reducing Activation Recomputation, section 4), the widths are those of our
own layers. `benchmarks/plan_accuracy.py` holds all of it against measured peaks.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokka.records import PreferSpec, PretrainSpec, PullSpec, TrainingSpec
from tokka.training.shape import Shape

BFLOAT16, FLOAT32 = 2, 4
ADAM = 2 * FLOAT32  # both moments
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)  # 4 bits; a byte for each 64; a float32 for each 256 of these
RUNTIME_BYTES = 550_000_000  # Python with torch, transformers and PEFT, before any weights
CUDA_RUNTIME_BYTES = 600_000_000  # a CUDA context with its kernels, on the GPU
# What is freed between larger tensors isn't given back to the machine (measured: 1.1 to 1.7).
FRAGMENTS = 1.35
BLOCK_CELLS, CHUNK_CELLS, CHUNK_POSITIONS = (
    2**20,
    2**26,
    2048,
)  # as in `loss`, which needs torch to be imported


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes at the peak, by what they hold. `total` is their sum: all of it is there at once, at
    the end of a batch's way back: what activations took isn't given back by then."""

    weights: int
    optimiser: int
    gradients: int
    activations: int
    loss: int
    runtime: int

    @property
    def total(self) -> int:
        return (
            self.weights
            + self.optimiser
            + self.gradients
            + self.activations
            + self.loss
            + self.runtime
        )

    def as_json(self) -> dict[str, int]:
        return {
            "weights": self.weights,
            "optimiser": self.optimiser,
            "gradients": self.gradients,
            "activations": self.activations,
            "loss": self.loss,
            "runtime": self.runtime,
            "total": self.total,
        }


def estimate(
    shape: Shape, spec: TrainingSpec, longest: int = 0, *, runtime: int = RUNTIME_BYTES
) -> Memory:
    """Bytes for a training of `spec` on a model of `shape`, whose longest lesson has `longest`
    tokens (0: not known, and taken to fit `batch_tokens`)."""
    tokens = batch_tokens(spec, longest)
    trained = trained_parameters(shape, spec)
    return Memory(
        weights=_weights(shape, spec),
        optimiser=ADAM * trained,
        gradients=FLOAT32 * trained,
        activations=round(tokens * activation_bytes_per_token(shape, spec)),
        loss=loss_bytes(shape, spec, tokens),
        runtime=runtime,
    )


def batch_tokens(spec: TrainingSpec, longest: int = 0) -> int:
    """The tokens of the largest batch: a lesson is never cut, so a longer one is a batch alone. A
    preference holds a chosen and a rejected answer, each with its prompt, side by side."""
    if isinstance(spec, PreferSpec):
        longest *= 2
    if isinstance(spec, PretrainSpec):
        longest = max(longest, spec.window_tokens)
    return max(spec.batch_tokens, longest)


def trained_parameters(shape: Shape, spec: TrainingSpec) -> int:
    if spec.method == "full":
        return shape.parameters
    return shape.adapter(spec.rank, spec.dora)


def _weights(shape: Shape, spec: TrainingSpec) -> int:
    if spec.method == "full":
        return FLOAT32 * shape.parameters + _second_model(shape, spec)
    adapter = FLOAT32 * shape.adapter(spec.rank, spec.dora)
    if spec.method == "qlora":
        rest = shape.parameters - shape.linear
        return round(NF4 * shape.linear) + BFLOAT16 * rest + adapter
    return BFLOAT16 * shape.parameters + adapter


def _second_model(shape: Shape, spec: TrainingSpec) -> int:
    """What a full training is compared with; an adapter is only switched off."""
    if isinstance(spec, PreferSpec):
        return FLOAT32 * shape.parameters if spec.objective != "orpo" else 0
    return BFLOAT16 * shape.parameters if spec.pull != PullSpec() else 0


def activation_bytes_per_token(shape: Shape, spec: TrainingSpec) -> float:
    """What one token of a batch holds until its way back, in bfloat16, over all layers, and what
    the way back through one layer takes beside it.

    Of each layer's `width`: what goes into its four norms and what the first and third make of it.
    Of its queries and keys: as projected, as turned, and of the queries what attention and its
    reordering make of them. Of its MLP: gate, up and their product. An adapter adds its `rank` for
    each of the seven matrices. With `recompute` only what goes into each layer is held.
    """
    kept = 6 * shape.width + 4 * shape.queries + 3 * shape.keys + 3 * shape.feedforward
    if spec.method != "full":
        kept += 7 * spec.rank
    way_back = 4 * shape.feedforward + 4 * shape.width
    held = shape.layers * shape.width + kept if spec.recompute else shape.layers * kept
    return FRAGMENTS * BFLOAT16 * (held + way_back)


def loss_bytes(shape: Shape, spec: TrainingSpec, tokens: int) -> int:
    """Under a frozen head a block of logits (`loss.BLOCK_CELLS`) and sums of the hidden states'
    width. A trained head has its copy and its gradient in bfloat16 and keeps a chunk of logits
    (`loss.CHUNK_CELLS`), then its gradient in float32, which is counted with the others' unless the
    head is tied to the embedding and waits for the embedding's. TRL's preferences hold the logits
    of every token in float32, with their logarithm and their gradient."""
    if isinstance(spec, PreferSpec):
        return 3 * FLOAT32 * tokens * shape.vocabulary
    block = 4 * FLOAT32 * BLOCK_CELLS + 3 * FLOAT32 * min(tokens, CHUNK_POSITIONS) * shape.width
    if spec.method != "full":
        return block
    head = shape.vocabulary * shape.width
    chunk = BFLOAT16 * min(CHUNK_CELLS, tokens * shape.vocabulary)
    forth = BFLOAT16 * head + chunk + block
    back = 0 if shape.head else FLOAT32 * head
    return BFLOAT16 * head + max(forth, back)
