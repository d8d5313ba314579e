"""Many clients for ten minutes, with faults: nothing may be lost or mixed up.

    python benchmarks/soak.py [--seconds 600] [--clients 64] [--out results.json]

tokka's server over the embedded model's GGUF, 16 places, 32 more may wait. Each client asks, over a
connection of its own and with one of four keys, to repeat a secret word that was never used before,
streamed; an answer that holds somebody else's word is mixed up, a question that isn't answered in
four minutes is lost. A refusal (503) is asked again after its Retry-After, a broken answer at once.

Meanwhile llama.cpp's process is killed every 40 seconds, every twentieth client hangs up in the
middle of an answer, and some send half a request, no JSON, a body that is too large or a wrong key.
At the end the server gets SIGTERM while it writes: what it has begun must end. Then every request
must stand in the request log, once, and no place may be taken.

The last line is JSON; the exit status is 1 if anything was lost, mixed up or left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measuring import machine, say
from serve_load import Connection, Heard, Target
from serve_own import KEYS
from serve_vs_llamacpp import model_folder

HERE = Path(__file__).parent
PLACES, QUEUE, CONTEXT = 16, 32, 512
KILL_SECONDS = 40
THINK_SECONDS = 4.0  # at most, between an answer and the next question
LOST_SECONDS = 240.0
LARGEST_BODY = 1_000_000
PATH = "/v1/chat/completions"
SHOWN = (("りんご4182", "りんご4182"), ("かもめ9035", "かもめ9035"))
WORDS = ("さくら", "ひばり", "すずめ", "みかん", "つばめ", "もみじ", "あさひ", "こだま")


@dataclass
class Found:
    counts: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    by_key: Counter[str] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)
    words: set[str] = field(default_factory=set)
    strange: list[str] = field(default_factory=list)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seconds", type=float, default=600)
    options.add_argument("--clients", type=int, default=64)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, help="also write everything counted to this file")
    given = options.parse_args()
    facts = machine()
    say(f"{facts['processor']}, {facts['cores']} cores, load {facts['load_average']}")
    with tempfile.TemporaryDirectory() as folder, server(Path(folder), facts["cores"]) as started:
        process, url = started
        found = asyncio.run(soak(process, url, given.seconds, given.clients, given.seed))
        ended = process.wait(timeout=60)
        logged = request_ids(Path(folder) / "ledger.sqlite")
    result = judged(found, ended, logged)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        whole = {"result": result, "counts": found.counts, "machine": facts}
        given.out.write_text(json.dumps(whole, ensure_ascii=False, indent=1), encoding="utf-8")
    for line in found.strange[:10]:
        say(line)
    print(json.dumps(result))
    bad = ("mixed_up", "lost", "not_logged", "logged_twice", "places_left", "waiting_left")
    if any(result[name] for name in bad) or result["exit_status"]:
        raise SystemExit(1)


@contextlib.contextmanager
def server(folder: Path, cores: int) -> Any:
    how = [str(model_folder()), str(PLACES), str(cores), str(CONTEXT), str(folder), str(QUEUE)]
    process = subprocess.Popen(
        [sys.executable, str(HERE / "serve_own.py"), *how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(folder / "log").open("wb"),
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit((folder / "log").read_text()[-2000:])
        yield process, json.loads(line)["url"]
    finally:
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        process.kill()


# ---- the load -----------------------------------------------------------------------------------


async def soak(
    process: subprocess.Popen[bytes], url: str, seconds: float, clients: int, seed: int
) -> Found:
    found, stop = Found(), time.monotonic() + seconds
    host, _, port = url.removeprefix("http://").partition(":")

    async def client(number: int) -> None:
        dice = random.Random(seed * 1000 + number)
        key = KEYS[number % len(KEYS)]
        target = Target(host, int(port), PATH, {"Authorization": f"Bearer {key}"})
        connection = Connection(target)
        while time.monotonic() < stop:
            if dice.random() < 0.04:
                await misbehave(target, dice, found)
            await ask(connection, key, dice, found)
            await asyncio.sleep(dice.uniform(0, THINK_SECONDS))
        connection.close()

    faults = asyncio.create_task(kill_children(process.pid, stop, found))
    told = asyncio.create_task(tell(found, stop))
    await asyncio.gather(*(client(number) for number in range(clients)))
    faults.cancel()
    told.cancel()
    await asyncio.sleep(1.0)
    await settle(url, found)
    await drain(
        process, Target(host, int(port), PATH, {"Authorization": f"Bearer {KEYS[0]}"}), found
    )
    return found


async def ask(connection: Connection, key: str, dice: random.Random, found: Found) -> None:
    word = f"{dice.choice(WORDS)}{dice.randrange(10_000, 100_000)}"
    while word in found.words:
        word = f"{dice.choice(WORDS)}{dice.randrange(10_000, 100_000)}"
    found.words.add(word)
    leave = 2 if dice.random() < 0.05 else None
    begun = time.monotonic()
    while time.monotonic() - begun < LOST_SECONDS:
        heard = await connection.ask(body(word), leave_after=leave)
        if "x-request-id" in heard.headers:
            found.ids.append(heard.headers["x-request-id"])
        if heard.status == 503:
            found.counts["refused, asked again"] += 1
            if "retry-after" not in heard.headers:
                found.strange.append("a 503 without Retry-After")
            await asyncio.sleep(float(heard.headers.get("retry-after", 1)) + dice.random())
        elif heard.error == "left":
            found.counts["hung up"] += 1
            return
        elif heard.error:
            found.counts["broken, asked again"] += 1
            if heard.status not in (0, 200):
                found.strange.append(f"{heard.status}: {heard.error}")
        else:
            note(word, key, heard, found)
            return
    found.counts["lost"] += 1


def note(word: str, key: str, heard: Heard, found: Found) -> None:
    found.counts["answered"] += 1
    found.by_key[key] += 1
    found.seconds.append(heard.seconds)
    found.firsts.append(heard.ttft)
    if word in heard.text:
        found.counts["right"] += 1
    others = [other for other in said_words(heard.text) if other != word and other in found.words]
    if others:
        found.counts["mixed up"] += 1
        found.strange.append(f"asked for {word}, answered {heard.text!r}")


def said_words(text: str) -> list[str]:
    return [
        text[i : i + 8] for word in WORDS for i in range(len(text)) if text[i:].startswith(word)
    ]


def body(word: str, max_tokens: int = 12) -> dict[str, Any]:
    turns = []
    for asked, said in SHOWN:
        turns.append({"role": "user", "content": f"合言葉は「{asked}」です。合言葉は何ですか。"})
        turns.append({"role": "assistant", "content": f"「{said}」"})
    turns.append({"role": "user", "content": f"合言葉は「{word}」です。合言葉は何ですか。"})
    usage = {"include_usage": True}
    how = {"model": "bench", "max_tokens": max_tokens, "stream": True, "stream_options": usage}
    return {**how, "messages": turns}


async def misbehave(target: Target, dice: random.Random, found: Found) -> None:
    kind = dice.choice(("half", "no JSON", "too large", "wrong key"))
    found.counts[f"sent: {kind}"] += 1
    key = "wrong" if kind == "wrong key" else target.headers["Authorization"].split()[1]
    content = {"too large": b"x" * (LARGEST_BODY + 1), "no JSON": b"{"}.get(kind, b"{}")
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {len(content) + 10 * (kind == 'half')}"
        "\r\n\r\n"
    ).encode()
    wanted = {"no JSON": b"400", "too large": b"413", "wrong key": b"401"}.get(kind)
    reader, writer = await asyncio.open_connection(target.host, target.port)
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        writer.write(head + content)
        if wanted is not None:
            line = await asyncio.wait_for(reader.readline(), 60)
            status = line.split()[1] if line else b"nothing"
            if status not in (wanted, b"503"):
                found.strange.append(f"{kind} was answered {status!r}, not {wanted!r}")
    writer.close()


async def kill_children(server: int, stop: float, found: Found) -> None:
    while True:
        await asyncio.sleep(KILL_SECONDS)
        for child in children(server):
            if time.monotonic() < stop - 15:
                os.kill(child, signal.SIGKILL)
                found.counts["killed llama.cpp"] += 1


def children(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            text = status.read_text()
            command = (status.parent / "cmdline").read_bytes()
            if f"PPid:\t{parent}\n" in text and b"llamacpp" in command:
                found.append(int(status.parent.name))
    return found


async def tell(found: Found, stop: float) -> None:
    while True:
        await asyncio.sleep(15)
        left = max(0, round(stop - time.monotonic()))
        say(f"{dict(found.counts)}, {left} s left")


# ---- the end ------------------------------------------------------------------------------------


async def settle(url: str, found: Found) -> None:
    """Nothing runs any more: no place may be taken."""
    for _ in range(60):
        figures = await asyncio.to_thread(gauges, url)
        if not figures["tokka_places_used"] and not figures["tokka_waiting"]:
            break
        await asyncio.sleep(0.5)
    found.counts["places left"] = int(figures["tokka_places_used"])
    found.counts["waiting left"] = int(figures["tokka_waiting"])
    found.counts["restarts"] = int(figures["tokka_model_restarts"])


def gauges(url: str) -> dict[str, float]:
    asked = urllib.request.Request(f"{url}/metrics", headers={"Authorization": f"Bearer {KEYS[0]}"})
    with urllib.request.urlopen(asked) as reply:
        lines = reply.read().decode().splitlines()
    rows = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
    return {name.partition("{")[0]: float(value) for name, _, value in rows}


async def drain(process: subprocess.Popen[bytes], target: Target, found: Found) -> None:
    """SIGTERM in the middle of answers: each ends as if nothing had happened."""
    words = [f"さくら{number}" for number in range(100_000, 100_008)]
    asked = [asyncio.create_task(Connection(target).ask(body(word, 32))) for word in words]
    await asyncio.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    for heard in await asyncio.gather(*asked):
        if "x-request-id" in heard.headers:
            found.ids.append(heard.headers["x-request-id"])
        found.counts["ended after SIGTERM" if not heard.error else "cut by SIGTERM"] += 1


def request_ids(ledger: Path) -> Counter[str]:
    with contextlib.closing(sqlite3.connect(ledger)) as database:
        return Counter(row[0] for row in database.execute("select id from requests"))


def judged(found: Found, ended: int, logged: Counter[str]) -> dict[str, Any]:
    counts = found.counts
    shares = [found.by_key[key] for key in KEYS]
    return {
        "answered": counts["answered"],
        "right": counts["right"],
        "mixed_up": counts["mixed up"],
        "lost": counts["lost"],
        "refused_then_answered": counts["refused, asked again"],
        "broken_then_answered": counts["broken, asked again"],
        "hung_up": counts["hung up"],
        "killed": counts["killed llama.cpp"],
        "restarts": counts["restarts"],
        "unexpected": len(found.strange),
        "least_to_most_served_key": round(min(shares) / max(1, *shares), 3),
        "p50_seconds": round(middle(found.seconds), 3),
        "p50_ttft_seconds": round(middle(found.firsts), 3),
        "places_left": counts["places left"],
        "waiting_left": counts["waiting left"],
        "ended_after_sigterm": counts["ended after SIGTERM"],
        "cut_by_sigterm": counts["cut by SIGTERM"],
        "not_logged": sum(one not in logged for one in set(found.ids)),
        "logged_twice": sum(times > 1 for times in logged.values()),
        "exit_status": ended,
    }


def middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0


if __name__ == "__main__":
    main()
