"""A real server, asked by what people use: OpenAI's client, curl, chat pages."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator

import httpx
import openai
import pytest
from fakes import FakeLive, make_service, serving

ASK = [{"role": "user", "content": "融資の限度額は？"}]
ANSWER = "答え：融資の限度額は？\n\n[1] 融資規程、1ページ"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(make_service()) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="tk-user", max_retries=0) as made:
        yield made


def test_openais_client_lists_and_asks(client):
    assert [model.id for model in client.models.list()] == ["aoba-1"]
    assert client.models.retrieve("aoba-1").owned_by == "tokka"
    said = client.chat.completions.create(model="aoba-1", messages=ASK, temperature=0.2)
    assert said.choices[0].message.content == ANSWER
    assert said.choices[0].message.annotations[0].url_citation.title == "融資規程"
    assert said.model_extra["tokka"]["not_applied"] == ["temperature"]
    assert said.usage.total_tokens == 19


def test_openais_client_reads_a_stream(client):
    chunks = list(
        client.chat.completions.create(
            model="aoba-1", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == ANSWER
    assert chunks[-1].usage.completion_tokens == 11
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-2].model_extra["tokka"]["citations"][0]["page"] == 1


def test_openais_client_completes_and_embeds(client):
    whole = client.completions.create(model="aoba", prompt="限度額")
    assert whole.choices[0].text.startswith("答え")
    parts = client.completions.create(model="aoba", prompt="限度額", stream=True)
    assert "".join(part.choices[0].text for part in parts).startswith("答え：限度額")
    rows = client.embeddings.create(model="aoba-1", input=["a", "b"]).data
    assert [row.embedding for row in rows] == [[0.5] * 4] * 2


def test_openais_client_knows_every_refusal(client, url):
    ask = client.chat.completions.create
    with pytest.raises(openai.BadRequestError) as wrong:
        ask(model="aoba-1", messages=ASK, n=2)
    assert wrong.value.param == "n"
    with pytest.raises(openai.NotFoundError):
        ask(model="gpt-4o", messages=ASK)
    for key, error in (
        ("no", openai.AuthenticationError),
        ("operator", openai.PermissionDeniedError),
    ):
        with pytest.raises(error):
            client.with_options(api_key=f"tk-{key}").chat.completions.create(
                model="aoba-1", messages=ASK
            )


def test_openais_async_client_asks_many_at_once(url):
    async def scene() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="tk-user") as client:

            async def ask(number: int) -> str:
                messages = [{"role": "user", "content": f"合言葉{number}"}]
                made = client.chat.completions.create(
                    model="aoba-1", messages=messages, stream=number % 2 == 0
                )
                if number % 2:
                    return (await made).choices[0].message.content
                return "".join([c.choices[0].delta.content or "" async for c in await made])

            return await asyncio.gather(*(ask(number) for number in range(12)))

    for number, said in enumerate(asyncio.run(scene())):
        assert said.startswith(f"答え：合言葉{number}\n")


def test_a_model_that_breaks_down_is_an_error_in_the_stream_or_503_before_it():
    with serving(make_service(FakeLive(crashes=2))) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="tk-user", max_retries=0)
        stream = client.chat.completions.create(model="aoba-1", messages=ASK, stream=True)
        with pytest.raises(openai.APIError, match="broke down") as broken:
            list(stream)
        assert "限度額" not in str(broken.value)
    with serving(make_service(FakeLive(crashes=0))) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="tk-user", max_retries=0)
        for stream in (True, False):
            with pytest.raises(openai.InternalServerError) as broken:
                client.chat.completions.create(model="aoba-1", messages=ASK, stream=stream)
            assert broken.value.status_code == 503
            assert broken.value.response.headers["retry-after"]


def test_a_model_that_is_started_again_is_503_at_once():
    with serving(make_service(FakeLive(ready=False))) as url:
        answer = httpx.get(f"{url}/readyz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_restarting")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl isn't installed")
def test_curl_reads_a_stream_line_by_line(url):
    done = subprocess.run(
        ["curl", "-sSN", "--fail-with-body", f"{url}/v1/chat/completions",
         "-H", "Authorization: Bearer tk-user", "-H", "Content-Type: application/json",
         "-d", json.dumps({"model": "aoba-1", "messages": ASK, "stream": True})],
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    lines = [line for line in done.stdout.split("\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    assert "融資の" in done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl isn't installed")
def test_curl_without_a_content_type_is_told_which(url):
    done = subprocess.run(
        ["curl", "-sS", f"{url}/v1/chat/completions", "-H", "Authorization: Bearer tk-user",
         "-d", "{}"],
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    assert "Content-Type: application/json" in json.loads(done.stdout)["error"]["message"]


# What two chat pages send, as their requests look on the wire.
OPEN_WEBUI = {
    "stream": True,
    "model": "aoba-1",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant.\nToday is 2026-11-23."},
        {"role": "user", "content": "こんにちは"},
        {"role": "assistant", "content": "答え：こんにちは\n\n[1] 融資規程、1ページ"},
        {"role": "user", "content": [{"type": "text", "text": "融資の限度額は？"}]},
    ],
    "params": {},
    "features": {"image_generation": False, "code_interpreter": False, "web_search": False},
    "variables": {"{{USER_NAME}}": "Aoi", "{{CURRENT_DATE}}": "2026-11-23"},
    "metadata": {"variables": {}},
    "session_id": "dX2",
    "chat_id": "8f0c",
    "id": "a3d1",
    "background_tasks": {"title_generation": True, "tags_generation": True},
    "stream_options": {"include_usage": True},
    "temperature": 0.8,
    "stop": None,
}
LIBRECHAT = {
    "model": "aoba-1",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "融資の限度額は？"},
    ],
    "temperature": 1,
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "user": "66f1c0ffee",
    "stop": [],
    "max_tokens": None,
    "stream": True,
    "n": 1,
}


@pytest.mark.parametrize("body", [OPEN_WEBUI, LIBRECHAT], ids=["open-webui", "librechat"])
def test_a_chat_page_lists_models_and_streams_an_answer(url, body):
    with httpx.Client(base_url=url, headers={"authorization": "Bearer tk-user"}) as page:
        assert page.get("/v1/models").json()["data"][0]["id"] == "aoba-1"
        said, last = "", {}
        with page.stream("POST", "/v1/chat/completions", json=body) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    chunk = json.loads(line[6:])
                    said += "".join(c["delta"].get("content") or "" for c in chunk["choices"])
                    last = chunk if chunk["choices"] else last
    assert said == ANSWER
    assert "messages.system" in last["tokka"]["not_applied"]
