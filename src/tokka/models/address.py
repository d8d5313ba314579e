"""Where a service is, and the key to it: what every endpoint shares before it sends anything.

`http://host/v1#name` + the project's hosts → a checked `Address` and a client for it.

>>> address = address_of("http://127.0.0.1:8000/v1#qwen3-4b", hosts=[])
>>> open_client(address, key_of("LLM_API_KEY", address.host), timeout_seconds=120.0)
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from tokka.errors import UsageError
from tokka.models.hosts import check_host, host_of, is_loopback


@dataclass(frozen=True, slots=True)
class Address:
    """A checked `http://host/v1#name`; `host` in the one spelling that is compared."""

    url: httpx.URL
    host: str
    model: str


def address_of(reference: str, hosts: Sequence[str]) -> Address:
    """Read a reference to which text may be sent: its host is loopback or among `hosts`.

    Raises UsageError for a host that isn't listed, a URL with a query or one that can be read as
    two hosts, and a missing model name.
    """
    address, _, model = reference.partition("#")
    host, port = host_of(address)
    check_host(address, hosts)
    try:
        url = httpx.URL(address)
        sent_to = host_of(f"{url.scheme}://{url.netloc.decode()}")
    except httpx.InvalidURL as error:
        raise UsageError(f"{host}: not a URL ({error}); write http://host:port/v1#name") from error
    if sent_to != (host, port):
        raise UsageError(f"{host}: the URL can be read as two hosts; write it in its plain form")
    if url.query:
        raise UsageError(
            f"{host}: the URL may hold no ?query, which would end up in files and reports; put a "
            "key into an environment variable and name that"
        )
    if not model:
        raise UsageError(f"{address}: names no model; write {address}#MODEL")
    return Address(url, host, model)


def key_of(api_key_env: str | None, host: str) -> str:
    """The key in the environment variable `api_key_env`, "" where none is named.

    Raises UsageError, without the value, for a variable that isn't set or holds no key.
    """
    if not api_key_env:
        return ""
    key = os.environ.get(api_key_env, "").strip()
    if not key:
        raise UsageError(
            f"{host}: the environment variable {api_key_env} is not set; put the key there"
        )
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise UsageError(
            f"{host}: the key in {api_key_env} holds spaces or other than ASCII letters; set it "
            "again"
        )
    return key


def open_client(address: Address, key: str, timeout_seconds: float) -> httpx.Client:
    """A client that follows no redirect: its target was not checked."""
    return httpx.Client(**_how(address, key, timeout_seconds))


def open_async_client(address: Address, key: str, timeout_seconds: float) -> httpx.AsyncClient:
    """The same for an event loop."""
    return httpx.AsyncClient(**_how(address, key, timeout_seconds))


def _how(address: Address, key: str, timeout_seconds: float) -> dict[str, Any]:
    return {
        "headers": {"Authorization": f"Bearer {key}"} if key else {},
        "timeout": timeout_seconds,
        "follow_redirects": False,
        "trust_env": not is_loopback(address.host),  # no proxy between us and ourselves
    }
