from hypothesis import given
from hypothesis import strategies as st

from tokka.report.layout import limits, place, shortened, ticks

amounts = st.floats(min_value=-1e4, max_value=1e4, allow_nan=False).map(lambda v: round(v, 8))


@given(st.lists(amounts, min_size=1, max_size=6))
def test_an_axis_holds_every_value_and_has_round_ticks_within_it(values: list[float]):
    low, high = limits(values)
    assert low < high
    assert low <= min(values) and max(values) <= high
    marks = ticks([low, high])
    assert 1 <= len(marks) <= 8
    assert all(low - 1e-9 <= mark <= high + 1e-9 for mark in marks)


def test_ticks_are_numbers_that_people_count_in():
    assert ticks([0.0, 0.4]) == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert ticks([-24.0, 36.0]) == [-20.0, -10.0, 0.0, 10.0, 20.0, 30.0]
    assert ticks([0.0, 0.000004]) == [0.0, 0.000001, 0.000002, 0.000003, 0.000004]


def test_names_of_neighbouring_dots_do_not_cover_each_other():
    points = [("rag", 10.0, 50.0), ("lora-rag", 10.5, 51.0), ("few-shot", 10.2, 49.0)]
    labels = place(points, [0.0, 20.0], [0.0, 100.0], 300, 250)
    assert len({(label.align, label.dy) for label in labels}) == 3


def test_a_name_at_the_right_edge_is_written_to_the_left():
    (label,) = place([("lora-rag", 20.0, 50.0)], [0.0, 20.0], [0.0, 100.0], 300, 250)
    assert label.align == "right" and label.dx < 0


def test_long_names_are_shortened_by_the_width_of_their_script():
    assert shortened("lora-rag", 13) == "lora-rag"
    assert shortened("検索と微調整の併用", 13) == "検索と微調整…"
