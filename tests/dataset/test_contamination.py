"""An exam question in a document or an example is found; a text on the same subject is none."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokka.dataset import asked as asked_module
from tokka.dataset.asked import Asked, hashed
from tokka.dataset.contamination import LEAVES_OUT, Overlap, askings, contamination
from tokka.dataset.decontamination import leaks

JA = "営業店長が単独で決裁できる無担保融資の上限額はいくらですか。"
EN = "What is the highest dose of aspirin that a nurse may give without calling a doctor?"
LONG_EN = (
    "A clerk at the harbour office receives a container whose seal number differs from the number "
    "on the bill of lading and whose weight is above the declared one. "
)
LONG_JA = (
    "取引先の代表者が交代したときは、営業店は届出を受けた日から五営業日以内に新しい代表者の本人"
    "確認を行い、印鑑票を差し替えたうえで、その経緯を顧客台帳に残さなければならない。"
)
EXAMPLES = Path(__file__).parents[2] / "examples"


def found(question: str, text: str) -> list[tuple[str, float]]:
    overlaps = contamination({"q": question}, [("t", text)])
    return [(one.kind, one.overlap) for one in overlaps]


def words(count: int, seed: int) -> str:
    letters = random.Random(seed)
    return " ".join("".join(letters.choices("abcdefghijklmnop", k=6)) for _ in range(count))


def test_a_question_that_stands_in_a_text_is_shown_as_it_is_written_there() -> None:
    text = "第一問\n営業店長が、単独で決裁できる　無担保融資の上限額は、いくらですか？\n答 300万円"
    (one,) = contamination({"q": JA}, [("doc", text)])
    assert (one.question_id, one.item_id, one.kind, one.overlap) == ("q", "doc", "verbatim", 1.0)
    assert one.excerpt == "営業店長が、単独で決裁できる 無担保融資の上限額は、いくらですか"


def test_an_english_excerpt_has_whole_words() -> None:
    (one,) = contamination({"q": EN}, [("doc", "Before. " + EN.upper() + " After it.")])
    assert one.excerpt == EN.upper().rstrip("?")


@pytest.mark.parametrize(
    ("question", "text", "kind"),
    [
        (JA, JA.replace("ですか", "でしょうか"), "near"),
        (EN, EN.replace("the highest", "highest"), "near"),
        ("動物は？", "犬\n動物は?", "verbatim"),
    ],
)
def test_what_leaks_finds_is_found_with_its_kind(question: str, text: str, kind: str) -> None:
    assert [name for name, _ in found(question, text)] == [kind]
    assert kind in LEAVES_OUT


def test_three_tenths_of_the_runs_of_thirteen_words_are_reported() -> None:
    parts = words(29, 1).split()  # 17 runs of 13
    question = " ".join(parts)
    enough, too_few = " ".join(parts[5:23]), " ".join(parts[5:22])
    assert found(question, f"{words(30, 2)} {enough} {words(30, 3)}") == [
        ("words-13", round(6 / 17, 4))
    ]
    assert found(question, f"{words(30, 2)} {too_few} {words(30, 3)}") == []


def test_seventy_of_a_hundred_runs_of_eight_words_are_reported() -> None:
    parts = words(108, 1).split()  # 101 runs of 8; pieces of 12 words bring 5 of them each
    question = " ".join(parts)
    pieces = [" ".join(parts[at : at + 12]) for at in range(0, 96, 5)]
    assert found(question, " x ".join(reversed(pieces[:15]))) == [("words-8", round(75 / 101, 4))]
    assert found(question, " x ".join(reversed(pieces[:14]))) == []


def test_three_tenths_of_the_runs_of_25_characters_are_reported_as_they_stand() -> None:
    characters = LONG_JA.replace("、", "").replace("。", "")[:54]  # 30 runs of 25
    enough, too_few = characters[10:43], characters[10:42]
    (one,) = contamination({"q": characters}, [("d", f"案では、{enough}と定める。")])
    assert (one.kind, one.overlap) == ("characters-25", 0.3)
    assert one.excerpt == enough[:25]
    assert found(characters, f"案では、{too_few}と定める。") == []


def test_what_many_questions_share_is_no_overlap() -> None:
    questions = {f"q{n}": LONG_EN + words(20, n) for n in range(8)}
    assert list(contamination(questions, [("t", LONG_EN + words(20, 99))])) == []
    alone = {"q0": questions["q0"]}
    assert [kind for kind, _ in found(alone["q0"], LONG_EN + words(20, 99))] == ["words-13"]


def test_a_question_takes_its_strongest_kind_only() -> None:
    assert [kind for kind, _ in found(LONG_EN, LONG_EN)] == ["verbatim"]


def test_texts_are_read_as_they_come() -> None:
    read = 0

    def texts() -> Iterator[tuple[str, str]]:
        nonlocal read
        for number in range(10):
            read += 1
            yield f"t{number}", JA if number % 2 else "ほかのこと"

    stream = contamination({"q": JA}, texts())
    assert next(stream).item_id == "t1"
    assert read == 2
    assert [one.item_id for one in stream] == ["t3", "t5", "t7", "t9"]


def test_no_questions_and_no_texts_are_no_overlap() -> None:
    assert list(contamination({}, [("t", JA)])) == []
    assert list(contamination({"q": JA}, [])) == []
    assert list(contamination({"q": "…"}, [("t", "…")])) == []


CHARACTERS = st.text(alphabet="店長決裁はの1２aｂ、 \n", max_size=60)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), CHARACTERS), CHARACTERS, CHARACTERS)
def test_every_leak_is_an_overlap(questions: dict[str, str], before: str, after: str) -> None:
    text = before + "".join(questions.values()) + after
    wanted = {(one.question_id, one.kind, one.overlap) for one in leaks(questions, {"t": text})}
    overlaps = contamination(questions, [("t", text)])
    assert wanted == {
        (one.question_id, one.kind, one.overlap) for one in overlaps if one.kind in LEAVES_OUT
    }


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 26))
def test_runs_have_the_same_hash_where_their_tokens_are_the_same(
    tokens: list[int], size: int
) -> None:
    hashes = hashed(np.array(tokens, dtype=np.int64), size)
    runs = [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]
    assert len(hashes) == len(runs)
    assert len(set(hashes.tolist())) == len(set(runs))
    assert len(set(zip(runs, hashes.tolist(), strict=True))) == len(set(runs))


@pytest.mark.parametrize("block", [1, 150, 1 << 18])
def test_stretches_are_those_of_a_plain_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked_module, "_BLOCK", block)
    asked = Asked({"q": "一二三四五六七八九十百千", "r": "三四五六あいうえ"}, spaced=False)
    rng = random.Random(4)
    for _ in range(60):
        tokens: list[str] = []
        while len(tokens) < rng.choice([5, 50, 300]):
            question = rng.choice(asked.tokens)
            tokens += question[: rng.randint(1, len(question))] + ("外",) * rng.randint(0, 30)
        wanted = set()
        for number in range(len(range(0, max(1, len(tokens) - 40), 60))):
            stretch = "".join(tokens[number * 60 : number * 60 + 100])
            for at, question in enumerate("".join(q) for q in asked.tokens):
                runs = {question[i : i + 3] for i in range(len(question) - 2)}
                if sum(run in stretch for run in runs) >= 0.5 * len(runs):
                    wanted.add((at, number))
        assert set(asked.dense_stretches(asked.encoded(tokens), 3, 0.5, 100, 60)) == wanted


def test_a_run_that_a_text_repeats_counts_once() -> None:
    characters = LONG_JA.replace("、", "").replace("。", "")[:54]
    assert found(characters, "と".join([characters[10:40]] * 9)) == []


# ---- paraphrases --------------------------------------------------------------------------------


class ByTopic:
    """Texts about the same of three topics are the same; the vector says nothing else."""

    name, digest, dimensions = "by topic", "0", 3

    def __init__(self) -> None:
        self.asked: list[str] = []

    def queries(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        topics = ("決裁", "鍵", "手数料")
        rows = [[float(topic in text) for topic in topics] for text in texts]
        return np.array(rows, dtype=np.float32).reshape(len(texts), 3)

    def passages(self, texts: Sequence[str]) -> np.ndarray:
        raise AssertionError("both sides ask")


def test_what_asks_the_same_in_other_words_is_a_paraphrase() -> None:
    texts = [
        ("e1", "どこまでなら決裁の権限がありますか？\n300万円です。"),
        ("e2", "鍵は誰が持ちますか。"),
        ("d1", "店長は300万円まで決裁する。"),
    ]
    overlaps = list(contamination({"q": JA}, texts, embedder=ByTopic()))
    assert overlaps == [
        Overlap("q", "e1", "paraphrase", 1.0, "どこまでなら決裁の権限がありますか？")
    ]


def test_a_question_that_stands_there_is_no_paraphrase_as_well() -> None:
    overlaps = contamination({"q": JA}, [("t", JA)], embedder=ByTopic())
    assert [one.kind for one in overlaps] == ["verbatim"]


def test_a_paraphrase_with_another_number_is_another_question() -> None:
    question = "5万円の手数料はいくらですか"
    same, other = "手数料は、５万円ならいくらですか。", "手数料は、3万円ならいくらですか。"
    texts = [("same", same), ("other", other)]
    overlaps = contamination({"q": question}, texts, embedder=ByTopic())
    assert [(one.item_id, one.kind) for one in overlaps] == [("same", "paraphrase")]


def test_only_what_asks_is_embedded() -> None:
    embedder = ByTopic()
    text = (
        "鍵は金庫に納める。誰が持つのですか？ 店長が持つ。\n以上\nWhich fee applies? The fee is 5."
    )
    list(contamination({"q": JA}, [("t", text)], embedder=embedder))
    assert embedder.asked[1:] == askings(text)
    assert askings(text) == [
        "誰が持つのですか？",
        "鍵は金庫に納める。誰が持つのですか？ 店長が持つ。",
        "Which fee applies?",
        "Which fee applies? The fee is 5.",
    ]


# ---- precision ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["aoba", "harbor"])
def test_the_examples_own_exams_are_not_in_their_training_examples(name: str) -> None:
    folder = EXAMPLES / name
    questions = {row["id"]: row["question"] for row in rows(folder / "exam" / "domain.jsonl")}
    texts = [
        (str(at), "\n".join(str(m) for m in row.values()))
        for at, row in enumerate(rows(folder / "examples.jsonl"))
    ]
    assert list(contamination(questions, texts)) == []


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
