"""What a conversion may have done to answers, each told from the answers themselves.

Pairs of answers, as examined and as exported → faults, each a sentence. Scores alone don't show it:
a model that was always wrong loses nothing by breaking.

    prompt_faults(build, candidate, exported, step, pairs)   # wrong template, BOS twice or missing
    end_faults(pairs, seed)                                  # answers that no longer end
    nonsense_faults(pairs)                                   # answers that have nothing in common
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokka.records import Answer, Candidate, Example, Question

if TYPE_CHECKING:
    from tokka.exporting import Exported
    from tokka.models.protocol import Prompt
    from tokka.pipeline import Build, ExamStep

SHOWN_TOKENS = 6
LEVEL = 0.05  # one-sided
GROWTH = 0.25  # of the mean number of tokens
MORE_UNENDED = 0.1  # of the answers
# Gemma 3 270M and SmolLM2 135M as Q8_0 and Q4_K_M beside bfloat16: 48 options correlated by 0.988
# to 0.999, 19 to 24 answers of 32 tokens shared 0.62 to 0.84 of their character pairs, and those of
# other questions 0.07 to 0.38. Of random weights neither is left.
LEAST_CORRELATION = 0.7
LEAST_LIKENESS = 0.3
FEWEST_OPTIONS = 6
FEWEST_TEXTS = 3


@dataclass(frozen=True, slots=True)
class Pair:
    """One question's answers: as examined, and of the exported file."""

    exam: str
    question: Question
    before: Answer
    after: Answer


def equal(pair: Pair) -> bool:
    """Whether the same was asked and the same was said."""
    return _hashes(pair.before) == _hashes(pair.after) and pair.before.text == pair.after.text


def _hashes(answer: Answer) -> list[str]:
    return [answer.prompt_sha256, *(turn.prompt_sha256 for turn in answer.rotations)]


# ---- prompts ----------------------------------------------------------------------------------


def prompt_faults(
    build: Build,
    candidate: Candidate,
    exported: Exported,
    step: ExamStep,
    pairs: Sequence[Pair],
) -> list[str]:
    """A prompt that isn't, token by token, the one that was examined; with the first tokens that
    differ."""
    different = [pair for pair in pairs if _hashes(pair.before) != _hashes(pair.after)]
    if not different:
        return []
    first = different[0]
    shown = _difference(build, candidate, exported, step, first)
    return [
        f"{step.name}: {len(different)} of {len(pairs)} prompts aren't the examined ones; of "
        f"question {first.question.id} {shown}; correct the tokenizer or chat template"
    ]


def _difference(
    build: Build, candidate: Candidate, exported: Exported, step: ExamStep, pair: Pair
) -> str:
    from tokka.models.opening import open_renderer

    if pair.before.passages != pair.after.passages:
        return "other passages were found"
    if exported.source is None or exported.folder is None:
        return "the hash differs"
    language = build.project.language
    both = [open_renderer(place, language) for place in (exported.source, exported.folder)]
    before, after = (_prompt(build, candidate, r, step, pair) for r in both)
    return first_difference(before.ids, after.ids, *both)


def first_difference(
    before: Sequence[int], after: Sequence[int], examined: Any, exported: Any
) -> str:
    """The first tokens that differ, as text; `examined` and `exported` are the renderers."""
    place = next(
        (n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b),
        min(len(before), len(after)),
    )
    if list(before) == list(after):
        return "the hash differs"
    was = examined.pieces(before[place : place + SHOWN_TOKENS])
    now = exported.pieces(after[place : place + SHOWN_TOKENS])
    bos = examined.bos_id
    hint = ""
    if bos is not None and list(after[:2]) == [bos, bos]:
        hint = " (it begins with BOS twice)"
    elif bos is not None and before[:1] == (bos,) and after[:1] != (bos,):
        hint = " (BOS is missing)"
    return f"token {place} and those behind it are {now}, examined was {was}{hint}"


def _prompt(
    build: Build, candidate: Candidate, renderer: Any, step: ExamStep, pair: Pair
) -> Prompt:
    from tokka.candidates.letters import with_options
    from tokka.candidates.opening import artifact
    from tokka.models.prompting import pose
    from tokka.store import read_records

    question, answer = pair.question, pair.before
    folder = artifact(candidate, "examples", build.workspace) if answer.shots else None
    shots: list[Example] = []
    if folder is not None:
        by_id = {e.id: e for e in read_records(folder / "examples.jsonl", Example)}
        shots = [by_id[name] for name in answer.shots]
    scored = question.form == "choice"
    shows = scored and step.show_options and not question.completion
    return pose(
        question,
        renderer,
        spec=candidate.arm.prompt,
        shots=shots,
        passages=answer.passages,
        language=candidate.language,
        said=with_options(question, candidate.language).messages if shows else (),
        scored=scored,
    )


# ---- ends -------------------------------------------------------------------------------------


