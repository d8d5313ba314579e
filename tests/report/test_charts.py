import re
import xml.etree.ElementTree as ElementTree

import pytest

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

from tokka.report.charts import Curve, Dot, ForestRow, Trail, Zone, curves, forest, scatter

ROWS = [
    ForestRow("検索", 0.12, 0.04, 0.20, "pass"),
    ForestRow("<script>alert(1)</script>", -0.1, -0.2, -0.01, "fail"),
]


def drawn_forest() -> str:
    return forest(ROWS, margin=0.0, side="gain", axis_title="差（ポイント）", margin_label="必要")


def texts(svg: str) -> list[str]:
    return [e.text or "" for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("text")]


def test_text_stays_text_in_japanese():
    said = texts(drawn_forest())
    assert "検索" in said and "差（ポイント）" in said
    assert "+12.0 [+4.0, +20.0]" in said


def test_a_hostile_name_draws_no_element():
    tags = {element.tag for element in ElementTree.fromstring(drawn_forest()).iter()}
    assert tags <= {"svg", "g", "path", "line", "text"}


def test_colours_follow_the_page_and_nothing_breaks_the_policy():
    svg = drawn_forest()
    assert "var(--pass)" in svg and "var(--fail)" in svg
    assert "style=" not in svg and " id=" not in svg and "href" not in svg.split(">", 1)[1]
    assert not re.search(r"#0a000\d", svg)


def test_the_interval_is_drawn_to_scale():
    svg = drawn_forest()
    lengths = [
        float(width)
        for width in re.findall(r'x2="([\d.]+)" y2="0" stroke="var\(--(?:pass|fail)', svg)
    ]
    assert lengths[0] / lengths[1] == pytest.approx(0.16 / 0.19, rel=1e-3)


def test_one_dot_and_one_label_per_arm_inside_the_frame():
    dots = [Dot(f"arm-{k}", 1.0, 50.0, 40.0, 60.0, "pass") for k in range(4)]
    svg = scatter(dots, x_title="秒", y_title="得点", x_from_zero=True)
    assert [t for t in texts(svg) if t.startswith("arm-")] == [dot.arm for dot in dots]


def test_the_accepted_zone_is_shaded():
    dots = [Dot("rag", -1, 15, 6, 24, "pass", -5, 3)]
    assert "var(--zone)" in scatter(dots, x_title="x", y_title="y", zone=Zone(-10, 0))
    assert "var(--zone)" not in scatter(dots, x_title="x", y_title="y")


def lines(svg: str, colour: str) -> list[str]:
    """The paths of lines in a colour; marks are closed paths and left out."""
    found = re.findall(rf'<path d="(M[^"]*)" stroke="var\(--{colour}\)"[^>]*>', svg)
    return [path for path in found if "Z" not in path and "A" not in path]


def test_states_are_joined_in_their_order_and_one_is_ringed():
    dots = [Dot("lora", -5, 15, 6, 24, "pass", -9, -1)]
    trail = Trail(((0.0, 0.0), (-3.0, 8.0), (-2.0, 4.0)), ((0, 2, 1),), ringed=1)
    svg = scatter(dots, x_title="x", y_title="y", trails=[trail])
    (line,) = lines(svg, "muted")
    places = [float(x) for x, _ in re.findall(r"[ML](-?[\d.]+),(-?[\d.]+)", line)]
    assert len(places) == 3 and places == sorted(places, reverse=True)
    circles = re.findall(r'<path transform="translate\(([^)]*)\)" d="[^"]*A[^"]*"[^>]*muted', svg)
    assert len(circles) == 4 and sorted(map(circles.count, set(circles))) == [1, 1, 2]
    assert "muted" not in re.sub(r"<(?:text|g)[^>]*>", "", scatter(dots, x_title="", y_title=""))


def test_a_mark_far_out_is_still_in_the_frame():
    trail = Trail(((-60.0, 90.0), (0.0, 0.0)), ((1, 0),), ringed=0)
    dots = [Dot("lora", -5, 15, 6, 24, "pass", -9, -1)]
    (line,) = lines(scatter(dots, x_title="x", y_title="y", trails=[trail]), "muted")
    numbers = [float(n) for n in re.findall(r"-?\d+\.?\d*", line)]
    assert min(numbers) >= 0 and max(numbers) <= 440


def test_the_frontier_is_dashed_and_needs_two_ends():
    dots = [Dot(f"a{n}", n, -n, -n - 1, -n + 1, "pass", n - 1, n + 1) for n in range(3)]
    drawn = scatter(dots, x_title="x", y_title="y", frontier=[(0, 0), (2, -2)])
    assert len(lines(drawn, "ink")) == 1 and "stroke-dasharray" in drawn
    assert not lines(scatter(dots, x_title="x", y_title="y", frontier=[(0, 0)]), "ink")


def test_each_curve_is_named_and_told_apart_and_only_a_threshold_is_marked():
    def drawn(*lines: Curve) -> str:
        return curves(lines, x_title="回答した設問（％）", y_title="誤り（％）")

    whole = Curve("rag", ((10.0, 0.0), (100.0, 40.0)), ends=False)
    silent = Curve("静かな方式", ((10.0, 0.0), (60.0, 20.0)), ends=True)
    assert {"rag", "静かな方式", "回答した設問（％）"} <= set(texts(drawn(whole, silent)))
    dashes = re.findall(r'stroke-dasharray="([^"]*)"', drawn(whole, silent))
    assert len(set(dashes)) == 2
    assert drawn(whole, silent).count("var(--ink)") > drawn(whole).count("var(--ink)")
    marks = [drawn(line).count('fill="var(--ink)"') for line in (whole, silent)]
    assert marks[1] == marks[0] + 1


def test_a_curve_of_one_answer_is_a_mark():
    svg = curves([Curve("rag", ((100.0, 0.0),), ends=False)], x_title="x", y_title="y")
    assert "rag" in texts(svg) and 'fill="var(--ink)"' in svg
