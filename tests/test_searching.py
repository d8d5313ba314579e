"""`tokka search` shows what an arm would find, to whom it would, and where; `tokka search-eval`
measures it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokka.errors import Mistakes, UsageError
from tokka.pipeline import build_arm, prepare, save_candidate
from tokka.project import Project, load_project
from tokka.records import Arm, Chunk, DocumentFacts, Message, Question, RetrievalSpec
from tokka.search_eval import Gold, evaluate, measured
from tokka.searching import chosen_arm, search
from tokka.tuning_steps import TUNING, stands_for, tuned

pytest.importorskip("torch")

BOTH = RetrievalSpec()
TEXTS = {
    "badge.md": ("Badges", "The badge of a pilot is blue. It is worn on the left arm.", ()),
    "rope.md": ("Ropes", "The rope of the north pier is blue. It is replaced in spring.", ()),
    "secret.md": ("Secrets", "The secret badge of the harbour master is made of gold.", ("staff",)),
    "gate.md": ("Gates", "The gate of the quay is shut at night. Nobody passes it.", ()),
}


class HashedPairs:
    """An embedder of character pairs: near where texts share them, and quick."""

    name, digest, dimensions = "pairs", "d1", 64

    def passages(self, texts: Sequence[str]) -> Any:
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            for i in range(len(text) - 1):
                rows[row, hashlib.md5(text[i : i + 2].encode()).digest()[0] % 64] += 1
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)

    queries = passages


@pytest.fixture
def harbour_with(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Project]:
    """`harbour_with(rag={"retrieval": {…}})`: the project with these arms, and an index of `TEXTS`
    in place of what its documents would give."""
    from tokka.retrieval.hybrid import build_index

    monkeypatch.setattr("tokka.models.embedder.open_embedder", lambda *_, **__: HashedPairs())
    facts = {
        name: DocumentFacts(
            document_id=name, source=name, title=title, language="en", access=access,
            metadata={"kind": "rule" if access else "note"},
        )
        for name, (title, _, access) in TEXTS.items()
    }  # fmt: skip
    chunks = [
        Chunk(id=f"{name}#0", document_id=name, text=text, start=0, end=len(text), page=3,
              headings=(title, "Colours"), access=access)
        for name, (title, text, access) in TEXTS.items()
    ]  # fmt: skip

    def index_of(build: Any, spec: RetrievalSpec) -> Path:
        def make(folder: Path) -> None:
            embedder = HashedPairs() if spec.dense else None
            build_index(chunks, folder, spec, "en", embedder, documents=facts)

        parts = {"lexical": spec.lexical, "dense": spec.dense}
        folder: Path = build.step("index", {"of": "TEXTS", **parts}, make)
        return folder

    def read_and_chunk(build: Any) -> None:
        build.chunks = fresh / "chunks"

    def write(**arms: Any) -> Project:
        (fresh / "chunks").mkdir(exist_ok=True)
        lines = [one.model_dump_json() + "\n" for one in facts.values()]
        (fresh / "chunks" / "facts.jsonl").write_text("".join(lines))
        project = {
            "name": "p", "language": "en", "base_model": "model/", "corpus": ["documents/"],
            "exams": {"domain": {"path": "exam/domain.jsonl", "role": "domain"}},
            "arms": {"base": {}, **arms}, "policy": {"draws": 200},
        }  # fmt: skip
        (fresh / "tokka.yaml").write_text(json.dumps(project))
        return load_project(fresh)

    monkeypatch.setattr("tokka.index_steps.index_of", index_of)
    monkeypatch.setattr("tokka.searching.index_of", index_of)
    monkeypatch.setattr("tokka.searching.read_and_chunk", read_and_chunk)
    return write


def asked(name: str, words: str, *gold: str, split: str = "dev", topic: str = "") -> dict[str, Any]:
    return {
        "id": name, "question": words, "answer": "blue", "document_ids": gold, "split": split,
        "topic": topic, "cluster_id": f"c{name}",
    }  # fmt: skip


def write_exam(project: Project, *rows: dict[str, Any]) -> None:
    path = project.root / "exam" / "domain.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


LEXICAL = {"retrieval": {"dense": False, "top_k": 2}}
TRAINED = {"weights": [{"finetune": {"data": "examples.jsonl", "leave_out_mistakes": True}}]}


# ---- search --------------------------------------------------------------------------------------


def test_a_hit_has_its_place_its_scores_and_its_marks(
    harbour_with: Callable[..., Project], listener: Any
) -> None:
    found = search(harbour_with(rag={"retrieval": {"top_k": 2}}), "the badge of a pilot", listener)
    assert (found.arm, len(found.hits)) == ("rag", 2)
    hit = found.hits[0]
    assert (hit.passage.document_id, hit.passage.page, hit.passage.number) == ("badge.md", 3, 1)
    assert hit.headings == ("Badges", "Colours")
    assert [hit.passage.text[a:b] for a, b in hit.marks] == ["badge", "pilot"]
    assert hit.passage.lexical and hit.passage.dense and hit.why is None
    json.dumps(found.as_json())


def test_the_arm_decides_how_it_is_searched(
    harbour_with: Callable[..., Project], listener: Any
) -> None:
    project = harbour_with(words=LEXICAL, meaning={"retrieval": {"lexical": False, "top_k": 1}})
    assert search(project, "badge", listener).arm == "words"
    found = search(project, "badge", listener, arm="meaning")
    assert len(found.hits) == 1 and found.hits[0].passage.lexical is None
    assert len(search(project, "badge", listener, arm="meaning", top_k=3).hits) == 3
    plain = search(harbour_with(), "badge", listener)
    assert plain.arm == "" and plain.spec == BOTH
    with pytest.raises(UsageError, match="'base' searches nothing; arms with retrieval: words"):
        chosen_arm(project, "base")
    with pytest.raises(UsageError, match="'gone' is no arm"):
        chosen_arm(project, "gone")


def test_a_caller_sees_what_it_may_and_no_trace_of_the_rest(
    harbour_with: Callable[..., Project], listener: Any
) -> None:
    project = harbour_with(rag=LEXICAL)

    def ids(**how: Any) -> list[str]:
        hits = search(project, "secret badge gold", listener, explain=True, **how).hits
        assert all(hit.why and hit.why.lexical == hit.passage.lexical for hit in hits)
        return [hit.passage.document_id for hit in hits]

    assert ids() == ["secret.md", "badge.md"]
    assert ids(labels=["staff", "others"]) == ["secret.md", "badge.md"]
    assert ids(labels=["others"]) == ids(labels=[]) == ["badge.md"]
    assert ids(where={"kind": "rule"}) == ["secret.md"]
    assert ids(where={"kind": "rule"}, labels=[]) == []


def test_explaining_adds_up_to_the_score(
    harbour_with: Callable[..., Project], listener: Any
) -> None:
    found = search(harbour_with(), "badge of a pilot", listener, explain=True)
    for hit in found.hits:
        assert hit.why is not None and hit.why.chunk_id == hit.passage.chunk_id
        assert sum(part.share for part in hit.why.parts) == pytest.approx(hit.passage.score)
    terms = {term.words for term in found.hits[0].why.terms if found.hits[0].why}
    assert {("badg",), ("pilot",)} <= terms
    assert "why" in found.as_json()["hits"][0]


def test_a_setting_that_reads_with_trained_weights_needs_a_built_arm(
    harbour_with: Callable[..., Project], listener: Any
) -> None:
    reading = {"retrieval": {"rerank": "likelihood", "top_k": 4, "dense": False}}
    with pytest.raises(UsageError, match="arm 'rag' isn't built yet"):
        search(harbour_with(rag={**reading, **TRAINED}), "badge", listener)
    hits = search(harbour_with(rag=reading), "badge", listener).hits  # trains nothing
    scores = [hit.passage.rerank for hit in hits]
    assert all(score is not None and score < 0 for score in scores)
    assert scores == sorted(scores, reverse=True)


def test_a_changed_file_of_synonyms_makes_the_built_arm_another(
    harbour_with: Callable[..., Project], listener: Any
) -> None:
    from tokka.errors import IntegrityError
    from tokka.pipeline import Models, load_candidate, open_arm

    spec = {"retrieval": {"synonyms": "words.txt", "dense": False}}
    with pytest.raises(Mistakes, match="synonyms is a file that doesn't exist"):
        harbour_with(rag=spec)
    project = harbour_with(rag=LEXICAL)
    (project.root / "words.txt").write_text("badge, emblem\n")
    project = harbour_with(rag=spec)
    assert search(project, "emblem", listener).hits
    build = prepare(project, listener)
    first = build_arm(build, project.arms["rag"])
    save_candidate(build, first)
    (project.root / "words.txt").write_text("badge, token\n")
    assert not search(project, "emblem", listener).hits
    with pytest.raises(IntegrityError, match="its synonyms isn't what it was"):
        open_arm(build, load_candidate(build, "rag"), Models(build))
    assert build_arm(build, project.arms["rag"]).id != first.id


# ---- tuning --------------------------------------------------------------------------------------

TUNED = {"retrieval": {"weights": "tuned"}}


@pytest.fixture
def tune(listener: Any) -> Callable[[Project], Arm]:
    def run(project: Project) -> Arm:
        from tokka.searching import built_index

        build = prepare(project, listener)
        arm = project.arms["rag"]
        assert arm.retrieval is not None
        return tuned(build, arm, built_index(build, arm.retrieval))

    return run


def tunings(project: Project) -> dict[str, bytes]:
    found = (project.root / ".tokka" / "steps").glob(f"tune-*/{TUNING}")
    return {path.parent.name: path.read_bytes() for path in found}


def test_the_arm_gets_the_weights_that_the_development_questions_chose(
    harbour_with: Callable[..., Project], tune: Callable[[Project], Arm], listener: Any
) -> None:
    """No word of the second stands in a document; pairs of characters do."""
    project = harbour_with(rag=TUNED)
    write_exam(project, asked("a", "gold", "secret.md"), asked("b", "pilotage", "badge.md"))
    arm = tune(project)
    assert arm.retrieval is not None and arm.retrieval.weights != "tuned"
    (said,) = (json.loads(content) for content in tunings(project).values())
    by_weights = {tuple(one["weights"]): one["mrr"] for one in said["tried"]}
    assert by_weights[arm.retrieval.weights] == max(by_weights.values())
    assert said["questions"] == 2 and len(by_weights) == 11
    assert by_weights[2.0, 0.0] == 0.5 < by_weights[arm.retrieval.weights]
    assert "weights lexical" in listener.notices[-1]
    assert stands_for(arm, project.arms["rag"])
    assert not stands_for(arm.model_copy(update={"name": "x"}), project.arms["rag"])
    assert not stands_for(arm, None)


def test_the_test_split_decides_nothing(
    harbour_with: Callable[..., Project], tune: Callable[[Project], Arm],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """No test question is even searched for, and without them the step is the same."""
    from tokka.retrieval.hybrid import Index

    searched: set[str] = set()
    plain = Index.search

    def noting(self: Index, queries: Any, *how: Any, **more: Any) -> Any:
        searched.update([queries] if isinstance(queries, str) else queries)
        return plain(self, queries, *how, **more)

    monkeypatch.setattr(Index, "search", noting)
    project = harbour_with(rag=TUNED)
    dev = [asked("a", "gold", "secret.md"), asked("b", "spring", "rope.md")]
    test = [asked(str(n), f"the gate {n}", "gate.md", split="test") for n in range(5)]
    write_exam(project, *dev, *test)
    arm, found = tune(project), tunings(project)
    assert searched == {"gold", "spring"}
    for other in (dev, [*dev, asked("t", "badge", "badge.md", split="test")]):
        write_exam(project, *other)
        assert tune(project) == arm and tunings(project) == found
    write_exam(project, asked("a", "gold", "gate.md"), dev[1])
    tune(project)
    assert len(tunings(project)) == 2


def test_tuning_without_gold_documents_says_what_to_do(
    harbour_with: Callable[..., Project], tune: Callable[[Project], Arm]
) -> None:
    project = harbour_with(rag=TUNED)
    write_exam(project, asked("a", "gold"), asked("t", "gate", "gate.md", split="test"))
    with pytest.raises(UsageError, match=r"arm rag: .* \"document_ids\", or write weights"):
        tune(project)


def test_one_ranking_needs_no_weights(
    harbour_with: Callable[..., Project], tune: Callable[[Project], Arm]
) -> None:
    project = harbour_with(rag={"retrieval": {"weights": "tuned", "dense": False}})
    arm = tune(project)
    assert arm.retrieval is not None and arm.retrieval.weights == (1.0, 1.0)
    assert not tunings(project)
    assert tune(harbour_with(rag=LEXICAL)).retrieval == project_spec(LEXICAL)


def project_spec(arm: dict[str, Any]) -> RetrievalSpec:
    return RetrievalSpec.model_validate(arm["retrieval"])


# ---- search-eval ---------------------------------------------------------------------------------


def test_a_project_that_never_embeds_is_measured_without_embedding(
    harbour_with: Callable[..., Project], listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = harbour_with(words=LEXICAL, base={})
    write_exam(project, asked("a", "badge of a pilot", "badge.md"))

    def refuse(*_: Any) -> Any:
        raise AssertionError("embedded")

    monkeypatch.setattr("tokka.pipeline.embedder_of", refuse)
    monkeypatch.setattr("tokka.index_steps.embedder_of", refuse)
    found = evaluate(project, listener)
    assert [system.name for system in found.systems] == ["lexical", "arm words"]
    assert found.systems[0].difference == {}
    assert found.systems[1].difference["MRR"].estimate == 0


def test_every_way_of_searching_is_measured_on_the_same_questions(
    harbour_with: Callable[..., Project], listener: Any
) -> None:
    project = harbour_with(
        words=LEXICAL, again=LEXICAL,
        reads={"retrieval": {"rerank": "likelihood"}},
        learnt={"retrieval": {"rerank": "likelihood"}, **TRAINED},
    )  # fmt: skip
    write_exam(
        project,
        asked("a", "badge of a pilot", "badge.md", topic="badges"),
        asked("b", "gold badge", "secret.md", topic="badges"),
        asked("c", "the gate of the quay", "gate.md", "gone.md", topic="gates"),
        asked("d", "no documents are named"),
        asked("t", "the rope", "rope.md", split="test"),
    )
    found = evaluate(project, listener)
    assert [system.name for system in found.systems] == [
        "lexical", "dense", "hybrid", "arm words, again", "arm reads",
    ]  # fmt: skip
    lexical, _, hybrid, words, _ = found.systems
    assert lexical.values["recall@1"] == (1.0, 1.0, 0.5)
    assert words.values == lexical.values and words.arms == ("words", "again")
    assert lexical.overall["recall@1"].estimate == pytest.approx(2.5 / 3)
    assert lexical.topics["badges"]["MRR"].estimate == 1 and lexical.topics["gates"]["MRR"].n == 1
    assert hybrid.difference == {} and set(lexical.difference) == set(lexical.overall)
    gap = lexical.overall["MRR"].estimate - hybrid.overall["MRR"].estimate
    assert lexical.difference["MRR"].estimate == pytest.approx(gap)
    assert (found.without_gold, found.absent) == (1, ("gone.md",))
    assert "arm 'learnt' isn't built yet" in found.unmeasured[0]
    assert [one.question.id for one in found.questions] == ["a", "b", "c"]
    assert len(evaluate(project, listener, split="test").questions) == 1
    json.dumps(found.as_json())


def test_a_tuned_arm_is_told_when_its_own_questions_measure_it(
    harbour_with: Callable[..., Project], listener: Any
) -> None:
    project = harbour_with(rag=TUNED)
    write_exam(
        project, asked("a", "gold", "secret.md"), asked("t", "gate", "gate.md", split="test")
    )
    evaluate(project, listener, split="test")
    assert not any("these very questions" in notice for notice in listener.notices)
    evaluate(project, listener)
    assert any("rag: it was tuned on these very questions" in said for said in listener.notices)


def test_without_gold_documents_there_is_nothing_to_measure(
    harbour_with: Callable[..., Project], listener: Any
) -> None:
    project = harbour_with()
    write_exam(project, asked("a", "gold"), asked("b", "gate"))
    with pytest.raises(UsageError, match=r'none of the 2 dev questions .* "document_ids"'):
        evaluate(project, listener)


def gold(name: str, cluster: str) -> Gold:
    question = Question(
        id=name, messages=(Message(role="user", content="x"),), form="short",
        cluster_id=cluster, document_ids=("d",), topic="t",
    )  # fmt: skip
    return Gold("exam", question)


def test_questions_of_a_cluster_are_resampled_together() -> None:
    ones = {name: 1.0 for name in ("recall@1", "recall@5", "recall@10", "MRR", "nDCG@10")}
    none = dict.fromkeys(ones, 0.0)
    values = [ones] * 10 + [none] * 10
    together = [gold(str(n), "a" if n < 10 else "b") for n in range(20)]
    apart = [gold(str(n), f"c{n}") for n in range(20)]

    def width(asked: list[Gold]) -> float:
        found = measured("x", (), BOTH, asked, values, [none] * 20, draws=500, seed=0)
        assert found.overall["MRR"].estimate == found.difference["MRR"].estimate == 0.5
        return found.difference["MRR"].high - found.difference["MRR"].low

    assert width(together) > 1.5 * width(apart)


# ---- the commands --------------------------------------------------------------------------------


@pytest.fixture
def rows(harbour_with: Callable[..., Project]) -> Iterator[Project]:
    project = harbour_with(rag={"retrieval": {"top_k": 2}})
    write_exam(
        project,
        asked("a", "badge of a pilot", "badge.md", topic="badges"),
        asked("b", "gate of the quay", "gate.md", topic="gates"),
    )
    yield project


def test_search_prints_hits_for_people_and_for_programs(
    rows: Project, tokka: Callable[..., Any]
) -> None:
    said = tokka("search", "badge of a pilot", "--project", rows.root, "--explain")
    assert said.code == 0, said.err
    first, text, *why = said.out.splitlines()
    assert first.startswith("1. Badges > Colours  badge.md p. 3  ")
    assert text.strip().startswith("The badge of a pilot is blue.")
    assert any("lexical rank 1 (BM25" in line for line in why)
    assert any(line.strip().startswith("pilot: ") for line in why)
    assert said.out.splitlines()[-1] == "2 passages, as rag"
    assert "\x1b" not in said.out
    said = tokka("search", "pilot badge", "--project", rows.root, "--top-k", "1", "--json")
    (hit,) = said.json["hits"]
    assert (hit["document_id"], hit["marks"]) == ("badge.md", [[4, 9], [15, 20]])


def test_marked_words_are_in_colour_where_colours_are_asked_for(
    rows: Project, tokka: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    said = tokka("search", "badge", "--project", rows.root)
    assert "\x1b[1;33mbadge\x1b[0m of a pilot" in said.out


def test_search_as_somebody_and_with_facts(rows: Project, tokka: Callable[..., Any]) -> None:
    def ids(*options: str) -> list[str]:
        found = tokka("search", "secret gold", "--project", rows.root, "--json", *options).json
        return [hit["document_id"] for hit in found["hits"]]

    assert ids()[0] == ids("--as", "x,staff")[0] == "secret.md"
    assert "secret.md" not in ids("--as", "") + ids("--as", "x")
    assert ids("--where", "kind=rule") == ["secret.md"]
    assert ids("--where", "kind=rule", "--where", "language=ja") == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["  "], "the query is empty"),
        (["x", "--where", "kind"], "got 'kind'; as in language=ja"),
        (["x", "--where", "=rule"], "got '=rule'"),
        (["x", "--arm", "gone"], "'gone' is no arm"),
    ],
)
def test_search_says_what_is_wrong(
    rows: Project, tokka: Callable[..., Any], options: list[str], said: str
) -> None:
    found = tokka("search", *options, "--project", rows.root)
    assert found.code == 2 and said in found.err


def test_nothing_found_is_said(rows: Project, tokka: Callable[..., Any]) -> None:
    shutil.copyfile(rows.file, rows.root / "words.yaml")
    project = json.loads(rows.file.read_text())
    project["arms"]["rag"] = LEXICAL
    rows.file.write_text(json.dumps(project))
    said = tokka("search", "鱧饂飩", "--project", rows.root)
    assert said.code == 0 and "nothing found" in said.out


def test_search_eval_prints_a_table_for_people_and_json_for_programs(
    rows: Project, tokka: Callable[..., Any]
) -> None:
    said = tokka("search-eval", rows.root)
    assert said.code == 0, said.err
    for words in ("2 dev questions", "recall@10", "nDCG@10", "hybrid", "arm rag", "MRR by topic"):
        assert words in said.out
    assert "search: lexical: done" in said.err
    found = tokka("search-eval", rows.root, "--split", "dev", "--json").json
    assert found["questions"] == 2
    assert [system["name"] for system in found["systems"]][-1] == "arm rag"
    assert found["systems"][0]["overall"]["MRR"]["n"] == 2
    assert set(found["systems"][0]["difference"]) == set(found["systems"][0]["overall"])
