"""The one class that answers: exam questions and people's questions take the same path.

    with open_candidate(candidate, ...) as specialist:
        for answer in specialist.answer(questions, exam_digest=exam.digest): ...

A server takes the path in three steps, so that it can write in between:

    heard = specialist.hear(messages, Caller(labels=("hr",)))
    result = ...  # a live model writes specialist.request_of(heard)
    answer = specialist.said(heard, result)

Question → passages (retrieval) → messages (prompting) → token ids (renderer) → model → Answer with
citations. Below the arm's threshold of silence it says that the documents don't hold the answer,
and no model is asked. A choice is scored by the likelihood of its options where the model can; an
endpoint that can't is asked for a letter, and says so in `decoding.method`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from tokka.candidates.evidence import cite
from tokka.candidates.hearing import Heard, fitting
from tokka.candidates.letters import letter_messages, parse_letter, with_options
from tokka.errors import UsageError
from tokka.models.prompting import pose
from tokka.models.protocol import (
    GenerateRequest,
    GenerateResult,
    LanguageModel,
    Memo,
    Progress,
    Prompt,
    ScoreRequest,
)
from tokka.records import (
    Answer,
    Caller,
    Candidate,
    Citation,
    Decoding,
    Example,
    Messages,
    Passage,
    Question,
    ScoringMethod,
)
from tokka.retrieval.finding import EVERYTHING, Finder
from tokka.retrieval.hybrid import Retriever
from tokka.retrieval.rerank import Reranker
from tokka.retrieval.silence import confidence, silence_said

__all__ = ["Heard", "Memo", "Progress", "Shots", "Specialist"]

Shots = Callable[[Question], Sequence[Example]]
LETTER_TOKENS = 8


class Specialist:
    """Owns neither the model nor the examples; `close` closes the index, the reranker and the model
    it was given."""

    def __init__(
        self,
        candidate: Candidate,
        model: LanguageModel,
        retriever: Retriever | None = None,
        shots: Shots | None = None,
        reranker: Reranker | None = None,
    ) -> None:
        self.candidate = candidate
        self.model = model
        spec = candidate.arm.retrieval
        self.finder: Finder | None = None
        if spec is not None and retriever is not None:
            self.finder = Finder(spec, retriever, candidate.language, model, reranker)
        self._shots = shots

    def passages(self, question: Question, memo: Memo | None = None) -> tuple[Passage, ...]:
        """What the arm's retrieval finds for a question; nothing where it has none."""
        return tuple(next(self._searches([question], memo)))

    def _searches(
        self, questions: Sequence[Question], memo: Memo | None
    ) -> Iterator[Sequence[Passage]]:
        """What is found for each question, searched for when it is asked for."""
        if self.finder is None:
            return iter([()] * len(questions))
        return self.finder.passages(questions, memo=memo)

    def shots(self, question: Question) -> tuple[Example, ...]:
        """The examples that the arm shows before a question, picked by its own words."""
        return tuple(self._shots(question)) if self._shots else ()

    def shows_options(self, question: Question, show_options: bool) -> bool:
        """Whether the options stand in the prompt, so that their order can matter."""
        if question.form != "choice" or not self.model.capabilities.scores_options:
            return question.form == "choice"
        return show_options and not question.completion  # such a text says all that it shows

    def prompt(
        self,
        question: Question,
        passages: Sequence[Passage] = (),
        said: Messages = (),
        shots: Sequence[Example] = (),
    ) -> Prompt:
        """`said` replaces the question's own words."""
        return pose(
            question,
            self.model.renderer,
            spec=self.candidate.arm.prompt,
            shots=shots,
            passages=passages,
            language=self.candidate.language,
            said=said,
            scored=question.form == "choice" and self.model.capabilities.scores_options,
        )

    def answer(
        self,
        questions: Sequence[Question],
        *,
        exam_digest: str = "",
        memo: Memo | None = None,
        progress: Progress | None = None,
        show_options: bool = False,
    ) -> Iterator[Answer]:
        """Answers in the order of the questions. One question's failure is an answer with an
        error."""
        searches = self._searches(questions, memo)
        asked = [self._ask(question, show_options, searches) for question in questions]
        scores = self.model.capabilities.scores_options
        ready: dict[int, Answer] = {}
        for index, one in enumerate(asked):
            if one.silent:
                ready[index] = self._silent(one, exam_digest)
        if ready and progress is not None:
            progress(len(ready))
        spoken = [(i, q) for i, q in enumerate(questions) if i not in ready]
        scored = [i for i, q in spoken if q.form == "choice" and scores]
        written = [i for i, q in spoken if q.form != "choice" or not scores]
        for indices, run in ((scored, self._score), (written, self._write)):
            if not indices:
                continue  # an endpoint refuses to score, however little
            part = [asked[i] for i in indices]
            answers = run(part, exam_digest, memo, progress)
            for index, answer in zip(indices, answers, strict=True):
                seconds = answer.seconds + asked[index].search_seconds
                ready[index] = answer.model_copy(update={"seconds": seconds})
        for index in range(len(questions)):
            yield ready[index]

    # ---- the same path in three steps -----------------------------------------------------------

    def hear(
        self, messages: Messages, caller: Caller = EVERYTHING, memo: Memo | None = None
    ) -> Heard:
        """What is asked, with the passages that `caller` may see. The last message is searched for.

        Of a conversation that doesn't fit, the oldest turns are left out; `dropped_turns` says how
        many. Raises UsageError where the last message isn't a user's or doesn't fit by itself.
        Where the model hides its tokens, its service says what doesn't fit.
        """
        if not messages or messages[-1].role != "user":
            raise UsageError("messages: the last one must be the user's; send what is asked")
        question = Question(id="ask", messages=messages, form="short")
        started = time.perf_counter()
        found: tuple[Passage, ...] = ()
        if self.finder is not None:
            found = tuple(next(self.finder.passages([question], caller=caller, memo=memo)))
        seconds = time.perf_counter() - started
        shots = self.shots(question)
        prompt, dropped = fitting(
            messages, lambda said: self.prompt(question, found, said, shots), self._room
        )
        return self._heard(question, found, shots, prompt, seconds, dropped)

    @property
    def _room(self) -> int:
        room = self.model.capabilities.max_context_tokens - self.candidate.arm.prompt.max_tokens
        if room < 1:
            raise UsageError(
                f"prompt.max_tokens {self.candidate.arm.prompt.max_tokens} leaves no room for a "
                f"prompt in a context of {self.model.capabilities.max_context_tokens} tokens; "
                "lower it, or open the model with a longer context"
            )
        return room

    def request_of(
        self, heard: Heard, max_tokens: int | None = None, stop: Sequence[str] = ()
    ) -> GenerateRequest:
        """How the answer is written: as examined, or shorter. More tokens than the arm's aren't
        given, and `stop` is added to its own."""
        own = self._request(heard)
        return replace(
            own,
            max_tokens=min(own.max_tokens, max_tokens or own.max_tokens),
            stop=tuple(dict.fromkeys((*own.stop, *(s for s in stop if s)))),
        )

    def said(
        self, heard: Heard, result: GenerateResult | None, request: GenerateRequest | None = None
    ) -> Answer:
        """The answer with its citations. `result` None where nobody was asked (`heard.silent`);
        `request` where it wasn't `request_of(heard)`."""
        if result is None:
            if not heard.silent:
                raise UsageError("said: this question has no answer yet; give the model's result")
            return self._silent(heard, "")
        answer = self._written(heard, request or self._request(heard), result, "")
        seconds = answer.seconds + heard.search_seconds
        return answer.model_copy(update={"seconds": seconds})

    def _ask(
        self, question: Question, show_options: bool, searches: Iterator[Sequence[Passage]]
    ) -> Heard:
        started = time.perf_counter()
        found = tuple(next(searches))
        seconds = time.perf_counter() - started
        said: Messages = ()
        if question.form == "choice" and not self.model.capabilities.scores_options:
            said = letter_messages(question, self.candidate.language)
        elif self.shows_options(question, show_options):
            said = with_options(question, self.candidate.language).messages
        shots = self.shots(question)
        return self._heard(
            question, found, shots, self.prompt(question, found, said, shots), seconds
        )

    def _heard(
        self,
        question: Question,
        found: tuple[Passage, ...],
        shots: tuple[Example, ...],
        prompt: Prompt,
        seconds: float,
        dropped_turns: int = 0,
    ) -> Heard:
        sure, silent = None, ""
        if self.finder is not None:
            words = question.messages[-1].content
            sure = confidence(words, found, self.candidate.language)
            threshold = self.finder.spec.silence
            if threshold is not None and threshold != "tuned" and sure < threshold:
                silent = silence_said(self.candidate.language)
        return Heard(question, found, shots, prompt, seconds, sure, silent, dropped_turns)

    def _silent(self, asked: Heard, exam_digest: str) -> Answer:
        """Nobody was asked: the prompt's hash is of what would have been sent, the method what the
        question would have been answered by."""
        method: ScoringMethod = "text"
        if asked.question.form == "choice":
            method = "loglikelihood" if self.model.capabilities.scores_options else "letter"
        return self._answer(
            asked,
            exam_digest,
            self._decoding(method),
            text=asked.silent,
            status="abstained",
            seconds=asked.search_seconds,
        )

    def _score(
        self,
        asked: Sequence[Heard],
        exam_digest: str,
        memo: Memo | None,
        progress: Progress | None,
    ) -> Iterator[Answer]:
        prompts = [a.prompt for a in asked]
        options = self.model.renderer.options(prompts, [a.question.choices for a in asked])
        requests = [
            ScoreRequest(prompt.ids, of) for prompt, of in zip(prompts, options, strict=True)
        ]
        results = self.model.score(requests, memo, progress)
        for a, request, result in zip(asked, requests, results, strict=True):
            yield self._answer(
                a,
                exam_digest,
                self._decoding("loglikelihood"),
                text="",
                choice_loglikelihoods=result.loglikelihoods,
                choice_lengths=tuple(len(option) for option in request.options),
                truncated=result.truncated,
                tokens_in=len(request.prompt) + sum(len(option) for option in request.options),
                seconds=result.seconds,
            )

    def _write(
        self,
        asked: Sequence[Heard],
        exam_digest: str,
        memo: Memo | None,
        progress: Progress | None,
    ) -> Iterator[Answer]:
        requests = [self._request(a) for a in asked]
        results = self.model.generate(requests, memo, progress)
        for a, request, result in zip(asked, requests, results, strict=True):
            yield self._written(a, request, result, exam_digest)

    def _written(
        self, asked: Heard, request: GenerateRequest, result: GenerateResult, exam_digest: str
    ) -> Answer:
        letter = asked.question.form == "choice"
        text = result.text.strip()
        if asked.question.completion and not letter:
            text = _until(result.text, request.stop)
        failed = result.finish == "error"
        return self._answer(
            asked,
            exam_digest,
            self._decoding("letter" if letter else "text", request),
            text=text,
            choice=parse_letter(text, len(asked.question.choices)) if letter else None,
            truncated=result.truncated,
            tokens_in=result.tokens_in,
            tokens_out=result.tokens_out,
            seconds=result.seconds,
            cost_usd=result.cost_usd,
            status="error" if failed else "answered",
            error=result.error if failed else "",
        )

    def _decoding(self, method: ScoringMethod, request: GenerateRequest | None = None) -> Decoding:
        can = self.model.capabilities
        told = Decoding(method=method, dtype=can.dtype, engine=can.engine)
        if request is None:
            return told
        how = ("max_tokens", "temperature", "seed", "stop")
        return told.model_copy(update={name: getattr(request, name) for name in how})

    def _request(self, asked: Heard) -> GenerateRequest:
        """How a written answer ends: as its question says, else as the arm does, else by the
        model's habit."""
        spec, question = self.candidate.arm.prompt, asked.question
        stop = self.model.renderer.stop if spec.stop is None else spec.stop
        if question.form == "choice":
            return GenerateRequest(asked.prompt, LETTER_TOKENS, stop=stop)
        return GenerateRequest(
            asked.prompt,
            question.max_tokens or spec.max_tokens,
            stop=stop if question.stop is None else question.stop,
        )

    def _answer(
        self, asked: Heard, exam_digest: str, decoding: Decoding, *, text: str, **measured: Any
    ) -> Answer:
        return Answer(
            candidate_id=self.candidate.id,
            exam_digest=exam_digest,
            question_id=asked.question.id,
            text=text,
            shots=tuple(shot.id for shot in asked.shots),
            passages=asked.passages,
            citations=()
            if measured.get("status") == "abstained"
            else self.cite(asked.question, text, asked.passages),
            confidence=asked.confidence,
            prompt_sha256=asked.prompt.sha256,
            hash_kind=asked.prompt.hash_kind,
            decoding=decoding,
            **measured,
        )

    def cite(
        self, question: Question, text: str, passages: Sequence[Passage]
    ) -> tuple[Citation, ...]:
        """Attributed after answering, among the passages that were in the prompt."""
        return cite(question, text, passages, self.candidate.language)

    def close(self) -> None:
        if self.finder is not None:
            self.finder.close()
        self.model.close()

    def __enter__(self) -> Specialist:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _until(text: str, stop: Sequence[str]) -> str:
    """A completion's answer as lm-evaluation-harness cuts it: at the first stop string, also where
    nothing was said before it, and with its spaces."""
    return text[: min((at for s in stop if s and (at := text.find(s)) >= 0), default=len(text))]
