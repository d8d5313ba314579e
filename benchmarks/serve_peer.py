"""llama.cpp's own server over a GGUF, as it comes: `serve_peer.py MODEL.gguf PLACES THREADS`.

Prints its address, then serves until its standard input ends.
"""

from __future__ import annotations

import json
import os
import sys

import xllamacpp


def main(path: str, places: str, threads: str, context: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_parallel = int(places)
    params.n_ctx = int(places) * int(context)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
    params.fit_params = params.ui = False
    params.offline = True
    server = xllamacpp.Server(params)
    print(json.dumps({"url": server.listening_address}), file=answers, flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
