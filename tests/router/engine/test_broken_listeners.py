"""A fault of ours in what makes an answer ends that request, and neither others nor the server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock_router.api.awakening import Awakening
from penstock_router.api.sequence_group import SequenceGroup, SequenceListener
from penstock_router.request import Finish, GenerationFailed, GenerationRequest
from penstock_router.shard_client import ShardFailure
from support.fake_shard import expected_tokens

CALLS = ["prompt", "token", "finish", "fail"]


class Broken(SequenceListener):
    """Raises in one of its calls."""

    def __init__(self, call: str, error: Exception) -> None:
        request = GenerationRequest((3, 4), 50, prompt_logprobs=True, name="broken")
        output: Any = None  # it makes no text
        super().__init__(request, output)

        def broken(*_: object) -> None:
            raise error

        setattr(self, call, broken)

    def token(self, *_: object) -> bool:
        return False


@pytest.mark.parametrize("error", [TypeError("Recursion limit reached"), StopIteration()], ids=repr)
@pytest.mark.parametrize("call", CALLS)
async def test_its_request_alone_ends(engine_rig: Any, recorder: Any, call: str, error: Exception):
    async with engine_rig(step_seconds=0.001) as rig:
        other = recorder()
        rig.engine.submit(GenerationRequest((5, 6), 80), other)
        with SequenceGroup(rig.engine, Awakening(), "client") as group:
            group.submit([Broken(call, error)])
            if call == "fail":
                rig.engine.abort("broken")
            with pytest.raises(RuntimeError, match="a listener raised") as caught:
                await asyncio.wait_for(group.ended, 30)
            assert caught.value.__cause__ is error
        end = await other.wait()
        assert isinstance(end, Finish) and other.tokens == expected_tokens((5, 6), 80, rig.model)
        assert rig.scheduler.idle and rig.scheduler.blocks.used == 0


FAULTS = [
    ("_deliver", "the router could not take in a result: TypeError('not this way')"),
    ("_hold_back", "the router could not plan a step: TypeError('not this way')"),
]


@pytest.mark.parametrize(("where", "said"), FAULTS, ids=lambda value: value.partition(" ")[0])
async def test_a_fault_of_the_router_is_said(
    engine_rig: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch, where: str, said: str
) -> None:
    """Unsaid it looked like a step that never ends: a minute later the shards were blamed."""
    async with engine_rig() as rig:

        def broken(*_: object) -> None:
            raise TypeError("not this way")

        monkeypatch.setattr(rig.engine, where, broken)
        listener = recorder()
        rig.engine.submit(GenerationRequest((5, 6), 80), listener)
        end = await asyncio.wait_for(listener.wait(), 30)
        assert isinstance(end, GenerationFailed) and said in str(end)
        with pytest.raises(ShardFailure, match="the router could not"):
            await rig.engine.failed
