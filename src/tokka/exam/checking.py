"""Turn rows into questions and keys, and say everything that is wrong with them.

`Row`s → `Entry`s (question, key, split where the file gives one) and mistakes as finished sentences
with file and line. A row is judged on its own first, then against the others: ids that stand twice,
one question with two different keys, a cluster in both splits.

>>> row = Row(7, {"question": "2+2?", "choices": ["3", "4"], "answer": "C"})
>>> check_rows([row], "a.jsonl").mistakes
[(7, "exam: answer 'C' is no option (A–B); write a letter or an option's text (a.jsonl:7)")]
"""

from __future__ import annotations

import difflib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from tokka.exam.answers import Wrong, choice_key, number_key, text_targets
from tokka.exam.folding import same_text
from tokka.exam.rows import Row
from tokka.exam.shapes import NOTE_FIELDS, OWNER, OWNER_FIELDS, Shaped, recognise
from tokka.records import Form, Key, Marking, Message, Messages, Question, Split, fingerprint

_MAX_CHOICES = 26
_FORMS: tuple[Form, ...] = ("choice", "short", "number")


@dataclass(frozen=True, slots=True)
class Entry:
    """`split` is None where the file leaves it to the hash of the cluster."""

    line: int
    question: Question
    key: Key
    split: Split | None
    own_id: bool


@dataclass(frozen=True, slots=True)
class Checked:
    entries: list[Entry]
    mistakes: list[tuple[int, str]]


def check_rows(rows: Sequence[Row], file: str) -> Checked:
    """Good rows as entries, in their order, and (line, sentence) for each mistake."""
    entries: list[Entry] = []
    mistakes: list[tuple[int, str]] = []
    for row in rows:
        for shaped in recognise(row.fields, row.headerless):
            wrong: list[str] = []
            entry = _entry(row.line, shaped, wrong)
            name = shaped.fields.get("id")
            where = f"question {name}, " if name and shaped.shape != OWNER else ""
            place = f"({where}{file}:{row.line})"
            mistakes.extend((row.line, f"exam: {text} {place}") for text in wrong)
            if entry is not None and not wrong:
                entries.append(entry)
    entries, between = _against_each_other(entries)
    mistakes.extend(
        (entries[place].line, f"exam: {text} ({file}:{entries[place].line})")
        for place, text in between
    )
    bad = {place for place, _ in between}
    good = [entry for place, entry in enumerate(entries) if place not in bad]
    return Checked(good, sorted(mistakes, key=lambda mistake: mistake[0]))


# ---- one row ----------------------------------------------------------------------------------


def _entry(line: int, shaped: Shaped, wrong: list[str]) -> Entry | None:
    fields = {name: value for name, value in shaped.fields.items() if value not in (None, "")}
    if shaped.shape == OWNER:
        wrong.extend(_unknown(name) for name in fields if name not in (*OWNER_FIELDS, *NOTE_FIELDS))
    messages = _messages(fields, wrong)
    choices = _choices(fields, wrong)
    form = _form(fields, choices, wrong)
    if _unanswerable(fields, wrong):
        key = _no_key(fields, form, wrong)
    else:
        key = _key(fields, form, choices, shaped.letters_first, wrong)
    split = _split(fields, shaped, wrong)
    names = {name: _text(fields, name, wrong) for name in ("id", "topic", "cluster_id")}
    document_ids = _texts(fields, "document_ids", wrong)
    points, prohibited = _texts(fields, "points", wrong), _texts(fields, "prohibited", wrong)
    if form == "choice" and not choices and "choices" not in fields:
        wrong.append("a choice question has no choices; add a list of options")
    if key is None or not messages or wrong:
        return None
    ending = _ending(fields, form, wrong)
    if wrong:
        return None
    content = [[m.content for m in messages], choices, key.targets, key.unit]
    content += [ending.completion] if ending.completion else []
    own_id = names["id"] or f"q-{fingerprint(content)[:12]}"
    question = Question(
        id=own_id,
        messages=messages,
        form=form,
        choices=choices,
        completion=ending.completion,
        delimiter=ending.delimiter,
        stop=ending.stop,
        max_tokens=ending.max_tokens,
        topic=names["topic"],
        cluster_id=names["cluster_id"],
        document_ids=document_ids,
        gold=_texts(fields, "gold", wrong),
    )
    if wrong:
        return None
    key = key.model_copy(update={"question_id": own_id, "points": points, "prohibited": prohibited})
    return Entry(line, question, key, split, bool(names["id"]))


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, OWNER_FIELDS, n=1, cutoff=0.6)
    return f"unknown field {name!r}; " + (
        f"did you mean {near[0]!r}?" if near else f"known are {', '.join(OWNER_FIELDS)}"
    )


