"""Every token of every document is learnt once, in windows that no two documents share."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokka.errors import Mistakes, UsageError
from tokka.models.messages import MessagesRenderer
from tokka.models.prompting import compose
from tokka.models.rendering import TokenRenderer
from tokka.records import Document, Message, PromptSpec
from tokka.training.lessons import Lesson
from tokka.training.texts import read_general, replay_lessons, windows

BOS, EOS = 1, 2
JAPANESE = "融資の限度額は円。締切は翌営業日の正午である。決裁者は店長である。" * 4

Renderers = Callable[[bool], TokenRenderer]


@pytest.fixture(scope="module")
def renderers(make_tokenizer: Callable[..., Any]) -> Renderers:
    made = {bos: TokenRenderer(make_tokenizer(adds_bos=bos), "ja") for bos in (True, False)}
    return lambda adds_bos: made[adds_bos]


def document(text: str, name: str = "a.md") -> Document:
    return Document(id=name, text=text, source=name, title="", language="ja", sha256="")


def learnt(lesson: Lesson) -> list[int]:
    return [i for start, stop in lesson.learnt for i in lesson.ids[start:stop]]


def parts(lessons: list[Lesson], renderer: TokenRenderer) -> list[str]:
    return ["".join(renderer.pieces(lesson.ids)) for lesson in lessons]


# ---- windows ------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text("ab.!\n 。」円<s>/", max_size=90), max_size=5),
    window=st.integers(16, 40),
    adds_bos=st.booleans(),
)
def test_every_token_of_every_document_is_learnt_exactly_once(
    renderers: Renderers, texts: list[str], window: int, adds_bos: bool
) -> None:
    renderer = renderers(adds_bos)
    given_documents = [document(text, f"d{n}") for n, text in enumerate(texts)]
    lessons = windows(given_documents, renderer, window)
    for one in given_documents:
        own = [lesson for lesson in lessons if lesson.example_id.partition(" ")[0] == one.id]
        assert [token for lesson in own for token in learnt(lesson)] == list(
            renderer.running(one.text).ids[0 if adds_bos else 1 :]
        )
    assert all(len(lesson.ids) <= window for lesson in lessons)
    assert all(lesson.learnt == ((1, len(lesson.ids)),) for lesson in lessons)
    scraps = [lesson for lesson in lessons if "/" in lesson.example_id]  # only a short text is one
    assert all(len(lesson.ids) > window // 4 for lesson in scraps)


def test_bos_opens_every_window_and_eos_ends_the_last_alone(renderers: Renderers) -> None:
    lessons = windows([document(JAPANESE), document("円。", "b.md")], renderers(True), 64)
    names = [lesson.example_id for lesson in lessons]
    assert names == ["a.md (1/3)", "a.md (2/3)", "a.md (3/3)", "b.md"]
    assert all(lesson.ids[0] == BOS and lesson.ids.count(BOS) == 1 for lesson in lessons)
    assert [lesson.ids[-1] == EOS for lesson in lessons] == [False, False, True, True]
    assert all(EOS not in lesson.ids[:-1] for lesson in lessons)


def test_without_bos_a_window_goes_on_from_the_token_before_its_cut(renderers: Renderers) -> None:
    lessons = windows([document(JAPANESE)], renderers(False), 64)
    assert len(lessons) > 1
    for before, after in itertools.pairwise(lessons):
        assert after.ids[0] == before.ids[-1]
    assert BOS not in {token for lesson in lessons for token in lesson.ids}


def test_a_document_ends_like_the_exams_own_text(renderers: Renderers) -> None:
    """The ids are those of the exam's tokenizer."""
    renderer = renderers(True)
    (lesson,) = windows([document("円 is a")], renderer, 64)
    assert lesson.ids == (*renderer.completion("円 is a").ids, EOS)


def test_windows_are_cut_where_sentences_end(renderers: Renderers) -> None:
    english = "It is 1.5 yen. He said so! A line with no end in sight goes on\n\nEnd. "
    for text in (JAPANESE, english * 3):
        shown = parts(windows([document(text)], renderers(False), 50), renderers(False))
        assert len(shown) > 2
        assert all(part.endswith(("。", ".", ". ", "!", "! ")) for part in shown[:-1])
        assert not any(part.endswith("1.") for part in shown)


def test_no_cut_falls_into_a_number_or_before_a_closing_mark(renderers: Renderers) -> None:
    quoted, numbers = "「店長である。」（円である。）" * 6, "1.5 and " * 20
    for window in range(20, 36):
        shown = parts(windows([document(quoted)], renderers(False), window), renderers(False))
        assert all(part.endswith(("」", "）")) for part in shown[:-1])
        shown = parts(windows([document(numbers)], renderers(True), window), renderers(True))
        lengths = [len(part) for part in shown]
        assert lengths == [len(x) for x in parts(
            windows([document("x" * len(numbers))], renderers(True), window), renderers(True)
        )]  # fmt: skip


