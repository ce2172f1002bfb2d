"""Permits that several processes count in the same memory."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from penstock_router.api.errors import ApiError
from penstock_router.api.service import Permits
from penstock_router.fronts.process import shared_counts

# Each process notes beside the permits how many it is inside with. Who holds one and looks at the
# other process' note sees a state that was: its own part of the sum stands still meanwhile.
CONTEND = """
import sys
from penstock_router.api.errors import ApiError
from penstock_router.api.service import Permits
from penstock_router.fronts.process import shared_counts

descriptor, place, limit, rounds = map(int, sys.argv[1:])
memory = shared_counts(descriptor)
held, inside, here = memory[0:2], memory[2:4], memory[4:6]
permits = Permits(limit, held, place)
here[place] = 1
while not all(here):
    pass
worst = taken = refused = 0
for turn in range(rounds):
    try:
        with permits.take(1 + turn % limit):
            inside[place] = 1 + turn % limit
            worst = max(worst, sum(inside))
            inside[place] = 0
            taken += 1
    except ApiError:
        refused += 1
print(worst, taken, refused)
"""


@pytest.mark.parametrize("limit", [1, 3])
def test_never_more_than_the_limit_in_both(limit: int) -> None:
    descriptor = os.memfd_create("permits")
    os.ftruncate(descriptor, 6 * 8)
    command = [sys.executable, "-c", CONTEND, str(descriptor)]
    processes = [
        subprocess.Popen(
            [*command, str(place), str(limit), "60000"],
            pass_fds=[descriptor],
            stdout=subprocess.PIPE,
            text=True,
        )
        for place in range(2)
    ]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    figures = [tuple(map(int, output.split())) for output in outputs]
    assert [process.returncode for process in processes] == [0, 0]
    for worst, taken, _ in figures:
        assert 0 < worst <= limit
        assert taken > 0
    assert sum(refused for _, _, refused in figures) > 0, "they never met"
    memory = shared_counts(descriptor)
    assert list(memory[0:2]) == [0, 0] and Permits(limit, memory[0:2], 0).free == limit
    os.close(descriptor)


def test_permits_of_another_process_count() -> None:
    memory = memoryview(bytearray(24)).cast("q")
    one, other = Permits(4, memory, 0), Permits(4, memory, 2)
    with one.take(3):
        assert one.free == other.free == 1
        with pytest.raises(ApiError), other.take(2):
            raise AssertionError("taken")
        assert list(memory) == [3, 0, 0]
        with other.take(1):
            assert one.free == 0
    assert one.free == other.free == 4


async def test_they_come_back_however_the_request_ends() -> None:
    permits = Permits(2)

    async def hold() -> None:
        with permits.take(2):
            await asyncio.sleep(10)

    task = asyncio.create_task(hold())
    await asyncio.sleep(0)
    assert permits.free == 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(ZeroDivisionError), permits.take(1):
        _ = 1 / 0
    assert permits.free == 2