def _messages(fields: dict[str, Any], wrong: list[str]) -> Messages:
    question, messages = fields.get("question"), fields.get("messages")
    if question is not None and messages is not None:
        wrong.append("both 'question' and 'messages' are given; keep one")
    elif isinstance(question, str) and question.strip():
        return (Message(role="user", content=question.strip()),)
    elif question is not None or messages is None:
        wrong.append("the question is empty; write what is asked into 'question'")
    elif not isinstance(messages, list) or not all(_is_message(m) for m in messages):
        wrong.append('messages must be a list of {"role": …, "content": …} with text in each')
    elif not messages or messages[-1]["role"] != "user":
        wrong.append("the last message must be the user's: it is what is asked")
    else:
        return tuple(Message(role=m["role"], content=m["content"]) for m in messages)
    return ()


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"role", "content"}
        and value["role"] in ("system", "user", "assistant")
        and isinstance(value["content"], str)
        and bool(value["content"].strip())
    )


def _choices(fields: dict[str, Any], wrong: list[str]) -> tuple[str, ...]:
    given = fields.get("choices")
    if given is None:
        return ()
    if not isinstance(given, list) or not all(
        isinstance(c, str | int | float) and not isinstance(c, bool) for c in given
    ):
        wrong.append(f"choices must be a list of texts, got {str(given)[:60]!r}")
        return ()
    if "completion" in fields:  # asked as they stand, spaces and repeats included
        return _as_they_stand(given, wrong)
    choices = [str(choice).strip() for choice in given]
    while choices and not choices[-1]:  # empty cells of the last columns
        choices.pop()
    if "" in choices:
        wrong.append(f"option {_letter(choices.index(''))} is empty; fill it or remove it")
    if not 2 <= len(choices) <= _MAX_CHOICES:
        wrong.append(f"{len(choices)} options; give 2 to {_MAX_CHOICES}")
    first: dict[str, int] = {}
    for index, choice in enumerate(choices):
        before = first.setdefault(same_text(choice), index)
        if before != index and choice:
            wrong.append(
                f"options {_letter(before)} and {_letter(index)} are the same text "
                f"{choice[:40]!r}; change one"
            )
    return tuple(choices)


def _as_they_stand(given: list[Any], wrong: list[str]) -> tuple[str, ...]:
    choices = tuple(str(choice) for choice in given)
    if "" in choices:
        wrong.append(f"option {_letter(choices.index(''))} is empty; fill it or remove it")
    if not 2 <= len(choices) <= _MAX_CHOICES:
        wrong.append(f"{len(choices)} options; give 2 to {_MAX_CHOICES}")
    return choices


@dataclass(frozen=True, slots=True)
class _Ending:
    """A prompt given whole, what stands between it and an answer, and how a text ends."""

    completion: str
    delimiter: str
    stop: tuple[str, ...] | None
    max_tokens: int | None