def end_faults(pairs: Sequence[Pair], seed: int = 0) -> list[str]:
    """Answers that run on where they had ended: more of them reach their limit (exact sign test),
    or they are longer by more than a quarter (paired bootstrap)."""
    from scipy.stats import binomtest

    from tokka.stats.paired import paired_bootstrap

    written = _written(pairs)
    if not written:
        return []
    gained = sum(_unended(p.after) and not _unended(p.before) for p in written)
    lost = sum(_unended(p.before) and not _unended(p.after) for p in written)
    if (gained - lost) / len(written) > MORE_UNENDED:
        p_value = float(binomtest(gained, gained + lost, alternative="greater").pvalue)
        if p_value < LEVEL:
            return [
                f"{gained} of {len(written)} answers ran into their limit of tokens and had ended "
                f"when they were examined, {lost} the other way round (p = {p_value:.2g}): its end "
                "of turn is lost"
            ]
    before = [p.before.tokens_out / p.before.decoding.max_tokens for p in written]
    after = [p.after.tokens_out / p.after.decoding.max_tokens for p in written]
    clusters = [f"{p.exam}/{p.question.cluster_id or p.question.id}" for p in written]
    mean = sum(before) / len(before)
    drawn = paired_bootstrap(after, [min(1.0, b) for b in before], clusters, draws=2000, seed=seed)
    if drawn.p_above(GROWTH * mean) < LEVEL:
        was = sum(p.before.tokens_out for p in written) / len(written)
        now = sum(p.after.tokens_out for p in written) / len(written)
        return [
            f"answers grew from {was:.1f} to {now:.1f} tokens on average, by more than chance and "
            f"more than {GROWTH:.0%}: look whether they still end where they should"
        ]
    return []


def _written(pairs: Sequence[Pair]) -> list[Pair]:
    return [
        pair
        for pair in pairs
        if pair.before.status == pair.after.status == "answered"
        and pair.before.decoding.method == pair.after.decoding.method == "text"
        and not pair.before.choice_loglikelihoods
        and pair.before.decoding.max_tokens
        and pair.after.decoding.max_tokens
    ]


def _unended(answer: Answer) -> bool:
    return answer.tokens_out >= answer.decoding.max_tokens


# ---- nonsense ---------------------------------------------------------------------------------


def nonsense_faults(pairs: Sequence[Pair]) -> list[str]:
    """Likelihoods of options that no longer follow the examined ones, texts that share nothing
    with the examined texts, and likelihoods that are no numbers."""
    faults = []
    scored = [p for p in pairs if p.before.choice_loglikelihoods and p.after.choice_loglikelihoods]
    wild = sum(not all(map(math.isfinite, p.after.choice_loglikelihoods)) for p in scored)
    if wild:
        faults.append(f"the likelihoods of {wild} of {len(scored)} choices are no numbers")
    else:
        correlation, options = _correlation(scored)
        if options >= FEWEST_OPTIONS and correlation < LEAST_CORRELATION:
            faults.append(
                f"the likelihoods of {options} options correlate with the examined ones by only "
                f"{correlation:.2f} (at least {LEAST_CORRELATION}): the weights are damaged"
            )
    written = _written(pairs)
    if len(written) >= FEWEST_TEXTS:
        alike = sum(likeness(p.before.text, p.after.text) for p in written) / len(written)
        if alike < LEAST_LIKENESS:
            faults.append(
                f"{len(written)} answers share {alike:.0%} of their character pairs with the "
                f"examined ones (at least {LEAST_LIKENESS:.0%}): the weights are damaged"
            )
    return faults


def _correlation(pairs: Sequence[Pair]) -> tuple[float, int]:
    """Pearson's r of options' likelihoods, each less its question's mean; and their number."""
    mine: list[float] = []
    theirs: list[float] = []
    for pair in pairs:
        theirs += _centred(pair.before.choice_loglikelihoods)
        mine += _centred(pair.after.choice_loglikelihoods)
    both = math.fsum(a * b for a, b in zip(mine, theirs, strict=True))
    sizes = math.fsum(a * a for a in mine) * math.fsum(b * b for b in theirs)
    return (both / math.sqrt(sizes) if sizes > 0 else 1.0 if mine == theirs else 0.0), len(mine)


def _centred(values: Sequence[float]) -> list[float]:
    mean = math.fsum(values) / len(values)
    return [value - mean for value in values]


def likeness(one: str, other: str) -> float:
    """Dice's coefficient of the character pairs of two texts (NFKC), in [0, 1]; 1 for equal ones.

    >>> likeness("翌営業日の正午", "翌営業日の正午まで")
    """
    one, other = (" ".join(unicodedata.normalize("NFKC", t).split()) for t in (one, other))
    if one == other:
        return 1.0
    mine, theirs = ({t[i : i + 2] for i in range(len(t) - 1)} for t in (one, other))
    return 2 * len(mine & theirs) / max(1, len(mine) + len(theirs))
