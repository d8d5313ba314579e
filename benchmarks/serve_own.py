"""tokka's server over a GGUF: `serve_own.py FOLDER PLACES THREADS CONTEXT [LEDGER QUEUE]`.

FOLDER holds model.gguf and the tokenizer's files, as a release does. What `tokka serve` runs once a
release is open: the same app, keys, fair queue, request log in a ledger, and llama.cpp in a child
process. The arm is the plain one, without retrieval; no stop strings, so that a text ends as the
peer's does. Prints its address, then serves until its standard input ends or a signal comes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEYS = tuple(f"tk-bench{n}" for n in range(4))


def main(path: str, places: str, threads: str, context: str, *rest: str) -> None:
    from tokka.arms.building import candidate_of
    from tokka.candidates.specialist import Specialist
    from tokka.models.live_opening import open_live
    from tokka.records import Arm, PromptSpec
    from tokka.release.ledger import open_ledger
    from tokka.serve import _loop_factory
    from tokka.serving.budgets import Budgets
    from tokka.serving.callers import Anybody, KeyRing
    from tokka.serving.limits import Limits
    from tokka.serving.listening import Listening, listen
    from tokka.serving.recording import Recorder
    from tokka.serving.service import Facts, Service, Standing
    from tokka.serving.watching import Metrics

    live: Any = open_live(
        path, weights=Path(path), places=int(places), language="ja", threads=int(threads),
        context_tokens=int(context), exact=False,
    )  # fmt: skip
    arm = Arm(name="base", prompt=PromptSpec(max_tokens=64, stop=()))
    candidate = candidate_of(
        arm, base_model=path, base_digest=live.digest, language="ja", artifacts={}
    )
    folder = Path(rest[0]) if rest else Path(tempfile.mkdtemp(prefix="tokka-bench-"))
    queue = int(rest[1]) if rest[1:] else 1000
    limits = Limits(places=int(places), queue=queue, per_key=1024, drain_seconds=10.0)
    facts = Facts("bench", 1, "0" * 64, "ja", 0, engine=live.capabilities.engine)
    metrics = Metrics(facts.name, facts.digest)
    ledger = open_ledger(str(folder / "ledger.sqlite"), folder)
    recorder = Recorder(ledger, metrics)

    class Registry:
        def standing(self) -> Standing:
            return Standing(stage="serving")

        def requests(self, since: str, key_id: str | None, limit: int) -> list[Any]:
            return []

        def decide(self, key: Any, presented: str, row: Mapping[str, Any]) -> dict[str, Any]:
            raise NotImplementedError

    def verify(presented: str) -> Anybody | None:
        return Anybody(id=presented) if presented in KEYS else None

    def used_on(key_id: str, day: str) -> int:
        return ledger.usage_of(key_id, day).tokens + recorder.pending(key_id, day)

    service = Service(
        facts=facts,
        specialist=Specialist(candidate, live.model),
        live=live,
        limits=limits,
        ring=KeyRing(verify),
        registry=Registry(),
        recorder=recorder,
        metrics=metrics,
        budgets=Budgets(limits.per_key, used_on),
        hash_secret=bytes(32),
        standing=Standing(stage="serving"),
    )
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def ready(port: int) -> None:
        print(json.dumps({"url": f"http://127.0.0.1:{port}"}), file=answers, flush=True)
        threading.Thread(target=_end_with_input, daemon=True).start()

    async def run() -> None:
        try:
            await listen(service, Listening(port=0), ready)
        finally:
            await live.close()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(run())
    recorder.close()
    ledger.close()


def _end_with_input() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(*sys.argv[1:])