def _ending(fields: dict[str, Any], form: Form, wrong: list[str]) -> _Ending:
    """Texts as they stand, spaces and line breaks included."""
    texts = {name: fields.get(name, "") for name in ("completion", "delimiter")}
    wrong.extend(
        f"{name} must be a text, got {str(value)[:40]!r}"
        for name, value in texts.items()
        if not isinstance(value, str)
    )
    if "completion" in fields and not str(texts["completion"]).strip():
        wrong.append("completion is empty; write the whole prompt, or remove it")
    if "delimiter" in fields and "completion" not in fields:
        wrong.append("delimiter belongs to completion; add that or remove it")
    stop, most = fields.get("stop"), fields.get("max_tokens")
    if form == "choice" and (stop is not None or most is not None):
        wrong.append("stop and max_tokens belong to written answers, this question is choice")
    if stop is not None and not (
        isinstance(stop, list) and all(isinstance(one, str) and one for one in stop)
    ):
        wrong.append(f"stop must be a list of texts, got {str(stop)[:40]!r}")
        stop = None
    if most is not None and not (type(most) is int and 1 <= most <= 8192):
        wrong.append(f"max_tokens must be 1 to 8192, got {most!r}")
        most = None
    return _Ending(
        str(texts["completion"]),
        str(texts["delimiter"]),
        None if stop is None else tuple(stop),
        most,
    )


def _form(fields: dict[str, Any], choices: tuple[str, ...], wrong: list[str]) -> Form:
    form = fields.get("form")
    for known in _FORMS:
        if form == known:
            if choices and known != "choice":
                wrong.append(f"a {known} question has choices; remove them or write form: choice")
            return known
    if form is not None:
        wrong.append(f"form must be choice, short or number, got {form!r}")
    if "choices" in fields:
        return "choice"
    numeric = isinstance(fields.get("answer"), int | float)
    return "number" if numeric or "unit" in fields or "tolerance" in fields else "short"


def _key(
    fields: dict[str, Any],
    form: Form,
    choices: tuple[str, ...],
    letters_first: bool,
    wrong: list[str],
) -> Key | None:
    answer, index = fields.get("answer"), fields.get("answer_index")
    if form != "choice" and index is not None:
        wrong.append("answer_index belongs to choice questions; write 'answer'")
    if answer is None and (form != "choice" or index is None):
        wrong.append("the answer is missing; write it into 'answer'")
        return None
    if form != "number" and {"unit", "tolerance"} & fields.keys():
        wrong.append(f"unit and tolerance belong to form: number, this question is {form}")
    try:
        if form == "choice":
            if not choices:
                return None
            place = choice_key(answer, index, choices, letters_first)
            return Key(question_id="", targets=(choices[place],), choice=place)
        if form == "number":
            number = number_key(answer, fields.get("unit", ""), fields.get("tolerance", 0))
            return Key(
                question_id="",
                targets=(number.text, *number.others),
                unit=number.unit,
                tolerance=number.tolerance,
            )
        if "marking" in fields:
            return _marked(answer, fields["marking"])
        return Key(question_id="", targets=text_targets(answer))
    except Wrong as error:
        wrong.append(str(error))
        return None


def _unanswerable(fields: dict[str, Any], wrong: list[str]) -> bool:
    """A CSV cell holds text."""
    given = fields.get("unanswerable", False)
    said = {"true": True, "false": False}.get(given.lower()) if isinstance(given, str) else given
    if not isinstance(said, bool):
        wrong.append(f"unanswerable must be true or false, got {str(given)[:40]!r}")
        return False
    return said


def _no_key(fields: dict[str, Any], form: Form, wrong: list[str]) -> Key | None:
    """Only what is answered in one's own words can be answered with "that isn't there"."""
    given = [name for name in ("answer", "answer_index") if name in fields]
    if given:
        wrong.append(f"unanswerable, but {given[0]!r} is given; remove one of them")
    if form != "short":
        wrong.append(
            f"an unanswerable question must be form: short, this is {form}; "
            + ("remove the choices: none is right" if form == "choice" else "remove form and unit")
        )
    for name in ("document_ids", "gold", "marking", "points"):
        if name in fields:
            wrong.append(f"unanswerable, but {name} says where or what the answer is; remove one")
    return None if wrong else Key(question_id="", targets=(), unanswerable=True)


def _marked(answer: Any, marking: Any) -> Key:
    """Targets as they stand: what is ignored in them, `marking` says."""
    targets = answer if isinstance(answer, list) else [answer]
    if not targets or not all(isinstance(target, str) for target in targets):
        raise Wrong(f"answer must be a text or a list of texts, got {str(answer)[:40]!r}")
    try:
        found = Marking.model_validate_json(json.dumps(marking))
    except (ValidationError, TypeError) as error:
        raise Wrong('marking must be like {"chains": [{"name": …, "steps": […]}]}') from error
    return Key(question_id="", targets=tuple(dict.fromkeys(targets)), marking=found)


