"""The one class that answers: exam questions and people's questions take the same path.

    with open_candidate(candidate, ...) as specialist:
        for answer in specialist.answer(questions, exam_digest=exam.digest): ...

Question → passages (retrieval) → messages (prompting) → token ids (renderer) → model → Answer with
citations. A choice is scored by the likelihood of its options where the model can; an endpoint that
can't is asked for a letter, and says so in `decoding.method`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tokka.candidates.letters import letter_messages, parse_letter
from tokka.models.prompting import compose
from tokka.models.protocol import (
    GenerateRequest,
    LanguageModel,
    Memo,
    Progress,
    Prompt,
    ScoreRequest,
)
from tokka.records import (
    Answer,
    Candidate,
    Citation,
    Decoding,
    Example,
    Messages,
    Passage,
    Question,
)
from tokka.retrieval.citations import attribute
from tokka.retrieval.hybrid import Retriever

__all__ = ["Memo", "Progress", "Shots", "Specialist"]

Shots = Callable[[Question], Sequence[Example]]
LETTER_TOKENS = 8


class Specialist:
    """Owns neither the model nor the examples; `close` closes the index and the model it was
    given."""

    def __init__(
        self,
        candidate: Candidate,
        model: LanguageModel,
        retriever: Retriever | None = None,
        shots: Shots | None = None,
    ) -> None:
        self.candidate = candidate
        self.model = model
        self._retriever = retriever
        self._shots = shots

    def passages(self, question: Question) -> tuple[Passage, ...]:
        """What the arm's retrieval finds for a question; nothing where it has none."""
        spec = self.candidate.arm.retrieval
        if spec is None or self._retriever is None:
            return ()
        return tuple(self._retriever.search(question.messages[-1].content, spec.top_k, spec))

    def messages(self, question: Question, passages: Sequence[Passage] = ()) -> Messages:
        return compose(
            question.messages,
            spec=self.candidate.arm.prompt,
            shots=self._shots(question) if self._shots else (),
            passages=passages,
            language=self.candidate.language,
        )

    def prompt(self, question: Question, passages: Sequence[Passage] = ()) -> Prompt:
        return self.model.renderer.prompt(self.messages(question, passages))

    def answer(
        self,
        questions: Sequence[Question],
        *,
        exam_digest: str = "",
        memo: Memo | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Answer]:
        """Answers in the order of the questions. One question's failure is an answer with an
        error."""
        scored = [
            i
            for i, q in enumerate(questions)
            if q.form == "choice" and self.model.capabilities.scores_options
        ]
        written = [i for i in range(len(questions)) if i not in set(scored)]
        found, searched = [], []
        for question in questions:
            started = time.perf_counter()
            found.append(self.passages(question))
            searched.append(time.perf_counter() - started)
        ready: dict[int, Answer] = {}
        for indices, run in ((scored, self._score), (written, self._write)):
            if not indices:
                continue  # an endpoint refuses to score, however little
            for index, answer in run(questions, found, indices, exam_digest, memo, progress):
                seconds = answer.seconds + searched[index]
                ready[index] = answer.model_copy(update={"seconds": seconds})
        for index in range(len(questions)):
            yield ready[index]

    def _score(
        self,
        questions: Sequence[Question],
        found: Sequence[tuple[Passage, ...]],
        indices: Sequence[int],
        exam_digest: str,
        memo: Memo | None,
        progress: Progress | None,
    ) -> Iterator[tuple[int, Answer]]:
        prompts = {i: self.prompt(questions[i], found[i]) for i in indices}
        options = {
            i: tuple(self.model.renderer.option(c) for c in questions[i].choices) for i in indices
        }
        requests = [ScoreRequest(prompts[i].ids, options[i]) for i in indices]
        for i, result in zip(indices, self.model.score(requests, memo, progress), strict=True):
            yield (
                i,
                self._answer(
                    questions[i],
                    exam_digest,
                    prompts[i],
                    found[i],
                    Decoding(method="loglikelihood"),
                    text="",
                    choice_loglikelihoods=result.loglikelihoods,
                    choice_lengths=tuple(len(option) for option in options[i]),
                    truncated=result.truncated,
                    tokens_in=len(prompts[i].ids) + sum(len(option) for option in options[i]),
                    seconds=result.seconds,
                ),
            )

    def _write(
        self,
        questions: Sequence[Question],
        found: Sequence[tuple[Passage, ...]],
        indices: Sequence[int],
        exam_digest: str,
        memo: Memo | None,
        progress: Progress | None,
    ) -> Iterator[tuple[int, Answer]]:
        spec = self.candidate.arm.prompt
        stop = self.model.renderer.stop if spec.stop is None else spec.stop
        requests: list[GenerateRequest] = []
        for i in indices:
            question = questions[i]
            tokens = spec.max_tokens
            if question.form == "choice":
                asked = letter_messages(question, self.candidate.language)
                question = question.model_copy(update={"messages": asked})
                tokens = LETTER_TOKENS
            prompt = self.prompt(question, found[i])
            requests.append(GenerateRequest(prompt, tokens, stop=stop))
        results = self.model.generate(requests, memo, progress)
        for i, request, result in zip(indices, requests, results, strict=True):
            letter = questions[i].form == "choice"
            text = result.text.strip()
            choice = parse_letter(text, len(questions[i].choices)) if letter else None
            failed = result.finish == "error"
            yield (
                i,
                self._answer(
                    questions[i],
                    exam_digest,
                    request.prompt,
                    found[i],
                    Decoding(
                        method="letter" if letter else "text",
                        max_tokens=request.max_tokens,
                        stop=stop,
                    ),
                    text=text,
                    choice=choice,
                    truncated=result.truncated,
                    tokens_in=result.tokens_in,
                    tokens_out=result.tokens_out,
                    seconds=result.seconds,
                    cost_usd=result.cost_usd,
                    status="error" if failed else "answered",
                    error=result.error if failed else "",
                ),
            )

    def _answer(
        self,
        question: Question,
        exam_digest: str,
        prompt: Prompt,
        passages: tuple[Passage, ...],
        decoding: Decoding,
        *,
        text: str,
        choice: int | None = None,
        **measured: Any,
    ) -> Answer:
        return Answer(
            candidate_id=self.candidate.id,
            exam_digest=exam_digest,
            question_id=question.id,
            text=text,
            choice=choice,
            passages=passages,
            citations=self.cite(question, text, passages),
            prompt_sha256=prompt.sha256,
            hash_kind=prompt.hash_kind,
            decoding=decoding,
            **measured,
        )

    def cite(
        self, question: Question, text: str, passages: Sequence[Passage]
    ) -> tuple[Citation, ...]:
        """Attributed after answering, among the passages that were in the prompt."""
        if not passages or not text:
            return ()
        asked = question.messages[-1].content
        return attribute(text, passages, self.candidate.language, asked)

    def close(self) -> None:
        if self._retriever is not None:
            self._retriever.close()
        self.model.close()

    def __enter__(self) -> Specialist:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