def test_a_text_without_any_end_is_cut_at_the_limit(renderers: Renderers) -> None:
    lengths = [len(x.ids) for x in windows([document("a" * 200)], renderers(True), 64)]
    assert lengths == [64, 64, 45, 32]


def test_the_text_of_a_special_token_is_only_text(renderers: Renderers) -> None:
    (lesson,) = windows([document("a</s>b<s>")], renderers(True), 64)
    assert (lesson.ids.count(BOS), lesson.ids.count(EOS)) == (1, 1)


def test_no_text_gives_no_window(renderers: Renderers) -> None:
    for adds_bos in (True, False):
        assert windows([document("")], renderers(adds_bos), 64) == []
    with pytest.raises(UsageError, match="at least 16, got 15"):
        windows([], renderers(True), 15)


def test_a_service_without_token_ids_cant_tokenise_a_document() -> None:
    with pytest.raises(UsageError, match="can't tokenise a document"):
        windows([document("a")], MessagesRenderer(), 64)


# ---- replay -------------------------------------------------------------------------------------


def rows(path: Path, *given_rows: Any) -> Path:
    lines = (r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in given_rows)
    data = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["general.jsonl", "general.jsonl.gz"])
def test_general_text_and_examples_are_replayed(
    renderers: Renderers, tmp_path: Path, name: str
) -> None:
    said = [{"role": "user", "content": "円"}, {"role": "assistant", "content": "融資"}]
    path = rows(
        tmp_path / name,
        {"text": "一 円である。", "url": "anything"},
        {"messages": said},
        "",
        {"question": "円", "answer": "融資"},
        {"prompt": "円", "completion": "融資"},
        {"instruction": "円", "input": "営", "output": "融資"},
    )
    renderer = renderers(True)
    lessons = replay_lessons(path, renderer, "ja", 64, 128)
    assert {lesson.origin for lesson in lessons} == {"replay"}
    text, *taught = (renderer.decode(lesson.ids) for lesson in lessons)
    assert text.endswith("円である。")
    assert taught == ["質問：円\n答え：融資"] * 3 + ["質問：円\n\n営\n答え：融資"]
    asked = compose((Message(role="user", content="円"),), spec=PromptSpec(), language="ja")
    assert lessons[1].ids[: lessons[1].start] == renderer.prompt(asked).ids


def test_a_text_file_is_one_document(renderers: Renderers, tmp_path: Path) -> None:
    path = tmp_path / "general.txt"
    path.write_bytes("円である。\r\n店長。".encode("cp932"))
    (lesson,) = replay_lessons(path, renderers(True), "ja", 64, 128)
    assert (lesson.example_id, lesson.origin) == ("general.txt", "replay")
    assert renderers(True).decode(lesson.ids) == "円である。\n店長。"
    assert len(replay_lessons(path, renderers(True), "ja", 4096, 16)) == 1


def test_windows_of_replay_fit_the_models_context(renderers: Renderers, tmp_path: Path) -> None:
    path = tmp_path / "general.md"
    path.write_text(JAPANESE, encoding="utf-8")
    assert max(len(x.ids) for x in replay_lessons(path, renderers(True), "ja", 4096, 40)) <= 40


def test_every_wrong_row_of_a_replay_file_is_named_at_once(
    renderers: Renderers, tmp_path: Path
) -> None:
    path = rows(
        tmp_path / "general.jsonl",
        {"text": "円"},
        {"text": " "},
        "{broken",
        [],
        {"messages": [{"role": "robot", "content": "円"}]},
        {"messages": [{"role": "user", "content": "円"}]},
        {"question": "円"},
    )
    with pytest.raises(Mistakes) as caught:
        read_general(path)
    places = [item.rpartition("general.jsonl:")[2] for item in caught.value.items]
    assert places == ["2)", "3)", "4)", "5)", "6)", "7)"]
    with pytest.raises(Mistakes, match=r"general.jsonl:2: .* don't fit the context of 16"):
        replay_lessons(
            rows(path, {"text": "円"}, {"question": "円", "answer": "融" * 20}),
            renderers(True), "ja", 64, 16,
        )  # fmt: skip


def test_a_replay_file_that_holds_nothing_is_refused(renderers: Renderers, tmp_path: Path) -> None:
    for name, wanted in [("e.txt", "holds no text"), ("e.pdf", "is no .txt"), ("x.md", "can't")]:
        if name != "x.md":
            (tmp_path / name).write_text("")
        with pytest.raises(UsageError, match=wanted):
            replay_lessons(tmp_path / name, renderers(True), "ja", 64, 128)
