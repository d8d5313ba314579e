"""What one document says again is found once, in any script, and what is not said again is kept."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokka.corpus import duplicates
from tokka.corpus.duplicates import Duplicate, Duplicates, distinct
from tokka.corpus.shingles import shingles
from tokka.errors import IntegrityError, UsageError
from tokka.records import Document

pytest.importorskip("rensa")

RULES = (
    "営業店長は、次の各号に定めるところにより、無担保融資を単独で決裁することができる。"
    "ただし、申込人が既に延滞している場合、担保の評価が終わっていない場合、又は反社会的勢力との"
    "関係が疑われる場合には、審査部長の承認を得なければならない。決裁した案件は翌営業日までに"
    "融資台帳に記入し、月末に本部へ報告する。報告が遅れたときは、その理由を書面で示すものとする。"
    "通帳、印章及び鍵は別々の金庫に納め、開け閉めには二人以上が立ち会い、時刻と氏名を書き残す。"
)
LETTER = (
    "Dear colleagues, from the first Monday of next month every parcel that leaves the northern "
    "warehouse needs a second signature from the shift supervisor on duty. Please collect the new "
    "forms at the reception desk, keep the carbon copies in the blue folder for one whole year and "
    "tell the drivers that nobody may load a pallet before the office has called back to confirm."
)


def words(count: int, seed: int) -> list[str]:
    letters = random.Random(seed)
    return ["".join(letters.choices("abcdefghijklmnop", k=6)) for _ in range(count)]


def document(name: str, text: str, **facts: object) -> Document:
    about = {"source": name, "title": name, "language": "ja", "sha256": ""}
    return Document(id=name, text=text, **{**about, **facts})  # type: ignore[arg-type]


def jaccard(one: str, other: str) -> float:
    a, b = (set(row.tolist()) for row in shingles([one, other]).rows())
    return len(a & b) / len(a | b)


# ---- shingles -----------------------------------------------------------------------------------


def test_a_character_is_a_unit_where_words_are_not_spaced_and_a_word_elsewhere() -> None:
    def count(text: str) -> int:
        return len(shingles([text]).hashes)

    assert count("融資は300万円まで") == 8 - 4  # 融 資 は 300 万 円 ま で
    assert count("one two three four five six") == 2
    assert count("ภาษาไทย") == 7 - 4
    assert count("한국어 문서 하나 둘 셋 넷") == 2
    assert count("one two") == 1
    assert count("…!?") == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("融資は300万円まで。", "融資は３００万円\u3000まで"),
        ("ガス・電気の料金表です", "ｶﾞｽ電気の料金表です"),
        ("The Quick brown fox, again!", "the quick BROWN fox again"),
        ("葛\U000e0100城市の住民票", "葛城市の\u200b住民票"),
        ("㈱青葉商事の登記簿", "(株)青葉商事の登記簿"),
        (
            "keep every docu\u00adment in the safe at night",
            "keep every document in the safe at night",
        ),
        (
            "\u1100\u1161\u11a8종 서류는 모두 보관함에 넣는다 그리고 잠근다",
            "각종 서류는 모두 보관함에 넣는다 그리고 잠근다",
        ),
        ("cafe\u0301 au lait is what they like", "café au lait is what they like"),
    ],
)
def test_width_case_punctuation_and_what_is_invisible_make_no_difference(
    one: str, other: str
) -> None:
    first, second = shingles([one, other]).rows()
    assert len(first) and first.tolist() == second.tolist()


PIECES = st.sampled_from(
    [
        "a",
        "B",
        "é",
        "e\u0301",
        "か",
        "ｶﾞ",
        "漢",
        "字",
        " ",
        "\n",
        "…",
        "㈱",
        "각",
        "\u1100\u1161",
        "３",
        "5",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(PIECES, max_size=25).map("".join), min_size=1, max_size=6))
def test_shingles_are_those_of_a_plain_loop(texts: list[str]) -> None:
    wanted = [plain_shingles(text) for text in texts]
    read = shingles(texts)
    names: dict[tuple[str, ...], int] = {}
    for shingle_row, row in zip(wanted, read.rows(), strict=True):
        assert len(shingle_row) == len(row)
        for shingle, number in zip(shingle_row, row.tolist(), strict=True):
            assert names.setdefault(shingle, number) == number
    assert len(set(names.values())) == len(names)


def plain_shingles(text: str) -> list[tuple[str, ...]]:
    units: list[str] = []
    inside = False
    for character in unicodedata.normalize("NFKC", text):
        kind = unicodedata.category(character)[0]
        if character in "か漢字ガ" or character == "\u3099":
            units.append(character)
        elif kind in "LMN":
            if inside:
                units[-1] += character.casefold()
            else:
                units.append(character.casefold())
        inside = kind in "LMN" and character not in "か漢字ガ\u3099"
    if not units:
        return []
    return [tuple(units[i : i + 5]) for i in range(max(1, len(units) - 4))]


def test_a_text_longer_than_a_piece_has_the_shingles_of_a_plain_loop() -> None:
    text = " ".join(words(30_000, 1)) + RULES
    assert len(text) > 3 * (1 << 16)
    assert len(shingles([text]).hashes) == 30_000 + len(shingles([RULES]).hashes)


# ---- duplicates ---------------------------------------------------------------------------------


def test_the_later_of_two_equal_texts_is_the_duplicate_whatever_its_white_space() -> None:
    with Duplicates(None) as seen:
        assert seen.add("a", "一つ目\n\n二つ目") is None
        assert seen.add("b", "  一つ目 二つ目\n") == Duplicate("a", 1.0, "exact", True)
        assert seen.add("c", "一つ目 二つ目。") is None
        assert seen.add("d", "一つ目　二つ目。") == Duplicate("c", 1.0, "exact", True)
        assert len(seen) == 2


@pytest.mark.parametrize("text", [RULES, LETTER, RULES + "\n" + LETTER])
def test_a_small_change_makes_a_near_duplicate_with_its_true_similarity(text: str) -> None:
    changed = text[:-8] + "変わる。"
    with Duplicates(0.9) as seen:
        seen.add("first", text)
        found = seen.add("second", changed)
    assert found is not None
    assert (found.of, found.kind) == ("first", "near")
    assert found.similarity == pytest.approx(jaccard(text, changed), abs=1e-6)
    assert 0.9 <= found.similarity < 1


def test_another_figure_makes_a_version_that_is_kept_and_compared_with() -> None:
    text = RULES + "上限は300万円とする。" + RULES[::-1]
    with Duplicates(0.9) as seen:
        seen.add("2024", text)
        version = seen.add("2025", text.replace("300", "500"))
        copies = [
            seen.add("copy of 2024", text.replace("上限", "限度")),
            seen.add("copy of 2025", text.replace("300", "500").replace("上限", "限度")),
            seen.add("2025 again", text.replace("300", "500")),
        ]
        assert len(seen) == 2
    assert version is not None and (version.of, version.same_numbers) == ("2024", False)
    assert [one and (one.of, one.kind, one.same_numbers) for one in copies] == [
        ("2024", "near", True),
        ("2025", "near", True),
        ("2025", "exact", True),
    ]


def test_a_copy_is_found_though_a_version_is_more_like_it() -> None:
    text = RULES + "上限は300万円とする。" + RULES[::-1]
    reworded = text.replace("上限", "限度").replace("翌営業日", "次営業日").replace("金庫", "書庫")
    with Duplicates(0.8) as seen:
        seen.add("2024", text)
        seen.add("2025", reworded.replace("300", "500"))
        found = seen.add("reworded 2024", reworded)
    assert found is not None and (found.of, found.same_numbers) == ("2024", True)


def test_a_figure_counts_as_any_word_where_that_is_wanted() -> None:
    text = RULES + "上限は300万円とする。" + RULES[::-1]
    with Duplicates(0.9, keep_versions=False) as seen:
        seen.add("2024", text)
        found = seen.add("2025", text.replace("300", "500"))
        assert found is not None and not found.same_numbers
        assert len(seen) == 1


def test_any_number_of_filled_in_forms_is_kept_and_compared_with_the_first() -> None:
    form = RULES + "番号{}。" + RULES[::-1]
    with Duplicates(0.8) as seen:
        found = [seen.add(str(number), form.format(number)) for number in range(150)]
        assert len(seen) == 150
        assert max(map(len, seen._postings._recent.values())) == 64
        again = seen.add("again", form.format(149))
    assert all(one and not one.same_numbers for one in found[1:])
    assert again == Duplicate("149", 1.0, "exact", True)


def test_none_below_the_threshold_and_none_at_it_is_missed() -> None:
    rng = random.Random(3)
    items, wanted = [], {}
    for number in range(150):
        text = words(300, number)
        items.append((f"a{number}", " ".join(text), ""))
        for place in rng.sample(range(300), rng.randint(1, 12)):
            text[place] = "changed" + str(place)
        items.append((f"b{number}", " ".join(text), ""))
        wanted[f"b{number}"] = jaccard(items[-2][1], items[-1][1])
    with Duplicates(0.8, keep_versions=False) as seen:
        found = seen.add_all(items)
    for (name, _, _), duplicate in zip(items, found, strict=True):
        similarity = wanted.get(name, 0.0)
        assert (duplicate is not None) == (similarity >= 0.8), (name, similarity)
        if duplicate:
            assert duplicate.similarity == pytest.approx(similarity, abs=1e-6)
    assert 20 < sum(one is not None for one in found) < 130


def test_a_chain_of_small_changes_does_not_carry_a_document_away() -> None:
    text = words(200, 7)
    with Duplicates(0.9, keep_versions=False) as seen:
        assert seen.add("0", " ".join(text)) is None
        for step in range(1, 12):
            text[step * 15] = f"step{step}"
            found = seen.add(str(step), " ".join(text))
            if found:
                assert found.similarity >= 0.9
        assert len(seen) > 1


def test_the_answers_are_the_same_one_by_one_and_together() -> None:
    rng = random.Random(5)
    texts = [" ".join(rng.choices(words(40, 1), k=30)) for _ in range(40)]
    texts += [rng.choice(texts) for _ in range(20)] + [RULES, RULES + "以上。", LETTER, ""]
    items = [(str(number), text, "") for number, text in enumerate(texts)]
    with Duplicates(0.7) as one_by_one, Duplicates(0.7) as together:
        assert [one_by_one.add(*item) for item in items] == together.add_all(items)


def test_documents_that_are_sorted_away_are_still_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_RECENT", 8)
    texts = [" ".join(words(40, seed)) for seed in range(100)]
    with Duplicates(0.8) as seen:
        assert [seen.add(f"first {n}", text) for n, text in enumerate(texts)] == [None] * 100
        again = [seen.add(f"again {n}", text + " end") for n, text in enumerate(texts)]
    assert [one and one.of for one in again] == [f"first {n}" for n in range(100)]


def test_equal_texts_are_found_among_any_number_of_others() -> None:
    items = [(str(number), f"No. {number}", "") for number in range(200)]
    with Duplicates(None) as seen:
        assert seen.add_all(items) == [None] * 200
        assert [one and one.of for one in seen.add_all(items)] == [name for name, _, _ in items]


def test_a_text_over_the_limit_is_compared_for_equality(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_LONGEST", 300)
    monkeypatch.setattr(duplicates, "_SLICE", 100)
    text = " ".join(words(200, 2))
    with Duplicates(0.8) as seen:
        assert seen.add("a", text) is None
        assert seen.add("b", text + " end") is None
        assert seen.add("c", text) == Duplicate("a", 1.0, "exact", True)


def test_texts_without_a_letter_are_equal_or_nothing() -> None:
    with Duplicates(0.5) as seen:
        assert seen.add("a", "—— * * * ——") is None
        assert seen.add("b", "?!") is None
        assert seen.add("c", "?!") == Duplicate("b", 1.0, "exact", True)


def test_documents_with_other_labels_or_dates_are_not_compared() -> None:
    documents = [
        document("staff", RULES, access=("staff",)),
        document("everybody", RULES),
        document("everybody again", RULES),
        document("staff again", RULES, access=("staff",)),
        document("until march", RULES, valid_to="2025-03-31"),
    ]
    found = [(d.id, one.of if one else None) for d, one in distinct(documents)]
    assert found == [
        ("staff", None),
        ("everybody", None),
        ("everybody again", "everybody"),
        ("staff again", "staff"),
        ("until march", None),
    ]


def test_documents_come_in_their_order_and_a_batch_is_not_waited_for_longer_than_needed() -> None:
    read = 0

    def documents() -> object:
        nonlocal read
        for number in range(2000):
            read += 1
            yield document(str(number), " ".join(words(3, number % 700)))

    stream = distinct(documents())  # type: ignore[arg-type]
    first, duplicate = next(stream)
    assert (first.id, duplicate) == ("0", None)
    assert read <= 513
    rest = list(stream)
    assert [d.id for d, _ in rest] == [str(n) for n in range(1, 2000)]
    assert sum(one is not None for _, one in rest) == 1300


def test_memory_for_each_document_stays_within_what_is_promised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(duplicates, "_RECENT", 64)
    with Duplicates(0.9) as seen:
        seen.add_all([(str(n), " ".join(words(8, n)), "") for n in range(5000)])
        seen.add_all([("last", "x", "")])
        assert seen.memory_bytes / 5001 < 450


def test_a_threshold_outside_0_to_1_is_refused() -> None:
    with pytest.raises(UsageError, match=r"near_duplicates must be > 0 and <= 1, got 1\.5"):
        Duplicates(1.5)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="missing"):
        Duplicates(0.9, tmp_path / "missing")


def test_nothing_stays_in_the_folder(tmp_path: Path) -> None:
    with Duplicates(0.9, tmp_path) as seen:
        seen.add("a", RULES)
    assert list(tmp_path.iterdir()) == []


def test_bands_miss_at_most_one_in_two_thousand_at_the_threshold() -> None:
    for threshold in np.linspace(0.3, 1.0, 15):
        rows = duplicates._rows(float(threshold))
        bands = duplicates.PERMUTATIONS // rows
        assert (1 - threshold**rows) ** bands <= 5e-4
