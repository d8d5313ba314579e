"""Every lesson's tokens see exactly what stands before them in that lesson, shared or not."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from tokka.training.lessons import Lesson
from tokka.training.packing import MIN_SHARED, Packed, pack

Ids = tuple[int, ...]


@st.composite
def lesson_sets(draw: st.DrawFn) -> list[Lesson]:
    """Texts over two words, many of which begin like another one, around MIN_SHARED tokens of it;
    one to three learnt spans each."""
    words = st.integers(1, 2)
    texts: list[Ids] = []
    for _ in range(draw(st.integers(1, 6))):
        start: Ids = ()
        if texts and draw(st.booleans()):
            start = draw(st.sampled_from(texts))
            start = start[: draw(st.integers(MIN_SHARED - 2, MIN_SHARED + 8))]
        end = draw(st.lists(words, min_size=0 if len(start) > 1 else 2, max_size=30))
        texts.append((*start, *end))
    made = []
    for number, ids in enumerate(texts):
        marks = st.lists(
            st.integers(1, len(ids)), min_size=2, max_size=min(6, len(ids)), unique=True
        )
        cuts = sorted(draw(marks)) if len(ids) > 2 else [1, len(ids)]
        spans = tuple(zip(cuts[::2], cuts[1::2], strict=False))
        made.append(Lesson(str(number), ids, spans))
    return made


def paths(packed: Packed) -> list[list[int]]:
    """The columns that each column sees, by the rule of `ends`."""
    return [
        [j for j in range(i + 1) if packed.ends[j] > i and packed.ends[j] > j]
        for i in range(len(packed.ids))
    ]


def prefixes(lessons: list[Lesson]) -> Counter[tuple[Ids, int]]:
    """What is learnt: all that stands before a token, and the token."""
    return Counter(
        (item.ids[:place], item.ids[place])
        for item in lessons
        for start, stop in item.learnt
        for place in range(start, stop)
    )


def packed_prefixes(packed: Packed) -> Counter[tuple[Ids, int]]:
    seen = paths(packed)
    return Counter(
        (tuple(packed.ids[c] for c in seen[pick]), target)
        for pick, target in zip(packed.picks, packed.targets, strict=True)
    )


@settings(max_examples=200, deadline=None)
@given(lesson_sets(), st.booleans())
def test_each_learnt_token_is_foretold_from_its_own_text_alone(
    lessons: list[Lesson], share: bool
) -> None:
    """Pitfall 8: neighbours in a packed row see each other."""
    packed = pack(lessons, share)
    assert packed_prefixes(packed) == prefixes(lessons)
    for column, seen in enumerate(paths(packed)):
        assert [packed.places[c] for c in seen] == list(range(packed.places[column] + 1))
        assert seen[-1] == column


@settings(max_examples=200, deadline=None)
@given(lesson_sets())
def test_only_long_beginnings_are_shared_and_then_laid_down_once(lessons: list[Lesson]) -> None:
    packed = pack(lessons)
    children = Counter(seen[-2] for seen in paths(packed) if len(seen) > 1)
    assert all(packed.places[c] + 1 >= MIN_SHARED for c, count in children.items() if count > 1)
    beginnings = Counter(
        tuple(packed.ids[c] for c in seen) for seen in paths(packed) if len(seen) >= MIN_SHARED
    )
    assert all(count == 1 for count in beginnings.values())
    assert len(packed.ids) <= len(pack(lessons, share=False).ids)


def test_unshared_lessons_stand_one_after_the_other() -> None:
    ids = tuple(range(1, 40))
    a, b = Lesson("a", ids, ((30, 39),)), Lesson("b", ids[:20], ((18, 20),))
    packed = pack([a, b], share=False)
    assert packed.ids == [*ids, *ids[:20]]
    assert packed.places == [*range(39), *range(20)]
    assert packed.ends == [39] * 39 + [59] * 20
    assert packed.picks == [*range(29, 38), 56, 57]
    assert packed.targets == [*ids[30:39], *ids[18:20]]


def test_a_lesson_that_comes_twice_is_laid_down_once_and_learnt_twice() -> None:
    twice = [Lesson(name, tuple(range(1, 31)), ((20, 30),)) for name in "ab"]
    packed = pack(twice)
    assert len(packed.ids) == 30
    assert packed.picks == [*range(19, 29)] * 2


def test_a_beginning_is_shared_from_sixteen_tokens_on() -> None:
    def of(shared: int) -> int:
        start = tuple(range(1, shared + 1))
        return len(
            pack([Lesson("a", (*start, 98), ((1, 2),)), Lesson("b", (*start, 99), ((1, 2),))]).ids
        )

    assert of(MIN_SHARED) == MIN_SHARED + 2
    assert of(MIN_SHARED - 1) == 2 * MIN_SHARED
