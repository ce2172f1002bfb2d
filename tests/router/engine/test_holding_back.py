"""When commands are sent: the second one under way is held back behind a long step."""

from __future__ import annotations

import asyncio

import pytest

from penstock_proto.shard_pb2 import StepCommand
from penstock_router.pace import Pace
from penstock_router.request import Finish, GenerationFailed, GenerationRequest
from penstock_router.shard_client import ShardGroup
from support.fake_shard import FakeModelConfig, Fault, expected_tokens

TINY = FakeModelConfig(num_blocks=16, block_size=4, vocab_size=500)
FOR_EVER = 3600.0


@pytest.fixture
def sent(monkeypatch) -> list[int]:
    """The steps of all commands that were sent."""
    steps: list[int] = []
    send = ShardGroup.send

    def watched(group: ShardGroup, command: StepCommand) -> None:
        steps.append(command.step)
        send(group, command)

    monkeypatch.setattr(ShardGroup, "send", watched)
    return steps


@pytest.fixture
def slack(monkeypatch):
    """`slack(step -> seconds)`: what is expected of steps, whatever they take."""

    def expect(seconds) -> None:
        monkeypatch.setattr(Pace, "slack", lambda self, plan: seconds(plan.step))

    return expect


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def second_begins(rig, recorder) -> int:
    """Submits a second request with the fifth token of a first one, when a step has just begun.

    Returns how many tokens the first one had when the second one's first came.
    """
    first, second = recorder(), recorder()
    hear = first.token

    def token(*values) -> bool:
        stop = hear(*values)
        if len(first.tokens) == 5:
            rig.engine.submit(GenerationRequest((7, 8), 3), second)
        return stop

    first.token = token
    number = rig.engine.submit(GenerationRequest((1, 2, 3), 100), first)
    await until(lambda: second.tokens)
    rig.engine.cancel(number)
    assert isinstance(await second.wait(), Finish)
    return len(first.tokens)


async def test_an_arrival_behind_a_long_step_begins_with_the_next_one(engine_rig, recorder):
    """Learned from the shard: 150 ms a step, of which a new command has 112 ms to come."""
    async with engine_rig(step_seconds=0.15) as rig:
        assert await second_begins(rig, recorder) == 5 + 2  # the step that runs, and its own


async def test_behind_a_short_step_the_next_command_waits_on_the_device(engine_rig, recorder):
    async with engine_rig(step_seconds=0.005, grant_seconds=0) as rig:
        assert await second_begins(rig, recorder) == 5 + 3


async def test_a_command_held_back_is_sent_before_the_step_ends(engine_rig, recorder, sent, slack):
    slack(lambda step: 0.02)
    async with engine_rig(step_seconds=0.5) as rig:
        listener = recorder()
        rig.engine.submit(GenerationRequest((1, 2), 3), listener)
        await until(lambda: sent)
        await asyncio.sleep(0)
        assert sent == [1]
        await until(lambda: len(sent) == 2)
        assert not listener.tokens  # so nothing but the alarm sent it
        await listener.wait()


async def test_an_alarm_for_a_step_that_ended_early_delays_no_other(
    engine_rig, recorder, sent, slack
):
    slack(lambda step: FOR_EVER if step == 2 else 0.02)
    async with engine_rig(step_seconds=0.3) as rig:
        listener = recorder()
        rig.engine.submit(GenerationRequest((1, 2), 5), listener)
        await until(lambda: len(listener.tokens) == 2)
        assert sent == [1, 2, 3]  # the third with the result of the second
        await until(lambda: len(sent) == 4)
        assert len(listener.tokens) == 2
        await listener.wait()


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("seconds", [0.002, FOR_EVER])
async def test_whatever_is_expected_every_request_gets_its_tokens(
    engine_rig, recorder, slack, ranks, seconds
):
    """Alarms in the midst of steps, or none in time; with preemptions, ends and more arrivals."""
    slack(lambda step: seconds)
    async with engine_rig(ranks=ranks, model=TINY, step_seconds=0.001) as rig:
        pairs, gone = [], []
        for index in range(24):
            prompt, listener = (1, 2, 3, index, index + 1), recorder()
            number = rig.engine.submit(GenerationRequest(prompt, 12), listener)
            if index % 6 == 5:
                gone.append(number)
            else:
                pairs.append((prompt, listener))
            if index % 4 == 3:
                await asyncio.sleep(0.004)
                for number in gone:
                    rig.engine.cancel(number)
        for prompt, listener in pairs:
            assert isinstance(await listener.wait(), Finish)
            assert listener.tokens == expected_tokens(prompt, 12, TINY)
        await until(lambda: rig.scheduler.idle)
        assert rig.scheduler.preemptions > 0 and rig.scheduler.blocks.used == 0
        rig.scheduler.check_integrity()


async def test_a_drain_does_not_wait_for_an_alarm(engine_rig, recorder, slack):
    slack(lambda step: FOR_EVER)
    async with engine_rig(step_seconds=0.002) as rig:
        listener = recorder()
        rig.engine.submit(GenerationRequest((1, 2), 20), listener)
        assert await rig.engine.drain(20)
        assert isinstance(listener.end, Finish)


async def test_a_step_that_hangs_is_noticed_while_a_command_is_held_back(
    engine_rig, recorder, slack
):
    slack(lambda step: FOR_EVER)
    async with engine_rig(fault=Fault("hang", 3), step_timeout=0.3, grant_seconds=0) as rig:
        listener = recorder()
        rig.engine.submit(GenerationRequest((1, 2), 30), listener)
        end = await listener.wait()
        assert isinstance(end, GenerationFailed) and "no result of step 3" in str(end)


async def test_each_step_is_learned_of_the_plan_that_made_it(
    engine_rig, recorder, monkeypatch, sent
):
    learned: list[int] = []
    monkeypatch.setattr(Pace, "learn", lambda self, plan, seconds: learned.append(plan.step))
    async with engine_rig(step_seconds=0.002, grant_seconds=0) as rig:
        listener = recorder()
        rig.engine.submit(GenerationRequest((1, 2), 6), listener)
        assert isinstance(await listener.wait(), Finish)
        assert learned == list(range(1, 7))
        assert sent[: len(learned)] == learned
