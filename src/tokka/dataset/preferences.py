"""Read preferences: which of two answers is the better one, or whether an answer is wanted at all.

JSON lines → `Preference`s. A row is {"question", "chosen", "rejected"}; for KTO also {"question",
"answer", "desirable": true|false}. `prompt` or `messages` may stand for `question`, a list of
messages for any of the texts, `system` and `id` beside them. All mistakes in a file are reported at
once, with their lines.

>>> preferences = read_preferences(Path("preferences.jsonl"), "dpo")
>>> kept = refuse_leaks(preferences, question_texts)
"""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokka.dataset import decontamination
from tokka.errors import Mistakes, UsageError
from tokka.records import Dropped, Example, Message, Messages, Objective, Preference, fingerprint
from tokka.store import read_text

_ASKS = ("messages", "question", "prompt")
_SINGLE = (("answer", "desirable"), ("completion", "label"))
_JUDGED = tuple(name for pair in _SINGLE for name in pair)
_FIELDS = (*_ASKS, "system", "chosen", "rejected", *_JUDGED, "id")
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Kept:
    """What `refuse_leaks` let through, and what it left out with the reason."""

    preferences: tuple[Preference, ...]
    dropped: tuple[Dropped, ...]


def read_preferences(path: Path, objective: Objective) -> list[Preference]:
    """The preferences of a file, plain or gzipped, in its order.

    Raises Mistakes naming every bad row, and rows that repeat or contradict each other; UsageError
    where the file can't be read at all. A row without id gets one from its content.
    """
    found: list[tuple[int, Preference]] = []
    mistakes: list[str] = []
    for line, text in enumerate(read_text(path, "preference").split("\n"), 1):
        if not text.strip():
            continue
        wrong: list[str] = []
        preference = _preference(text, objective, wrong)
        mistakes.extend(f"preference: {reason} ({path.name}:{line})" for reason in wrong)
        if preference is not None and not wrong:
            found.append((line, preference))
    mistakes.extend(_repeats(found, path.name))
    if not found and not mistakes:
        raise UsageError(
            f'preference: {path} is empty; write rows like {{"question": …, "chosen": …, '
            '"rejected": …}'
        )
    mistakes.extend(_one_sided(found, path.name) if not mistakes else [])
    if mistakes:
        raise Mistakes(f"preferences: {len(mistakes)} mistakes in {path}", mistakes)
    return [preference for _, preference in found]


def places(path: Path) -> list[str]:
    """File and line of each preference of a file without mistakes, in its order."""
    lines = enumerate(read_text(path, "preference").split("\n"), 1)
    return [f"{path.name}:{line}" for line, text in lines if text.strip()]


def refuse_leaks(preferences: Sequence[Preference], question_texts: Mapping[str, str]) -> Kept:
    """Leave out the preferences in which an exam question stands, and say which and why.

    `question_texts` maps question ids to what is asked; the prompt counts, and both answers.
    """
    as_examples = [
        Example(
            id=preference.id,
            messages=(
                *preference.messages,
                *(Message(role="assistant", content=text) for text in _answers(preference)),
            ),
        )
        for preference in preferences
    ]
    kept = decontamination.refuse_leaks(as_examples, question_texts)
    clean = {example.id for example in kept.examples}
    return Kept(
        tuple(preference for preference in preferences if preference.id in clean),
        tuple(
            dropped.model_copy(
                update={
                    "item": dropped.item.replace("example", "preference", 1),
                    "next_action": "ask for the fact in other words than the exam's",
                }
            )
            for dropped in kept.dropped
        ),
    )


# ---- one row ------------------------------------------------------------------------------------


def _preference(text: str, objective: Objective, wrong: list[str]) -> Preference | None:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        wrong.append(f"not valid JSON: {getattr(error, 'msg', error)}; correct the row")
        return None
    if not isinstance(row, dict):
        wrong.append(f"a row must be an object with fields, got {type(row).__name__}")
        return None
    wrong.extend(_unknown(name) for name in row if name not in _FIELDS)
    prompt = _prompt(row, wrong)
    paired = any(row.get(name) is not None for name in ("chosen", "rejected"))
    judged = any(row.get(name) is not None for name in _JUDGED)
    if paired and judged:
        wrong.append("chosen and rejected and a judged answer are given; keep one of the two")
    elif judged:
        prompt, chosen, rejected = _single(row, prompt, objective, wrong)
    else:
        prompt, chosen, rejected = _pair(row, prompt, wrong)
    if not wrong:
        _check_prompt(prompt, wrong)
    given = row.get("id")
    if isinstance(given, bool) or not isinstance(given, str | int | None):
        wrong.append(f"id must be text, got {str(given)[:40]!r}")
    if wrong:
        return None
    content = [[[m.role, m.content] for m in prompt], chosen, rejected]
    return Preference(
        id=f"pf-{fingerprint(content)[:12]}" if given in (None, "") else str(given).strip(),
        messages=prompt,
        chosen=chosen,
        rejected=rejected,
    )


