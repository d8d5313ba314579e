"""Folding keeps offsets; overlaps end with every character that was found still covered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tokka.corpus.personal.findings import KINDS, MASKS, Finding, fold, joined, settle

findings = st.lists(
    st.builds(
        lambda kind, start, length, score: Finding(kind, start, start + length, score),
        st.sampled_from(KINDS),
        st.integers(0, 30),
        st.integers(1, 10),
        st.sampled_from([0.5, 0.8, 1.0]),
    ),
    max_size=8,
)


@given(st.text())
def test_folding_moves_nothing(text: str) -> None:
    assert len(fold(text)) == len(text)


def test_full_width_and_its_dashes_fold() -> None:
    assert fold("０９０−１２３４ー５６７８　Ａ＠ｂ．ｊｐ") == "090-1234-5678 A@b.jp"
    assert fold("コーヒーと㈱と㍻") == "コーヒーと㈱と㍻"  # neither a dash nor one character


@given(findings)
def test_settled_findings_cover_the_same_and_overlap_nowhere(given: list[Finding]) -> None:
    settled = settle(given)
    before = {i for f in given for i in range(f.start, f.end)}
    after = [i for f in settled for i in range(f.start, f.end)]
    assert sorted(after) == sorted(before)
    assert settled == sorted(settled, key=lambda f: f.start)


@given(findings)
def test_settling_twice_changes_nothing(given: list[Finding]) -> None:
    assert settle(settle(given)) == settle(given)


def test_the_score_decides_and_then_the_length() -> None:
    name, address = Finding("name", 2, 6, 0.8), Finding("address", 0, 10, 0.9)
    assert settle([name, address]) == [address]
    longer = Finding("address", 0, 10, 0.8)
    assert settle([name, longer]) == [longer]


def test_what_a_winner_leaves_of_a_loser_stays_found() -> None:
    assert settle([Finding("name", 0, 6, 0.8), Finding("email", 4, 9, 1.0)]) == [
        Finding("name", 0, 4, 0.8),
        Finding("email", 4, 9, 1.0),
    ]


def test_the_lines_of_an_address_are_one_and_names_side_by_side_are_two() -> None:
    lines = [Finding("address", 0, 3, 0.7), Finding("address", 5, 8, 0.9)]
    assert joined("1 A,\n2 B", lines) == [Finding("address", 0, 8, 0.9)]
    names = [Finding("name", 0, 2, 0.8), Finding("name", 3, 5, 0.8)]
    assert joined("鈴木 山本", names) == names


def test_every_kind_has_a_mask_in_both_languages() -> None:
    assert set(MASKS) == set(KINDS)
    assert len({mask for pair in MASKS.values() for mask in pair}) == 2 * len(KINDS)
