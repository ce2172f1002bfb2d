"""The scheduler, the wire and a runner without processes: random schedules, every token compared.

Few blocks, so that sequences are preempted; prompts that begin alike, so that blocks are cached
and read together; plans ahead of results; some are cancelled. What comes out must be what each
request gives alone.
"""

from __future__ import annotations

import random
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from penstock_router import wire
from penstock_router.request import GenerationRequest
from penstock_router.scheduler import Scheduler, SchedulerConfig
from support.checkpoints import make_checkpoint
from support.local_shard import LocalShard, interpret, load_model
from support.ordered_dot import in_order

pytestmark = [
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning:triton"),
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
]
LONGEST = 64
BLOCK = 4


class Alone:
    """What a request gives when nothing else runs, by plain torch."""

    def __init__(self, shard: LocalShard) -> None:
        self.shard = shard
        self._known: dict[tuple[tuple[int, ...], int], list[int]] = {}

    def tokens(self, prompt: tuple[int, ...], count: int) -> list[int]:
        if (prompt, count) not in self._known:
            tokens = [self.shard.start(0, prompt)]
            tokens += self.shard.decode([0], count - 1)[0] if count > 1 else []
            self.shard.release(0)
            self._known[prompt, count] = tokens
        return self._known[prompt, count]


def requests(chance: random.Random, count: int) -> list[GenerationRequest]:
    """Prompts of one token up to most of what fits, many with the first blocks of two others."""
    bases = [[chance.randrange(3, 300) for _ in range(8 * BLOCK)] for _ in range(2)]
    made = []
    for _ in range(count):
        kept = chance.choice([0, 1, BLOCK, 4 * BLOCK, 8 * BLOCK])
        tail = [chance.randrange(3, 300) for _ in range(chance.choice([0, 1, 1, BLOCK, 9]))]
        prompt = tuple(chance.choice(bases)[:kept] + tail) or (5,)
        made.append(
            GenerationRequest(
                prompt,
                chance.choice([1, 2, 9, 20]),
                ignore_eos=True,
                priority=chance.choice([0, 1]),
            )
        )
    return made


def run(
    shard: LocalShard, alone: Alone, config: SchedulerConfig, seed: int, count: int
) -> tuple[int, int]:
    """Every token of a random schedule is compared. Returns groups and preemptions."""
    chance = random.Random(seed)
    scheduler, waiting = Scheduler(config), requests(chance, count)
    live: dict[int, tuple[list[int], list[int]]] = {}  # found and expected
    results: deque[tuple[int, list[int], bool]] = deque()  # step, tokens, last of its command
    now, under_way, groups = 0.0, 0, 0
    while waiting or live or results:
        now += 0.01
        while waiting and chance.random() < 0.6:
            request = waiting.pop()
            sequence = scheduler.submit(request, now)
            live[sequence.id] = [], alone.tokens(request.prompt, request.max_new_tokens)
        ahead = chance.choice([1, 2, 3])
        while under_way < ahead and (plan := scheduler.plan(now)) is not None:
            groups += len(plan.groups)
            under_way += 1
            for pending in shard.runner.execute(wire.command(plan)):
                result = pending.build()
                results.append((result.step, list(result.token), result.step == plan.last_step))
        if results:
            step, tokens, last = results.popleft()
            under_way -= last
            for outcome in scheduler.commit(step, tokens, 0.001):
                found, expected = live[outcome.sequence.id]
                found.extend(outcome.tokens)
                assert found == expected[: len(found)]
                if outcome.finish is not None:
                    assert live.pop(outcome.sequence.id)[0] == expected
        if live and chance.random() < 0.03:
            number = chance.choice(list(live))
            scheduler.cancel(number)
            del live[number]
    scheduler.check_integrity()
    assert scheduler.idle and scheduler.blocks.used == 0
    return groups, scheduler.preemptions


def shards(
    folder: Path, slots: int, blocks: int, **changes: Any
) -> tuple[LocalShard, Alone, SchedulerConfig]:
    """A shard with so many blocks, its reference, and the scheduler's budgets. changes: of the
    shard's configuration."""
    loaded = load_model(folder, kv_block_size=BLOCK, **changes)
    sizes = {"max_sequence_length": LONGEST, "max_batch_total_tokens": blocks * BLOCK}
    shard = LocalShard(loaded, max_slots=slots, max_prefill_tokens=20, **sizes)
    lone = LocalShard(loaded, max_slots=1, max_prefill_tokens=LONGEST, **sizes)
    config = SchedulerConfig(
        num_blocks=shard.runner.limits.num_blocks,
        block_size=BLOCK,
        max_batch_size=slots,
        max_batch_prefill_tokens=20,
        max_waiting_tokens=3,
        waiting_served_ratio=0.3,
        shared_reads=1,
    )
    return shard, Alone(lone), config


@pytest.mark.parametrize(
    "family",
    ["llama2", *(pytest.param(name, marks=pytest.mark.full) for name in ("mistral", "qwen3"))],
)
def test_random_schedules_give_each_its_own_tokens(tmp_path: Path, family: str) -> None:
    folder = make_checkpoint(tmp_path / "model", family)
    groups = preemptions = 0
    for seed in range(3):
        shard, alone, config = shards(folder, slots=6, blocks=18 + seed)
        found = run(shard, alone, config, seed, 16)
        groups, preemptions = groups + found[0], preemptions + found[1]
    assert groups > 0 and preemptions > 0


@pytest.mark.full
def test_random_schedules_in_half_precision(tmp_path: Path) -> None:
    """Where what else runs would change tokens, `--deterministic` keeps them."""
    folder = make_checkpoint(tmp_path / "model", "qwen3")
    for seed in range(3):
        half = {"dtype": "bfloat16", "deterministic": True}
        shard, alone, config = shards(folder, slots=6, blocks=18 + seed, **half)
        run(shard, alone, config, seed, 16)


@pytest.mark.full
def test_random_schedules_of_deterministic_graphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its kernels, all of them: the reference is what they give alone."""
    in_order(monkeypatch)
    folder = make_checkpoint(tmp_path / "model", "llama3", num_hidden_layers=1)
    loaded = load_model(folder, kv_block_size=BLOCK, deterministic=True)
    shard, alone, config = shards(folder, slots=4, blocks=18, deterministic=True)
    interpret(shard, loaded, (1, 2, 4))
    interpret(alone.shard, loaded, (1,))
    groups, _ = run(shard, alone, config, 2, 6)
    assert groups > 1


@pytest.mark.parametrize(
    ("family", "seed"), [pytest.param("llama3", 39, marks=pytest.mark.full), ("qwen2_window", 2)]
)
def test_random_schedules_of_graphs(tmp_path: Path, family: str, seed: int) -> None:
    folder = make_checkpoint(tmp_path / "model", family, num_hidden_layers=2)
    loaded = load_model(folder, kv_block_size=BLOCK)
    shard, alone, config = shards(folder, slots=4, blocks=18)
    interpret(shard, loaded, (1, 2, 4))
    groups, _ = run(shard, alone, config, seed, 6)
    assert groups > 1
