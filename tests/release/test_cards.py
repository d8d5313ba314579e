"""What people read: the model card, the data card, the claims, the two pages."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from packs import HOSTILE, comparison, make

from tokka.records import Results
from tokka.release.cards import (
    KNOWN_LICENCES,
    TEMPLATES,
    View,
    front_matter,
    markdown,
    words,
)
from tokka.release.claims import claims, points
from tokka.release.data_card import data_card, pattern
from tokka.release.environment import environment
from tokka.release.lineage import behind, documents, lineage
from tokka.release.packing import write_pack
from tokka.release.pages import link


def loaded(pack: Path, name: str):
    return json.loads((pack / name).read_bytes())


# ---- the model card -----------------------------------------------------------------------------


def front(pack: Path) -> tuple[dict, str]:
    _, head, body = (pack / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


def test_the_model_card_has_hugging_faces_front_matter(finished_pack: Path):
    head, body = front(finished_pack)
    assert head["language"] == ["ja"]
    assert head["license"] == "gemma" and head["license"] in KNOWN_LICENCES
    assert head["pipeline_tag"] == "text-generation"
    assert head["library_name"] == "gguf"
    assert "retrieval-augmented" in head["tags"] and "finetune" in head["tags"]
    [index] = head["model-index"]
    domain = index["results"][0]
    assert domain["dataset"]["revision"] == "d" * 64
    score = domain["metrics"][0]
    assert (score["value"], score["confidence_interval"]) == (0.6, [0.5, 0.7])
    assert [line for line in body.splitlines() if line.startswith("## ")] == [
        "## 用途", "## 限界", "## 作り方", "## 評価", "## 偏りと安全性", "## 環境への影響",
    ]  # fmt: skip


def test_an_unknown_licence_is_other_with_its_name(made_release):
    release = made_release.release.model_copy(update={"base_licence": "当社内規"})
    view = View(
        release=release, model=None, claims={"measured": []}, card={}, lineage={}, environment={},
        approvals={}, inventory={}, rerun={}, head=made_release.gathered.head, key_fingerprint="",
        made_at="",
    )  # fmt: skip
    head = front_matter(view)
    assert (head["license"], head["license_name"]) == ("other", "当社内規")


def test_what_somebody_wrote_is_text_in_the_card(finished_pack: Path):
    head, body = front(finished_pack)
    assert "<script" not in body.replace("\\<script", "")
    assert HOSTILE not in body
    assert "49" not in body.split("## 用途")[1].split("##")[0]  # {{ 7*7 }} is nobody's template
    assert head["model-index"][0]["name"] == "aoba-1"


@pytest.mark.parametrize("text", ["a\n# b", "a\r\n| b", "a\u2028b", "<b>", "[x](y)", "`x`", "a|b"])
def test_markdown_of_strangers_stays_on_its_line(text: str):
    escaped = markdown(text)
    assert "\n" not in escaped and "\u2028" not in escaped
    assert not re.search(r"(?<!\\)[<>|`\[\]#*_]", escaped)


def test_eval_results_are_percentages_with_their_interval(finished_pack: Path):
    [entry] = yaml.safe_load((finished_pack / ".eval_results/domain.yaml").read_text())
    assert entry["dataset"] == {
        "id": "private/domain", "task_id": "domain", "revision": "d" * 64,
    }  # fmt: skip
    assert entry["value"] == 60.0
    assert entry["date"] == "2026-11-23"
    assert "73 questions, 50.0 to 70.0" in entry["notes"]


# ---- claims -------------------------------------------------------------------------------------


def test_each_claim_points_to_scores_that_are_in_the_pack(finished_pack: Path):
    found = loaded(finished_pack, "claims.json")["claims"]
    assert [one["id"] for one in found] == [
        "gain-domain", "loss-retention", "conversion-q8_0-domain",
    ]  # fmt: skip
    for one in found:
        assert len(one["scores"]) == 2
        assert all((finished_pack / name).is_file() for name in one["scores"]), one["scores"]
        assert {"n", "effect", "low", "high", "p_adjusted", "test", "alpha"} <= set(one)
    assert found[0]["scores"] == ["exam/scores/domain/lora-rag.jsonl",
                                  "exam/scores/domain/base.jsonl"]  # fmt: skip
    assert found[2]["scores"][0] == "exam/q8_0/domain/scores.jsonl"
    assert "+56.0" in found[0]["statement"]["ja"] and "n = 73" in found[0]["statement"]["en"]


def test_what_isnt_shown_is_said(made_release, finished_pack: Path):
    about = {row["about"] for row in loaded(finished_pack, "claims.json")["not_shown"]}
    assert about == {"safety", "fairness"}
    results = Results.model_validate_json((made_release.folder / "exam/results.json").read_bytes())
    other = made_release.release.model_copy(
        update={"candidate": made_release.release.candidate.model_copy(update={"id": "other"})}
    )
    found = claims(other, results, lambda exam, who: [])
    assert [one["kind"] for one in found["claims"]] == ["conversion"]
    assert found["not_shown"][0]["about"] == "results"


def test_an_inconclusive_comparison_isnt_shown(made_release):
    path = made_release.folder / "exam/results.json"
    results = Results.model_validate_json(path.read_bytes())
    arm = results.arms[0].model_copy(
        update={"comparisons": (comparison("domain", "gain", 0.0, 0.0, outcome="inconclusive"),)}
    )
    found = claims(
        made_release.release, results.model_copy(update={"arms": (arm,)}), lambda exam, who: []
    )
    assert {"about": "exam", "ja": "domain：判断できない", "en": "domain: not decided"} in found[
        "not_shown"
    ]


def test_points_have_a_sign_and_a_real_minus():
    assert [points(v) for v in (0.5616, -0.0649, 0.0)] == ["+56.2", "−6.5", "+0.0"]


# ---- the data card and the lineage --------------------------------------------------------------


def test_the_data_card_counts_and_quotes_no_text(finished_pack: Path):
    card = loaded(finished_pack, "data-card.json")
    assert card["documents"] == {"read": 6, "kept": 4, "chunks": 8, "characters": 130}
    assert card["sources"] == [{"place": "documents/", "kind": "md", "documents": 4,
                                "licences": {"": 2, "CC-BY-4.0": 2}}]  # fmt: skip
    assert card["personal_data"] == {
        "looked_for": True, "setting": "mask", "found": {"name": 2, "phone": 1}, "documents": 2,
    }  # fmt: skip
    assert card["contamination"]["documents"] == {"copied": 1}
    assert card["contamination"]["questions"] == 1
    assert card["duplicates"] == 2
    assert (card["licences"], card["licensed"]) == ({"": 2, "CC-BY-4.0": 2}, 2)
    assert card["access_labels"] == {"staff": 1}
    assert {row["reason"] for row in card["dropped"]} == {
        "says … the same as …", "an exam question stands in it", "page … is encrypted",
    }  # fmt: skip
    assert card["examples"] == {
        "kept": 5,
        "origins": {"label": 5},
        "files": [{"file": "examples.jsonl", "sha256": "e" * 64}],
    }
    whole = "".join(
        p.read_text(encoding="utf-8") for p in finished_pack.rglob("*.*") if p.is_file()
    )
    assert "融資の限度額は500万円" not in whole
    assert "社外秘の回答" not in whole  # an answer of the second sitting


def test_reasons_are_counted_without_what_differs():
    assert pattern("says 92% the same as a/b.txt") == pattern("says 8% the same as c/d/e.txt")
    assert pattern("「規程」is empty") == pattern("「細則」is empty")


def test_lineage_goes_from_documents_to_the_exported_file(made_release, finished_pack: Path):
    found = loaded(finished_pack, "lineage.json")
    made_from = {row["kind"]: [n.rsplit("-", 1)[0] for n in row["made_from"]]
                 for row in found["steps"]}  # fmt: skip
    assert made_from == {
        "read": [], "prepare": ["read"], "distinct": ["prepare"], "chunk": ["distinct"],
        "index": ["chunk"], "examples": [], "finetune": ["examples", "index"],
    }  # fmt: skip
    order = [row["step"] for row in found["steps"]]
    for row in found["steps"]:
        assert all(order.index(name) < order.index(row["step"]) for name in row["made_from"])
    assert found["missing"] == ["export-1"]  # the fixture's export has no manifest
    assert found["exported"][0]["format"] == "q8_0"
    rows = [json.loads(line) for line in (finished_pack / "lineage-documents.jsonl").open()]
    assert [row["id"] for row in rows] == [f"documents/{n:02}.md" for n in range(1, 5)]
    assert rows[0] == {
        "id": "documents/01.md", "sha256": f"{1:064x}", "source": "documents/01.md",
        "title": "規程1", "licence": "CC-BY-4.0", "language": "ja", "chunks": 2, "indexed": True,
    }  # fmt: skip


def test_states_of_weights_join_the_stages(made_release):
    steps = made_release.gathered.steps
    adapter = made_release.release.candidate.artifacts["adapter"].partition("@")[0]
    before = replace(steps, states={"b" * 64: "read-x"})
    assert behind(made_release.release, before) == behind(made_release.release, steps)
    index = made_release.release.candidate.artifacts["index"].partition("@")[0]
    joined = replace(steps, states={"b" * 64: index})
    assert index in {s.name for s in joined.parents(joined.by_name[adapter])}


def test_a_workspace_that_was_cleaned_is_said(made_release):
    empty = replace(made_release.gathered.steps, by_name={})
    found = lineage(made_release.release, empty)
    assert found["steps"] == [] and len(found["missing"]) == 3
    assert list(documents(made_release.release, empty)) == []
    card = data_card(made_release.release, empty, None)
    assert [text.partition(":")[0] for text in card["missing"]] == [
        "the documents as they were read", "the chunks", "the training examples",
    ]  # fmt: skip


def test_energy_is_told_only_where_every_training_was_measured(made_release):
    led = behind(made_release.release, made_release.gathered.steps)
    assert environment(None, None, led)["energy"]["kilowatt_hours"] == 0.002
    measured = next(step for step in led if step.kind == "finetune")

    class Unmeasured:
        name, seconds, files = "finetune-2", 1.0, {"speed.json": ""}

        def value(self, file):
            return {"energy": {"joules": None, "reason": "no counter"}}

    found = environment(None, None, [measured, Unmeasured()])["energy"]
    assert found["kilowatt_hours"] is None and found["reason"] == "no counter"
    assert environment(None, None, [])["energy"]["reason"] == "nothing was trained here"


# ---- the pages ----------------------------------------------------------------------------------


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("language", ["ja", "en"])
def test_a_page_runs_nothing_and_asks_for_nothing(finished_pack: Path, language: str):
    tags = Tags()
    tags.feed((finished_pack / f"index.{language}.html").read_text(encoding="utf-8"))
    names = {tag for tag, _ in tags.seen}
    assert not names & {"script", "img", "iframe", "object", "embed", "link", "form", "base"}
    assert not [a for _, attrs in tags.seen for a in attrs if a.startswith("on")]
    assert HOSTILE in tags.text  # as text, unharmed
    links = [attrs["href"] for tag, attrs in tags.seen if tag == "a"]
    assert all(link.startswith(("./", "index.")) for link in links)
    for one in links:
        name = one.removeprefix("./")
        assert (finished_pack / name).is_file() or name == "MANIFEST.json", one


@pytest.mark.parametrize("language", ["ja", "en"])
def test_a_page_tells_the_claims_the_approval_and_the_mapping(finished_pack: Path, language: str):
    tags = Tags()
    tags.feed((finished_pack / f"index.{language}.html").read_text(encoding="utf-8"))
    said = {
        "ja": ("承認済み", "示された", "原則8", "欠けている", "+56.0", "sato", "90.0 %"),
        "en": ("approved", "shown", "Principle 8", "missing", "+56.0", "sato", "90.0 %"),
    }
    for text in said[language]:
        assert text in tags.text


def test_both_languages_have_every_word():
    texts = yaml.safe_load((TEMPLATES / "words.yaml").read_text(encoding="utf-8"))
    for key, text in texts.items():
        assert set(text) == {"ja", "en"}, f"{key}: {text}"  # an unquoted comma ends a value
        assert all(isinstance(value, str) and value for value in text.values()), key
    assert words("ja").keys() == words("en").keys()


@pytest.mark.parametrize("name", ["javascript:alert(1)", "../up", "a b#c?d", "日本.json"])
def test_a_link_is_a_path_and_nothing_else(name: str):
    made = link(name)
    assert made.startswith("./") and ":" not in made and "#" not in made and "?" not in made


def test_a_pack_before_any_decision_says_so(tmp_path: Path):
    draft = make(tmp_path, approved=False)
    write_pack(draft.gathered, tmp_path / "pack")
    approvals = loaded(tmp_path / "pack", "approvals.json")
    assert (approvals["stage"], approvals["approvals"]) == ("draft", 0)
    row = next(r for r in loaded(tmp_path / "pack", "mappings/fsa-mrm.json")["rows"]
               if r["id"] == "4")  # fmt: skip
    assert row["status"] == "partly"
    assert "まだ承認されていない" in row["missing"][0]["what"]["ja"]
