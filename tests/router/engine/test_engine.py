"""The engine against shards that check every command and every cached block."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import math
import random
import time

import pytest

from penstock_router import shard_client
from penstock_router.request import (
    Aborted,
    Draining,
    Finish,
    FinishReason,
    GenerationFailed,
    GenerationRequest,
    Sampling,
    ShuttingDown,
)
from support.fake_model import mix, rank_of
from support.fake_shard import FakeModelConfig, Fault, expected_tokens

TINY = FakeModelConfig(num_blocks=16, block_size=4, vocab_size=500)


def prompts(count: int, longest: int, seed: int) -> list[tuple[int, ...]]:
    """Prompts that share prefixes, because they start alike."""
    rng = random.Random(seed)
    stem = [rng.randrange(500) for _ in range(longest)]
    return [
        (*stem[: rng.randrange(longest // 2)], *(rng.randrange(500) for _ in range(3)))
        for _ in range(count)
    ]


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("model", [None, TINY], ids=["roomy", "tiny pool"])
async def test_every_request_gets_its_own_tokens(engine_rig, recorder, ranks, model):
    async with engine_rig(ranks=ranks, model=model) as rig:
        pairs = []
        for prompt in prompts(40, 30, seed=ranks):
            listener = recorder()
            rig.engine.submit(GenerationRequest(prompt, max_new_tokens=20), listener)
            pairs.append((prompt, listener))
            if len(pairs) % 7 == 0:
                await asyncio.sleep(0.005)
        for prompt, listener in pairs:
            end = await listener.wait()
            assert isinstance(end, Finish) and end.reason is FinishReason.LENGTH
            assert listener.tokens == expected_tokens(prompt, 20, rig.model)
        assert rig.scheduler.idle and rig.scheduler.blocks.used == 0
        rig.scheduler.check_integrity()
        if model is TINY:
            assert rig.scheduler.preemptions > 0


async def test_eos_ends_a_sequence_unless_it_is_to_be_ignored(engine_rig, recorder):
    model = FakeModelConfig(num_blocks=64, block_size=4, vocab_size=500, eos_token=7, eos_every=9)
    async with engine_rig(model=model) as rig:
        stopping, going_on = recorder(), recorder()
        prompt = (1, 2, 3)
        expected = expected_tokens(prompt, 100, model)
        assert expected[-1] == 7
        rig.engine.submit(GenerationRequest(prompt, 100), stopping)
        rig.engine.submit(GenerationRequest(prompt, 100, ignore_eos=True), going_on)
        assert (await stopping.wait()).reason is FinishReason.EOS
        assert stopping.tokens == expected
        assert (await going_on.wait()).reason is FinishReason.LENGTH
        assert len(going_on.tokens) == 100 and going_on.tokens[: len(expected)] == expected


async def test_a_listener_ends_its_sequence(engine_rig, recorder):
    async with engine_rig() as rig:
        listener = recorder(stop_after=3)
        rig.engine.submit(GenerationRequest((5, 6), 50), listener)
        end = await listener.wait()
        assert end.reason is FinishReason.STOP and end.generated_tokens == 3
        await asyncio.sleep(0.05)
        assert len(listener.tokens) == 3
        assert rig.scheduler.blocks.used == 0


async def test_cancel_is_silent_idempotent_and_frees_the_blocks(engine_rig, recorder):
    async with engine_rig(step_seconds=0.002) as rig:
        gone, stays = recorder(), recorder()
        number = rig.engine.submit(GenerationRequest((1, 2, 3), 200), gone)
        rig.engine.submit(GenerationRequest((9, 8, 7), 40), stays)
        while len(gone.tokens) < 5:
            await asyncio.sleep(0.002)
        rig.engine.cancel(number)
        heard = len(gone.tokens)
        rig.engine.cancel(number)
        await stays.wait()
        assert stays.tokens == expected_tokens((9, 8, 7), 40, rig.model)
        assert len(gone.tokens) == heard and gone.end is None
        assert rig.scheduler.blocks.used == 0
        rig.engine.cancel(number)


async def test_prompt_logprobs_cover_the_prompt_whatever_its_chunks(engine_rig, recorder):
    async with engine_rig(max_batch_prefill_tokens=5) as rig:
        warm, asking = recorder(), recorder()
        prompt = tuple(range(20, 43))
        rig.engine.submit(GenerationRequest(prompt, 2), warm)
        await warm.wait()
        sampling = Sampling(logprobs=True, top_n=2)
        rig.engine.submit(
            GenerationRequest(prompt, 3, sampling=sampling, prompt_logprobs=True, prompt_top_n=3),
            asking,
        )
        end = await asking.wait()
        assert end.cached_tokens == 0
        assert len(asking.prompt_logprobs) == len(prompt) and asking.prompt_logprobs[0] is None
        assert all(value < 0 for value in asking.prompt_logprobs[1:])
        assert len(asking.logprobs) == 3 and all(len(top) == 2 for top in asking.tops)
        assert asking.prompt_tops[0] == () and len(asking.prompt_tops) == len(prompt)
        places = zip(prompt, asking.prompt_logprobs, asking.prompt_tops, strict=True)
        for token, value, top in list(places)[1:]:
            assert len(top) == 3 and dict(top)[token] == value


async def test_ranks_are_those_of_each_sequence_and_place(engine_rig, recorder):
    sampling = Sampling(logprobs=True)
    requests = [
        GenerationRequest(prompt, 6, sampling=sampling, prompt_logprobs=True)
        for prompt in ((7, 8, 9, 10, 11, 12, 13), (7, 8, 9), (30, 31, 32, 33))
    ]
    async with engine_rig(max_batch_prefill_tokens=5) as rig:
        asking = [recorder() for _ in requests]
        for request, listener in zip(requests, asking, strict=True):
            rig.engine.submit(request, listener)
        for request, listener in zip(requests, asking, strict=True):
            await listener.wait()
            tokens = [*request.prompt, *listener.tokens]
            hashes = itertools.accumulate(tokens[:-1], mix, initial=0)
            ranks = [rank_of(*pair) for pair in zip(hashes, tokens, strict=True)]
            length = len(request.prompt)
            assert listener.prompt_ranks == [0, *ranks[1:length]]
            assert listener.ranks == ranks[length:] and len(listener.tokens) == 6


async def test_a_scored_prompt_takes_the_cached_prefix_up_to_where_scores_begin(
    engine_rig, recorder
):
    async with engine_rig() as rig:
        warm, asking, burst = recorder(), recorder(), [recorder() for _ in range(6)]
        prefix = tuple(range(20, 41))
        rig.engine.submit(GenerationRequest(prefix, 0), warm)
        await warm.wait()
        sampling = Sampling(given=(7, 9))
        request = GenerationRequest(
            (*prefix, 50, 51), 0, sampling, prompt_logprobs=True, prompt_logprobs_start=18
        )
        rig.engine.submit(request, asking)
        assert (await asking.wait()).cached_tokens == 18
        assert [value is None for value in asking.prompt_logprobs] == [True] * 19 + [False] * 4
        tops = [[token for token, _ in top] for top in asking.prompt_tops]
        assert tops == [[]] * 19 + [[7, 9]] * 4
        # Those that come together compute what they have in common once.
        rig.engine.submit(GenerationRequest((1,), 0), recorder())
        for index, listener in enumerate(burst):
            prompt = (*range(100, 120), 50 + index)
            rig.engine.submit(dataclasses.replace(request, prompt=prompt), listener)
        ends = [await listener.wait() for listener in burst]
        assert sorted(end.cached_tokens for end in ends) == [0] + [18] * 5


async def test_the_prefix_cache_is_emptied_when_nothing_runs(engine_rig, recorder):
    async with engine_rig() as rig:
        prompt = tuple(range(30))
        first, again = recorder(), recorder()
        rig.engine.submit(GenerationRequest(prompt, 4), first)
        assert not rig.engine.flush_cache()
        await first.wait()
        while not rig.scheduler.idle:
            await asyncio.sleep(0)
        assert rig.scheduler.blocks.cache.size
        assert rig.engine.flush_cache()
        rig.scheduler.check_integrity()
        assert not rig.scheduler.blocks.cache.size
        rig.engine.submit(GenerationRequest(prompt, 4), again)
        assert (await again.wait()).cached_tokens == 0
        assert first.tokens == again.tokens


async def test_requests_are_aborted_by_name(engine_rig, recorder):
    async with engine_rig() as rig:
        names = ("a", "a_0", "a_0_1", "ab", "")
        listeners = {name: recorder() for name in names}
        for name, listener in listeners.items():
            rig.engine.submit(GenerationRequest((1, 2, 3), 60, name=name), listener)
        rig.engine.abort("a")
        for name, listener in listeners.items():
            assert isinstance(listener.end, Aborted) == name.startswith("a") * (name != "ab"), name
        rig.engine.abort(None)
        assert isinstance(listeners["ab"].end, Aborted) and isinstance(listeners[""].end, Aborted)
        rig.engine.abort(None)
        assert rig.scheduler.blocks.used == 0


async def test_only_a_prompt_is_computed(engine_rig, recorder):
    """No token, no figure of one, nothing left; with others that generate, and in chunks."""
    async with engine_rig(max_batch_prefill_tokens=5) as rig:
        prompt = tuple(range(20, 43))
        listeners = [recorder() for _ in range(4)]
        for index, listener in enumerate(listeners):
            request = GenerationRequest(
                (index, *prompt), 6 * (index % 2), prompt_logprobs=index < 2, prompt_top_n=1
            )
            rig.engine.submit(request, listener)
        ends = [await listener.wait() for listener in listeners]
        assert [len(listener.tokens) for listener in listeners] == [0, 6, 0, 6]
        assert [end.generated_tokens for end in ends] == [0, 6, 0, 6]
        assert all(end.reason is FinishReason.LENGTH for end in ends)
        assert len(listeners[0].prompt_logprobs) == len(listeners[0].prompt_tops) == 24
        assert listeners[2].prompt_logprobs is None
        assert rig.scheduler.idle and rig.scheduler.blocks.used == 0


async def test_a_sequence_ends_when_its_time_is_up(engine_rig, recorder):
    """With the token that comes then; others go on."""
    async with engine_rig(step_seconds=0.02) as rig:
        hurried, patient = recorder(), recorder()
        rig.engine.submit(GenerationRequest((1, 2, 3), 200, max_time=0.3), hurried)
        rig.engine.submit(GenerationRequest((4, 5, 6), 40, max_time=600.0), patient)
        end = await hurried.wait()
        assert end.reason is FinishReason.LENGTH
        assert 1 <= end.generated_tokens == len(hurried.tokens) < 200
        assert hurried.tokens == expected_tokens((1, 2, 3), end.generated_tokens, rig.model)
        assert end.total_seconds >= 0.3
        assert (await patient.wait()).generated_tokens == 40
        assert rig.scheduler.idle and rig.scheduler.blocks.used == 0
        assert not rig.engine._deadlines._alarms and not rig.engine._deadlines.passed


async def test_time_is_up_in_the_queue(engine_rig, recorder):
    """Nothing of it was computed: the answer is empty."""
    async with engine_rig(step_seconds=0.02, max_batch_size=1) as rig:
        running, waiting = recorder(), recorder()
        rig.engine.submit(GenerationRequest((1, 2, 3), 60), running)
        rig.engine.submit(
            GenerationRequest((4, 5, 6), 5, max_time=0.1, prompt_logprobs=True), waiting
        )
        end = await waiting.wait()
        assert (end.reason, end.generated_tokens, waiting.tokens) == (FinishReason.LENGTH, 0, [])
        assert end.queue_seconds == end.total_seconds >= 0.1
        assert running.end is None
        assert (await running.wait()).generated_tokens == 60
        assert rig.scheduler.idle


async def test_cached_tokens_are_reported(engine_rig, recorder):
    async with engine_rig() as rig:
        first, again = recorder(), recorder()
        prompt = tuple(range(30))
        rig.engine.submit(GenerationRequest(prompt, 4), first)
        assert (await first.wait()).cached_tokens == 0
        rig.engine.submit(GenerationRequest(prompt, 4), again)
        assert (await again.wait()).cached_tokens == 29
        assert first.tokens == again.tokens


@pytest.mark.parametrize("kind", ["internal", "out_of_memory", "close"])
@pytest.mark.parametrize("step", range(1, 9))
async def test_a_failing_step_ends_every_request_with_an_error(engine_rig, recorder, kind, step):
    rank = step % 2
    fault = Fault(kind, step)
    async with engine_rig(ranks=2, fault=fault, faulty_rank=rank, grant_seconds=0) as rig:
        listeners = [recorder() for _ in range(12)]
        for prompt, listener in zip(prompts(12, 30, seed=3), listeners, strict=True):
            rig.engine.submit(GenerationRequest(prompt, 30), listener)
        for listener in listeners:
            end = await listener.wait()
            assert isinstance(end, GenerationFailed)
            assert f"shard {rank}" in str(end)
            assert kind == "close" or f"injected {kind} at step {step}" in str(end)
        assert rig.engine.failed.done() and rig.engine.trouble
        with pytest.raises(GenerationFailed):
            rig.engine.submit(GenerationRequest((1,), 1), recorder())
        rig.scheduler.check_integrity()
        assert rig.scheduler.blocks.used == 0


async def test_a_hung_step_is_noticed(engine_rig, recorder):
    async with engine_rig(fault=Fault("hang", 3), step_timeout=0.3) as rig:
        listener, asked = recorder(), []
        rig.engine.health.on_overdue = lambda: asked.append(rig.engine.trouble)
        rig.engine.submit(GenerationRequest((1, 2), 30), listener)
        end = await listener.wait()
        assert isinstance(end, GenerationFailed) and "no result of step" in str(end)
        assert "(--step-timeout)" in str(end)
        assert len(asked) == 2, "stacks when the step is late, and before it is given up"


async def test_a_loop_that_stood_still_blames_nobody(engine_rig, recorder):
    """C1b: a result may wait for the loop as long as it takes."""
    async with engine_rig(step_timeout=0.3, step_seconds=0.01) as rig:
        listener = recorder()
        rig.engine.submit(GenerationRequest((1, 2), 60), listener)
        for heard in (5, 20, 35):
            while len(listener.tokens) < heard and listener.end is None:
                await asyncio.sleep(0.005)
            time.sleep(0.8)
        assert isinstance(await listener.wait(), Finish)
        assert len(listener.tokens) == 60 and not rig.engine.trouble


async def test_a_silent_shard_is_found_by_a_loop_that_is_late(engine_rig, recorder):
    """C1b: discounting its own lag does not make the watchdog blind."""
    async with engine_rig(fault=Fault("hang", 3), step_timeout=0.3) as rig:
        listener = recorder()
        rig.engine.submit(GenerationRequest((1, 2), 30), listener)
        begun = time.monotonic()
        while listener.end is None and time.monotonic() - begun < 20:
            await asyncio.sleep(0.005)
            time.sleep(0.05)
        assert isinstance(listener.end, GenerationFailed)
        assert rig.metrics.loop_lag._sum > 0.1


async def test_L7_a_failure_ends_a_drain(engine_rig, recorder):
    """Nothing is left to wait for."""
    async with engine_rig(fault=Fault("internal", 9), step_seconds=0.005) as rig:
        listener = recorder()
        rig.engine.submit(GenerationRequest((1, 2), 40), listener)
        async with asyncio.timeout(60):
            await rig.engine.drain(60)
        assert isinstance(listener.end, GenerationFailed)
        assert "injected internal at step 9" in rig.engine.trouble


@pytest.mark.parametrize("busy", [False, True])
async def test_a_shard_that_does_not_answer_is_not_ready(engine_rig, recorder, monkeypatch, busy):
    """M4: found within seconds, idle or in a step, and ready again when it answers."""
    monkeypatch.setattr(shard_client, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(shard_client, "PROBE_TIMEOUT", 0.1)
    async with engine_rig(ranks=2, fault=Fault("hang", 3) if busy else None) as rig:
        heard = []
        rig.engine.health.on_trouble = heard.append
        rig.engine.submit(GenerationRequest((1, 2), 30), recorder())
        await asyncio.sleep(0.5)
        assert not rig.engine.trouble
        rig.shards[1].deaf = True
        async with asyncio.timeout(60):
            while not rig.engine.trouble:
                await asyncio.sleep(0.01)
        assert rig.engine.trouble == "no answer from shard 1"
        rig.shards[1].deaf = False
        async with asyncio.timeout(60):
            while rig.engine.trouble:
                await asyncio.sleep(0.01)
        assert heard == ["no answer from shard 1", ""]


async def test_a_hung_step_names_the_shard_that_does_not_answer(engine_rig, recorder, monkeypatch):
    """The last line of the log is all that many read of it."""
    monkeypatch.setattr(shard_client, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(shard_client, "PROBE_TIMEOUT", 0.1)
    async with engine_rig(ranks=2, fault=Fault("hang", 3), step_timeout=1.0) as rig:
        monkeypatch.setattr(rig.engine.health, "step_timeout", math.inf)
        listener = recorder()
        rig.engine.submit(GenerationRequest((1, 2), 30), listener)
        rig.shards[1].deaf = True
        async with asyncio.timeout(60):
            while "no answer from" not in rig.engine.trouble:
                await asyncio.sleep(0.01)
        monkeypatch.setattr(rig.engine.health, "step_timeout", 0.0)
        assert str(await listener.wait()).endswith(" s (--step-timeout); no answer from shard 1")


async def test_an_idle_engine_is_not_taken_for_a_hung_one(engine_rig, recorder):
    async with engine_rig(step_timeout=0.2) as rig:
        await asyncio.sleep(1.2)
        listener = recorder()
        rig.engine.submit(GenerationRequest((1, 2), 5), listener)
        assert isinstance(await listener.wait(), Finish)
        assert not rig.engine.trouble


async def test_drain_lets_requests_end_and_takes_no_more(engine_rig, recorder):
    async with engine_rig(step_seconds=0.001) as rig:
        listener = recorder()
        rig.engine.submit(GenerationRequest((1, 2), 40), listener)
        drained = asyncio.create_task(rig.engine.drain(30))
        await asyncio.sleep(0)
        with pytest.raises(Draining):
            rig.engine.submit(GenerationRequest((1,), 1), recorder())
        assert await drained
        assert len(listener.tokens) == 40 and isinstance(listener.end, Finish)


async def test_drain_gives_up_after_its_time(engine_rig, recorder):
    async with engine_rig(step_seconds=0.01) as rig:
        listener = recorder()
        rig.engine.submit(GenerationRequest((1, 2), 200), listener)
        assert not await rig.engine.drain(0.1)
        assert isinstance(listener.end, ShuttingDown)


async def test_a_step_that_takes_far_too_long_is_not_ready(engine_rig, recorder):
    """Readiness goes long before the step is called dead."""
    async with engine_rig(fault=Fault("hang", 3), step_timeout=2.0) as rig:
        heard = []
        rig.engine.health.on_trouble = heard.append
        listener = recorder()
        rig.engine.submit(GenerationRequest((1, 2), 30), listener)
        async with asyncio.timeout(60):
            while not rig.engine.trouble:
                await asyncio.sleep(0.01)
        assert listener.end is None and "no result of step 3" in heard[0]
        await listener.wait()
        assert rig.engine.failed.done()


async def test_a_late_step_that_comes_makes_the_server_ready_again(engine_rig, recorder):
    async with engine_rig(step_seconds=0.5, step_timeout=1.2) as rig:
        heard = []
        rig.engine.health.on_trouble = heard.append
        listener = recorder()
        rig.engine.submit(GenerationRequest((1, 2), 1), listener)
        assert isinstance(await listener.wait(), Finish)
        assert len(heard) == 2 and "no result of step" in heard[0] and heard[1] == ""
