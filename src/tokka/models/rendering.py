"""Conversation → token ids, in one place, for training, exam and serving alike.

A prompt's ids are those of its own text: what the exam and the server send, and what a training
example begins with. An answer's ids are what follows them in one tokenisation of prompt and answer
(decision 13 says what happens where the two merge). Instruct models are rendered by their own chat
template; base models as

    {system}⏎⏎質問：{user}⏎答え：{assistant}⏎⏎質問：{user}⏎答え：

where the user's text arrives with its label already (see `prompting`). BOS stands exactly once
where the tokenizer wants one; an answer ends with EOS or with the template's own end of turn.

    renderer = TokenRenderer(tokenizer, language="ja")
    prompt = renderer.prompt((Message(role="user", content="質問：締切はいつですか。"),))
    prompt.ids + renderer.answer("翌営業日の正午まで", prompt)

A text that is to be continued as it stands (`completion`) gets its BOS and nothing else.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Any

from tokka.errors import UsageError
from tokka.models.base_template import (
    ANSWER_LABEL,
    ANSWER_LEAD,
    is_base_format,
)
from tokka.models.protocol import Prompt, Running
from tokka.models.thoughts import Thought, is_emptied, named_in, opened
from tokka.records import Message, Messages, canonical_json

_SENTINEL = "tokkaSENTINELtokka"


def hash_ids(ids: Sequence[int]) -> str:
    """SHA-256 over the ids as little-endian 32-bit integers."""
    return hashlib.sha256(struct.pack(f"<{len(ids)}i", *ids)).hexdigest()


def base_text(messages: Sequence[Message], language: str) -> str:
    """A conversation as a base model reads it; after a user's message, up to the answer's label.

    `language` is "ja", else English; users' texts arrive with their labels.
    """
    label = ANSWER_LABEL["ja" if language == "ja" else "en"]
    parts: list[str] = []
    for message in messages:
        if message.role == "system":
            parts.append(message.content + "\n\n")
        elif message.role == "user":
            parts.append(message.content + "\n" + label)
        else:
            parts.append(answer_lead(language) + message.content + "\n\n")
    return "".join(parts)


def answer_lead(language: str) -> str:
    """What stands between the answer's label and an answer, in the base format."""
    return ANSWER_LEAD["ja" if language == "ja" else "en"]


def plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as chat templates and chat endpoints take them."""
    return [{"role": message.role, "content": message.content} for message in messages]


class TokenRenderer:
    """Renders with a Hugging Face tokenizer; the only class that turns text into ids."""

    def __init__(self, tokenizer: Any, language: str) -> None:
        self._tokenizer = tokenizer
        self.language = "ja" if language == "ja" else "en"
        template = tokenizer.chat_template
        self.chat_template = bool(template) and not is_base_format(template)
        self.bos_id: int | None = tokenizer.bos_token_id
        self._wants_bos = self.bos_id is not None and list(tokenizer("x").input_ids)[:1] == [
            self.bos_id
        ]
        self._specials = sorted(
            {t for t in tokenizer.all_special_tokens if t}
            | {t.content for t in tokenizer.added_tokens_decoder.values() if t.special},
            key=lambda t: (-len(t), t),
        )
        self._openings = {token[:2] for token in self._specials}
        self._tags = named_in(str(tokenizer.chat_template or ""))
        self._end_of_turn = self._template_end() if self.chat_template else ""
        eos = tokenizer.eos_token_id
        if eos is None and not self.chat_template:
            raise UsageError(
                "tokenizer: no EOS token, so an answer could never end; set eos_token in "
                "tokenizer_config.json"
            )
        self._eos_id: int | None = None if eos is None else int(eos)
        self._end_ids = (
            tuple(self._encode(self._end_of_turn)) if self.chat_template else (int(eos),)
        )
        stops = {int(eos)} if eos is not None else set()
        if self._end_ids:  # " </s>" ends with </s>, not with its space
            special = {int(i) for i in tokenizer.convert_tokens_to_ids(self._specials)}
            stops.add(next((i for i in self._end_ids if i in special), self._end_ids[0]))
        self.stop_ids: frozenset[int] = frozenset(stops)
        self.digest = fingerprint_of(tokenizer, self.language)

    @property
    def stop(self) -> tuple[str, ...]:
        """A base model never learnt to end a turn: in its format an answer is one line."""
        return () if self.chat_template else ("\n",)

    @property
    def bos(self) -> str:
        """The token that every text begins with; "" where the tokenizer wants none."""
        return str(self._tokenizer.bos_token) if self._wants_bos else ""

    def text(self, messages: Messages) -> str:
        """The prompt as text, up to where the answer begins (BOS not shown unless templated)."""
        if not messages or messages[-1].role != "user":
            raise UsageError("a prompt ends with a user message; the answer comes after it")
        safe = [m.model_copy(update={"content": self._defuse(m.content)}) for m in messages]
        if self.chat_template:
            return self._templated(plain(safe), generate=True)
        return base_text(safe, self.language)

    def prompt(self, messages: Messages) -> Prompt:
        """Ids up to where the answer begins, BOS exactly once."""
        text = self.text(messages)
        (ids,) = self._encode_prompts([text])
        return Prompt(ids, messages, hash_ids(ids), "tokens", text, self._lead(text))

    def thinking(self, prompt: Prompt, thought: Thought) -> Prompt:
        """The prompt behind a thought, up to where the answer begins: the prompt's own ids first.

        The thought stands in the tags that the chat template names, else in its own. Raises
        UsageError where the prompt ends with an empty thought, and none is asked for.
        """
        if is_emptied(prompt.text):
            raise UsageError(
                "the chat template switches thinking off with an empty thought, so a thought "
                "behind it would be learnt and never asked for; set thought: drop"
            )
        tags = self._tags or thought.tags
        said = self._defuse(thought.text)
        begin = prompt.lead + tags.begin
        if opened(prompt.text) is not None:
            begin, said = "", said.lstrip("\n")
        said = begin + said + tags.end + thought.space
        (ids,) = self._encode_prompts([prompt.text + said])
        if ids[: len(prompt.ids)] != prompt.ids:
            ids = prompt.ids + self._alone(said)
        return Prompt(ids, prompt.messages, hash_ids(ids), "tokens", prompt.text + said)

    def completion(
        self, text: str, *, delimiter: str = "", before: str = "", scored: bool = False
    ) -> Prompt:
        """A text to be continued as it stands: BOS once, no labels, no template.

        Special tokens in `text` count as such, as lm-evaluation-harness has it; in `before` (what
        an arm puts in front, a blank line between) they are only text. Where answers are `scored`,
        the spaces that end the text move to the answer, before `delimiter`: "…is " + "blue" is
        tokenised as "…is" + " blue". Raises UsageError where nothing is left to go on from.
        """
        whole = self._defuse(before) + "\n\n" + text if before else text
        kept = whole.rstrip() if scored else whole
        if not kept:
            raise UsageError(
                f"a completion of nothing but spaces can't be answered, got {text!r}; give it words"
            )
        (ids,) = self._encode_prompts([kept])
        lead = whole[len(kept) :] + delimiter
        return Prompt(ids, (), hash_ids(ids), "tokens", kept, lead, verbatim=True)

    def option(self, text: str, prompt: Prompt) -> tuple[int, ...]:
        """An answer without its end: what a choice is scored by. At least one token."""
        ((option,),) = self.options([prompt], [[text]])
        return option

    def options(
        self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]
    ) -> list[tuple[tuple[int, ...], ...]]:
        """Ids of `texts[i][j]` after `prompts[i]`, all tokenised in one call.

        They are what follows the prompt's ids in the ids of prompt + lead + text. Where the whole
        doesn't begin with the prompt's ids, since the tokenizer joins characters across the border,
        a verbatim prompt takes the whole's ids from that place on, as lm-evaluation-harness does;
        for a conversation, which is answered from the prompt's ids, the answer is tokenised by
        itself. So is one of which nothing is left. Raises UsageError for an answer of no tokens.
        """
        answers = [
            [p.lead + (text if p.verbatim else self._defuse(text)) for text in of]
            for p, of in zip(prompts, texts, strict=True)
        ]
        wholes = dict.fromkeys(
            p.text + answer for p, of in zip(prompts, answers, strict=True) for answer in of
        )
        ids = dict(zip(wholes, self._encode_prompts(list(wholes)), strict=True))
        return [
            tuple(self._after(p, ids[p.text + answer], answer) for answer in of)
            for p, of in zip(prompts, answers, strict=True)
        ]

    def answer(self, text: str, prompt: Prompt) -> tuple[int, ...]:
        """An answer with its end of turn: what training teaches. It begins with `option`'s ids."""
        return self.option(text, prompt) + self._end_ids

    def running(self, text: str) -> Running:
        """A document by itself, as pretraining reads it; special tokens in it are only text."""
        (ids,) = self._encode_prompts([self._defuse(text)])
        before = 1 if self._wants_bos else 0
        end = () if self._eos_id is None else (self._eos_id,)
        return Running(ids[:before], ids[before:] + end if ids[before:] else ())

    def count(self, text: str) -> int:
        return len(self._encode(text))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Each token as readable text, special tokens included: for `tokka check`."""
        return [str(self._tokenizer.decode([i], skip_special_tokens=False)) for i in ids]

    def _lead(self, prompt: str) -> str:
        """Where the template opens a thought, an answer without one closes it."""
        if not self.chat_template:
            return answer_lead(self.language)
        tags = opened(prompt)
        return "" if tags is None else f"\n{tags.end}\n\n"

    def _after(self, prompt: Prompt, whole: tuple[int, ...], answer: str) -> tuple[int, ...]:
        start = len(prompt.ids)
        if whole[start:] and (prompt.verbatim or whole[:start] == prompt.ids):
            return whole[start:]
        alone = self._alone(answer)
        if not alone:
            raise UsageError(f"an option of no tokens can't be scored: {answer!r}")
        return alone

    def _alone(self, answer: str) -> tuple[int, ...]:
        """Behind a line break where that stays one: some tokenizers open a text with a space."""
        behind, line = self._encode("\n" + answer), self._encode("\n")
        if behind[: len(line)] == line:
            return tuple(behind[len(line) :])
        return tuple(self._encode(answer))

    def _encode_prompts(self, texts: list[str]) -> list[tuple[int, ...]]:
        """Ids of texts that begin a sequence, BOS exactly once where the tokenizer wants one."""
        if not texts:
            return []
        first = () if self.bos_id is None or not self._wants_bos else (self.bos_id,)
        found = self._tokenizer(texts, add_special_tokens=False).input_ids
        return [tuple(ids) if tuple(ids[:1]) == first else (*first, *ids) for ids in found]

    def _encode(self, text: str) -> list[int]:
        return [int(i) for i in self._tokenizer(text, add_special_tokens=False).input_ids]

    def _defuse(self, text: str) -> str:
        """Special tokens inside a user's or a document's text are only text: break them apart."""
        if not any(opening in text for opening in self._openings):
            return text  # Gemma has 6,249 of them: 12 ms for a text of 8,000 characters
        for token in self._specials:
            if token in text:
                text = text.replace(token, token[0] + " " + token[1:])
        return text

    def _templated(self, turns: list[dict[str, str]], generate: bool) -> str:
        """The chat template's text. Thinking is switched off where the template has a switch: an
        exam's answer begins with the answer."""
        from jinja2 import TemplateError

        try:
            return str(
                self._tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=generate, enable_thinking=False
                )
            )
        except TemplateError as error:
            roles = ", ".join(turn["role"] for turn in turns)
            raise UsageError(
                f"chat template: {error} (the turns were: {roles}); where it refuses a system "
                f"text, "
                "remove prompt.system and let prompt.format say it"
            ) from error

    def _template_end(self) -> str:
        """What the chat template writes after an answer, up to and including its end of turn.

        Raises UsageError for a template whose training text doesn't begin with its prompt, or that
        ends a turn with nothing: such a model would never learn to stop.
        """
        user = {"role": "user", "content": "x"}
        prompt = self._templated([user], generate=True)
        turn = [user, {"role": "assistant", "content": _SENTINEL}]
        full = self._templated(turn, generate=False)
        tags = opened(prompt)
        if tags is not None and not full.startswith(prompt + _SENTINEL):
            # DeepSeek-R1's prompt opens a thought that its finished turns leave out, or show empty.
            prompt = prompt[: prompt.rindex(tags.begin)]
            before = full.removeprefix(prompt).partition(_SENTINEL)[0]
            prompt += before if is_emptied(before) else ""
        if not full.startswith(prompt + _SENTINEL):
            raise UsageError(
                "chat template: a finished conversation doesn't begin with its own generation "
                "prompt, "
                "so training and serving would differ; correct the template in the model's folder"
            )
        end = full[len(prompt + _SENTINEL) :].rstrip("\n ")
        if not end:
            raise UsageError(
                "chat template: nothing ends the assistant's turn (no EOS), so the model would "
                "never "
                "stop; correct the template in the model's folder"
            )
        return end


def fingerprint_of(tokenizer: Any, language: str) -> str:
    """SHA-256 over everything that decides token ids: vocabulary, rules, template, labels."""
    rules = getattr(tokenizer, "backend_tokenizer", None)
    body = rules.to_str() if rules is not None else canonical_json(tokenizer.get_vocab())
    parts = [body, str(tokenizer.chat_template or ""), language, canonical_json(ANSWER_LABEL)]
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()
