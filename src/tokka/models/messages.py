"""A renderer for endpoints that hide their token ids: prompts stay messages.

Conversation → the same conversation with the SHA-256 of its roles and contents. What needs token
ids raises UsageError with what to do instead.

>>> MessagesRenderer().prompt((Message(role="user", content="Hi"),)).hash_kind
'messages'
"""

from __future__ import annotations

from collections.abc import Sequence

from tokka.errors import UsageError
from tokka.models.protocol import Prompt, Running
from tokka.models.rendering import plain
from tokka.models.thoughts import Thought
from tokka.records import Message, Messages, fingerprint


class MessagesRenderer:
    """The service renders with its own chat template, out of our sight."""

    chat_template = True
    stop: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()

    def prompt(self, messages: Messages) -> Prompt:
        """No ids; the hash is over the canonical JSON of roles and contents."""
        if not messages or messages[-1].role != "user":
            raise UsageError("a prompt ends with a user message; the answer comes after it")
        return Prompt((), messages, fingerprint(plain(messages)), "messages")

    def completion(
        self, text: str, *, delimiter: str = "", before: str = "", scored: bool = False
    ) -> Prompt:
        """The whole text as one user's message: a chat endpoint takes nothing else."""
        whole = f"{before}\n\n{text}" if before else text
        return self.prompt((Message(role="user", content=whole),))

    def thinking(self, prompt: Prompt, thought: Thought) -> Prompt:
        raise hidden("tokenise a thought")

    def option(self, text: str, prompt: Prompt) -> tuple[int, ...]:
        raise hidden("tokenise an option")

    def options(
        self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]
    ) -> list[tuple[tuple[int, ...], ...]]:
        raise hidden("tokenise options")

    def answer(self, text: str, prompt: Prompt) -> tuple[int, ...]:
        raise hidden("tokenise an answer")

    def running(self, text: str) -> Running:
        raise hidden("tokenise a document")

    def count(self, text: str) -> int:
        """An estimate for budgets: a token per 4 ASCII characters, and one per other character."""
        ascii_characters = sum(character.isascii() for character in text)
        return -(-ascii_characters // 4) + len(text) - ascii_characters

    def decode(self, ids: Sequence[int]) -> str:
        raise hidden("decode token ids")


def hidden(what: str) -> UsageError:
    """The error for `what` an endpoint without token ids can't do."""
    return UsageError(
        f"an endpoint that hides token ids can't {what}; ask it for a letter or a text instead, or "
        "open the model itself (a folder or a .gguf)"
    )
