"""A sentence-transformers folder: opened without running its code, the same vectors every time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tokka.errors import IntegrityError, UsageError

np = pytest.importorskip("numpy", reason="numpy is not installed")
library = pytest.importorskip(
    "sentence_transformers", reason="sentence-transformers is not installed"
)

from tokka.models.embedder import embedder_identity, open_embedder  # noqa: E402

TEXTS = ["融資の限度額", "貸付の期限は三十日", "桜"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with random weights, mean pooling, and a prefix for queries alone."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("saved")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set("".join(TEXTS) + "query:"))]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    plain = folder / "plain"
    transformers.BertModel(config).save_pretrained(plain)
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(plain)
    # A plain folder of transformers is given mean pooling by the library.
    model = library.SentenceTransformer(str(plain), prompts={"query": "query: ", "document": ""})
    model.save_pretrained(str(folder / "model"))
    return folder / "model"


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_a_vector_doesnt_depend_on_its_neighbours(folder: Path, tmp_path: Path) -> None:
    rows = open_embedder(str(folder), tmp_path / "a").passages(TEXTS)
    alone = [open_embedder(str(folder), tmp_path / "b").passages([text])[0] for text in TEXTS[::-1]]
    assert rows.shape == (3, 16)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    assert np.array_equal(rows, np.stack(alone[::-1]))


def test_the_folders_own_prefix_is_put_before_a_query(folder: Path, tmp_path: Path) -> None:
    embedder = open_embedder(folder.name, tmp_path / "cache", root=folder.parent)
    query = embedder.queries(["桜"])
    assert not np.allclose(query, embedder.passages(["桜"]))
    assert np.allclose(query, embedder.passages(["query: 桜"]), atol=1e-6)


def test_other_weights_are_another_embedder(folder: Path, tmp_path: Path) -> None:
    before = open_embedder(str(folder), tmp_path).digest
    assert embedder_identity(str(folder)) == before
    config = folder / "config_sentence_transformers.json"
    config.write_text(config.read_text().replace("query: ", "q: "), encoding="utf-8")
    assert open_embedder(str(folder), tmp_path).digest != before


def test_a_folder_without_modules_says_how_to_save_one(folder: Path, tmp_path: Path) -> None:
    (folder / "modules.json").unlink()
    with pytest.raises(UsageError, match=r"holds no modules\.json.*save_pretrained"):
        open_embedder(str(folder), tmp_path)


@pytest.mark.parametrize("place", ["modeling.py", "1_Pooling/own.py"])
def test_code_is_never_run(folder: Path, tmp_path: Path, place: str) -> None:
    (folder / place).write_text("raise SystemExit", encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"holds code .*which tokka never runs"):
        open_embedder(str(folder), tmp_path)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "os.system", "path": ""}, "asks for os.system"),
        ({"type": "sentence_transformers_evil.Pooling", "path": ""}, "asks for sentence_tr"),
        ({"type": "sentence_transformers.models.Router", "path": ""}, "asks for sentence_tr"),
        ({"type": "sentence_transformers.models.Pooling", "path": "../.."}, "no folder inside"),
    ],
)
def test_a_module_of_another_kind_is_refused(
    folder: Path, tmp_path: Path, part: dict[str, str], message: str
) -> None:
    listed = folder / "modules.json"
    parts = [*json.loads(listed.read_bytes()), {"idx": 9, "name": "9", **part}]
    listed.write_text(json.dumps(parts), encoding="utf-8")
    with pytest.raises(IntegrityError, match=message):
        open_embedder(str(folder), tmp_path)


def test_a_pickle_and_a_called_name_are_refused(folder: Path, tmp_path: Path) -> None:
    listed = folder / "modules.json"
    dense = {"idx": 9, "name": "9", "path": "9_Dense", "type": "sentence_transformers.models.Dense"}
    parts = [*json.loads(listed.read_bytes()), dense]
    listed.write_text(json.dumps(parts), encoding="utf-8")
    (folder / "9_Dense").mkdir()
    config = folder / "9_Dense" / "config.json"
    config.write_text('{"activation_function": "os.getcwd"}', encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"activation_function is 'os\.getcwd'"):
        open_embedder(str(folder), tmp_path)
    config.write_text('{"activation_function": "torch.nn.modules.activation.Tanh"}')
    (folder / "9_Dense" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(IntegrityError, match="its weights are pickles only"):
        open_embedder(str(folder), tmp_path)


def test_broken_modules_are_named(folder: Path, tmp_path: Path) -> None:
    broken: Any
    for broken in ("{", '{"a": 1}', "[1]"):
        (folder / "modules.json").write_text(broken, encoding="utf-8")
        with pytest.raises(IntegrityError, match="is not a list of modules"):
            open_embedder(str(folder), tmp_path)
