"""What one server allows: places, waiting, sizes and seconds.

The project file's `serve:` section → `Limits`, which the app reads; the numbers without a key there
are fixed because nobody has needed to change them.

>>> Limits(places=8, queue=64).most_waiting
64
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Limits:
    places: int = 8
    queue: int = 64
    queue_seconds: float = 30.0
    request_seconds: float = 300.0
    max_body_bytes: int = 1_000_000
    max_tokens: int = 1024
    per_key: int = 16
    cors: tuple[str, ...] = ()
    log_text: bool = False
    sample: float = 0.05
    caller_system: Literal["ignore", "append", "refuse"] = "ignore"
    drain_seconds: float = 30.0

    # Of a connection, before anybody is known: a slow or endless sender holds nothing for long.
    header_seconds: float = 10.0
    max_header_bytes: int = 32_768
    body_seconds: float = 30.0
    stall_seconds: float = 20.0  # a client that reads nothing of its stream
    keep_alive_seconds: int = 75
    max_connections: int = 2048
    max_messages: int = 512
    max_texts: int = 256  # in one request for embeddings

    @property
    def most_waiting(self) -> int:
        return self.queue
