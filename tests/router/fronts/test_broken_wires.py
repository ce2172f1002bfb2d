"""Something happens to the n-th frame between a front and the router, for each n of a conversation.

The router frees what the front had running, other fronts are served on, and the front knows that it
is alone, upon which its process ends.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from penstock_router.request import Finish, GenerationRequest
from router.engine.conftest import Recorder, Rig, running_engine
from support.fake_shard import FakeModelConfig, expected_tokens
from support.joined_front import JoinedFront, joined_front
from support.relay import Fault, Relay, prefixed

MODEL = FakeModelConfig(num_blocks=64, block_size=4, vocab_size=500)
TOKENS = 15
PROMPTS = ((1, 2, 3), tuple(range(40, 70)), (9, 8))


def ask(front: JoinedFront) -> list[Recorder]:
    listeners = [Recorder() for _ in PROMPTS]
    for prompt, listener in zip(PROMPTS, listeners, strict=True):
        front.engine.submit(GenerationRequest(prompt, TOKENS), listener)
    return listeners


async def conversation(rig: Rig, relay: Relay) -> bool:
    """Whether all requests of the front behind the relay were served."""
    async with (
        joined_front(rig.engine, rig.metrics) as other,
        joined_front(rig.engine, rig.metrics, ready=False, relay=relay) as front,
    ):
        front.metrics._outbox.frame.ready = True
        broken, served = ask(front), ask(other)
        for prompt, listener in zip(PROMPTS, served, strict=True):
            assert isinstance(await listener.wait(), Finish)
            assert listener.tokens == expected_tokens(prompt, TOKENS, MODEL)
        ends = asyncio.gather(*(listener.wait() for listener in broken))
        lost = asyncio.ensure_future(front.lost.wait())
        await asyncio.wait(
            {ends, lost}, timeout=0.5 if relay.fault and relay.fault.kind == "stall" else 30,
            return_when=asyncio.FIRST_COMPLETED,
        )  # fmt: skip
        well = ends.done()
        for task in (ends, lost):
            task.cancel()
        for prompt, listener in zip(PROMPTS, broken, strict=True):
            expected = expected_tokens(prompt, TOKENS, MODEL)
            assert listener.tokens == expected[: len(listener.tokens)]
        front.front_frames.abort()  # what the end of its process does
        async with asyncio.timeout(30):
            while rig.scheduler.running or rig.scheduler.waiting or not rig.scheduler.idle:
                await asyncio.sleep(0.005)
    rig.scheduler.check_integrity()
    assert rig.scheduler.blocks.used == 0 and not rig.engine.trouble
    return well


@pytest.mark.parametrize("up", [True, False], ids=["to the router", "to the front"])
@pytest.mark.parametrize("kind", ["drop", "truncate", "stall", "delay"])
async def test_at_every_frame(tmp_path: Path, kind: str, up: bool) -> None:
    async with running_engine(tmp_path, model=MODEL) as rig:
        clean = Relay(prefixed)
        assert await conversation(rig, clean)
        frames = range(1, clean.seen[up] + 1)
        outcomes = [await conversation(rig, Relay(prefixed, Fault(kind, n, up))) for n in frames]
        assert all(outcomes) if kind == "delay" else not all(outcomes)
        assert isinstance(await one_more(rig), Finish)


async def one_more(rig: Rig) -> object:
    listener = Recorder()
    rig.engine.submit(GenerationRequest((1, 2), 5), listener)
    return await listener.wait()
