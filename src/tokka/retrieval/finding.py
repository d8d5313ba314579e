"""One retrieval setting, ready to search: its queries, its index, its reranker.

Questions → passages. The exam, `tokka ask`, `tokka search` and `tokka search-eval` all search here,
so what is measured is what is served.

>>> finder = Finder(spec, index, "ja", model=model, reranker=reranker_of(spec, model, root, "ja"))
>>> next(finder.passages([question]))
[Passage(number=1, …), Passage(number=2, …)]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokka.models.protocol import LanguageModel, Memo
from tokka.records import Caller, Passage, Question, RetrievalSpec
from tokka.retrieval.hybrid import Retriever
from tokka.retrieval.queries import Rewriter, queries_of
from tokka.retrieval.rerank import Remembered, Reranker

EVERYTHING = Caller()


@dataclass(frozen=True, slots=True)
class Finder:
    """`model` writes other wordings where the setting asks for them. Closing it closes the index
    and the reranker, not the model."""

    spec: RetrievalSpec
    retriever: Retriever
    language: str
    model: LanguageModel | None = None
    reranker: Reranker | None = None

    def queries(self, questions: Sequence[Question], memo: Memo | None = None) -> list[list[str]]:
        """What is searched for, by question."""
        rewrite = None
        if self.spec.queries == "rewrite" and self.model is not None:
            asked = [question.messages[-1].content for question in questions]
            rewrite = Rewriter(self.model, self.language, memo).of(asked).__getitem__
        return [queries_of(question, self.spec, rewrite) for question in questions]

    def passages(
        self,
        questions: Sequence[Question],
        *,
        top_k: int | None = None,
        caller: Caller = EVERYTHING,
        memo: Memo | None = None,
    ) -> Iterator[list[Passage]]:
        """For each question the best `top_k` passages (the setting's own number where None) that
        `caller` may see, as they are asked for.

        Whatever was searched for, the reranker reads the question's own words: an option among
        them would draw its own passages to the top.
        """
        for question, queries in zip(questions, self.queries(questions, memo), strict=True):
            reranker = self.reranker
            if reranker is not None:
                reranker = Asked(reranker if memo is None else Remembered(reranker, memo), question)
            yield self.retriever.search(
                queries[0] if len(queries) == 1 else queries,
                top_k or self.spec.top_k,
                self.spec,
                caller=caller,
                reranker=reranker,
            )

    def close(self) -> None:
        self.retriever.close()
        if self.reranker is not None:
            self.reranker.close()


@dataclass(frozen=True, slots=True)
class Asked:
    """A reranker that reads one question's words, whatever query it is given."""

    inner: Reranker
    question: Question

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def digest(self) -> str:
        return self.inner.digest

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        return self.inner.scores(self.question.messages[-1].content, texts)

    def close(self) -> None:
        self.inner.close()
