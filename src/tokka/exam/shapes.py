"""Put one row of an exam file into the owner's fields, whoever published it.

Row fields → owner's fields. The public shapes in `SHAPES` are recognised by the names of their
fields; everything else is the owner's own shape, where an unknown field is a mistake (it may be a
misspelt one). Contexts stay out: an arm finds its passages through retrieval, the control has none.

>>> recognise({"question": "2+2?", "choice0": "3", "choice1": "4", "label": 1})
[Shaped(shape='JCommonsenseQA', fields={'question': '2+2?', 'choices': ['3', '4'], …})]
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tokka.records import fingerprint

Fields = dict[str, Any]

OWNER = "owner"
OWNER_FIELDS = (
    *("id", "question", "messages", "form", "choices", "answer", "answer_index", "unit"),
    *("tolerance", "topic", "cluster_id", "document_ids", "split", "points", "prohibited"),
    *("unanswerable", "gold"),
    *("completion", "delimiter", "stop", "max_tokens", "marking"),
)
# The owner's own, also on a row that has a public shape.
_KEPT = ("topic", "cluster_id", "document_ids", "gold", "split", "points", "prohibited")
# Read past: they explain the question to people.
NOTE_FIELDS = ("note", "comment", "explanation", "rationale", "source", "url", "shots")
_NUMBERED = re.compile(r"(?:choice|option)_?(\d+|[a-j])$")
_LETTERED_LINE = re.compile(r"^\s*[（(]?([a-zA-Zａ-ｚＡ-Ｚア-コ1-9１-９])[)）.．:：、\s]\s*(.+)$")


@dataclass(frozen=True, slots=True)
class Shaped:
    """`letters_first`: a single letter as answer names an option's place, not an option's text."""

    shape: str
    fields: Fields
    letters_first: bool = False


def recognise(row: Mapping[str, Any], headerless: bool = False) -> list[Shaped]:
    """The question in the row, or the several that are nested in it (SQuAD), in owner's fields.

    Nothing is judged here: the importer finds what is missing or impossible.
    """
    if headerless:
        return [Shaped("question, options, letter", dict(row), letters_first=True)]
    if nested := _nested(row):
        return [shaped for inner in nested for shaped in recognise(inner)]
    fields = {_lower(name): value for name, value in row.items()}
    if "completion" in fields:  # a whole prompt, as an imported task asks it: nothing to recognise
        return [Shaped(OWNER, fields)]
    for name, needs, read in SHAPES:
        if needs <= fields.keys() and (read_fields := read(fields)) is not None:
            kept = {n: fields[n] for n in _KEPT if fields.get(n) not in (None, "")}
            return [Shaped(name, {**_about(fields), **read_fields, **kept}, letters_first=True)]
    columns = _option_columns(fields)
    if columns:
        fields = {name: value for name, value in fields.items() if name not in columns}
        fields["choices"] = list(columns.values())
    elif "choices" in fields:
        fields["choices"] = _listed(fields["choices"])
    return [Shaped(OWNER, fields, letters_first=bool(columns))]


# ---- the public shapes ------------------------------------------------------------------------


def _jcommonsenseqa(row: Fields) -> Fields:
    choices = list(_option_columns(row).values())
    return {"question": row["question"], "choices": choices, "answer_index": row["label"]}


def _lawqa(row: Fields) -> Fields:
    fields = {"question": row["問題文"], "choices": _listed(row["選択肢"]), "answer": row["output"]}
    if "ファイル名" in row:
        order = row.get("回答オーダーマップ番号")  # the same question, its options in another order
        fields["id"] = f"{row['ファイル名']}#{order}" if order else row["ファイル名"]
        fields["cluster_id"] = row["ファイル名"]
    return fields


def _pubmedqa(row: Fields) -> Fields | None:
    if "question" not in row:
        return None
    choices = ["yes", "no", "maybe"]
    return {"question": row["question"], "choices": choices, "answer": row["final_decision"]}


def _arc(row: Fields) -> Fields | None:
    """ARC, OpenBookQA, CommonsenseQA: options as {text: […], label: […]} or [{text, label}, …]."""
    stem: Any = row["question"]
    options: Any = row.get("choices")
    if isinstance(stem, Mapping):
        options, stem = stem.get("choices"), stem.get("stem")
    if isinstance(options, Mapping):
        texts, labels = options.get("text"), options.get("label")
    elif isinstance(options, list):
        pairs = [option for option in options if isinstance(option, Mapping)]
        texts = [option.get("text") for option in pairs]
        labels = [option.get("label") for option in pairs]
    else:
        return None
    fields: Fields = {"question": stem, "choices": texts, "answer": row["answerkey"]}
    if isinstance(labels, list) and row["answerkey"] in labels:  # some rows are keyed 1 to 4
        del fields["answer"]
        fields["answer_index"] = labels.index(row["answerkey"])
    return fields


def _medqa(row: Fields) -> Fields | None:
    if not isinstance(row["options"], Mapping):
        return None
    labels = list(row["options"])
    if row["answer_idx"] not in labels:
        return None
    choices, index = list(row["options"].values()), labels.index(row["answer_idx"])
    return {"question": row["question"], "choices": choices, "answer_index": index}


def _mmlu(row: Fields) -> Fields | None:
    """MMLU, MMLU-Pro and their translations: an index counted from 0, or a letter."""
    options = row.get("options", row.get("choices"))
    theirs = {"options", "subject", "category", "cot_content"} & row.keys()
    whole = isinstance(row.get("answer"), int) and row.keys() <= {"question", "choices", "answer"}
    if options is None or "answer" not in row or not (theirs or whole):
        return None
    if isinstance(options, Mapping):
        options = list(options.values())
    fields = {"question": row["question"], "choices": _listed(options), "answer": row["answer"]}
    if "answer_index" in row:
        fields["answer_index"] = row["answer_index"]
    return fields


def _igakuqa(row: Fields) -> Fields:
    return {"question": row["problem_text"], "choices": row["choices"], "answer": row["answer"]}


def _gsm8k(row: Fields) -> Fields | None:
    answer = row["answer"]
    if not isinstance(answer, str) or "\n#### " not in answer:
        return None
    number = answer.rsplit("\n#### ", 1)[1].strip()
    return {"question": row["question"], "form": "number", "answer": number}


def _squad(row: Fields) -> Fields | None:
    texts = row["answers"]
    if isinstance(texts, Mapping):
        texts = texts.get("text")
    if not isinstance(texts, list):
        return None
    plain = [text.get("text") if isinstance(text, Mapping) else text for text in texts]
    fields: Fields = {"question": row["question"], "form": "short"}
    if row.get("is_impossible") is True and not plain:  # SQuAD 2.0
        fields["unanswerable"] = True
    else:
        fields["answer"] = list(dict.fromkeys(plain))  # annotators often agree
    if "context" in row:  # questions on one passage are not independent
        fields["cluster_id"] = f"passage-{fingerprint(row['context'])[:12]}"
    return fields


SHAPES: tuple[tuple[str, frozenset[str], Callable[[Fields], Fields | None]], ...] = (
    ("JCommonsenseQA", frozenset({"question", "choice0", "label"}), _jcommonsenseqa),
    ("lawqa_jp", frozenset({"問題文", "選択肢", "output"}), _lawqa),
    ("PubMedQA", frozenset({"final_decision"}), _pubmedqa),
    ("ARC", frozenset({"question", "answerkey"}), _arc),
    ("MedQA", frozenset({"question", "options", "answer_idx"}), _medqa),
    ("MMLU", frozenset({"question"}), _mmlu),
    ("IgakuQA", frozenset({"problem_text", "choices", "answer"}), _igakuqa),
    ("GSM8K", frozenset({"question", "answer"}), _gsm8k),
    ("SQuAD", frozenset({"question", "answers"}), _squad),
)


def _about(row: Fields) -> Fields:
    """Id and topic under the names that publishers use."""
    names = {
        "id": ("id", "q_id", "qid", "question_id", "problem_id", "pubid"),
        "topic": ("topic", "subject", "category", "title"),
    }
    return {
        field: row[alias]
        for field, aliases in names.items()
        for alias in reversed(aliases)
        if row.get(alias) not in (None, "")
    }


def _nested(row: Mapping[str, Any]) -> list[Fields]:
    """SQuAD keeps questions under paragraphs → qas, JaQuAD under a passage → questions."""
    found: list[Fields] = []
    paragraphs = row.get("paragraphs")
    for passage in paragraphs if isinstance(paragraphs, list) else [row]:
        if not isinstance(passage, Mapping):
            continue
        inner = passage.get("qas", passage.get("questions"))
        for question in inner if isinstance(inner, list) else []:
            if isinstance(question, Mapping):
                about = {"title": row.get("title", ""), "context": passage.get("context", "")}
                found.append({**about, **question})
    return found


# ---- options ----------------------------------------------------------------------------------


def _option_columns(row: Fields) -> dict[str, str]:
    """Columns A B C … or choice_1 … in their order, under their names."""
    names = [name for name in "ABCDEFGHIJ" if name in row]
    if not names:
        matches = [match for name in row if (match := _NUMBERED.match(name))]
        names = [m[0] for m in sorted(matches, key=lambda m: (len(m[1]), m[1]))]
    return {name: row[name] for name in names} if len(names) > 1 else {}


def _listed(choices: Any) -> Any:
    """Options as a list; text is a JSON list, or lines that begin with a letter or number."""
    if not isinstance(choices, str):
        return choices
    if choices.lstrip().startswith("["):
        try:
            return json.loads(choices)
        except ValueError:
            return choices
    options: list[str] = []
    label = ""
    for line in choices.splitlines():
        match = _LETTERED_LINE.match(line)
        if match and _follows(label, match[1]):
            label = match[1]
            options.append(match[2].strip())
        elif options:
            options[-1] = f"{options[-1]}\n{line}".rstrip()
        elif line.strip():
            return choices
    return options if len(options) > 1 else choices


def _follows(before: str, label: str) -> bool:
    """Labels run on without a gap; the katakana ア イ ウ エ オ stand two code points apart."""
    if not before:
        return label in "aAａＡア1１"
    return ord(label) - ord(before) in ((1, 2) if "ア" <= label <= "コ" else (1,))


def _lower(name: str) -> str:
    return name.strip().lower() if name.isascii() and len(name.strip()) > 1 else name.strip()
