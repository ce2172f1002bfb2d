"""Permits that are waited for, one sequence at a time.

SGLang's clients know no 429: for its frontend an answer other than 200 is the end of a program, and
it sends as many requests as it has threads, each with a prompt a choice. So here sequences wait for
their permits, first come, first served, and those of a long list run as others end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from penstock_router.api.errors import ApiError, Kind
from penstock_router.api.sequence_group import SequenceGroup, SequenceListener

if TYPE_CHECKING:
    from penstock_router.api.service import Permits

LOOK_SECONDS = 0.002  # between looks for a free permit, by the first that waits
MAX_WAITING = 2048  # calls; one more is told at once that the server is overloaded


class Turns:
    """Who waits for a permit in this process."""

    def __init__(self, permits: Permits) -> None:
        self._permits = permits
        self._turn = asyncio.Lock()  # fair: the first to wait is the first to get it
        self._waiting = 0

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """A call may wait within. Raises ApiError where too many do."""
        if self._waiting >= MAX_WAITING:
            raise ApiError(Kind.OVERLOADED)
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def take(self) -> ExitStack:
        """A permit; closing it, or leaving it as a context, gives it back."""
        permit = ExitStack()
        async with self._turn:
            while True:
                try:
                    permit.enter_context(self._permits.take(1))
                    return permit
                except ApiError:
                    await asyncio.sleep(LOOK_SECONDS)

    @asynccontextmanager
    async def submitting(
        self, group: SequenceGroup, listeners: Sequence[Turn]
    ) -> AsyncIterator[None]:
        """Hand listeners to the engine as permits become free, until the group ends or is left."""
        group.expect(len(listeners))
        task = asyncio.create_task(self._submit(group, listeners))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            for listener in listeners:
                listener.give_back()

    async def _submit(self, group: SequenceGroup, listeners: Sequence[Turn]) -> None:
        for listener in listeners:
            listener.permit = await self.take()
            try:
                group.submit_expected(listener)
            except ApiError as error:
                return group.fail(error)


class Turn(SequenceListener):
    """A listener whose permit goes back with its end. Base of those that wait for one."""

    permit: ExitStack | None = None

    def give_back(self) -> None:
        """Nothing runs for it any more; harmless where it never began."""
        if self.permit is not None:
            self.permit.close()