def _split(fields: dict[str, Any], shaped: Shaped, wrong: list[str]) -> Split | None:
    given = fields.get("split")
    if given == "dev" or given == "test":
        return "dev" if given == "dev" else "test"
    if given is None or shaped.shape != OWNER:  # publishers have other splits, such as validation
        return None
    wrong.append(f"split must be dev or test, got {given!r}")
    return None


def _text(fields: dict[str, Any], name: str, wrong: list[str]) -> str:
    value = fields.get(name, "")
    if isinstance(value, bool) or not isinstance(value, str | int):
        wrong.append(f"{name} must be text, got {str(value)[:40]!r}")
        return ""
    return str(value).strip()


def _texts(fields: dict[str, Any], name: str, wrong: list[str]) -> tuple[str, ...]:
    value = fields.get(name, [])
    if isinstance(value, str):  # a CSV cell: one, or several between semicolons
        value = [part.strip() for part in value.split(";") if part.strip()]
    if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
        wrong.append(f"{name} must be a list of texts, got {str(value)[:40]!r}")
        return ()
    return tuple(dict.fromkeys(v.strip() for v in value))


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < _MAX_CHOICES else str(index + 1)


# ---- rows against each other ------------------------------------------------------------------


def _against_each_other(entries: list[Entry]) -> tuple[list[Entry], list[tuple[int, str]]]:
    """Entries with their final ids and clusters, and (place in the list, mistake)."""
    wrong: list[tuple[int, str]] = []
    by_id: dict[str, int] = {}
    repeated: dict[tuple[str, ...], Entry] = {}
    named: list[Entry] = []
    taken: dict[str, int] = defaultdict(int)
    for place, entry in enumerate(entries):
        before = by_id.setdefault(entry.question.id, place)
        if entry.own_id and before != place:
            line = entries[before].line
            wrong.append((place, f"id {entry.question.id!r} stands in line {line} too; change one"))
        first = repeated.setdefault(_identity(entry.question), entry)
        if _meaning(first.key) != _meaning(entry.key):
            there, here = _shown(first.key), _shown(entry.key)
            wrong.append(
                (
                    place,
                    f"the same question as in line {first.line} with another key: {there} "
                    f"there, {here} here; correct one",
                )
            )
        named.append(_named(entry, first, taken))
    wrong.extend(_clusters_in_both(named))
    return named, wrong


def _identity(question: Question) -> tuple[str, ...]:
    if question.completion:
        return (question.completion, *question.choices)
    asked = "\n".join(same_text(m.content) for m in question.messages)
    return (asked, *sorted(same_text(choice) for choice in question.choices))


def _meaning(key: Key) -> tuple[Any, ...]:
    return (frozenset(same_text(target) for target in key.targets), key.unit)


def _shown(key: Key) -> str:
    return "unanswerable" if key.unanswerable else repr(key.targets[0][:30])


def _named(entry: Entry, first: Entry, taken: dict[str, int]) -> Entry:
    """A question that stands twice keeps both places, in one cluster: they aren't independent."""
    question, key = entry.question, entry.key
    if not entry.own_id:
        taken[question.id] += 1
        if taken[question.id] > 1:
            own = f"{question.id}-{taken[question.id]}"
            question = question.model_copy(update={"id": own})
            key = key.model_copy(update={"question_id": own})
    if not question.cluster_id:
        cluster = first.question.cluster_id or first.question.id
        question = question.model_copy(update={"cluster_id": cluster})
    return replace(entry, question=question, key=key)


def _clusters_in_both(entries: list[Entry]) -> Iterator[tuple[int, str]]:
    first: dict[str, Entry] = {}
    for place, entry in enumerate(entries):
        before = first.setdefault(entry.question.cluster_id, entry)
        if before.split != entry.split:
            yield (
                place,
                f"cluster {entry.question.cluster_id!r} is in split {before.split or 'by hash'} in "
                f"line {before.line} and {entry.split or 'by hash'} here; a cluster stays whole",
            )
