"""Configs that ask for code, pickles, kernels or all memory are refused by key and value."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokka.errors import IntegrityError
from tokka.models.safety import check_json, papers
from tokka.models.safety.json_outline import outline
from tokka.models.safety.papers import check_jinja, check_text

RULES: dict[str, Any] = {
    "version": "1.0",
    "padding": None,
    "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}]},
    "decoder": {"type": "ByteFallback"},
    "added_tokens": [{"id": 0, "content": "<long special token>" * 100}] * 9,
    "model": {"type": "BPE", "vocab": {"a": 0, "[": 1, '"': 2, "\\": 3}, "merges": [["a", "b"]]},
}


def check(tmp_path: Path, name: str, value: Any) -> None:
    path = tmp_path / name
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    check_json(path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "anything.json"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"auto_map": {"AutoModel": "modeling_x.X"}}, "own code"),
        ({"text_config": [{"auto_map": {}}]}, "own code"),
        ({"trust_remote_code": True}, "own code"),
        ({"model_args": {"trust_remote_code": 1}}, "own code"),
        ({"custom_generate": "x/y"}, "own code"),
        ({"model_args": {"use_safetensors": False}}, "asks for a pickle"),
        ({"weights_only": False}, "asks for a pickle"),
        ({"pickle_module": "dill"}, "names a pickle"),
        ({"corda_config": {"covariance_file": "a.pt"}}, "names a pickle"),
        ({"attn_implementation": "evil/kernels"}, "a program from a hub"),
        ({"text_config": {"_attn_implementation_internal": "evil/kernels@main:f"}}, "from a hub"),
        ({"tokenizer_class": "RagRetriever"}, "no tokenizer of transformers"),
        ({"tokenizer_class": "RagTokenizer"}, "no tokenizer of transformers"),
        ({"tokenizer_class": "own.MyTokenizer"}, "no tokenizer of transformers"),
        ({"auto_mapping": {"parent_library": "os", "base_model_class": "x"}}, "would be imported"),
        ({"auto_mapping": {"parent_library": "transformersX"}}, "would be imported"),
        ({"megatron_config": {"a": 1}}, "would import"),
        ({"megatron_core": "evil"}, "would import"),
        ({"peft_type": "XLORA"}, "more than its own safetensors"),
        ({"peft_type": "MULTITASK_PROMPT_TUNING"}, "more than its own safetensors"),
        ({"mecab_kwargs": {"mecab_option": "-r /dev/null -d ."}}, "a dictionary from there"),
        ({"chat_template": "{{ ''.__class__ }}"}, "looks up __class__"),
        ({"chat_template": [{"name": "x", "template": "{{ ''.__mro__ }}"}]}, "__mro__"),
        ({"chat_template": {"default": "{% include 'x' %}"}}, "another template"),
    ],
)
def test_a_config_that_asks_for_more_than_numbers_is_refused(
    tmp_path: Path, name: str, value: dict[str, Any], reason: str
) -> None:
    with pytest.raises(IntegrityError, match=reason) as refusal:
        check(tmp_path, name, value)
    assert name in str(refusal.value)


@pytest.mark.parametrize(
    "value",
    [
        {"trust_remote_code": False, "use_safetensors": True, "attn_implementation": "sdpa"},
        {"peft_type": "LORA", "auto_mapping": None, "megatron_config": None,
         "megatron_core": "megatron.core", "loftq_config": {}},
        {"auto_mapping": {"parent_library": "transformers.models.bert.modeling_bert"}},
        {"tokenizer_class": "BertJapaneseTokenizer", "mecab_kwargs": {"mecab_dic": "unidic_lite"}},
        {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{{ messages }}"},
        {"tokenizer_class": "TokenizersBackend", "chat_template": [{"name": "a", "template": ""}]},
        {"tokenizer_class": None, "attn_implementation": None},
        [1, "auto_map"],
    ],
)  # fmt: skip
def test_what_real_configs_say_passes(tmp_path: Path, value: Any) -> None:
    check(tmp_path, "config.json", value)


@pytest.mark.parametrize(
    "text",
    [
        b"{", b"[" * 100_000, b'{"a": ' * 5_000 + b"1" + b"}" * 5_000, b'{"a": 1}}', b"",
        b'{"a": "\xff"}', json.dumps({"a": 1}).encode("utf-16"), b'\xef\xbb\xbf{"a": 1}',
        b'{"a": 1} {"auto_map": 1}', b'{"a" 1}', b"{]",
    ],
)  # fmt: skip
def test_a_text_that_is_no_json_for_transformers_is_refused(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"config\.json: is not valid JSON"):
        check(tmp_path, "config.json", text)


def test_the_last_of_two_entries_counts_as_in_python(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="trust_remote_code"):
        check(tmp_path, "c.json", b'{"trust_remote_code": false, "trust_remote_code": true}')


def test_files_that_are_larger_than_such_files_are_aren_t_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(papers, "MAX_JSON_BYTES", 20)
    check(tmp_path, "tokenizer.json", {"model": "x" * 100})
    with pytest.raises(IntegrityError, match="reads at most 20"):
        check(tmp_path, "config.json", {"model": "x" * 100})


def test_a_tokenizer_s_rules_are_looked_at_and_its_vocabulary_is_passed_over(
    tmp_path: Path,
) -> None:
    check(tmp_path, "tokenizer.json", RULES)
    for model in ({"auto_map": {}}, {"vocab": {"Fixed": 2**60, "content": "x" * 9999}}):
        check(tmp_path, "tokenizer.json", {**RULES, "model": model})


def replace(content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": "a"}, "content": content}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"padding": {"strategy": {"Fixed": 10**12}}}, "Fixed 1000000000000 would fill"),
        ({"padding": {"pad_to_multiple_of": 2**40}}, "would fill"),
        ({"padding": {"strategy": {"Fixed": "a"}}}, "would fill"),
        ({"normalizer": {"type": "Sequence", "normalizers": [replace("aa")] * 40}}, "times as"),
        ({"normalizer": replace("a" * 5000)}, "5,000 times as long"),
        ({"pre_tokenizer": replace("a" * 2**20)}, "reads at most"),
        ({"padding": [[]] * 600_000}, "reads at most"),
    ],
)
def test_rules_that_would_fill_all_memory_are_refused(
    tmp_path: Path, changed: dict[str, Any], reason: str
) -> None:
    with pytest.raises(IntegrityError, match=reason):
        check(tmp_path, "tokenizer.json", {**changed, **{k: RULES[k] for k in RULES if k not in
                                                         changed}})  # fmt: skip


def test_texts_and_templates_hold_what_their_names_say(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("貸\n付\n", encoding="utf-8")
    check_text(path)
    path.write_bytes(b"\x80\x04N.")
    with pytest.raises(IntegrityError, match=r"vocab\.txt: is a pickle under the name of a text"):
        check_text(path)
    jinja = tmp_path / "chat_template.jinja"
    for data, reason in ((b"\xff", "no UTF-8"), (b"{{ x.__init__ }}", "__init__"),
                         (bytes(2**20 + 1), "reads at most")):  # fmt: skip
        jinja.write_bytes(data)
        with pytest.raises(IntegrityError, match=reason):
            check_jinja(jinja)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=20,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=6), JSON), st.sampled_from([None, 1]), st.booleans())
def test_an_outline_finds_each_value_where_it_lies(
    value: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    found = {key: json.loads(text[begin:end]) for key, (begin, end) in outline(text).items()}
    assert found == value


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='[]{}",:\\a1 ', max_size=30))
def test_any_text_is_outlined_or_refused(text: str) -> None:
    try:
        known: Any = json.loads(text)
    except ValueError:
        known = None
    try:
        found = outline(text.encode())
    except ValueError:
        assert known is None  # whatever is JSON passes
    else:
        assert known is None or found.keys() == (known.keys() if isinstance(known, dict) else set())
