"""What an engine's callers hear of a sequence that the shards refuse, and what the others do."""

from __future__ import annotations

import asyncio
import itertools
import random
from types import SimpleNamespace

import pytest

from penstock_proto.shard_pb2 import Refusal
from penstock_router.metrics import Metrics
from penstock_router.request import Finish, GenerationFailed, GenerationRequest, Refused
from penstock_router.shard_refusals import Refusals
from support.fake_shard import FakeModelConfig, expected_tokens
from support.scheduling import Loop

MODEL = FakeModelConfig(num_blocks=64, block_size=4, vocab_size=500, nan_every=60)


def refused(rig) -> list[str]:  # type: ignore[no-untyped-def]
    return [
        line
        for line in rig.metrics.render().decode().splitlines()
        if line.startswith("penstock_refused_sequences_total{")
    ]


@pytest.mark.parametrize("ranks", [1, 2])
async def test_each_request_ends_once_and_none_ends_another(engine_rig, recorder, ranks, caplog):
    """Thirty prompts that share their beginnings: in some of them, or behind, there is NaN."""
    chance = random.Random(ranks)
    async with engine_rig(model=MODEL, ranks=ranks) as rig:
        stems = [[chance.randrange(500) for _ in range(12)] for _ in range(6)]
        prompts = [[*chance.choice(stems), chance.randrange(500)] for _ in range(30)]
        prompts[7][3] = prompts[20][0] = 500  # beyond the vocabulary
        listeners = [recorder() for _ in prompts]
        for prompt, listener in zip(prompts, listeners, strict=True):
            rig.engine.submit(GenerationRequest(prompt, 20), listener)
        ends = [await listener.wait() for listener in listeners]
        for prompt, listener, end in zip(prompts, listeners, ends, strict=True):
            assert listener.tokens == expected_tokens(prompt, 20, MODEL)
            assert isinstance(end, Finish) == (len(listener.tokens) == 20)
            if not isinstance(end, Finish):
                assert type(end) is Refused and isinstance(end, GenerationFailed)
                assert str(end) == (
                    "tokens [500], vocab_size 500" if 500 in prompt else "NaN among the logits"
                )
        failures = sum(not isinstance(end, Finish) for end in ends)
        assert 5 <= failures <= 25
        name = "penstock_refused_sequences_total"
        assert refused(rig) == [
            f'{name}{{kind="bad_admission"}} 2',
            f'{name}{{kind="not_a_number"}} {failures - 2}',
            f'{name}{{kind="grammar_failed"}} 0',
            f'{name}{{kind="out_of_memory"}} 0',
        ]
        # Once a kind, whatever comes in the next seconds.
        assert sorted(said(caplog)) == [
            ("refused by the shards: bad_admission", {"reason": "tokens [500], vocab_size 500"}),
            ("refused by the shards: not_a_number", {"reason": "NaN among the logits"}),
        ]
        assert not rig.engine.failed.done()
        rig.scheduler.check_integrity()
        assert rig.scheduler.blocks.used == 0


async def test_a_prompt_whose_log_probabilities_are_no_numbers(engine_rig, recorder):
    prompt = next([first, 1, 2] for first in range(500) if not expected_tokens([first], 1, MODEL))
    async with engine_rig(model=MODEL) as rig:
        listener = recorder()
        rig.engine.submit(GenerationRequest(prompt, 3, prompt_logprobs=True), listener)
        assert str(await listener.wait()) == "NaN among the log-probabilities"
        assert listener.prompt_logprobs is None and not listener.tokens


async def test_a_refused_sequence_has_no_time_left_to_pass(engine_rig, recorder):
    """Its alarm does not ring for what has ended."""
    loop = asyncio.get_running_loop()
    faults: list[object] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    async with engine_rig(model=MODEL) as rig:
        listener = recorder()
        rig.engine.submit(GenerationRequest([500], 3, max_time=0.05), listener)
        assert type(await listener.wait()) is Refused
        assert not rig.engine._deadlines._alarms
        await asyncio.sleep(0.1)
    assert not faults


def test_many_refusals_are_a_line_now_and_then(caplog, monkeypatch):  # type: ignore[no-untyped-def]
    clock = SimpleNamespace(monotonic=itertools.count(1000, 0.5).__next__)
    monkeypatch.setattr("penstock_router.logs.time", clock)
    refusals = Refusals(Loop().scheduler, Metrics(1, 1))
    for _ in range(50):
        refusals.note(Refusal(kind=Refusal.NOT_A_NUMBER, message="NaN"))
    line = "refused by the shards: not_a_number"
    assert said(caplog) == [
        (line, {"reason": "NaN"}),
        (line, {"reason": "NaN", "left_out": 19}),
        (line, {"reason": "NaN", "left_out": 19}),
    ]


def said(caplog) -> list[tuple[str, dict[str, object]]]:  # type: ignore[no-untyped-def]
    records = [record for record in caplog.records if "refused" in record.getMessage()]
    return [(record.getMessage(), record.fields) for record in records]


@pytest.mark.parametrize("ranks", [1, 2])
async def test_steps_that_do_not_fit_in_memory_become_smaller(engine_rig, recorder, ranks, caplog):
    """F1: their requests end with an error of their own, those that wait are served, and steps
    shrink until they fit."""
    model = FakeModelConfig(num_blocks=256, block_size=4, vocab_size=500, memory_rows=100)
    async with engine_rig(model=model, ranks=ranks, max_batch_prefill_tokens=256) as rig:
        prompts = [(first, *range(100)) for first in range(30)]
        listeners = [recorder() for _ in prompts]
        for prompt, listener in zip(prompts, listeners, strict=True):
            rig.engine.submit(GenerationRequest(prompt, 10), listener)
        ends = [await listener.wait() for listener in listeners]
        lost = [end for end in ends if not isinstance(end, Finish)]
        assert {type(end) for end in lost} <= {Refused} and len(lost) < len(ends)
        for prompt, listener, end in zip(prompts, listeners, ends, strict=True):
            expected = expected_tokens(prompt, 10, model)
            assert listener.tokens == expected[: len(listener.tokens)]
            assert isinstance(end, Finish) == (len(listener.tokens) == 10)
        assert f'penstock_refused_sequences_total{{kind="out_of_memory"}} {len(lost)}' in refused(
            rig
        )
        assert any("did not fit in memory" in record.getMessage() for record in caplog.records)
        rig.scheduler.check_integrity()
        assert rig.scheduler.idle and rig.scheduler.blocks.used == 0
        assert not rig.engine.failed.done() and not rig.engine.trouble
