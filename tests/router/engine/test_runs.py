"""The engine delivers runs of forced tokens in order, and stops within them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock_router.grammar import Grammar, GrammarKind
from penstock_router.request import Finish, FinishReason, GenerationRequest
from router.engine.conftest import Recorder, Rig, running_engine
from support.fake_shard import FakeModelConfig, expected_tokens

MODEL = FakeModelConfig(forced_every=3, eos_token=7, eos_every=40)
PROMPT = [5, 6, 7, 8]
GRAMMAR = Grammar(GrammarKind.REGEX, "a*")


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running_engine(tmp_path, model=MODEL, step_seconds=0.002) as rig:
        await rig.engine.prepare(GRAMMAR)
        yield rig


async def answered(rig: Rig, recorder: Recorder, most: int = 60) -> Finish:
    request = GenerationRequest(tuple(PROMPT), most, grammar=GRAMMAR)
    rig.engine.submit(request, recorder)
    end = await recorder.wait()
    assert isinstance(end, Finish)
    return end


async def test_runs_are_delivered_and_counted(rig: Rig) -> None:
    recorder = Recorder()
    end = await answered(rig, recorder)
    assert recorder.tokens == expected_tokens(PROMPT, 60, MODEL)
    assert end.generated_tokens == len(recorder.tokens)
    assert rig.metrics.grammars.forced_tokens.value > 10


@pytest.mark.parametrize("stop", range(1, 20, 2))
async def test_a_stop_within_a_run_ends_there(rig: Rig, stop: int) -> None:
    recorder = Recorder(stop_after=stop)
    end = await answered(rig, recorder)
    assert recorder.tokens == expected_tokens(PROMPT, 60, MODEL)[:stop]
    assert end.generated_tokens == stop and end.reason is FinishReason.STOP
