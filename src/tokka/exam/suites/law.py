"""lawqa_jp (Digital Agency of Japan, 2025): four options on a statute, with the articles that it
rests on.

    data/selection.json → Suite("lawqa_jp").read(source, "selection")
"""

from __future__ import annotations

from collections.abc import Iterator

from tokka.exam.shapes import recognise
from tokka.exam.suites.files import Source
from tokka.exam.suites.recipe import Found, Left, Suite

_FILES = {
    "selection": "selection.json",
    "randomized": "selection_randomized.json",
    "with-reference-randomized": "selection_with_reference_randomized.json",
}


def lawqa_jp() -> Suite:
    return Suite(
        name="lawqa_jp",
        title="lawqa_jp",
        language="ja",
        task="choice of 4 from a passage",
        measures="Japanese law: securities, pharmaceuticals and leases, with the articles given",
        measures_ja="日本の法令（金商法・薬機法・借地借家法、条文つき、4択）",
        licence="Public Data License 1.0",
        url="https://github.com/digital-go-jp/lawqa_jp",
        files=tuple(f"data/{name}" for name in _FILES.values()),
        splits=tuple(_FILES),
        read=_read,
        passages=True,
    )


def _read(source: Source, split: str) -> Iterator[Found | Left]:
    name = _FILES[split]
    path = source.one(f"data/{name}", name)
    for row in source.rows(path, "ファイル名", "コンテキスト", "問題文", "選択肢", "output"):
        place = f"{path.name}:{row.line}"
        asked = recognise(row.fields)[0].fields
        letter = str(asked["answer"]).strip().lower()
        if letter not in ("a", "b", "c", "d"):
            yield Left(place, f"the answer is {letter[:20]!r}, not a to d")
            continue
        question, context = asked["question"], row.fields["コンテキスト"]
        fields = {
            "id": asked["id"],
            "question": f"{context}\n\n{question}" if source.context else question,
            "choices": asked["choices"],
            "answer_index": "abcd".index(letter),
            "topic": row.fields["ファイル名"].partition("_")[0],
            "cluster_id": asked["cluster_id"],
        }
        yield Found(fields, place)
