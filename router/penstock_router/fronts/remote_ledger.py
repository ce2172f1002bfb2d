"""The limits of API keys, as a front sees them: the scheduling process decides."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Hashable
from typing import cast

from penstock_proto import front_pb2
from penstock_proto.api_keys import ApiKey
from penstock_proto.front_pb2 import KeyBegin, KeyReserve, KeySettle, KeyVerdict
from penstock_router.fronts.remote_engine import Outbox, RemoteEngine
from penstock_router.quotas import Allowance, Limit, Verdict


class RemoteLedger:
    """`api.quota.Ledger` for the API of a front."""

    def __init__(self, engine: RemoteEngine, outbox: Outbox) -> None:
        self._outbox = outbox
        self._numbers = itertools.count(1)
        self._asked: dict[int, deque[asyncio.Future[Verdict]]] = {}
        engine.on_verdict = self._take

    def number(self) -> Hashable:
        return next(self._numbers)

    async def begin(self, number: Hashable, key: ApiKey) -> Verdict:
        """Nobody waits where the answer is known."""
        ask = KeyBegin(number=cast(int, number), name=key.name, answer=key.limited)
        self._outbox.frame.key_begin.append(ask)
        return await self._answer(ask.number) if key.limited else Verdict()

    async def reserve(self, number: Hashable, tokens: int) -> Verdict:
        ask = KeyReserve(number=cast(int, number), tokens=tokens)
        self._outbox.frame.key_reserve.append(ask)
        return await self._answer(ask.number)

    def settle(self, number: Hashable, prompt: int, generated: int) -> None:
        end = KeySettle(number=cast(int, number), prompt=prompt, generated=generated)
        self._outbox.frame.key_settle.append(end)
        self._asked.pop(end.number, None)

    async def _answer(self, number: int) -> Verdict:
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._asked.setdefault(number, deque()).append(answer)
        return await answer

    def _take(self, said: KeyVerdict) -> None:
        waiting = self._asked.get(said.number)  # who has left has no entry
        if waiting and not (answer := waiting.popleft()).done():
            answer.set_result(verdict_of(said))


def wire_verdict(number: int, verdict: Verdict) -> KeyVerdict:
    """As a frame has it."""
    said = KeyVerdict(number=number, refused=verdict.refused, wait=verdict.wait)
    for name, allowance in (("requests", verdict.requests), ("tokens", verdict.tokens)):
        if allowance is not None:
            wire = front_pb2.Allowance(left=allowance.left, full_in=allowance.full_in)
            getattr(said, name).CopyFrom(wire)
    return said


def verdict_of(said: KeyVerdict) -> Verdict:
    """What `wire_verdict` was given."""

    def allowance(name: str) -> Allowance | None:
        wire = getattr(said, name)
        return Allowance(wire.left, wire.full_in) if said.HasField(name) else None

    refused = cast(Limit, said.refused)
    return Verdict(refused, said.wait, allowance("requests"), allowance("tokens"))
