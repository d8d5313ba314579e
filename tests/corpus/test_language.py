"""A document's language, by its script and its commonest words."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tokka.corpus.language import UNDECIDED, language_of

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("ja", "融資の限度額は300万円とする。"),
        ("ja", "ﾛｰﾝのご案内"),
        ("ja", "手数料一覧"),  # 覧 is written so in Japan alone
        ("ja", "株式会社山田商事"),
        ("ja", "国債証券ノ利札ヲ失ヒタル者ハ其ノ旨ヲ届出ヅベシ"),
        ("ja", "ls(1) はディレクトリの中身を一覧する。 The option -l prints a long format."),
        ("zh", "贷款的限额为三百万日元。"),
        ("zh", "貸款的限額為三百萬日圓，我們會在到期日前通知借款人，請您準備擔保品與保證人。"),
        ("zh", "《ドラえもん》是日本漫画家的作品，讲述了机器猫和大雄的故事，很多人都喜欢看。"),
        ("ko", "대출 한도는 3백만 엔으로 한다. The limit is stated in the annex."),
        ("en", "The limit of a loan is three million yen."),
        ("en", "Loan rules"),
        ("en", "Hotel de la Paix, Place de la Concorde"),
        ("en", "Cormac lives at 48334 rue de Pologne."),
        ("de", "Die Grenze des Kredits ist mit dem Vorstand abgestimmt und wird nicht erhöht."),
        ("fr", "La limite du prêt est fixée par le conseil et ne change pas pour les membres."),
        ("es", "El límite del préstamo se fija por el consejo y no cambia para los socios."),
        (
            "it",
            "Il limite del prestito è fissato dal consiglio e non cambia per i soci della banca.",
        ),
        ("pt", "O limite do empréstimo é fixado pelo conselho e não muda para os sócios da caixa."),
        ("nl", "De grens van de lening is door het bestuur bepaald en wordt niet verhoogd."),
        ("sv", "Gränsen för lånet är bestämd av styrelsen och kan inte höjas för den som vill."),
        ("pl", "Limit pożyczki jest ustalany przez zarząd i nie zmienia się dla członków spółki."),
        (
            "tr",
            "Kredi sınırı yönetim kurulu tarafından belirlenir ve üyeler için değişmez.",
        ),
        ("ru", "Предел кредита устанавливается советом и не меняется для членов; вы это знаете."),
        ("uk", "Межа кредиту встановлюється радою і не змінюється для її членів."),
        ("el", "Το όριο του δανείου ορίζεται από το συμβούλιο."),
        ("th", "วงเงินกู้กำหนดโดยคณะกรรมการ"),
        ("ar", "يحدد المجلس حد القرض ولا يتغير للأعضاء."),
    ],
)
def test_the_language_of_a_text(language: str, text: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize("text", ["融資規程", "本文", "目的及期間", "2024-04-01 300", "", "…"])
def test_what_nothing_decides_is_undecided(text: str) -> None:
    assert language_of(text) == UNDECIDED


def test_a_long_text_in_ideographs_alone_is_chinese() -> None:
    assert language_of("天地玄黄宇宙洪荒日月盈昃辰宿列張" * 5) == "zh"


def test_a_notice_in_another_language_at_the_beginning_decides_nothing() -> None:
    licence = "Permission is granted to copy this document as it stands. " * 200
    assert language_of(licence + "この文書は融資の手続を定める。" * 2_000) == "ja"


@pytest.mark.parametrize(
    ("name", "field", "language", "share"),
    [
        ("japanese_laws_2013/laws", "text", "ja", 1.0),
        ("jaquad/dev", "context", "ja", 1.0),
        ("debian_docs/manpages-ja", "text", "ja", 0.97),  # a few are hardly translated
        ("debian_docs/debian-reference-en", "text", "en", 1.0),
        ("medquad/qa", "answer", "en", 1.0),
    ],
)
def test_real_documents_are_told_apart(name: str, field: str, language: str, share: float) -> None:
    path = DATA / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} isn't here: see the data's README")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)[field] for _, line in zip(range(150), file, strict=False)]
    found = [language_of(text) for text in texts if text.strip()]
    assert found.count(language) >= share * len(found)
