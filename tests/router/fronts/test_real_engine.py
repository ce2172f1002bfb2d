"""Fronts of the real engine, over shards that check every command: tokens, counts, blocks."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

import pytest

from penstock_router.request import Finish, FinishReason, GenerationRequest
from router.engine.conftest import Recorder, running_engine
from support.fake_shard import FakeModelConfig, expected_tokens
from support.joined_front import joined_front

MODEL = FakeModelConfig(num_blocks=24, block_size=4, vocab_size=500, eos_token=7, eos_every=40)


def metric(text: str, name: str) -> float:
    row = next(row for row in text.splitlines() if row.startswith(name + " "))
    return float(row.rsplit(" ", 1)[1])


@pytest.mark.parametrize("seed", range(4))
async def test_two_fronts_of_one_engine(tmp_path: Path, seed: int) -> None:
    """Stops, cancels, preemptions and ends of every kind at once."""
    rng = random.Random(seed)
    async with contextlib.AsyncExitStack() as stack:
        rig = await stack.enter_async_context(
            running_engine(tmp_path, model=MODEL, step_seconds=0.0005)
        )
        fronts = [
            await stack.enter_async_context(joined_front(rig.engine, rig.metrics)) for _ in range(2)
        ]
        asked, cancelled = [], 0
        for index in range(60):
            front = rng.choice(fronts)
            prompt = tuple(rng.randrange(8, 500) for _ in range(rng.randint(1, 9)))
            length, stop_after = rng.randint(1, 40), rng.choice([None, 1, 2, 7])
            listener = Recorder(stop_after=stop_after)
            number = front.engine.submit(GenerationRequest(prompt, length), listener)
            if index % 6 == 5:
                await asyncio.sleep(rng.random() * 0.01)
                if listener.end is None:
                    front.engine.cancel(number)
                    heard = len(listener.tokens)
                    asked.append((prompt, length, heard, listener, True))
                    cancelled += 1
                    continue
            asked.append((prompt, length, stop_after, listener, False))
        ends: dict[FinishReason, int] = {}
        least = 0
        for prompt, length, bound, listener, left in asked:
            expected = expected_tokens(prompt, length, rig.model)
            if left:
                assert listener.end is None
                assert listener.tokens == expected[:bound]
                continue
            end = await listener.wait()
            assert isinstance(end, Finish)
            assert listener.tokens == expected[:bound]
            assert end.generated_tokens == len(listener.tokens)
            stopped = len(listener.tokens) == bound and listener.tokens[-1] != 7
            assert (end.reason is FinishReason.STOP) == stopped
            ends[end.reason] = ends.get(end.reason, 0) + 1
            least += end.generated_tokens
        texts = [(await front.metrics.scrape()).decode() for front in fronts]
        for text in texts:
            # The engine may have been done with what its client left just then.
            assert 60 - cancelled <= metric(text, "tgi_request_generated_tokens_count") <= 60
            # A sequence that reached its length before the engine heard of its stop counts whole.
            assert metric(text, "tgi_request_generated_tokens_sum") >= least
            assert metric(text, "tgi_request_input_length_count") == 60
        assert set(ends) >= {FinishReason.STOP, FinishReason.LENGTH}
        assert all(front.entries == 0 for front in fronts)
        async with asyncio.timeout(60):
            while not rig.scheduler.idle:
                await asyncio.sleep(0.005)
        assert rig.scheduler.blocks.used == 0
        rig.scheduler.check_integrity()
