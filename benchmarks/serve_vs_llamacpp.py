"""tokka's server against llama.cpp's own over the same GGUF, at 1, 8 and 32 clients.

    python benchmarks/serve_vs_llamacpp.py --data FOLDER [--quick] [--out results.json]

Work: JSQuAD questions after their paragraphs, streamed, greedy, up to 32 tokens, ended by EOS only.
Each server runs in a process of its own with as many places and threads as the other; llama.cpp's
is asked by /v1/completions with the very text that tokka renders, tokka by /v1/chat/completions
with the words. Both are asked in turns, the order changing from pair to pair, and each pair gives
one ratio; the median counts. That both did the same work is checked: prompt tokens are equal for
every question, and the tokens written differ by less than one in a hundred (float results depend on
who else is in a batch).

`overhead_vs_llamacpp` is time ÷ time − 1 at one client, `throughput_ratio` tokens a second ÷ tokens
a second at 32 clients, `p50_ttft_ms` the median time to the first piece of text at one client, all
of tokka over llama.cpp. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import machine, say, table
from public_data import add_data_option, data_folder, jsquad
from serve_load import Heard, Loaded, Target, load
from serve_own import KEYS

HERE = Path(__file__).parent
GGUF = "model.gguf"
MAX_TOKENS = 32
PLACES = 32
CONTEXT = 768  # tokens a place
REQUESTS = {1: 8, 8: 24, 32: 64}  # by clients
PAIRS = 7
MAX_PROMPT_CHARACTERS = 400


@dataclass(frozen=True)
class Server:
    target: Target
    bodies: list[dict[str, Any]]


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_data_option(options)
    options.add_argument("--quick", action="store_true", help="3 pairs instead of 7")
    options.add_argument("--threads", type=int, help="of each server; all cores if not said")
    options.add_argument("--out", type=Path, help="also write everything measured to this file")
    given = options.parse_args()
    facts = machine()
    say(f"{facts['processor']}, {facts['cores']} cores, load {facts['load_average']}")
    threads = given.threads or facts["cores"]
    folder = model_folder()
    asked = questions(data_folder(given.data))
    with own_server(folder, threads) as own, peer_server(folder / GGUF, threads) as peer:
        sides = {
            "tokka": Server(own, [chat(text) for text in asked]),
            "llama.cpp": Server(peer, [completion(text) for text in rendered(folder, asked)]),
        }
        for side in sides.values():
            first = asyncio.run(load(side.target, side.bodies[:PLACES], PLACES))  # touches memory
            if len(wrong := [one.error for one in first.heard if one.error]) == PLACES:
                raise SystemExit(f"{side.target.path}: {wrong[0]}")
        pairs = list(measure(sides, 3 if given.quick else PAIRS))
    check(pairs)
    found = summary(pairs)
    print(report(pairs))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        whole = {"summary": found, "machine": facts, "pairs": [shown(pair) for pair in pairs]}
        given.out.write_text(json.dumps(whole, ensure_ascii=False, indent=1), encoding="utf-8")
    print(json.dumps(found))


# ---- the work -----------------------------------------------------------------------------------


def questions(data: Path) -> list[str]:
    rows = [f"{row['context']}\n{row['question']}" for row in jsquad(data)]
    short = sorted({text for text in rows if len(text) <= MAX_PROMPT_CHARACTERS})
    random.Random(0).shuffle(short)
    return short[: max(REQUESTS.values())]


def chat(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **_streamed()}


def completion(text: str) -> dict[str, Any]:
    return {"prompt": text, "temperature": 0, "cache_prompt": True, **_streamed()}


def _streamed() -> dict[str, Any]:
    how = {"model": "bench", "max_tokens": MAX_TOKENS, "stream": True}
    return {**how, "stream_options": {"include_usage": True}}


def model_folder() -> Path:
    """The embedded model's own GGUF with the files of its tokenizer, as a release holds them."""
    from tokka.models import embedded
    from tokka.models.opening import locate
    from tokka.store import cache_folder

    source = locate("embedded:gemma-3-270m", Path(), say)
    folder = cache_folder() / "benchmarks" / f"serve-{source.name}"
    if not (folder / GGUF).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for file in source.iterdir():
            if file.suffix in (".json", ".jinja", ".model"):
                shutil.copy2(file, folder / file.name)
        (folder / f".{GGUF}").unlink(missing_ok=True)
        shutil.copy2(embedded.gguf_path("gemma-3-270m"), folder / f".{GGUF}")
        (folder / f".{GGUF}").replace(folder / GGUF)
    return folder


def rendered(folder: Path, asked: Sequence[str]) -> list[str]:
    """The prompts as tokka's server renders them."""
    from tokka.candidates.opening import asked as question
    from tokka.models.opening import open_renderer
    from tokka.models.prompting import pose
    from tokka.records import PromptSpec

    renderer = open_renderer(folder, "ja")
    spec = PromptSpec()
    return [pose(question(text), renderer, spec=spec, language="ja").text for text in asked]


# ---- the servers --------------------------------------------------------------------------------


