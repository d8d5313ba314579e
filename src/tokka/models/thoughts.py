"""A reasoning model's thought, as it stands in text: where it begins, ends, and is left empty.

    split_thought("<think>\n40 + 2\n</think>\n\n42", opened=None)
    → Thought(tags=("<think>", "</think>"), text="\n40 + 2\n", space="\n\n", answer="42")

Some chat templates open the thought in the prompt (`opened`), some can be told to write an empty
one there (`is_emptied`), the rest leave it to the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tokka.errors import UsageError


class Tags(NamedTuple):
    begin: str
    end: str


# As vLLM's parsers read them (vllm/reasoning/*_reasoning_parser.py); the first are the usual ones.
# What a model writes in channels of its own (gpt-oss) is none of these.
TAGS = (
    Tags("<think>", "</think>"),  # DeepSeek-R1, Qwen3, QwQ, GLM-4.5
    Tags("[THINK]", "[/THINK]"),  # Mistral: Magistral
    Tags("<|START_THINKING|>", "<|END_THINKING|>"),  # Cohere: Command A Reasoning
    Tags("<seed:think>", "</seed:think>"),  # ByteDance: Seed-OSS
    Tags("◁think▷", "◁/think▷"),  # Moonshot: Kimi-Dev
)


@dataclass(frozen=True, slots=True)
class Thought:
    """An answer in its parts: begin + text + end + space + answer."""

    tags: Tags
    text: str
    space: str
    answer: str


def opened(prompt: str) -> Tags | None:
    """The tags whose first one ends the prompt: the model goes on with its thought."""
    return next((tags for tags in TAGS if prompt.rstrip().endswith(tags.begin)), None)


def is_emptied(prompt: str) -> bool:
    """Whether the prompt ends with an empty thought: the model goes on with its answer."""
    ends = (prompt.rstrip().removesuffix(t.end) for t in TAGS if prompt.rstrip().endswith(t.end))
    return any(opened(end) is not None for end in ends)


def named_in(template: str) -> Tags | None:
    """The tags that a chat template writes or looks for."""
    return next((tags for tags in TAGS if tags.end in template), None)


def split_thought(answer: str, opened: Tags | None) -> Thought | None:
    """The thought that an answer begins with; None where it has none.

    Where the prompt has `opened` one already, all before the closing tag is thought. Raises
    UsageError for a thought that is opened and never closed.
    """
    text = answer.lstrip()
    begun = next((tags for tags in TAGS if text.startswith(tags.begin)), None)
    tags = begun or opened
    if tags is None:
        return None
    thought, closed, rest = text.removeprefix(tags.begin if begun else "").partition(tags.end)
    if not closed:
        if begun is None:
            return None  # an answer without a thought
        raise UsageError(
            f"the answer is cut: its thought opens with {tags.begin} and never closes; "
            f"write {tags.end} and the answer, or remove the example"
        )
    said = rest.lstrip()
    return Thought(tags, thought, rest[: len(rest) - len(said)], said)


def without_thought(answer: str) -> str:
    """An answer less the thought that it begins with. Raises as `split_thought` does."""
    found = split_thought(answer, None)
    return answer if found is None else found.answer
