"""A question → the queries that are searched for; the index fuses their rankings.

    question   its own words
    options    a choice's words with each of its options: one query per option
    together   a choice's words with all its options: one query
    rewrite    its words, and up to three other wordings by the local model

>>> queries_of(question, RetrievalSpec(queries="options"))
['融資の限度額は？\\n100万円', '融資の限度額は？\\n300万円']
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokka.errors import UsageError
from tokka.models.protocol import GenerateRequest, LanguageModel, Memo, Prompt
from tokka.records import Message, Question, RetrievalSpec

Rewrite = Callable[[str], list[str]]

WORDINGS = 3
_MAX_TOKENS = 128
_STOP = ("\n\n", "\n4")  # behind the third
_LONGEST = 2.0  # times the question, and a little
_NUMBERED = re.compile(r"^\s*(?:[-・*•]|[(（]?\d{1,2}[.)．）、:：]|[①-⑨])\s*")
# One example each; a base model goes on in its form, an instruct model reads it as one.
_ASK = {
    "ja": (
        "質問の意味を変えずに、別の言葉で3通りに言い換える。\n\n"
        "質問：定期預金を途中でやめると利息はいくらになりますか。\n言い換え：\n\n"
        "1. 定期預金を満期前に解約した場合の利率\n2. 中途解約時の預金利息\n"
        "3. 期日前に引き出すと利子はどう計算するか\n\n質問：",
        "\n言い換え：",
    ),
    "en": (
        "Say each question in three other wordings with the same meaning.\n\n"
        "Question: How much interest is paid when a time deposit is ended early?\nWordings:\n\n"
        "1. interest rate of a time deposit withdrawn before maturity\n"
        "2. early termination of fixed-term savings\n"
        "3. What do I earn if I close my deposit ahead of its date?\n\nQuestion: ",
        "\nWordings:",
    ),
}


def queries_of(
    question: Question, spec: RetrievalSpec, rewrite: Rewrite | None = None
) -> list[str]:
    """What to search for, without repeats; the question's own words first, unless its options
    replace them. Raises UsageError for `queries: rewrite` without a way to rewrite."""
    asked = question.messages[-1].content
    if spec.queries == "options" and question.choices:
        return list(dict.fromkeys(f"{asked}\n{option}" for option in question.choices))
    if spec.queries == "together":
        return ["\n".join((asked, *question.choices))]
    if spec.queries != "rewrite":
        return [asked]
    if rewrite is None:
        raise UsageError(
            "retrieval: queries: rewrite needs the local model to write; use question or options "
            "where there is none"
        )
    return list(dict.fromkeys([asked, *rewrite(asked)]))


@dataclass(frozen=True, slots=True)
class Rewriter:
    """Other wordings by a language model: greedy, so the same question gets the same ones.

    A failed request leaves the question alone: a search with its own words beats none.
    """

    model: LanguageModel
    language: str
    memo: Memo | None = None

    def __call__(self, question: str) -> list[str]:
        """At most three wordings that are sound (see `sound`), in the order they were written."""
        return self.of([question])[question]

    def of(self, questions: Sequence[str]) -> dict[str, list[str]]:
        """Wordings by question. All are written together, many times quicker than one by one."""
        asked = list(dict.fromkeys(questions))
        requests = [GenerateRequest(self._prompt(one), _MAX_TOKENS, stop=_STOP) for one in asked]
        found = {}
        for question, result in zip(asked, self.model.generate(requests, self.memo), strict=True):
            failed = result.finish == "error"
            found[question] = [] if failed else wordings(result.text, question)
        return found

    def _prompt(self, question: str) -> Prompt:
        before, after = _ASK["ja" if self.language == "ja" else "en"]
        asked = before + " ".join(question.split()) + after
        renderer = self.model.renderer
        if renderer.chat_template:
            return renderer.prompt((Message(role="user", content=asked),))
        return renderer.completion("1.", before=asked)  # defuses special tokens in `before`


def wordings(text: str, question: str) -> list[str]:
    """The sound lines of what a model wrote, at most three, numbers and bullets taken off."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        said = _NUMBERED.sub("", line).strip()
        if sound(said, question):
            found.setdefault(_plain(said), said)
    return list(found.values())[:WORDINGS]


def sound(wording: str, question: str) -> bool:
    """Whether a wording can be searched for: not empty, other words than the question's, not much
    longer, and no loop."""
    plain, asked = _plain(wording), _plain(question)
    if len(plain) < 2 or plain == asked or len(plain) > _LONGEST * len(asked) + 20:
        return False
    return not _loops(plain)


def _loops(plain: str) -> bool:
    """A model that got stuck says the same again: 8 characters three times, or hardly any
    characters but a few."""
    windows = Counter(plain[i : i + 8] for i in range(len(plain) - 7))
    stuck = bool(windows) and windows.most_common(1)[0][1] >= 3
    return stuck or len(set(plain)) * 6 < len(plain)


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if character.isalnum())
