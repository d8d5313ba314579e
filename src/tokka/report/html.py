"""The report: one HTML file that opens offline, in Japanese and English, under 5 MB.

Results, timings, reproduction and exam sheets → a file. It asks nothing of a network: styles,
script, charts and data stand in the page, and a content security policy that names their SHA-256
digests allows nothing else. The same inputs give the same bytes.

>>> write_report(Path("report.html"), results, timings, reproduction, {"domain": sheet}, "ja")
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokka.extras import require
from tokka.records import Reproduction, Results, Timing
from tokka.report import numbers
from tokka.report.browser import BrowserData, browser_data, script_json
from tokka.report.page import page_values
from tokka.report.sheet import ExamSheet
from tokka.report.texts import CATALOGUE, LANGUAGES, both, text
from tokka.store import write_bytes

MAX_BYTES = 5_000_000
SCRIPT_TEXTS = ("js_", "result_", "filter_", "form_", "role_", "normalisation_")


def write_report(
    path: Path,
    results: Results,
    timings: Mapping[str, Timing],
    reproduction: Reproduction,
    sheets: Mapping[str, ExamSheet],
    language: str,
) -> None:
    """Write the page atomically. `sheets` by exam name; `language` is what the page opens in."""
    style, script = _asset("report.css"), _asset("report.js")
    context = {
        **page_values(results, timings, reproduction, language),
        "style": style,
        "script": script,
        "style_hash": _csp_hash(style),
        "script_hash": _csp_hash(script),
        "script_texts": _markup_of_json(script_json(_script_texts())),
    }
    empty = _render(context, browser_data({}, results.control, MAX_BYTES))
    room = MAX_BYTES - len(empty.encode()) - 1_000
    page = _render(context, browser_data(sheets, results.control, room))
    write_bytes(path, page.encode())


def _render(context: Mapping[str, Any], data: BrowserData) -> str:
    jinja2 = require("jinja2", extra="report")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tokka.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(t=_markup_of_key, say=_markup, both=both, text=text, numbers=numbers)
    environment.filters["minus"] = numbers.typographic
    page: str = environment.get_template("report.html.j2").render(
        **context, data=data, data_json=_markup_of_json(data.json)
    )
    return page


def _markup(said: Mapping[str, str]) -> Any:
    """Both languages in one element each; CSS shows one. Same in both: written once."""
    markupsafe = require("markupsafe", extra="report")
    shown = {language: markupsafe.escape(numbers.typographic(said[language])) for language in said}
    if len(set(shown.values())) == 1:
        return next(iter(shown.values()))
    return markupsafe.Markup("").join(
        markupsafe.Markup('<span class="{0}" lang="{0}">{1}</span>').format(
            language, shown[language]
        )
        for language in LANGUAGES
    )


def _markup_of_key(key: str, **values: object) -> Any:
    return _markup(both(key, **values))


def _asset(name: str) -> Any:
    """A file of the package, to stand in the page as it is: the policy holds its digest."""
    markupsafe = require("markupsafe", extra="report")
    folder = Path(__file__).parent / "templates"
    return markupsafe.Markup((folder / name).read_text(encoding="utf-8"))


def _csp_hash(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _script_texts() -> dict[str, dict[str, str]]:
    return {
        language: {k: v for k, v in catalogue.items() if k.startswith(SCRIPT_TEXTS)}
        for language, catalogue in CATALOGUE.items()
    }


def _markup_of_json(json: str) -> Any:
    """JSON whose `<`, `>` and `&` are already escaped: safe in a data block as it is."""
    return require("markupsafe", extra="report").Markup(json)
