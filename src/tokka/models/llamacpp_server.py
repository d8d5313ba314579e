"""One GGUF behind llama.cpp's HTTP server, in a process of its own.

llama.cpp runs native code inside the interpreter that loads it, so a native crash would take the
caller along. This program is the part that may crash: it is started by `llamacpp.py`, reads one
line of JSON settings from its standard input (the API key among them, so that it never shows in a
process list), prints one line `{"url": "http://127.0.0.1:PORT"}` and serves until its standard
input closes or its parent is gone, whichever way that happened.

    python -m tokka.models.llamacpp_server model.gguf <<< '{"api_key": "…", "context_tokens": 4096}'

Answers `/completion` (token ids in) and the OpenAI-compatible `/v1/chat/completions`, on loopback.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from typing import Any

from tokka.extras import require

# Prompts are computed in blocks of this many tokens. Float results depend on how a prompt is cut,
# so `llamacpp.py` reuses cached prefixes at multiples of it only (see there).
BLOCK_TOKENS = 128


def main(arguments: list[str]) -> int:
    """Serve the GGUF named by the only argument; returns 1 if it won't load, else never."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; it closes our input
    parent = os.getppid()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # native logs belong in the log, not among the answers
    settings: dict[str, Any] = json.loads(sys.stdin.buffer.readline() or b"{}")
    try:
        server = _start(arguments[0], settings)
    except Exception as error:  # whatever the native loader throws becomes one line for the parent
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers, flush=True)
        return 1
    print(json.dumps({"url": server.listening_address}), file=answers, flush=True)
    _wait_until_alone(parent)
    os._exit(0)  # no native destructors: the process holds nothing that must be written


def _start(path: str, settings: dict[str, Any]) -> Any:
    xllamacpp = require("xllamacpp", extra="llamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [settings["api_key"]]
    places = settings.get("places", 1)
    params.n_ctx = settings["context_tokens"] * places
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.n_parallel = places
    if places > 1:
        params.kv_unified = False  # a context of its own for each, as with one alone
        # A stream holds its thread until its end is noticed; health must be asked beside them.
        params.n_threads_http = 2 * places + 4
    if settings.get("exact", True):
        params.n_batch = params.n_ubatch = BLOCK_TOKENS
        # No second prompt cache and no checkpoints: what a slot has cached is what was last sent to
        # it, so the parent knows it. With a full sliding-window cache a prefix can be kept on Gemma
        # too.
        params.cache_ram_mib = 0
        params.n_ctx_checkpoints = 0
        params.swa_full = True
    params.ctx_shift = False
    params.fit_params = False
    params.warmup = False
    params.ui = False
    params.endpoint_slots = False
    params.offline = True
    return xllamacpp.Server(params)


def _wait_until_alone(parent: int) -> None:
    while os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], 1.0)
        if readable and not os.read(0, 4096):
            return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
