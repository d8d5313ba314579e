"""Four families of tokenizers, and a service that writes down which token ids arrive.

Two tokenizers are made here from a few sentences; Gemma 3's and SmolLM2's come with packages and
are skipped where those are missing.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

TEXTS = (
    "Question: Which colour is the badge of a pilot?\nAnswer: The badge is blue.",
    "Documents:\n[1] (Rules) The rope of the north pier is blue. It is worn on the left arm.",
    "質問：融資の締切はいつですか。\n答え：翌営業日の正午まで。「はい」「いいえ」",
    "資料：\n[1]（規程）限度額は三億円とする。質問：限度額は。\n答え：「三億円」",
)


@pytest.fixture(scope="session")
def tokenizer_of() -> Callable[[str], Any]:
    """`tokenizer_of("gemma")`: made or loaded once a session."""
    transformers = pytest.importorskip("transformers")
    made: dict[str, Any] = {}

    def get(family: str) -> Any:
        if family not in made:
            if family in ("bytes", "llama2"):
                made[family] = transformers.PreTrainedTokenizerFast(
                    tokenizer_object=_rules(family), bos_token="<s>", eos_token="</s>"
                )
            else:
                made[family] = transformers.AutoTokenizer.from_pretrained(
                    str(_unpacked(family)), local_files_only=True
                )
        return made[family]

    return get


@pytest.fixture(scope="session")
def renderer_of(tokenizer_of: Callable[[str], Any]) -> Callable[..., Any]:
    """`renderer_of("gemma", "en")`."""
    from tokka.models.rendering import TokenRenderer

    made: dict[tuple[str, str], TokenRenderer] = {}

    def get(family: str, language: str = "ja") -> TokenRenderer:
        if (family, language) not in made:
            made[family, language] = TokenRenderer(tokenizer_of(family), language)
        return made[family, language]

    return get


def _rules(family: str) -> Any:
    """`bytes` as GPT-2 has it, but free to merge across words; `llama2` puts a space before every
    text, so that an answer tokenised by itself would begin with one. Both have merges that reach
    over "：" and "Answer: "."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers.trainers import BpeTrainer

    rules = Tokenizer(models.BPE(byte_fallback=family == "llama2"))
    specials = ["<s>", "</s>"]
    alphabet: list[str] = []
    if family == "bytes":
        rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        rules.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        specials += [f"<0x{i:02X}>" for i in range(256)]
        rules.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        rules.decoder = decoders.Sequence([*parts, decoders.Strip(content=" ", left=1)])
    trainer = BpeTrainer(
        vocab_size=900, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    rules.train_from_iterator([*TEXTS, *"「」：。\n"], trainer)
    rules.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    told = json.loads(rules.to_str())
    told["added_tokens"] = told["added_tokens"][:2]  # a byte is no special token
    return Tokenizer.from_str(json.dumps(told))


def _unpacked(family: str) -> Path:
    from tokka.errors import MissingExtra
    from tokka.models import embedded

    name = {"gemma": "gemma-3-270m", "smollm2": "smollm2-135m-instruct"}[family]
    try:
        return embedded.folder(name)
    except MissingExtra as missing:
        pytest.skip(str(missing))


@dataclass
class Wire:
    """A service on loopback: llama.cpp's `/completion`, OpenAI's `/v1/completions` and chat."""

    root: str = ""
    bodies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    say: str = "blue"
    extra_tokens: int = 0  # put before every prompt, as a service that adds its own BOS does

    @property
    def url(self) -> str:
        return f"{self.root}/v1#served"

    @property
    def prompts(self) -> list[list[int]]:
        return [body["prompt"] for _, body in self.bodies]

    def reply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.bodies.append((path, body))
        if path == "/v1/chat/completions":
            return {"choices": [{"message": {"content": self.say}, "finish_reason": "stop"}]}
        if path == "/v1/completions":
            usage = {"prompt_tokens": len(body["prompt"]) + self.extra_tokens}
            return {"choices": [{"text": self.say, "finish_reason": "stop"}], "usage": usage}
        found: dict[str, Any] = {
            "content": self.say, "stop_type": "eos", "tokens": [], "timings": {"cache_n": 0},
        }  # fmt: skip
        if "logit_bias" in body:  # llama.cpp is asked for the likelihood of this token
            token = body["logit_bias"][0][0]
            found["completion_probabilities"] = [{"id": token, "logprob": -1.0}]
            found["timings"]["prompt_n"] = 1
        return found


@pytest.fixture
def wire() -> Iterator[Wire]:
    told = Wire()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            data = json.dumps(told.reply(self.path, body)).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    told.root = f"http://127.0.0.1:{server.server_port}"
    yield told
    server.shutdown()
    server.server_close()


@pytest.fixture
def llamacpp_on(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """`llamacpp_on(renderer)`: the llama.cpp model, its child process replaced by the wire."""
    from tokka.models import llamacpp

    class Child:
        url, headers = wire.root, {"Authorization": "Bearer x"}

        def __init__(self, *_: object) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(llamacpp, "LlamaServer", Child)
    monkeypatch.setattr(llamacpp, "_library_version", lambda: "0")

    def launch(renderer: Any) -> Any:
        return llamacpp.LlamaCppModel(Path("served.gguf"), renderer, "0" * 64, 4096, 1, None)

    return launch
