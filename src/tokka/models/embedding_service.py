"""Any OpenAI-compatible `/embeddings` as a source of vectors.

`http://host/v1#name` → `Source`. Text leaves only for loopback or a listed host; redirects are not
followed; the key comes from an environment variable and is never shown. Queries and passages are
sent alike: the route has no word for either, so serve a model that needs no prefix, or name a
service that adds it.

>>> service_source("http://127.0.0.1:8080/v1#e5", EndpointOptions()).embed(["融資"], "query").shape
(1, 384)
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from tokka.errors import ServiceError
from tokka.models.address import address_of, key_of, open_client
from tokka.models.retries import is_retried, wait_seconds
from tokka.records import fingerprint

if TYPE_CHECKING:
    from tokka.models.embedder import Kind, Source, Vectors
    from tokka.models.opening import EndpointOptions

_SHOWN_CHARACTERS = 200


def service_source(reference: str, options: EndpointOptions) -> Source:
    """Open `http://host/v1#name`. Nothing is sent yet.

    Raises UsageError for a host that isn't listed, a missing key or a missing model name. What a
    service returns under one name is taken to stay the same: whoever exchanges the model behind it
    gives it another name.
    """
    from tokka.models.embedder import Source

    service = _Service(reference, options)

    def embed(texts: Sequence[str], kind: Kind) -> Vectors:
        return service.vectors(texts)

    digest = fingerprint(["embeddings", reference])
    return Source(f"{service.host}-{service.model}", digest, None, embed)


class _Service:
    def __init__(self, reference: str, options: EndpointOptions) -> None:
        address = address_of(reference, options.hosts)
        self.host, self.model = address.host, address.model
        self._key, self._retries = key_of(options.api_key_env, address.host), options.retries
        self._url = address.url.copy_with(path=address.url.path.rstrip("/") + "/embeddings")
        self._client = open_client(address, self._key, options.timeout_seconds)

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Shape (len(texts), dimensions), in the order of the texts. Raises ServiceError."""
        body = {"model": self.model, "input": list(texts), "encoding_format": "float"}
        reply = self._post(body)
        try:
            rows = sorted(reply.json()["data"], key=lambda row: int(row["index"]))
            numbers = [row["embedding"] for row in rows]
            if [row["index"] for row in rows] != list(range(len(texts))):
                raise ValueError(f"{len(rows)} vectors for {len(texts)} texts")
            return np.asarray(numbers, dtype=np.float32).reshape(len(texts), -1)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ServiceError(
                f"{self.host}: the answer is none of /embeddings ({type(error).__name__}: "
                f"{self._clean(reply.text)!r}); check that {self.model} is an embedding model and "
                "that the URL ends where /embeddings follows"
            ) from error

    def _post(self, body: Any) -> httpx.Response:
        reason = ""
        for attempt in range(self._retries + 1):
            retry_after = None
            try:
                reply = self._client.post(self._url, json=body)
            except httpx.RequestError as error:
                reason = f"{type(error).__name__}: {self._clean(str(error))}"
            else:
                if reply.status_code == 200:
                    return reply
                reason = self._refused(reply)
                retry_after = reply.headers.get("retry-after")
            if attempt < self._retries:
                time.sleep(wait_seconds(attempt, retry_after, random.random()))
        raise ServiceError(
            f"{self.host}: no vectors after {self._retries + 1} tries (the last: {reason}); check "
            "that the service runs, then run the same command again: finished vectors are kept"
        )

    def _refused(self, reply: httpx.Response) -> str:
        """The reason of an answer that a later try may better; raises for the others."""
        status = reply.status_code
        if status in (401, 403):  # bodies of such answers like to repeat the key
            raise ServiceError(
                f"{self.host}: status {status}, the key was refused; set the environment variable "
                "that the project file names as api_key_env, or ask the service's owner for access"
            )
        said = f"status {status} {self._clean(reply.text)}".strip()
        if reply.is_redirect:
            raise ServiceError(
                f"{self.host}: status {status}, a redirect, which was not followed; write the "
                "final URL, and list its host under hosts if the text may go there"
            )
        if not is_retried(status):
            raise ServiceError(
                f"{self.host}: {said}; check the path and the model name {self.model}"
            )
        return said

    def _clean(self, text: str) -> str:
        """One short line of somebody else's text, without the key."""
        if self._key:
            text = text.replace(self._key, "[key]")
        return " ".join(text.split())[:_SHOWN_CHARACTERS]
