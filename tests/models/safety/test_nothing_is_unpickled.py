"""Nothing is ever unpickled: neither does the code ask for it, nor do the libraries that it calls.

The first test reads the source; the others open models of each kind, pickles beside them, where
unpickling fails the test.
"""

import ast
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tokka
from tokka.models.embedder import open_embedder
from tokka.models.opening import digest_of, open_model
from tokka.models.protocol import GenerateRequest
from tokka.records import Message
from tokka.retrieval.rerank import open_cross_encoder
from tokka.training.weights_files import Weights

SOURCE = Path(tokka.__file__).parent
MODULES = frozenset(
    {"_pickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "pandas", "pickle",
     "shelve"}
)  # fmt: skip
# A module's function that unpickles unless it is told otherwise, and the argument that tells it.
CALLS = {("np", "load"): "allow_pickle", ("numpy", "load"): "allow_pickle",
         ("torch", "load"): None, ("torch", "jit"): None, ("torch", "hub"): None}  # fmt: skip
LOADERS = frozenset({"AutoModelForCausalLM", "AutoModelForSequenceClassification"})


def trees() -> Iterator[tuple[str, ast.AST]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def faults(name: str, tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            named = [node.module or ""]
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "require"):
            named = [str(a.value) for a in node.args if isinstance(a, ast.Constant)]
        else:
            named = []
        for module in named:
            if module.split(".")[0] in MODULES:
                yield f"{name}:{node.lineno} imports {module}"  # type: ignore[attr-defined]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            wanted = CALLS.get((node.value.id, node.attr), "")
            if wanted is None or (wanted and not _is_safe_load(tree, node)):
                yield f"{name}:{node.lineno} uses {node.value.id}.{node.attr}"
        if isinstance(node, ast.Call):
            yield from (f"{name}:{node.lineno} {reason}" for reason in _loose(node))


def _called(node: ast.Call) -> str:
    function = node.func
    return getattr(function, "attr", getattr(function, "id", ""))


def _is_safe_load(tree: ast.AST, attribute: ast.Attribute) -> bool:
    calls = (n for n in ast.walk(tree) if isinstance(n, ast.Call) and n.func is attribute)
    return any(
        keyword.arg == "allow_pickle" and ast.unparse(keyword.value) == "False"
        for call in calls
        for keyword in call.keywords
    )


def _loose(node: ast.Call) -> Iterator[str]:
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    trusts = given.get("trust_remote_code")
    if trusts is not None and not (isinstance(trusts, ast.Constant) and trusts.value is False):
        yield "trusts remote code"
    if _called(node) == "from_pretrained" and isinstance(node.func, ast.Attribute):
        loader = ast.unparse(node.func.value).split(".")[-1]
        safe = given.get("use_safetensors")
        # A GGUF is no pickle either; the one place that opens it so names its file in `where`.
        if loader in LOADERS and "gguf" not in ast.unparse(node).lower() and not safe:
            yield f"opens {loader} without use_safetensors"


def test_the_source_never_asks_for_a_pickle() -> None:
    assert [fault for name, tree in trees() for fault in faults(name, tree)] == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from joblib import load", "import_module('dill')",
        "require('cloudpickle', extra='x')", "np.load(path)", "np.load(p, allow_pickle=True)",
        "torch.load(path, weights_only=True)", "f(trust_remote_code=True)",
        "AutoModelForCausalLM.from_pretrained(folder, dtype=x)",
    ],
)  # fmt: skip
def test_a_line_that_asks_for_one_is_found(line: str) -> None:
    assert list(faults("x.py", ast.parse(line)))
    assert not list(faults("x.py", ast.parse("np.load(p, allow_pickle=False)")))


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpickling, by whatever library, fails the test."""
    torch = pytest.importorskip("torch")

    def stop(*arguments: Any, **named: Any) -> Any:
        raise AssertionError("something was unpickled")

    class Unpickler(pickle._Unpickler):  # type: ignore[name-defined, misc]
        load = stop

    for name in ("load", "loads"):
        monkeypatch.setattr(pickle, name, stop)
    monkeypatch.setattr(pickle, "Unpickler", Unpickler)
    monkeypatch.setattr(pickle._Unpickler, "load", stop)  # type: ignore[attr-defined]
    monkeypatch.setattr(torch, "load", stop)
    monkeypatch.setattr(torch.jit, "load", stop)


def test_the_guard_sees_a_pickle_that_a_library_loads(tmp_path: Path, guard: None) -> None:
    numpy, torch = pytest.importorskip("numpy"), pytest.importorskip("torch")
    path = tmp_path / "array.npy"
    path.write_bytes(pickle.dumps([1]))
    for load in (
        lambda: pickle.loads(path.read_bytes()),
        lambda: numpy.load(path, allow_pickle=True),
        lambda: torch.load(path),
    ):
        with pytest.raises(
            (AssertionError, pickle.UnpicklingError), match=r"was unpickled|interpret"
        ):
            load()


def test_models_with_pickles_beside_them_are_opened_without_one(
    tmp_path: Path, tiny_folder: Path, make_tokenizer: Callable[..., Any], guard: None
) -> None:
    folder, adapter, encoder = (tmp_path / name for name in ("model", "adapter", "encoder"))
    shutil.copytree(tiny_folder, folder)
    save_adapter(folder, adapter)
    save_encoder(encoder, make_tokenizer(adds_bos=False, pad_token="</s>", sep_token="</s>"))
    for place in (folder / "pytorch_model.bin", folder / "training_args.bin",
                  folder / "tokenizer.pkl", adapter / "adapter_model.bin", adapter / "optimizer.pt",
                  encoder / "pytorch_model.bin"):  # fmt: skip
        place.write_bytes(pickle.dumps([1]))
    heard: list[str] = []
    with open_model(str(folder), adapters=[adapter], dtype="float32", notice=heard.append) as model:
        prompt = model.renderer.prompt((Message(role="user", content="質問：締切は。"),))
        assert list(model.generate([GenerateRequest(prompt, max_tokens=2)]))
    assert "left alone" in heard[0] and "pytorch_model.bin" in heard[0]
    weights = Weights(folder)
    assert [weights[name].shape for name in weights]
    with open_cross_encoder(encoder) as reranker:
        assert len(reranker.scores("融資", ["限度額"])) == 1


def test_an_embedder_with_a_pickle_beside_it_is_opened_without_it(
    tmp_path: Path, make_tokenizer: Callable[..., Any], guard: None
) -> None:
    pytest.importorskip("sentence_transformers")
    folder = tmp_path / "encoder"
    save_encoder(folder, make_tokenizer(adds_bos=False, pad_token="</s>", sep_token="</s>"))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps([1]))
    assert open_embedder(str(folder), tmp_path / "cache").passages(["融資"]).shape == (1, 16)


def save_adapter(base: Path, folder: Path) -> None:
    """An adapter of one matrix that was trained on `base`, for all that is said of it."""
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    module = transformers.AutoModelForCausalLM.from_pretrained(str(base), dtype="float32")
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])
    peft.get_peft_model(module, config).save_pretrained(str(folder))
    evidence = {"base_digest": digest_of(base, "en")}
    (folder / "training.json").write_text(json.dumps(evidence), encoding="utf-8")


def save_encoder(folder: Path, tokenizer: Any) -> None:
    """A random BERT, as a cross-encoder and as a sentence-transformers model at once."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), num_hidden_layers=1, num_labels=1, **sizes
    )
    transformers.BertForSequenceClassification(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1").mkdir()
    pooling = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}
    (folder / "1" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
