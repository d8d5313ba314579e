"""Whole documents: masked, pseudonymised or only reported, with their pages where they were."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka.corpus.personal import Finding, Protector
from tokka.corpus.personal.analysing import cut
from tokka.corpus.personal.protecting import replaced
from tokka.errors import MissingExtra, UsageError
from tokka.records import Document

LETTER = "高橋美咲様の電話番号は090-4417-2286です。\n高橋美咲様のメールはm.t@example.jpです。"
NOTE = "Dr. Ito can be reached at ada@example.com."
KEY = b"0123456789abcdef0123456789abcdef"


def document(text: str, language: str = "ja", **more: object) -> Document:
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    given = {"id": "a", "source": "a.txt", "title": "a", "sha256": sha256, **more}
    return Document.model_validate({**given, "text": text, "language": language})


@pytest.fixture(scope="module")
def masking() -> Protector:
    pytest.importorskip("presidio_analyzer", reason="needs the extra pii")
    pytest.importorskip("ja_ginza", reason="needs the extra pii")
    return Protector("mask")


@pytest.fixture(scope="module")
def naming(masking: Protector) -> Protector:
    made = Protector("pseudonymise", KEY)
    made._analysis = masking._analysis  # the models once
    return made


def test_a_masked_text_says_what_stood_there(masking: Protector) -> None:
    protected = masking.protect(document(LETTER))
    assert protected.document.text == (
        "〔氏名〕様の電話番号は〔電話番号〕です。\n〔氏名〕様のメールは〔メールアドレス〕です。"
    )
    assert [f.kind for f in protected.findings] == ["name", "phone", "name", "email"]
    assert masking.protect(document(NOTE, "en")).document.text == (
        "Dr. [NAME] can be reached at [EMAIL]."
    )


def test_a_masked_text_has_its_own_fingerprint_and_nothing_left_to_find(masking: Protector) -> None:
    fresh = masking.protect(document(LETTER)).document
    assert fresh.sha256 == hashlib.sha256(fresh.text.encode()).hexdigest()
    assert masking.protect(fresh).findings == ()


def test_reporting_changes_nothing(masking: Protector) -> None:
    reporting = Protector("report")
    reporting._analysis = masking._analysis
    given = document(LETTER)
    protected = reporting.protect(given)
    assert protected.document == given
    assert [LETTER[f.start : f.end] for f in protected.findings] == [
        "高橋美咲",
        "090-4417-2286",
        "高橋美咲",
        "m.t@example.jp",
    ]


def test_pseudonyms_are_the_same_in_all_documents(naming: Protector) -> None:
    first, second = naming.protect_all(
        [document(LETTER), document("昨日、高橋 美咲様が来店された。", id="b")]
    )
    spoken = first.document.text.split("様")[0]
    assert first.document.text.count(spoken + "様") == 2
    assert spoken != "高橋美咲"
    assert "高橋" not in second.document.text


def test_pages_begin_where_they_did(masking: Protector) -> None:
    text = "担当は高橋美咲様。\n次のページ。\n電話 090-4417-2286\n終わり。"
    starts = (0, text.index("次"), text.index("終"))
    given = document(text, page_starts=starts)
    protected = masking.protect(given)
    fresh = protected.document
    ends = (*fresh.page_starts[1:], len(fresh.text))
    pages = [fresh.text[a:b] for a, b in zip(fresh.page_starts, ends, strict=True)]
    assert pages == ["担当は〔氏名〕様。\n", "次のページ。\n電話 〔電話番号〕\n", "終わり。"]
    assert protected.pages(given) == (1, 2)


def test_the_title_is_protected_too(masking: Protector) -> None:
    titled = document("本文。", title="高橋美咲様への手紙")
    assert masking.protect(titled).document.title == "〔氏名〕様への手紙"


def test_a_text_longer_than_the_models_take_is_read_to_its_end(masking: Protector) -> None:
    filler = "本規則は、取引の条件を定める。" * 3000  # 45,000 characters, 135,000 bytes
    found = masking.find(filler + "担当は高橋美咲様。", "ja")
    assert [(f.kind, f.start - len(filler)) for f in found] == [("name", 3)]


def test_many_texts_give_what_each_gives_alone(masking: Protector) -> None:
    texts = [LETTER, "", "個人番号は123456789018です。", "氏名：阿部 千夏"]
    assert masking.find_all(texts, "ja") == [masking.find(t, "ja") for t in texts]


def test_no_text_reaches_a_log_or_a_finding(
    masking: Protector, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        protected = masking.protect(document(LETTER))
    said = caplog.text + repr(protected.findings)
    assert not any(secret in said for secret in ("高橋", "4417", "m.t@"))
    assert "0123456789abcdef" not in repr(Protector("pseudonymise", KEY))


@pytest.mark.parametrize("key", [None, b"short"])
def test_pseudonyms_need_a_key(key: bytes | None) -> None:
    with pytest.raises(UsageError, match="at least 16 bytes"):
        Protector("pseudonymise", key)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(MissingExtra, match=r"tokka\[pii\]"):
        Protector("mask").find("高橋様", "ja")


def test_importing_the_folder_loads_no_model_library() -> None:
    code = (
        "import sys, tokka.corpus.personal; "
        "sys.exit(bool({'spacy', 'presidio_analyzer', 'sudachipy'} & set(sys.modules)))"
    )
    source = str(Path(__file__).parents[3] / "src")
    run = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": source})
    assert run.returncode == 0


@given(st.text(st.sampled_from("あ。\n x."), max_size=100).map(lambda text: text * 400))
def test_pieces_are_the_text_and_none_is_too_long(text: str) -> None:
    spans = cut(text)
    assert "".join(text[a:b] for a, b in spans) == text
    assert all(0 < b - a <= 12_000 for a, b in spans)


@st.composite
def _found(draw: st.DrawFn) -> tuple[str, list[Finding], list[str], list[int]]:
    text = draw(st.text(min_size=1, max_size=30))
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=8)))
    pairs = list(zip(cuts[::2], cuts[1::2], strict=False))
    findings = [Finding("name", a, b, 1.0) for a, b in pairs]
    stand_ins = [draw(st.text("X", min_size=1, max_size=6)) for _ in pairs]
    pages = sorted(draw(st.sets(st.integers(0, len(text)), max_size=4)) | {0})
    return text, findings, stand_ins, pages


@given(_found())
def test_what_is_outside_the_findings_stays_on_its_page(
    case: tuple[str, list[Finding], list[str], list[int]],
) -> None:
    text, findings, stand_ins, pages = case
    fresh, starts = replaced(text, findings, stand_ins, pages)
    pairs = list(zip(findings, stand_ins, strict=True))
    inside = {i for f in findings for i in range(f.start + 1, f.end)}
    assert len(starts) == len(pages)
    for before, after in zip(pages, starts, strict=True):
        if before in inside:
            continue
        later = [(f, s) for f, s in pairs if f.start >= before]
        moved = [Finding("name", f.start - before, f.end - before, 1.0) for f, _ in later]
        assert fresh[after:] == replaced(text[before:], moved, [s for _, s in later])[0]
    assert list(starts) == sorted(starts)
