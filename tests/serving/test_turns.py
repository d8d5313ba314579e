"""Places are handed out fairly, and nobody's leaving loses one."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokka.serving.turns import Turns


def test_one_callers_long_line_delays_another_by_one_place():
    async def scene() -> list[str]:
        turns, served = Turns(1), []

        async def ask(who: str) -> None:
            async with turns.turn(who):
                served.append(who)
                await asyncio.sleep(0)

        many = [asyncio.create_task(ask("many")) for _ in range(1000)]
        await asyncio.sleep(0)
        one = asyncio.create_task(ask("one"))
        await asyncio.gather(*many, one)
        return served

    served = asyncio.run(scene())
    assert len(served) == 1001
    assert served.index("one") <= 3


def test_lines_of_three_callers_take_turns():
    async def scene() -> list[str]:
        turns, served = Turns(1), []
        await turns.take("first")

        async def ask(who: str) -> None:
            await turns.take(who)
            served.append(who)
            turns.give()

        tasks = [asyncio.create_task(ask(who)) for who in "aaabbbccc"]
        await asyncio.sleep(0)
        turns.give()
        await asyncio.gather(*tasks)
        return served

    assert "".join(asyncio.run(scene())) == "abcabcabc"


def test_who_leaves_in_the_moment_of_being_called_gives_the_place_back():
    async def scene() -> tuple[int, int]:
        turns = Turns(1)
        await turns.take("a")
        waits = asyncio.create_task(turns.take("b"))
        await asyncio.sleep(0)
        turns.give()
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)
        assert waits.cancelled()
        return turns.used, turns.waiting

    assert asyncio.run(scene()) == (0, 0)


def test_waiting_ends_after_the_seconds_that_were_given():
    async def scene() -> tuple[int, int]:
        turns = Turns(1)
        await turns.take("a")
        with pytest.raises(TimeoutError):
            await turns.take("b", 0.01)
        turns.give()
        return turns.used, turns.waiting

    assert asyncio.run(scene()) == (0, 0)


@settings(max_examples=60, deadline=None)
@given(
    places=st.integers(1, 3),
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("tcgs")), max_size=40),
)
def test_no_place_is_lost_or_doubled_whoever_leaves_whenever(places, steps):
    """Taking, cancelling (also in the moment of being called), giving and letting others run, in
    any order: never more places than there are, and all of them back at the end."""

    async def scene() -> None:
        turns = Turns(places)
        tasks: list[asyncio.Task[None]] = []
        holding = 0

        async def ask(who: str) -> None:
            nonlocal holding
            await turns.take(who)
            holding += 1

        for who, step in steps:
            if step == "t":
                tasks.append(asyncio.create_task(ask(who)))
            elif step == "c" and tasks:
                tasks.pop(0).cancel()
            elif step == "g" and holding:
                holding -= 1
                turns.give()
            else:
                await asyncio.sleep(0)
            assert turns.used <= places
            assert holding <= places
        while tasks or turns.waiting or holding:
            await asyncio.sleep(0)
            if holding:
                holding -= 1
                turns.give()
            tasks = [task for task in tasks if not task.done()]
        assert (turns.used, turns.waiting) == (0, 0)

    asyncio.run(asyncio.wait_for(scene(), 5))