def _prompt(row: dict[str, Any], wrong: list[str]) -> Messages:
    """Empty where the row leaves the prompt to the conversations of its answers."""
    given = [name for name in _ASKS if row.get(name) is not None]
    if len(given) > 1:
        wrong.append(f"{' and '.join(map(repr, given))} are given; keep one")
        return ()
    system = row.get("system")
    if system is not None and not isinstance(system, str):
        wrong.append(f"system must be text, got {str(system)[:40]!r}")
        return ()
    if not given:
        return ()
    value = row[given[0]]
    if isinstance(value, str) and given[0] != "messages":
        value = [{"role": "user", "content": value}]
    messages = _messages(value)
    if messages is None:
        wrong.append(f'{given[0]} must be text or a list of {{"role": …, "content": …}}')
        return ()
    return (Message(role="system", content=system.strip()), *messages) if system else messages


def _check_prompt(prompt: Messages, wrong: list[str]) -> None:
    if not prompt:
        wrong.append("needs question, prompt or messages; write what is asked")
    elif prompt[-1].role != "user":
        wrong.append(f"the last message of the prompt must be the user's, got {prompt[-1].role}'s")
    elif any(not message.content for message in prompt):
        wrong.append("the question is empty; write what is asked")


def _pair(row: dict[str, Any], prompt: Messages, wrong: list[str]) -> tuple[Messages, str, str]:
    answers = []
    for name in ("chosen", "rejected"):
        if row.get(name) is None:
            wrong.append(f"needs {name}; write both answers, or answer and desirable (for kto)")
            continue
        prompt, answer = _answer(row[name], name, prompt, wrong)
        answers.append(answer)
    if wrong:
        return prompt, "", ""
    chosen, rejected = answers
    if _same(chosen) == _same(rejected):
        wrong.append(f"chosen and rejected are the same, {chosen[:40]!r}; change one")
    return prompt, chosen, rejected


def _single(
    row: dict[str, Any], prompt: Messages, objective: Objective, wrong: list[str]
) -> tuple[Messages, str, str]:
    used = [pair for pair in _SINGLE if any(row.get(name) is not None for name in pair)]
    said, judged = used[0]
    if objective != "kto":
        wrong.append(
            f"{said} and {judged} are for objective kto, here it is {objective}; write chosen and "
            "rejected"
        )
    elif len(used) > 1:
        wrong.append(f"{said!r} and {used[1][0]!r} are given; keep one")
    elif not isinstance(row.get(judged), bool):
        wrong.append(f"{judged} must be true or false, got {str(row.get(judged))[:40]!r}")
    elif row.get(said) is None:
        wrong.append(f"needs {said}; write what is judged")
    else:
        prompt, answer = _answer(row[said], said, prompt, wrong)
        return (prompt, answer, "") if row[judged] else (prompt, "", answer)
    return prompt, "", ""


def _answer(value: Any, name: str, prompt: Messages, wrong: list[str]) -> tuple[Messages, str]:
    """An answer's text. A whole conversation also brings the prompt, the same as any given."""
    if isinstance(value, str):
        answer = value.strip()
    else:
        messages = _messages(value)
        if not messages or messages[-1].role != "assistant":
            wrong.append(
                f"{name} must be text or a list of messages that ends with the assistant's"
            )
            return prompt, ""
        *before, last = messages
        answer = last.content
        if before and prompt and tuple(before) != prompt:
            wrong.append(f"{name} begins with another conversation than the prompt; make them one")
        prompt = prompt or tuple(before)
    if not answer:
        wrong.append(f"{name} is empty; write an answer")
    return prompt, answer


def _messages(value: Any) -> Messages | None:
    if not isinstance(value, list) or not all(
        isinstance(m, dict)
        and set(m) == {"role", "content"}
        and m["role"] in _ROLES
        and isinstance(m["content"], str)
        for m in value
    ):
        return None
    return tuple(Message(role=m["role"], content=m["content"].strip()) for m in value)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, _FIELDS, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_FIELDS)}"
    return f"unknown field {name!r}; {hint}"


# ---- all rows -----------------------------------------------------------------------------------


def _repeats(found: Sequence[tuple[int, Preference]], file: str) -> list[str]:
    wrong: list[str] = []
    ids: dict[str, int] = {}
    seen: dict[str, int] = {}
    for line, preference in found:
        asked = [[m.role, _same(m.content)] for m in preference.messages]
        chosen, rejected = _same(preference.chosen), _same(preference.rejected)
        first = seen.setdefault(fingerprint([asked, chosen, rejected]), line)
        opposite = seen.get(fingerprint([asked, rejected, chosen]))
        if first != line:
            wrong.append(f"preference: the same as line {first}; remove one ({file}:{line})")
        elif opposite is not None:
            wrong.append(
                f"preference: the opposite of line {opposite}; decide which answer is better "
                f"({file}:{line})"
            )
        elif (before := ids.setdefault(preference.id, line)) != line:
            wrong.append(
                f"preference: id {preference.id!r} stands in line {before} too; change one "
                f"({file}:{line})"
            )
    return wrong


def _one_sided(found: Sequence[tuple[int, Preference]], file: str) -> list[str]:
    """KTO weighs wanted against unwanted answers: with one kind alone it teaches no difference."""
    kinds = {name for _, p in found for name in ("chosen", "rejected") if getattr(p, name)}
    if len(kinds) == 2:
        return []
    missing = "undesirable" if "chosen" in kinds else "desirable"
    return [f"preference: no answer is {missing}; kto needs both kinds, add some ({file})"]


def _answers(preference: Preference) -> list[str]:
    return [text for text in (preference.chosen, preference.rejected) if text]


def _same(text: str) -> str:
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text)).strip()
