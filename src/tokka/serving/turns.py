"""Places that are handed out fairly: each caller has a line of his own, and the lines take turns.

A caller with a thousand requests waiting delays another caller's first one by one place at most.
Whoever leaves, at any moment and for any reason, gives back what he had.

    turns = Turns(places=8)
    async with turns.turn("key-1", seconds=30):
        ...
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Belongs to one event loop. `waiting` and `used` are counts of now."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.used = 0
        self.waiting = 0
        # The line that comes next stands first; a line without anybody is gone.
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, who: str, seconds: float | None = None) -> AsyncIterator[None]:
        """Wait for a place, hold it, give it back. Raises TimeoutError after `seconds`."""
        await self.take(who, seconds)
        try:
            yield
        finally:
            self.give()

    async def take(self, who: str, seconds: float | None = None) -> None:
        if self.used < self.places and not self._lines:
            self.used += 1
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(who, deque()).append(mine)
        self.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await mine
        except BaseException:
            if mine.done() and not mine.cancelled():
                self.give()  # called in the moment of leaving
            else:
                self._leave(who, mine)
            raise

    def give(self) -> None:
        """One place back: to whoever comes next, or free."""
        while self._lines:
            who, line = next(iter(self._lines.items()))
            mine = line.popleft()
            if line:
                self._lines.move_to_end(who)
            else:
                del self._lines[who]
            if mine.cancelled():  # its owner hasn't run yet and finds itself gone from the line
                continue
            self.waiting -= 1
            mine.set_result(None)
            return
        self.used -= 1

    def _leave(self, who: str, mine: asyncio.Future[None]) -> None:
        self.waiting -= 1
        line = self._lines.get(who)
        if line is not None and mine in line:
            line.remove(mine)
            if not line:
                del self._lines[who]
