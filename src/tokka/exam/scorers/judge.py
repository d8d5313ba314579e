"""An answer that only a judge can mark: it is kept, and its score waits.

The key carries the reference answer (`targets`) and what to look at (`points`). Nothing here makes
up a value: a sitting with waiting answers has no mean and gets no verdict.

>>> judge(answer, key, question, exam).status
'waiting'
"""

from __future__ import annotations

from tokka.records import Answer, Exam, Key, Question, Score


def judge(answer: Answer, key: Key, question: Question, exam: Exam) -> Score:
    """No value yet, whatever was answered."""
    return Score(
        question_id=key.question_id,
        scorer="judge",
        value=None,
        status="waiting",
        explanation="waits for a judge: the answer is kept, with the key's reference and points",
    )
