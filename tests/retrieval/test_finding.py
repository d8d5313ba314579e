"""A setting searches alike wherever it is searched with: queries, caller, reranker, memo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tokka.errors import UsageError
from tokka.records import Caller, Message, Question, RetrievalSpec
from tokka.retrieval.finding import Finder

QUESTION = Question(
    id="q",
    messages=(Message(role="user", content="which limit?"),),
    form="choice",
    choices=("5", "300"),
)


class Noting:
    """A retriever and a reranker that write down what they are asked."""

    name, digest = "noting", "d"

    def __init__(self) -> None:
        self.searched: list[Any] = []
        self.reranked: list[str] = []
        self.closed = 0

    def search(
        self, queries: Any, top_k: int, spec: Any, caller: Any = None, reranker: Any = None
    ) -> list[Any]:
        self.searched.append((queries, top_k, caller))
        if reranker is not None:
            reranker.scores(queries if isinstance(queries, str) else queries[0], ["a", "bb"])
        return []

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        self.reranked.append(query)
        return [0.5 for _ in texts]

    def close(self) -> None:
        self.closed += 1


def test_the_settings_queries_and_the_caller_reach_the_index() -> None:
    index, caller = Noting(), Caller(labels=("staff",))
    list(Finder(RetrievalSpec(top_k=3), index, "en").passages([QUESTION], caller=caller))
    spec = RetrievalSpec(queries="options")
    list(Finder(spec, index, "en").passages([QUESTION], top_k=9))
    assert index.searched == [
        ("which limit?", 3, caller),
        (["which limit?\n5", "which limit?\n300"], 9, Caller()),
    ]


def test_the_reranker_reads_the_question_and_no_single_option() -> None:
    index, reranker = Noting(), Noting()
    finder = Finder(RetrievalSpec(queries="options"), index, "en", None, reranker)
    list(finder.passages([QUESTION]))
    assert reranker.reranked == ["which limit?"]


def test_reranking_is_remembered_where_there_is_a_memo() -> None:
    kept: dict[str, Any] = {}

    class Memo:
        def get(self, key: str) -> Any:
            return kept.get(key)

        def put(self, key: str, value: Any) -> None:
            kept[key] = value

    reranker = Noting()
    finder = Finder(RetrievalSpec(), Noting(), "en", None, reranker)
    for memo in (Memo(), Memo(), None):
        list(finder.passages([QUESTION], memo=memo))
    assert len(reranker.reranked) == 2 and len(kept) == 1


def test_other_wordings_are_written_by_the_model(fake_model: Callable[..., Any]) -> None:
    index, spec = Noting(), RetrievalSpec(queries="rewrite")
    model = fake_model(say=lambda prompt: " upper bound of it\n", language="en")
    list(Finder(spec, index, "en", model).passages([QUESTION]))
    assert index.searched[0][0] == ["which limit?", "upper bound of it"]
    assert len(model.written) == 1
    with pytest.raises(UsageError, match="needs the local model"):
        list(Finder(spec, index, "en").passages([QUESTION]))


def test_closing_closes_index_and_reranker_and_not_the_model(
    fake_model: Callable[..., Any],
) -> None:
    index, reranker, model = Noting(), Noting(), fake_model()
    Finder(RetrievalSpec(), index, "en", model, reranker).close()
    assert (index.closed, reranker.closed, model.closed) == (1, 1, False)


def test_wordings_of_many_questions_are_written_in_one_go(fake_model: Callable[..., Any]) -> None:
    model = fake_model(say=lambda prompt: " other words\n", language="en")
    calls: list[int] = []
    generate = model.generate
    model.generate = lambda asked, *how: (calls.append(len(asked)), generate(asked, *how))[1]
    other = QUESTION.model_copy(update={"messages": (Message(role="user", content="who?"),)})
    finder = Finder(RetrievalSpec(queries="rewrite"), index := Noting(), "en", model)
    assert len(list(finder.passages([QUESTION, other, QUESTION]))) == 3
    assert calls == [2]  # the same question isn't asked twice
    assert [queries[0] for queries, *_ in index.searched] == [
        "which limit?",
        "who?",
        "which limit?",
    ]
