"""AsyncLLM: outputs as they come, for many tasks of one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from client.conftest import DEMO
from penstock import AsyncLLM, RequestOutput, RequestOutputKind, SamplingParams, ServerError

pytestmark = pytest.mark.asyncio(loop_scope="module")
PROMPT = "What is the capital of France?"
CUMULATIVE, DELTA, FINAL_ONLY = RequestOutputKind


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncLLM]:
    options = {"shard_uds_path": tmp_path_factory.mktemp("async") / "run", "device": "cpu"}
    llm = await AsyncLLM.create(DEMO, max_num_seqs=4, quiet=True, launcher_options=options)
    with llm:
        yield llm


def params(kind: RequestOutputKind, **fields: object) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=12, output_kind=kind, **fields)  # type: ignore[arg-type]


async def outputs(engine: AsyncLLM, sampling: SamplingParams) -> list[RequestOutput]:
    return [output async for output in engine.generate(PROMPT, sampling)]


async def test_kinds_of_outputs_say_the_same(engine: AsyncLLM) -> None:
    [final] = await outputs(engine, params(FINAL_ONLY, logprobs=1))
    cumulative = await outputs(engine, params(CUMULATIVE, logprobs=1))
    deltas = await outputs(engine, params(DELTA, logprobs=1))
    whole = final.outputs[0]
    assert final.finished and len(cumulative) > 2 and len(deltas) > 2
    assert cumulative[-1].outputs[0] == whole
    assert [o.finished for o in deltas] == [False] * (len(deltas) - 1) + [True]
    pieces = [output.outputs[0] for output in deltas]
    assert "".join(piece.text for piece in pieces) == whole.text
    assert [token for piece in pieces for token in piece.token_ids] == whole.token_ids
    assert [place for piece in pieces for place in piece.logprobs or ()] == whole.logprobs
    lengths = [len(output.outputs[0].token_ids) for output in cumulative]
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1]
    assert cumulative[0].prompt_token_ids == final.prompt_token_ids
    assert final.prompt == PROMPT


async def test_several_sequences_and_the_best(engine: AsyncLLM) -> None:
    sampling = SamplingParams(n=3, seed=1, max_tokens=6, output_kind=CUMULATIVE)
    *_, last = await outputs(engine, sampling)
    assert [one.index for one in last.outputs] == [0, 1, 2] and last.finished
    best = SamplingParams(n=1, best_of=3, seed=1, max_tokens=6, logprobs=0)
    [output] = await outputs(engine, best)
    assert len(output.outputs) == 1


async def test_many_at_once(engine: AsyncLLM) -> None:
    async def last(number: int) -> str:
        sampling = SamplingParams(temperature=0, max_tokens=4)
        *_, output = [o async for o in engine.generate(f"{number} plus", sampling, str(number))]
        assert output.request_id == str(number)
        return str(output.prompt)

    names = await asyncio.gather(*map(last, range(60)))
    assert names == [f"{number} plus" for number in range(60)]


async def test_conversations(engine: AsyncLLM) -> None:
    talk = [{"role": "user", "content": "Hello"}]
    deltas = [o async for o in engine.chat(talk, params(DELTA))]
    assert "".join(o.outputs[0].text for o in deltas).startswith("Hello")
    assert "<|user|>Hello" in str(deltas[0].prompt)


async def test_errors_are_raised_where_the_outputs_are_read(engine: AsyncLLM) -> None:
    for sampling, sentence in (
        (SamplingParams(top_p=2.0), "`top_p`"),
        (SamplingParams(stop_token_ids=[99_999]), "`stop_token_ids`"),
    ):
        with pytest.raises(ValueError, match=sentence):
            await outputs(engine, sampling)
    with pytest.raises(ValueError, match="must have less than"):
        async for _ in engine.generate("word " * 5000):
            pass
    assert await outputs(engine, params(FINAL_ONLY))


async def blocks_are_free(engine: AsyncLLM) -> bool:
    """Nothing runs in the server, and no block of its cache is a sequence's."""
    page = await asyncio.to_thread(engine.call, "/metrics", None)
    lines = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    return float(lines["tgi_batch_current_size"]) == 0 == float(lines["tgi_queue_size"])


@pytest.mark.parametrize("how", ["break", "cancel", "abort"])
async def test_what_is_left_runs_no_more(engine: AsyncLLM, how: str) -> None:
    long = SamplingParams(temperature=0, max_tokens=1500, ignore_eos=True, output_kind=DELTA)
    if how == "break":
        stream = engine.generate(PROMPT, long)
        async for _ in stream:
            break
        await stream.aclose()
    else:
        begun = asyncio.Event()

        async def read() -> int:
            count = 0
            async for _ in engine.generate(PROMPT, long, "mine"):
                begun.set()
                count += 1
            return count

        task = asyncio.create_task(read())
        await asyncio.wait_for(begun.wait(), 60)
        if how == "abort":
            await engine.abort("mine")
            assert await task < 1500
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert not engine._running
    for _ in range(100):
        if await blocks_are_free(engine):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it runs on")


@pytest.mark.full
async def test_a_server_that_is_gone_is_an_error(tmp_path: Path) -> None:
    options = {"shard_uds_path": tmp_path / "run", "device": "cpu"}
    llm = await AsyncLLM.create(DEMO, quiet=True, launcher_options=options)
    with llm:
        long = SamplingParams(max_tokens=1500, ignore_eos=True, output_kind=DELTA)
        with pytest.raises(ServerError, match="SIGKILL|SIGTERM|ended"):
            async for output in llm.generate(PROMPT, long):
                if output.outputs[0].token_ids:
                    llm.server.process.kill()
        with pytest.raises(ServerError):
            await outputs(llm, long)
