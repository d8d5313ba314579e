"""japanese-lm-fin-harness (Hirano 2024): five tasks on finance in Japanese, each a topic here.

    chABSA-dataset/e*_ann.json · datasets/cma_basics/data.json · datasets/cpa/CPA_AUDIT.xlsx
    datasets/fp2/data.json · datasets/security_sales_1/data.json

The tasks' files lie in their repository, chABSA's in one of its own; those that aren't there are
left out by name.
"""

from __future__ import annotations

from collections.abc import Iterator

from tokka.exam.suites.files import Source
from tokka.exam.suites.recipe import Found, Left, Suite
from tokka.exam.suites.spreadsheet import first_sheet

_CHABSA_URL = "https://github.com/chakki-works/chABSA-dataset"
_TASKS = ("chabsa", "cma_basics", "cpa_audit", "fp2", "security_sales_1")
_STATEMENTS = "アイウエオカ"
_FOLDERS = ("jlm_fin_eval/datasets/", "datasets/", "")
_POLARITIES = ("positive", "negative")
_ASKED = "{sentence}\n\nこの文は、「{target}」についてpositiveですか、negativeですか。"


def japanese_lm_fin_harness() -> Suite:
    return Suite(
        name="japanese-lm-fin-harness",
        title="japanese-lm-fin-harness",
        language="ja",
        task="choice of 2 to 6",
        measures="finance in Japanese: sentiment, securities analysis, auditing, financial "
        "planning, securities sales",
        measures_ja="日本語の金融（極性判定、証券アナリスト、監査論、FP2級、証券外務員）",
        licence="MIT for the repository; chABSA CC BY 4.0, cpa_audit CC BY 4.0, the others as "
        "their examination bodies publish them",
        url="https://github.com/pfnet-research/japanese-lm-fin-harness",
        files=(
            f"chABSA-dataset/*.json ({_CHABSA_URL})",
            "jlm_fin_eval/datasets/TASK/data.json",
            "jlm_fin_eval/datasets/cpa/CPA_AUDIT.xlsx",
        ),
        splits=("all", *_TASKS),
        read=_read,
    )


def _read(source: Source, split: str) -> Iterator[Found | Left]:
    if split != "all":
        yield from _task(source, split)
        return
    there = [task for task in _TASKS if source.any(*_patterns(task))]
    if not there:
        raise source.refusal(tuple(_patterns(task)[-1] for task in _TASKS))
    for task in _TASKS:
        if task in there:
            yield from _task(source, task)
        else:
            url = _CHABSA_URL if task == "chabsa" else source.url
            reason = f"there is no {' or '.join(_patterns(task))}"
            yield Left(task, reason, f"get it from {url}")


def _patterns(task: str) -> tuple[str, ...]:
    if task == "chabsa":
        return tuple(f"{folder}chABSA-dataset/*.json" for folder in ("", "chabsa/", *_FOLDERS[:2]))
    inner = "cpa/CPA_AUDIT.xlsx" if task == "cpa_audit" else f"{task}/data.json"
    return tuple(f"{folder}{inner}" for folder in _FOLDERS)


def _task(source: Source, task: str) -> Iterator[Found | Left]:
    if task == "chabsa":
        yield from _chabsa(source)
    elif task == "cpa_audit":
        yield from _cpa_audit(source)
    else:
        yield from _listed(source, task)


def _chabsa(source: Source) -> Iterator[Found | Left]:
    """The tasks' prompts offer positive and negative; a neutral opinion has no right option."""
    for path in source.several(*_patterns("chabsa")):
        company = path.name.split("_", 1)[0]
        for row in source.rows(path, "sentences"):
            for n, sentence in enumerate(row.fields["sentences"]):
                for m, opinion in enumerate(sentence["opinions"]):
                    place = f"{path.name}, sentence {n}, opinion {m}"
                    if opinion["polarity"] not in _POLARITIES:
                        kind = opinion["polarity"]
                        yield Left(place, f"its polarity is {kind}, which the task doesn't offer")
                        continue
                    fields = {
                        "id": f"chabsa-{company}-{n}-{m}",
                        "question": _ASKED.format(
                            sentence=sentence["sentence"], target=opinion["target"]
                        ),
                        "choices": list(_POLARITIES),
                        "answer": opinion["polarity"],
                        "topic": "chabsa",
                        "cluster_id": f"chabsa-{company}",
                    }
                    yield Found(fields, place)


def _listed(source: Source, task: str) -> Iterator[Found | Left]:
    """The context is part of the question: "次の文章について …" is the same for many."""
    path = source.one(*_patterns(task))
    for row in source.rows(path, "id", "question", "context", "choices", "answer"):
        choices = sorted(row.fields["choices"], key=lambda choice: choice["id"])
        places = [choice["id"] for choice in choices]
        name, place = f"{task}-{row.fields['id']}", f"{path.parent.name}/{path.name}:{row.line}"
        if row.fields["answer"] not in places:
            yield Left(place, f"the answer {row.fields['answer']!r} is none of its options")
            continue
        context = row.fields["context"] or ""
        fields = {
            "id": name,
            "question": f"{row.fields['question']}\n{context}".strip(),
            "choices": [choice["text"] for choice in choices],
            "answer_index": places.index(row.fields["answer"]),
            "topic": task,
        }
        yield Found(fields, place)


def _cpa_audit(source: Source) -> Iterator[Found | Left]:
    """Which of the statements ア to カ are right, as six combinations; a row whose `abnormal_flg`
    is 1 is one that the publisher leaves out too."""
    path = source.one(*_patterns("cpa_audit"))
    needed = ("question", "a_no", *"123456")
    for line, row in first_sheet(path):
        for name in needed[:2]:
            if name not in row:
                raise source.not_published(f"{path.name}:{line}", name)
        place = f"{path.name}:{line}"
        if not row["question"].strip():
            continue
        if row.get("abnormal_flg", "") in ("1", "1.0"):
            yield Left(place, "the publisher marks it as abnormal")
            continue
        said = [f"{name}: {row[name]}" for name in _STATEMENTS if row.get(name, "").strip()]
        number = row["a_no"].removesuffix(".0")
        if number not in needed[2:]:
            yield Left(place, f"the answer {number!r} is none of 1 to 6")
            continue
        fields = {
            "id": f"cpa_audit-{line}",
            "question": "\n".join([row["question"], *said]),
            "choices": [row.get(name, "") for name in needed[2:]],
            "answer_index": int(number) - 1,
            "topic": "cpa_audit",
        }
        yield Found(fields, place)
