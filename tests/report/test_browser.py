"""The report in Debian's Chromium, at a desk and on a phone."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("altair")
pytest.importorskip("vl_convert")

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"
)
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    with playwright.sync_playwright() as runner:
        browser = runner.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, report: Path) -> Iterator[object]:
    """The opened report. Complaints, dialogs and requests are collected and must stay empty."""
    opened = chromium.new_page(viewport=DESK)
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    opened.on(
        "request",
        lambda request: (
            request.url.startswith(("file:", "data:")) or complaints.append(request.url)
        ),
    )
    opened.goto(report.as_uri())
    yield opened
    assert complaints == []
    opened.close()


def shown(page) -> int:
    return int(page.locator("#shown").inner_text().split("問中")[1].split("問")[0])


def test_the_answer_stands_in_the_first_screen(page, run):
    for viewport in (DESK, PHONE):
        page.set_viewport_size(viewport)
        statement = page.locator(".statement")
        assert run.results.winner in statement.inner_text()
        box = statement.bounding_box()
        assert box["y"] + box["height"] < viewport["height"]


@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("language", ["ja", "en"])
def test_nothing_sticks_out_sideways(page, viewport, language: str):
    page.set_viewport_size(viewport)
    page.click(f"[data-language={language}]")
    page.locator(".question summary").nth(1).click()
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_the_language_switch_changes_every_text_and_remembers_nothing(page):
    assert page.locator("h2:visible").first.inner_text().startswith("どの方式")
    page.click("[data-language=en]")
    assert page.locator("h2:visible").first.inner_text().startswith("Which arm")
    assert page.title().endswith("which way of specialising works")
    assert "of 120 questions" in page.locator("#shown").inner_text()
    assert page.locator("select[name=result] option").first.inner_text() == "any"
    assert not page.locator("span.ja:visible, div.ja:visible").count()
    assert "points against the control" in page.locator("#effects").inner_text()
    page.reload()
    assert page.locator("html").get_attribute("lang") == "ja"


def test_filters_find_what_the_scores_say(page, run):
    sheet = run.sheets["domain"]
    scores = sheet.scores
    wrong = [q for q in sheet.questions if not scores["rag"][q.id].value]
    lost = [q for q in wrong if scores["base"][q.id].value]
    page.select_option("select[name=exam]", "domain")
    assert shown(page) == len(sheet.questions)
    page.select_option("select[name=arm]", "rag")
    page.select_option("select[name=result]", "wrong")
    assert shown(page) == len(wrong)
    page.select_option("select[name=topic]", "稟議")
    assert shown(page) == sum(q.topic == "稟議" for q in wrong)
    page.select_option("select[name=topic]", "")
    page.select_option("select[name=result]", "won")
    won = [
        q for q in sheet.questions if scores["rag"][q.id].value and not scores["base"][q.id].value
    ]
    assert shown(page) == len(won) > len(lost)
    page.click("button[type=reset]")
    page.wait_for_function("document.getElementById('shown').textContent.includes('120問中120問')")
    page.select_option("select[name=arm]", "few-shot")
    page.select_option("select[name=result]", "refused")
    assert shown(page) == 2


def test_search_ignores_width_and_case(page):
    page.fill("input[name=search]", "ｂｅｒｌｉｎ wall")
    assert shown(page) == 12
    page.fill("input[name=search]", "そのような設問はない")
    assert page.locator(".question").count() == 0


def test_a_citation_is_marked_in_answer_and_passage(page, run):
    sheet = run.sheets["domain"]
    question = next(q for q in sheet.questions if sheet.answers["rag"][q.id].citations)
    answer = sheet.answers["rag"][question.id]
    citation = answer.citations[0]
    row = page.locator(f"[data-id='domain/{question.id}']")
    row.locator("summary").first.click()
    said = row.locator(".said", has=page.locator("h4", has_text="rag")).nth(0)
    assert said.locator("blockquote mark").inner_text() == answer.text
    assert f"{citation.start}〜{citation.end}文字目" in said.locator(".cites").inner_text()
    said.locator("details summary").click()
    # the passage opens with a character of two UTF-16 units: offsets must count code points
    assert answer.passages[0].text.startswith("𠮷")
    assert said.locator(".passage mark").inner_text() == answer.text


def test_hostile_text_in_a_passage_is_inert_and_readable(page):
    page.evaluate("document.querySelectorAll('.question').forEach((row) => { row.open = true; })")
    page.wait_for_selector(".passage", state="attached")
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.locator(".passage p", has_text="<script>alert(1)</script>").count() > 0
    assert page.locator("img").count() == 0


def test_option_bars_show_the_share_of_each_option(page):
    page.select_option("select[name=form]", "choice")
    page.locator(".question summary").first.click()
    widths = (
        page.locator(".said")
        .first.locator(".amount i")
        .evaluate_all("bars => bars.map((bar) => parseFloat(bar.style.width))")
    )
    assert len(widths) == 4 and sum(widths) == pytest.approx(100, abs=0.5)


def test_the_command_can_be_copied(page, run):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("[data-copy=command]")
    page.wait_for_function("document.getElementById('copy-status').textContent !== ''")
    assert page.evaluate("navigator.clipboard.readText()") == run.reproduction.command


def test_dark_and_paper_change_the_colours_of_page_and_charts(page):
    def ink() -> str:
        return page.locator("#effects svg text").first.evaluate("e => getComputedStyle(e).fill")

    light = ink()
    page.emulate_media(color_scheme="dark")
    assert ink() != light
    page.emulate_media(color_scheme="dark", media="print")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert ink() != light
    assert not page.locator("#filters").is_visible()