@contextlib.contextmanager
def own_server(folder: Path, threads: int) -> Iterator[Target]:
    with _started("serve_own.py", folder, threads) as (host, port):
        yield Target(host, port, "/v1/chat/completions", {"Authorization": f"Bearer {KEYS[0]}"})


@contextlib.contextmanager
def peer_server(gguf: Path, threads: int) -> Iterator[Target]:
    with _started("serve_peer.py", gguf, threads) as (host, port):
        yield Target(host, port, "/v1/completions")


@contextlib.contextmanager
def _started(program: str, model: Path, threads: int) -> Iterator[tuple[str, int]]:
    how = [str(model), str(PLACES), str(threads), str(CONTEXT)]
    process = subprocess.Popen(
        [sys.executable, str(HERE / program), *how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"{program} ended with status {process.wait()}; run it by itself")
        host, _, port = json.loads(line)["url"].removeprefix("http://").partition(":")
        yield host, int(port)
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()


# ---- the measurement ----------------------------------------------------------------------------

Pair = dict[int, dict[str, Loaded]]  # clients → side → what was heard


def measure(sides: dict[str, Server], pairs: int) -> Iterator[Pair]:
    for number in range(pairs):
        pair: Pair = {}
        for clients, requests in REQUESTS.items():
            pair[clients] = {}
            for name in sorted(sides, reverse=number % 2 == 1):
                side = sides[name]
                pair[clients][name] = asyncio.run(
                    load(side.target, side.bodies[:requests], clients)
                )
            say(f"pair {number + 1} of {pairs}, {clients} clients: {_line(pair[clients])}")
        yield pair


def _line(sides: dict[str, Loaded]) -> str:
    return ", ".join(
        f"{name} {one.tokens / one.seconds:.1f} tokens/s" for name, one in sides.items()
    )


def check(pairs: Sequence[Pair]) -> None:
    """Raise SystemExit unless both sides did the same work."""
    for pair in pairs:
        for clients, sides in pair.items():
            own, peer = sides["tokka"], sides["llama.cpp"]
            for a, b in zip(own.heard, peer.heard, strict=True):
                if not (a.error or b.error) and a.prompt_tokens != b.prompt_tokens:
                    raise SystemExit(
                        f"{clients} clients: a prompt has {a.prompt_tokens} tokens for tokka, "
                        f"{b.prompt_tokens} for llama.cpp"
                    )
            if not own.errors and abs(own.tokens / max(peer.tokens, 1) - 1) > 0.01:
                raise SystemExit(
                    f"{clients} clients: tokka wrote {own.tokens} tokens, llama.cpp {peer.tokens}"
                )


def summary(pairs: Sequence[Pair]) -> dict[str, Any]:
    alone = [pair[1] for pair in pairs]
    crowd = [pair[max(REQUESTS)] for pair in pairs]
    times = [_second_a_token(p["tokka"]) / _second_a_token(p["llama.cpp"]) for p in alone]
    speeds = [_second_a_token(p["llama.cpp"]) / _second_a_token(p["tokka"]) for p in crowd]
    firsts = [one.ttft for pair in alone for one in pair["tokka"].heard]
    errors = sum(sides["tokka"].errors for pair in pairs for sides in pair.values())
    return {
        "overhead_vs_llamacpp": round(statistics.median(times) - 1, 4),
        "throughput_ratio": round(statistics.median(speeds), 4),
        "p50_ttft_ms": round(1000 * statistics.median(firsts), 1),
        "errors": errors,
    }


def _second_a_token(one: Loaded) -> float:
    return one.seconds / max(one.tokens, 1)


def report(pairs: Sequence[Pair]) -> str:
    rows = []
    for clients in REQUESTS:
        for name in ("llama.cpp", "tokka"):
            mine = [pair[clients][name] for pair in pairs]
            heard: list[Heard] = [one for loaded in mine for one in loaded.heard]
            rows.append(
                [
                    str(clients),
                    name,
                    f"{statistics.median(one.tokens / one.seconds for one in mine):.1f}",
                    f"{1000 * statistics.median(one.ttft for one in heard):.0f}",
                    f"{1000 * statistics.median(one.seconds for one in heard):.0f}",
                    str(sum(one.errors for one in mine)),
                ]
            )
    same = [
        a.text.strip() == b.text.strip()
        for pair in pairs
        for a, b in zip(pair[1]["tokka"].heard, pair[1]["llama.cpp"].heard, strict=True)
    ]
    title = ["clients", "server", "tokens/s", "ttft p50 ms", "answer p50 ms", "errors"]
    texts = f"same text at one client: {sum(same)} of {len(same)}"
    return table([title, *rows]) + "\n" + texts


def shown(pair: Pair) -> dict[str, Any]:
    return {
        str(clients): {
            name: {
                "seconds": one.seconds,
                "tokens": one.tokens,
                "ttft": [heard.ttft for heard in one.heard],
                "errors": [heard.error for heard in one.heard if heard.error],
            }
            for name, one in sides.items()
        }
        for clients, sides in pair.items()
    }


if __name__ == "__main__":
    main()
