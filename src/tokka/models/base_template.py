"""The base format as a chat template, for programs that know only templates.

A base model has no template of its own; an exported one carries this, so that llama.cpp's server,
Ollama or vLLM give a conversation the prompt that the exam gave it: `prompting`'s labels and
`rendering.base_text`. Our own renderer knows the template by its text and goes on as before: an
answer is one line, and nothing ends a turn.

>>> base_template("ja", bos=False)
"""

from __future__ import annotations

import functools

ANSWER_LABEL = {"ja": "答え：", "en": "Answer:"}
QUESTION_LABEL = {"ja": "質問：", "en": "Question: "}
ANSWER_LEAD = {"ja": "", "en": " "}  # between the answer's label and an answer


@functools.cache
def base_template(language: str, bos: bool) -> str:
    """Jinja; `bos`: it writes BOS, for programs that don't add it to a template's text."""
    known = "ja" if language == "ja" else "en"
    return (
        ("{{- bos_token -}}\n" if bos else "")
        + "{%- for message in messages -%}\n"
        + "{%- if message['role'] == 'system' -%}{{- message['content'] + '\\n\\n' -}}\n"
        + "{%- elif message['role'] == 'user' -%}"
        + f"{{{{- '{QUESTION_LABEL[known]}' + message['content'] + '\\n{ANSWER_LABEL[known]}' -}}}}"
        + "\n{%- elif message['role'] == 'assistant' -%}"
        + f"{{{{- '{ANSWER_LEAD[known]}' + message['content'] + '\\n\\n' -}}}}\n"
        + "{%- endif -%}\n"
        + "{%- endfor -%}\n"
    )


def is_base_format(template: object) -> bool:
    """Whether a tokenizer's template is the base format in one of its spellings."""
    known = (base_template(language, bos) for language in ("ja", "en") for bos in (False, True))
    return isinstance(template, str) and template.strip() in {text.strip() for text in known}
