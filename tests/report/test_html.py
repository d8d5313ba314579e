import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("altair")
pytest.importorskip("vl_convert")
pytest.importorskip("jinja2")

from tokka.records import OPTION_ORDER, Interval, Passage, PositionBias
from tokka.report.browser import browser_data, script_json
from tokka.report.html import MAX_BYTES


class Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def data_of(page: str) -> dict:
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(block[1])


def test_the_same_inputs_give_the_same_bytes(run, report: Path, tmp_path: Path):
    assert run.write(tmp_path / "again.html").read_bytes() == report.read_bytes()


def test_user_text_can_not_become_markup(run, hostile_text: str, tmp_path: Path):
    hostile = replace(
        run,
        results=run.results.model_copy(
            update={
                "project": hostile_text,
                "summary_ja": hostile_text,
                "summary_en": hostile_text,
                "corpus": run.results.corpus.model_copy(
                    update={
                        "dropped": tuple(
                            d.model_copy(update={"item": hostile_text, "reason": hostile_text})
                            for d in run.results.corpus.dropped
                        )
                    }
                ),
            }
        ),
        reproduction=run.reproduction.model_copy(update={"command": hostile_text}),
    )
    page = hostile.write(tmp_path / "hostile.html").read_text(encoding="utf-8")
    assert "alert(1)" in page  # it is shown, as text
    elements = Elements(page).found
    assert sum(tag == "script" for tag, _ in elements) == 3
    assert not any(tag == "img" or "onerror" in attributes for tag, attributes in elements)
    assert any(hostile_text in passage["text"] for passage in data_of(page)["passages"])


def test_the_policy_allows_this_style_and_script_and_nothing_else(report: Path):
    page = report.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    for kind, tag in (("style", "<style>(.*?)</style>"), ("script", "<script>(.*?)</script>")):
        digest = hashlib.sha256(re.search(tag, page, re.DOTALL)[1].encode()).digest()
        assert f"{kind}-src 'sha256-{base64.b64encode(digest).decode()}'" in policy
    assert not re.search(r'\s(?:style|on\w+)="', page)


def test_nothing_is_loaded_from_elsewhere(report: Path):
    for tag, attributes in Elements(report.read_text(encoding="utf-8")).found:
        assert tag not in {"iframe", "object", "embed", "img"}
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))


def test_everything_a_committee_asks_for_is_there(run, report: Path):
    page = report.read_text(encoding="utf-8")
    for part in (
        "page 3 is encrypted",  # what was dropped
        "tokka run examples/aoba/tokka.yaml",  # reproduction
        "torch: 2.13.0",
        run.results.exams[0].digest,
        "非劣性",
        "non-inferiority",
        "Recall@2",
        "検出できる最小の差",
        "文字あたりの平均",  # the declared normalisation
    ):
        assert part in page
    ids = [attributes["id"] for _, attributes in Elements(page).found if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_a_passage_is_stored_once(run, report: Path):
    passages = data_of(report.read_text(encoding="utf-8"))["passages"]
    assert len(passages) == len({p["chunk"] + p["text"] for p in passages}) < 40


def test_the_page_opens_without_comparisons_scores_or_timings(run, tmp_path: Path):
    arms = tuple(
        arm.model_copy(
            update={
                "comparisons": (),
                "verdict": None,
                "sittings": tuple(
                    s.model_copy(update={"partial": True, "primary": None}) for s in arm.sittings
                ),
            }
        )
        for arm in run.results.arms
    )
    empty = replace(
        run,
        results=run.results.model_copy(update={"arms": arms, "winner": None}),
        timings={},
        sheets={},
    )
    page = empty.write(tmp_path / "empty.html", "en").read_text(encoding="utf-8")
    assert "No arm is proven better." in page and "There is nothing to draw" in page


def test_five_arms_and_300_long_questions_stay_under_5_mb_and_say_what_was_cut(run, tmp_path: Path):
    sheet = run.sheets["domain"]
    first = sheet.questions[0]
    questions = tuple(first.model_copy(update={"id": f"q{n}"}) for n in range(300))
    answer = sheet.answers["rag"][first.id]

    def retrieved(arm: str, n: int) -> tuple[Passage, ...]:
        return tuple(
            answer.passages[0].model_copy(
                update={"chunk_id": f"{arm}-{n}-{k}", "number": k + 1, "text": f"{k}条文" * 700}
            )
            for k in range(4)
        )

    answers = {
        arm: {
            q.id: answer.model_copy(update={"question_id": q.id, "passages": retrieved(arm, n)})
            for n, q in enumerate(questions)
        }
        for arm in sheet.answers
    }
    large = replace(sheet, questions=questions, keys={}, answers=answers, scores={})
    page = replace(run, sheets={"domain": large}).write(tmp_path / "large.html")
    assert page.stat().st_size < MAX_BYTES
    text = page.read_text(encoding="utf-8")
    assert len(data_of(text)["exams"][0]["questions"]) == 300
    assert re.search(r"passages are shown up to \d+ characters", text)


def test_a_block_that_fits_is_not_cut(run):
    block = browser_data(run.sheets, "base", MAX_BYTES)
    assert not block.cut and block.shown == block.total == 120


def test_questions_go_last_and_are_counted(run):
    block = browser_data(run.sheets, "base", 120_000)
    assert block.cut and 0 < block.shown < block.total
    assert len(block.json.encode()) <= 120_000


def test_json_can_not_leave_its_element():
    text = script_json({"a": "</script><!--&\u2028"})
    assert "<" not in text and "&" not in text and "\u2028" not in text
    assert json.loads(text) == {"a": "</script><!--&\u2028"}


def test_the_place_of_options_is_shown_where_it_was_asked_and_nowhere_else(
    run, report: Path, tmp_path: Path
):
    def share(value: float) -> Interval:
        return Interval(estimate=value, low=value / 2, high=(1 + value) / 2, n=60, method="m")

    bias = PositionBias(
        options=3,
        questions=60,
        picks=(share(0.625), share(0.25), share(0.105)),
        accuracy=(share(0.715), share(0.305), share(0.205)),
        unchanged=share(0.415),
        unnamed=7,
        p_value=0.0123,
        method="places of whole questions shifted at random",
    )

    def with_bias(sitting):
        if sitting.exam == "domain":
            return sitting.model_copy(update={"positions": (bias,)})
        return sitting.model_copy(update={"settings": {OPTION_ORDER: "as given"}})

    arms = tuple(
        arm.model_copy(update={"sittings": tuple(map(with_bias, arm.sittings))})
        for arm in run.results.arms
    )
    turned = replace(run, results=run.results.model_copy(update={"arms": arms}))
    page = turned.write(tmp_path / "turned.html").read_text(encoding="utf-8")
    section = page[page.index('<section id="positions">') : page.index('<section id="browser">')]
    for part in ("62.5%", "71.5% [35.8, 85.8]", "41.5%", "0.012", "位置3", "Place 3", "shifted"):
        assert part in section, part
    assert section.count("<tr>") == 1 + len(arms)
    assert "retention: the options were to be rotated" in section
    assert "retention：選択肢の並べ替え" in section and 'href="#positions"' in page
    assert "positions" not in {
        attributes.get("id") for _, attributes in Elements(report.read_text("utf-8")).found
    }
