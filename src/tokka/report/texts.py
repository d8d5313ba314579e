"""The report's sentences in Japanese and English: `text(key, language, **values)`.

The catalogues are plain dictionaries with the same keys; values are placed with `str.format`.

>>> text("outcome_pass", "ja")
'合格'
"""

from __future__ import annotations

from tokka.records import Exam
from tokka.report.texts_en import EN
from tokka.report.texts_ja import JA

LANGUAGES = ("ja", "en")
CATALOGUE = {"ja": JA, "en": EN}


def shown_language(language: str) -> str:
    """The catalogue for a project's language: Japanese for `ja…`, English for all others."""
    return "ja" if language.lower().startswith("ja") else "en"


def text(key: str, language: str, **values: object) -> str:
    """Raises KeyError for an unknown key: a missing sentence is a defect, not a blank."""
    return CATALOGUE[shown_language(language)][key].format(**values)


def join(sentences: list[str], language: str) -> str:
    """English sentences are parted by a space, Japanese ones are not."""
    return ("" if shown_language(language) == "ja" else " ").join(s for s in sentences if s)


def both(key: str, **values: object) -> dict[str, str]:
    """A text in every language; a value that is itself such a dict is placed by language."""
    return {
        language: text(
            key,
            language,
            **{k: v[language] if isinstance(v, dict) else v for k, v in values.items()},
        )
        for language in LANGUAGES
    }


def exam_label(exam: Exam) -> dict[str, str]:
    """An exam's name with its role, unless the name says it already."""
    role = both(f"role_{exam.role}")
    label = both("exam_role", exam=exam.name, role=role)
    return {each: exam.name if exam.name == role[each] else label[each] for each in LANGUAGES}


def same(value: str) -> dict[str, str]:
    """A name or a number: the same in every language."""
    return dict.fromkeys(LANGUAGES, value)
