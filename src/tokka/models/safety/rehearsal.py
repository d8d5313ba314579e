"""Render one chat template on invented conversations, in a process of its own.

A template and nothing else comes in on standard input; "ok", "refused" or an error's name goes out.
Time and memory are bounded from within, and whatever happens ends this process alone. So this file
is run as a script, in isolated mode, and imports nothing of tokka.

    python -I rehearsal.py < template.jinja

`environment` is what transformers renders chat templates in (`chat_template_utils`): Jinja's
immutable sandbox, with break and continue, a `generation` block and a few functions.
"""

from __future__ import annotations

import sys
from typing import Any

CPU_SECONDS = 2
MEMORY_BYTES = 512 * 2**20
MAX_CHARACTERS = 200_000  # of one rendered conversation; those here have 2,000
_TURN = "締切は翌営業日の正午です。 <think>x</think> {% x %} {{ y }}\n"


def main() -> None:
    """Read a template from standard input, write one word to standard output."""
    _limit()
    sys.stdout.write(rehearsed(sys.stdin.buffer.read().decode()))


def rehearsed(template: str) -> str:
    """ "ok", or why a template can't be used: "SecurityError", "too long", …

    What it says of a conversation (a role that it doesn't know, a function that isn't there) is no
    reason here: whoever renders hears it then.
    """
    from jinja2 import TemplateError, TemplateSyntaxError
    from jinja2.exceptions import SecurityError

    try:
        compiled = environment().from_string(template)
    except (TemplateSyntaxError, SyntaxError, RecursionError, MemoryError) as error:
        return type(error).__name__
    for messages in _conversations():
        for asks in (True, False):
            length = 0
            try:
                for part in compiled.generate(
                    messages=messages, add_generation_prompt=asks, enable_thinking=False,
                    bos_token="<s>", eos_token="</s>", tools=None, documents=None,
                ):  # fmt: skip
                    length += len(part)
                    if length > MAX_CHARACTERS:
                        return "too long"
            except (SecurityError, MemoryError, OverflowError, RecursionError) as error:
                return type(error).__name__
            except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError,
                    AttributeError):  # fmt: skip
                continue
    return "ok"


def environment() -> Any:
    """A Jinja environment that parses and renders what transformers does, and as it does."""
    import json
    from datetime import datetime

    import jinja2.ext
    from jinja2 import TemplateError, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}  # noqa: RUF012  (Jinja's own way)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **how: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **how)

    def strftime_now(form: str) -> str:
        return datetime.now().astimezone().strftime(form)

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = strftime_now
    return made


def _conversations() -> list[list[dict[str, str]]]:
    system = {"role": "system", "content": _TURN}
    user = {"role": "user", "content": _TURN}
    assistant = {"role": "assistant", "content": _TURN}
    return [[user], [system, user], [user, assistant], [system, *[user, assistant] * 10, user]]


def _limit() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits; the parent's timeout remains
        return
    for name, most in (("RLIMIT_CPU", CPU_SECONDS), ("RLIMIT_AS", MEMORY_BYTES)):
        try:
            resource.setrlimit(getattr(resource, name), (most, most))
        except (AttributeError, ValueError, OSError):
            continue  # a system that doesn't know this one


if __name__ == "__main__":
    main()
