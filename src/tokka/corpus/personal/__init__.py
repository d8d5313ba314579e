"""Personal data: found, masked or replaced by pseudonyms, in Japanese and English.

Document → Protected: the document as it may go on, and what was found where.

>>> protector = Protector("mask")
>>> protector.protect(document).document.text
'〔氏名〕様の電話番号は〔電話番号〕です。'

`findings` says what a finding is; `japan`, `addresses`, `japanese_names` and `western_names` hold
the rules, `digits` the check digits; `analysing` runs them with Presidio; `pseudonyms` makes the
replacements; `protecting` is the way in.
"""

from tokka.corpus.personal.findings import Finding, Kind
from tokka.corpus.personal.protecting import Mode, Protected, Protector

__all__ = ["Finding", "Kind", "Mode", "Protected", "Protector"]
