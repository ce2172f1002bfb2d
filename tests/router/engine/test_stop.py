"""Ends that come from outside: the text was complete some tokens ago."""

from __future__ import annotations

import asyncio

from penstock_router.request import FinishReason, GenerationRequest
from penstock_router.scheduler.sequence import State
from support.fake_shard import FakeModelConfig, expected_tokens

TINY = FakeModelConfig(num_blocks=16, block_size=4, vocab_size=500)


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.002)


def counted(metrics, name: str) -> float:
    rows = metrics.render().decode().splitlines()
    return float(next(row for row in rows if row.startswith(name + " ")).rsplit(" ", 1)[1])


async def test_stop_ends_a_sequence_with_the_count_it_is_given(engine_rig, recorder):
    """Though more was generated; others go on, and the blocks are free for them."""
    async with engine_rig(step_seconds=0.002) as rig:
        stopped, stays = recorder(), recorder()
        number = rig.engine.submit(GenerationRequest((1, 2, 3), 200), stopped)
        rig.engine.submit(GenerationRequest((9, 8, 7), 40), stays)
        await until(lambda: len(stopped.tokens) >= 5)
        rig.engine.stop(number, 3)
        end, heard = stopped.end, len(stopped.tokens)
        assert (end.reason, end.generated_tokens) == (FinishReason.STOP, 3)
        assert 0 <= end.queue_seconds <= end.first_token_seconds <= end.total_seconds
        rig.engine.stop(number, 4)  # the recorder would not bear a second end
        rig.engine.cancel(number)
        await stays.wait()
        assert stays.tokens == expected_tokens((9, 8, 7), 40, rig.model)
        assert len(stopped.tokens) == heard
        assert counted(rig.metrics, "tgi_request_generated_tokens_count") == 2
        assert counted(rig.metrics, "tgi_request_generated_tokens_sum") == 3 + 40
        assert counted(rig.metrics, "tgi_request_inference_duration_count") == 2
        assert rig.scheduler.idle and rig.scheduler.blocks.used == 0
        rig.scheduler.check_integrity()


async def test_stop_after_the_end_is_harmless(engine_rig, recorder):
    async with engine_rig(step_seconds=0.001) as rig:
        ended, cancelled = recorder(), recorder()
        one = rig.engine.submit(GenerationRequest((1, 2), 4), ended)
        other = rig.engine.submit(GenerationRequest((3, 4), 100), cancelled)
        await ended.wait()
        rig.engine.stop(one, 2)
        assert (ended.end.reason, ended.end.generated_tokens) == (FinishReason.LENGTH, 4)
        await until(lambda: cancelled.tokens)
        rig.engine.cancel(other)
        rig.engine.stop(other, 1)
        rig.engine.stop(12345, 1)
        await asyncio.sleep(0.05)
        assert cancelled.end is None
        assert counted(rig.metrics, "tgi_request_generated_tokens_sum") == 4
        assert rig.scheduler.idle


async def test_stop_of_a_sequence_that_has_lost_its_seat(engine_rig, recorder):
    """Its text was complete before; it is told without running again."""
    async with engine_rig(model=TINY, step_seconds=0.001) as rig:
        listeners = {}
        for index in range(6):
            listener = recorder()
            request = GenerationRequest((index + 1, index + 2), 40)
            listeners[rig.engine.submit(request, listener)] = listener

        def waiting() -> list[int]:
            sequences = rig.scheduler._lifecycle.sequences
            return [n for n, s in sequences.items() if s.state is State.WAITING and s.generated]

        await until(waiting)
        number = waiting()[0]
        rig.engine.stop(number, 1)
        end = listeners.pop(number).end
        assert (end.reason, end.generated_tokens) == (FinishReason.STOP, 1)
        for other, listener in listeners.items():
            assert (await listener.wait()).reason is FinishReason.LENGTH, other
        assert rig.scheduler.preemptions > 0
        assert rig.scheduler.idle and rig.scheduler.blocks.used == 0
        rig.scheduler.check_integrity()
        assert counted(rig.metrics, "tgi_request_generated_tokens_sum") == 1 + 5 * 40


async def test_a_drain_ends_with_the_last_stop(engine_rig, recorder):
    async with engine_rig(step_seconds=0.005) as rig:
        listener = recorder()
        number = rig.engine.submit(GenerationRequest((1, 2), 200), listener)
        drained = asyncio.create_task(rig.engine.drain(30))
        await until(lambda: len(listener.tokens) >= 2)
        rig.engine.stop(number, 2)
        assert await asyncio.wait_for(drained, 60)
        assert listener.end.reason is FinishReason.STOP
