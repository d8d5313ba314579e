"""Many at once: places, the queue, fairness, and clients that leave."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import Any

import httpx
import pytest
from fakes import FakeLive, make_service, serving

from tokka.models.protocol import GenerateRequest
from tokka.serving.listening import Listening, listen


def body(text: str, stream: bool = False) -> dict[str, Any]:
    return {"model": "aoba-1", "messages": [{"role": "user", "content": text}], "stream": stream}


def client(url: str, key: str = "user") -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url,
        headers={"authorization": f"Bearer tk-{key}"},
        limits=httpx.Limits(max_connections=200),
        timeout=20,
    )


def said_in(answer: httpx.Response) -> str:
    if answer.headers["content-type"] == "application/json":
        return answer.json()["choices"][0]["message"]["content"]
    chunks = [json.loads(line[6:]) for line in answer.text.split("\n") if line[:7] == "data: {"]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


def raw(sent: bytes) -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer tk-user\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(sent) + sent
    )


def until(met: Any, seconds: float = 5.0) -> bool:
    ends = time.monotonic() + seconds
    while not met():
        if time.monotonic() > ends:
            return False
        time.sleep(0.005)
    return True


def test_no_answer_goes_to_another_client_and_no_more_are_written_than_there_are_places():
    live = FakeLive(seconds=0.001)
    service = make_service(live, places=4, queue=100, per_key=100)

    async def scene(url: str) -> list[tuple[str, str]]:
        async with client(url) as asks:

            async def ask(number: int) -> tuple[str, str]:
                nonce = f"合言葉-{number:04}"
                sent = body(nonce, stream=number % 2 == 0)
                answer = await asks.post("/v1/chat/completions", json=sent)
                assert answer.status_code == 200
                return nonce, said_in(answer)

            return await asyncio.gather(*(ask(number) for number in range(64)))

    with serving(service) as url:
        said = asyncio.run(scene(url))
    assert len(said) == 64
    for nonce, text in said:
        assert text == f"答え：{nonce}\n\n[1] 融資規程、1ページ"
    assert live.most == 4
    assert (service.inside, service.writing.used, service.writing.waiting) == (0, 0, 0)


def test_one_key_with_many_waiting_doesnt_starve_another():
    live = FakeLive(seconds=0.002)
    service = make_service(live, places=1, queue=400, per_key=400)

    async def scene(url: str) -> int:
        order: list[str] = []
        async with client(url) as many, client(url, "other") as one:

            async def ask(asks: httpx.AsyncClient, who: str) -> None:
                assert (await asks.post("/v1/chat/completions", json=body(who))).status_code == 200
                order.append(who)

            tasks = [asyncio.create_task(ask(many, "many")) for _ in range(100)]
            while service.inside < 100:
                await asyncio.sleep(0.005)
            await ask(one, "one")
            before = len(order)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return before

    with serving(service) as url:
        before = asyncio.run(scene(url))
        assert until(lambda: service.inside == 0)
    assert before < 40  # of the 100 that were before it; those that ended while it was heard


def test_a_full_queue_and_a_long_wait_are_503_with_when_to_come_back():
    service = make_service(FakeLive(seconds=0.05), places=1, queue=1, queue_seconds=0.15)

    async def scene(url: str) -> list[httpx.Response]:
        async with client(url) as asks:
            return await asyncio.gather(
                *(asks.post("/v1/chat/completions", json=body(f"長い質問{n}")) for n in range(3))
            )

    with serving(service) as url:
        answers = asyncio.run(scene(url))
    codes = Counter(a.json()["error"]["code"] for a in answers if a.status_code == 503)
    assert codes == {"queue_full": 1, "queue_timeout": 1}
    assert all(int(a.headers["retry-after"]) >= 1 for a in answers if a.status_code == 503)
    assert service.inside == 0


def test_a_key_may_have_only_so_many_requests_at_once():
    service = make_service(FakeLive(seconds=0.05), per_key=1)

    async def scene(url: str) -> list[int]:
        async with client(url) as asks:
            posts = [asks.post("/v1/chat/completions", json=body("二つ")) for _ in range(2)]
            return sorted(answer.status_code for answer in await asyncio.gather(*posts))

    with serving(service) as url:
        assert asyncio.run(scene(url)) == [200, 429]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_place(stream):
    live = FakeLive(script=lambda r: "あ" * 400, seconds=0.02)
    service = make_service(live, places=1)

    async def leave(url: str) -> None:
        async with client(url) as asks:
            task = asyncio.create_task(asks.post("/v1/chat/completions", json=body("長い", stream)))
            while not live.writing:
                await asyncio.sleep(0.005)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    with serving(service) as url:
        asyncio.run(leave(url))
        assert until(lambda: service.writing.used == 0 and service.inside == 0)
        assert live.cancelled == 1
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert until(lambda: service.metrics.disconnects._value.get() == 1)
    (row,) = service.registry.rows
    assert (row.status, row.outcome) == (499, "disconnected")


def test_a_client_that_leaves_the_queue_frees_its_room():
    live = FakeLive(script=lambda r: "あ" * 200, seconds=0.02)
    service = make_service(live, places=1, queue=1)

    async def scene(url: str) -> None:
        async with client(url) as asks:
            first = asyncio.create_task(asks.post("/v1/chat/completions", json=body("一")))
            while service.writing.used < 1:
                await asyncio.sleep(0.005)
            waits = asyncio.create_task(asks.post("/v1/chat/completions", json=body("二")))
            while service.writing.waiting < 1:
                await asyncio.sleep(0.005)
            waits.cancel()
            await asyncio.gather(waits, return_exceptions=True)
            while service.writing.waiting:
                await asyncio.sleep(0.005)
            assert service.inside == 1
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)

    with serving(service) as url:
        asyncio.run(asyncio.wait_for(scene(url), 10))
        assert until(lambda: service.inside == 0)
    assert len(live.requests) == 1


def test_who_leaves_while_he_is_heard_leaves_the_others_their_turn():
    import threading

    service = make_service()
    service.specialist.block = threading.Event()

    async def scene(url: str) -> int:
        async with client(url) as asks:
            gone = asyncio.create_task(asks.post("/v1/chat/completions", json=body("一")))
            while not service.specialist.heard:
                await asyncio.sleep(0.005)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            while service.inside:
                await asyncio.sleep(0.005)
            service.specialist.block.set()
            return (await asks.post("/v1/chat/completions", json=body("二"))).status_code

    with serving(service) as url:
        assert asyncio.run(asyncio.wait_for(scene(url), 10)) == 200
    assert (service.hearing.used, service.hearing.waiting) == (0, 0)


def test_an_answer_that_takes_too_long_is_ended():
    live = FakeLive(script=lambda r: "あ" * 400, seconds=0.02)
    service = make_service(live, request_seconds=0.2)
    with serving(service) as url:
        ask = {"headers": {"authorization": "Bearer tk-user"}}
        whole = httpx.post(f"{url}/v1/chat/completions", json=body("長い"), **ask)
        stream = httpx.post(f"{url}/v1/chat/completions", json=body("長い", True), **ask)
        assert (whole.status_code, whole.json()["error"]["code"]) == (503, "request_timeout")
        assert stream.status_code == 200
        assert '"code":"request_timeout"' in stream.text.split("data: ")[-1]
        assert (service.inside, service.writing.used) == (0, 0)


def test_a_client_that_stops_reading_frees_its_place():
    import socket

    live = FakeLive(script=lambda r: "あ" * 10_000_000, piece=20_000)
    service = make_service(live, places=1, stall_seconds=0.3)
    service.specialist.request_of = lambda heard, most, stop: GenerateRequest(heard.prompt, 10**7)
    sent = json.dumps(body("長い", True)).encode()
    with serving(service) as url, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = url.removeprefix("http://").split(":")
        deaf.connect((host, int(port)))
        deaf.sendall(raw(sent))
        assert until(lambda: service.writing.used == 1)
        assert until(lambda: service.writing.used == 0 and service.inside == 0, 8)
    assert service.registry.rows[0].outcome == "stalled"


def test_a_client_that_stops_reading_doesnt_hold_up_the_end():
    import os
    import signal
    import socket
    import threading

    live = FakeLive(script=lambda r: "あ" * 10_000_000, piece=20_000)
    service = make_service(live, places=1, stall_seconds=1, drain_seconds=0.2)
    service.specialist.request_of = lambda heard, most, stop: GenerateRequest(heard.prompt, 10**7)
    sent = json.dumps(body("長い", True)).encode()
    with socket.socket() as deaf:

        def ask(port: int) -> None:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", port))
            deaf.sendall(raw(sent))
            until(lambda: any(visit.sending for visit in service.running.values()))
            os.kill(os.getpid(), signal.SIGTERM)

        def ready(port: int) -> None:
            threading.Thread(target=ask, args=(port,), daemon=True).start()

        asyncio.run(asyncio.wait_for(listen(service, Listening(port=0), ready), 15))
    service.recorder.close()
    service.thread.shutdown(wait=False)
    assert (service.inside, service.writing.used) == (0, 0)
