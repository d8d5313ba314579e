"""The evidence pages in Debian's Chromium: at a desk, on a phone, on paper."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

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


@pytest.fixture(params=["ja", "en"])
def page(chromium, finished_pack: Path, request: pytest.FixtureRequest) -> Iterator[object]:
    """The opened page. Complaints, dialogs and requests are collected and must stay empty."""
    opened = chromium.new_page(viewport=DESK)
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    opened.on(
        "request",
        lambda request: request.url.startswith("file:") or complaints.append(request.url),
    )
    opened.goto((finished_pack / f"index.{request.param}.html").as_uri())
    yield opened
    assert complaints == []
    opened.close()


@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_nothing_sticks_out_sideways(page, viewport):
    page.set_viewport_size(viewport)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_every_section_is_there_and_the_other_language_is_one_click_away(page):
    headings = page.locator("h2").all_inner_texts()
    assert len(headings) == 9
    language = page.locator("html").get_attribute("lang")
    japanese = re.compile("[ぁ-ん]")
    assert bool(japanese.search("".join(headings))) == (language == "ja")
    page.locator("header nav a").click()
    assert page.locator("html").get_attribute("lang") == ("en" if language == "ja" else "ja")


def test_the_verdict_stands_in_the_first_screen(page):
    for viewport in (DESK, PHONE):
        page.set_viewport_size(viewport)
        box = page.locator(".verdict").bounding_box()
        assert box["y"] + box["height"] < viewport["height"]


def test_hostile_texts_are_only_text(page):
    assert page.locator("img").count() == 0
    assert "<script>alert(1)</script>" in page.locator("main").inner_text()


def test_it_prints_on_a4(page):
    paper = page.pdf(prefer_css_page_size=True)
    sizes = set(re.findall(rb"/MediaBox\s*\[([^\]]+)\]", paper))
    assert len(sizes) == 1
    _, _, width, height = (float(part) for part in sizes.pop().split())
    assert (round(width / 72 * 25.4), round(height / 72 * 25.4)) == (210, 297)
