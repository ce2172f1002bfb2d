"""An engine over real gRPC to shards that check the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from penstock_proto.shard_pb2 import WarmupRequest
from penstock_router.engine import Engine
from penstock_router.limits import ServerLimits
from penstock_router.metrics import Metrics
from penstock_router.request import EngineError, Finish, TopTokens
from penstock_router.scheduler import Scheduler, SchedulerConfig
from penstock_router.shard_client import ShardGroup
from support.fake_shard import FakeModelConfig, FakeShard, FakeShardConfig, Fault, fake_shard
from support.relay import Relay, relayed


@dataclass
class Recorder:
    """A listener that writes down what it hears and insists on the order."""

    stop_after: int | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    tops: list[TopTokens] = field(default_factory=list)
    prompt_logprobs: Sequence[float | None] | None = None
    prompt_tops: Sequence[TopTokens] = ()
    ranks: list[int] = field(default_factory=list)
    prompt_ranks: Sequence[int] = ()
    end: Finish | EngineError | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def prompt(
        self, logprobs: Sequence[float | None], tops: Sequence[TopTokens], ranks: Sequence[int]
    ) -> None:
        assert not self.tokens and self.prompt_logprobs is None and self.end is None
        self.prompt_logprobs = logprobs
        self.prompt_tops = tops
        self.prompt_ranks = ranks

    def token(self, token_id: int, logprob: float, top: TopTokens, rank: int) -> bool:
        assert self.end is None, "a token after the end"
        self.tokens.append(token_id)
        if not math.isnan(logprob):
            self.logprobs.append(logprob)
        self.tops.append(top)
        self.ranks.append(rank)
        return len(self.tokens) == self.stop_after

    def finish(self, finish: Finish) -> None:
        self._end(finish)

    def fail(self, error: EngineError) -> None:
        self._end(error)

    def _end(self, end: Finish | EngineError) -> None:
        assert self.end is None, "a request ended twice"
        self.end = end
        self.ended.set()

    async def wait(self) -> Finish | EngineError:
        await asyncio.wait_for(self.ended.wait(), 30)
        assert self.end is not None
        return self.end


@dataclass
class Rig:
    """A running engine, what is below it, and the model that its shards pretend to have."""

    engine: Engine
    scheduler: Scheduler
    shards: list[FakeShard]
    model: FakeModelConfig
    metrics: Metrics


@contextlib.asynccontextmanager
async def running_engine(
    folder: Path,
    *,
    ranks: int = 1,
    model: FakeModelConfig | None = None,
    fault: Fault | None = None,
    faulty_rank: int = 0,
    step_timeout: float = 20.0,
    step_seconds: float = 0.0,
    relay: Relay | None = None,  # in front of the last rank
    **scheduling: object,
) -> AsyncIterator[Rig]:
    model = model or FakeModelConfig(num_blocks=64, block_size=4, vocab_size=500)
    eos = frozenset() if model.eos_token is None else frozenset({model.eos_token})
    settings: dict[str, object] = {
        "num_blocks": model.num_blocks,
        "block_size": model.block_size,
        "max_batch_size": 8,
        "max_batch_prefill_tokens": 32,
        "max_waiting_tokens": 5,
        "waiting_served_ratio": 0.3,
        "eos_token_ids": eos,
    } | scheduling
    config = SchedulerConfig(**settings)  # type: ignore[arg-type]
    async with contextlib.AsyncExitStack() as stack:
        servicers = []
        for rank in range(ranks):
            shard = FakeShardConfig(
                model=model,
                rank=rank,
                world_size=ranks,
                step_seconds=step_seconds,
                fault=fault if rank == faulty_rank else None,
            )
            servicers.append(
                await stack.enter_async_context(fake_shard(folder / f"{rank}.sock", shard))
            )
        sockets = [folder / f"{rank}.sock" for rank in range(ranks)]
        if relay is not None:
            sockets[-1] = await stack.enter_async_context(relayed(sockets[-1], relay))
        group = ShardGroup([str(socket) for socket in sockets])
        stack.push_async_callback(group.close, 0.5)  # one that hangs answers nothing more
        capacity = (model.num_blocks - 1) * model.block_size
        await group.warmup(
            WarmupRequest(
                max_prefill_tokens=config.max_batch_prefill_tokens,
                max_slots=config.max_batch_size,
                max_sequence_length=capacity,
                max_batch_total_tokens=capacity,
                max_top_n=5,
            )
        )
        scheduler, metrics = Scheduler(config), Metrics(capacity - 1, capacity)
        engine = Engine(scheduler, group, limits(model), metrics, step_timeout)
        engine.start()
        try:
            yield Rig(engine, scheduler, servicers, model, metrics)
        finally:
            if engine.failed.done():
                engine.failed.exception()


def limits(model: FakeModelConfig) -> ServerLimits:
    capacity = (model.num_blocks - 1) * model.block_size
    return ServerLimits(
        max_input_tokens=capacity - 1,
        max_total_tokens=capacity,
        max_batch_prefill_tokens=32,
        max_batch_total_tokens=capacity,
        max_batch_size=8,
        block_size=model.block_size,
        num_blocks=model.num_blocks,
        vocab_size=model.vocab_size,
        max_position_embeddings=8192,
        device="cpu",
        device_name="fake",
        dtype="float32",
        kv_cache_dtype="float32",
        world_size=1,
        prefill_seconds=0.0,
    )


@pytest.fixture
def recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture
def engine_rig(tmp_path: Path):  # type: ignore[no-untyped-def]
    """`async with engine_rig(...) as rig`: see `running_engine`."""

    def start(**options: object) -> contextlib.AbstractAsyncContextManager[Rig]:
        return running_engine(tmp_path, **options)  # type: ignore[arg-type]

    return start
