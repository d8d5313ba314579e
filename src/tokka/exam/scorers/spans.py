"""Score a short answer that must hold every one of the key's texts.

One text is marked as `contained` marks it. Several may stand in any order, in a list or a sentence;
together they bound how long the answer may be.

>>> spans(answer, key, question, exam).explanation
"doesn't contain 'total revenue'"
"""

from __future__ import annotations

from tokka.exam.scorers.short import why_not_contained
from tokka.records import Answer, Exam, Key, Question, Score


def spans(answer: Answer, key: Key, question: Question, exam: Exam) -> Score:
    """1 where the answer holds every text of the key, else 0 with what it lacks."""
    reasons = []
    for target in key.targets:
        others = tuple(other for other in key.targets if other != target)
        reason = why_not_contained(answer.text, target, beside=others)
        if reason:
            reasons.append(reason)
    return Score(
        question_id=key.question_id,
        scorer="spans",
        value=float(not reasons),
        status="scored",
        explanation="; ".join(reasons) or f"contains {', '.join(map(repr, key.targets))}",
    )
