"""Pitfall 4: "greedy" that samples, and few-shot examples that are reshuffled.

tests/models/test_families.py compares greedy texts with transformers' own, token by token;
tests/arms/test_building.py has how shots are picked.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tokka.arms.building import candidate_of
from tokka.candidates.shots import shots_of
from tokka.candidates.specialist import Specialist
from tokka.models.endpoint import open_endpoint
from tokka.models.protocol import GenerateRequest
from tokka.records import Arm, Example, Message, PromptSpec, Question

SOURCE = Path(__file__).parents[2] / "src"
SAMPLING = {"do_sample": True, "temperature": 9.0, "top_k": 0, "repetition_penalty": 3.0}


def texts(folder: Path, seed: int) -> list[str]:
    from tokka.models.opening import open_model

    with open_model(str(folder), dtype="float32") as model:
        prompts = [
            model.renderer.prompt((Message(role="user", content=text),))
            for text in ("Who?", "When is it?", "So what?")
        ]
        asked = [GenerateRequest(prompt, 8, seed=seed) for prompt in prompts]
        return [result.text for result in model.generate(asked)]


def test_a_models_own_wish_to_sample_is_not_followed(tiny_folder: Path, tmp_path: Path) -> None:
    """Many published models bring a generation_config.json that says do_sample."""
    wishful = tmp_path / "model"
    shutil.copytree(tiny_folder, wishful)
    path = wishful / "generation_config.json"
    told = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**told, **SAMPLING}))
    plain = texts(tiny_folder, seed=1)
    assert len(set(plain)) > 1
    assert texts(wishful, seed=2) == texts(wishful, seed=3) == plain


@pytest.mark.parametrize("ids", [True, False], ids=["completions", "chat"])
def test_an_endpoint_is_told_to_be_greedy(renderer_of: Any, wire: Any, ids: bool) -> None:
    """Most services sample unless they are told not to."""
    renderer = renderer_of("bytes", "en") if ids else None
    with open_endpoint(wire.url, hosts=[], api_key_env=None, renderer=renderer) as model:
        prompt = model.renderer.prompt((Message(role="user", content="Who?"),))
        list(model.generate([GenerateRequest(prompt, 8)]))
    ((_, body),) = wire.bodies
    assert body["temperature"] == 0.0


# ---- shots --------------------------------------------------------------------------------------


def example(n: int) -> Example:
    said = (Message(role="user", content=f"{n}?"), Message(role="assistant", content=f"{n * n}"))
    return Example(id=f"e{n}", messages=said)


def question(n: int) -> Question:
    return Question(id=f"q{n}", messages=(Message(role="user", content=f"ask {n}"),), form="short")


def shown(prompt: str) -> str:
    """What stands before the question itself."""
    return prompt[: prompt.index("ask ")]


@pytest.mark.parametrize("seed", [0, 7])
def test_every_question_of_every_run_has_the_same_shots_in_the_same_order(
    fake_model: Any, seed: int
) -> None:
    arm = Arm(name="few", prompt=PromptSpec(shots=4, shots_from="x", seed=seed))
    how: dict[str, Any] = {"base_model": "f", "base_digest": "f", "artifacts": {}, "language": "en"}
    examples = [example(n) for n in range(20)]
    seen = set()
    for order in (examples, examples[::-1]):
        model = fake_model("en")
        specialist = Specialist(candidate_of(arm, **how), model, None, shots_of(arm, order))
        answers = list(specialist.answer([question(n) for n in (1, 2, 3)]))
        seen |= {shown(model.renderer.decode(r.prompt.ids)) for r in model.written}
        assert all(a.decoding.temperature == 0.0 for a in answers)
    assert len(seen) == 1
    assert seen.pop().count("Answer: ") == 4


PRINT_SHOTS = """
from tokka.candidates.shots import fixed_shots, nearest_shots
from tokka.records import Example, Message
examples = [
    Example(id=f"e{n}", messages=(
        Message(role="user", content=f"{n}?"), Message(role="assistant", content="x")))
    for n in range(20)
]
print([e.id for e in fixed_shots(examples, 5, 3)], [e.id for e in nearest_shots("7?", examples, 5)])
"""


def test_another_process_picks_the_same_shots() -> None:
    """Nothing depends on Python's hashes, which differ from run to run."""
    said = {
        subprocess.run(
            [sys.executable, "-c", PRINT_SHOTS],
            env={**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1 and "e" in said.pop()
