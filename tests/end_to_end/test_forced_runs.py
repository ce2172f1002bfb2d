"""Runs of forced tokens as chunks give the tokens that decoding one by one gives.

The scheduler, the wire and a runner without processes; a tiny model on the CPU in float32, so that
not even rounding differs. PENSTOCK_SCHEMAS says how many schemas are drawn.
"""

from __future__ import annotations

import json
import os
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from penstock_proto.shard_pb2 import StepResult
from penstock_router import wire
from penstock_router.request import FinishReason, GenerationRequest, Sampling
from penstock_router.scheduler import Scheduler, SchedulerConfig, StepPlan
from penstock_router.token_rules import TokenRules
from penstock_shard.weights.loaded_model import LoadedModel
from support.checkpoints import make_checkpoint
from support.held import compiled, end_of, load_tokenizer, tokenizer_of
from support.local_shard import LocalShard, interpret, load_model
from support.schemas import schema

pytestmark = [
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning:triton"),
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
]
COUNT = int(os.environ.get("PENSTOCK_SCHEMAS", "6"))
BLOCK, LONGEST, SLOTS, BUDGET = 4, 256, 6, 40
COMPACT = {"whitespace_flexible": False, "key_separator": ": ", "item_separator": ", "}
RECORD = {
    "type": "object",
    "properties": {
        "customer_full_name": {"enum": ["ann", "bob"]},
        "number_of_years_since": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["customer_full_name", "number_of_years_since"],
    "additionalProperties": False,
}
WAYS = (
    Sampling(),
    Sampling(temperature=0.7, seed=1),
    Sampling(temperature=1.5, seed=2),
    Sampling(temperature=1.5, seed=3, top_k=5, top_p=0.8),
    Sampling(temperature=1.0, seed=4, repetition_penalty=1.4),
    Sampling(temperature=1.0, seed=5, frequency_penalty=1.5, presence_penalty=0.5),
    Sampling(temperature=1.0, seed=6, typical_p=0.6),
    Sampling(temperature=1.0, seed=7, logit_bias=((40, 30.0),)),
    Sampling(temperature=1.0, seed=8, logprobs=True),
    Sampling(temperature=1.0, seed=9, rules=TokenRules(min_tokens=3, late=(0,))),
)


@dataclass
class Found:
    """What some requests were answered, and how."""

    texts: list[tuple[list[int], FinishReason]]
    runs: int
    steps: int
    preemptions: int
    openings: int


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("forced") / "model", "llama2")


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    loaded = load_model(folder, kv_block_size=BLOCK)
    load_tokenizer(loaded, folder)
    return loaded


def shard_of(loaded: LoadedModel, blocks: int) -> LocalShard:
    return LocalShard(
        loaded,
        max_slots=SLOTS,
        max_prefill_tokens=BUDGET,
        max_sequence_length=LONGEST,
        max_batch_total_tokens=blocks * BLOCK,
    )


def run(
    shard: LocalShard,
    requests: Sequence[tuple[GenerationRequest, int, Sequence[int]]],
    eos: int,
    runs: bool,
    ahead: int = 2,
) -> Found:
    """Requests with their grammars and what these force at the start."""
    limits = shard.runner.limits
    config = SchedulerConfig(
        num_blocks=limits.num_blocks,
        block_size=limits.block_size,
        max_batch_size=limits.max_slots,
        max_batch_prefill_tokens=limits.max_prefill_tokens,
        max_waiting_tokens=3,
        waiting_served_ratio=0.3,
        eos_token_ids=frozenset({eos}),
        forced_runs=runs,
    )
    scheduler = Scheduler(config)
    numbers = []
    found: dict[int, list[int]] = {}
    ends: dict[int, FinishReason] = {}
    openings = 0
    for request, grammar, opening in requests:
        sequence = scheduler.submit(request, 0.0, None, grammar, opening)
        numbers.append(sequence.id)
        found[sequence.id] = []
        openings += sequence.generated
    results: deque[StepResult] = deque()
    under_way: deque[StepPlan] = deque()
    planned = steps = 0
    while len(ends) < len(numbers):
        while len(under_way) < ahead and (plan := scheduler.plan(0.0)) is not None:
            under_way.append(plan)
            planned += len(plan.runs)
            results.extend(pending.build() for pending in shard.runner.execute(wire.command(plan)))
        result = results.popleft()
        steps += 1
        if result.step == under_way[0].last_step:
            under_way.popleft()
        assert not result.refused, result.refused
        forced = {one.row: one.token for one in result.forced}
        for outcome in scheduler.commit(result.step, list(result.token), 0.001, forced):
            found[outcome.sequence.id] += outcome.tokens
            if outcome.finish is not None:
                ends[outcome.sequence.id] = outcome.finish
    for result in results:
        assert not scheduler.commit(result.step, list(result.token), 0.001)
    scheduler.check_integrity()
    assert scheduler.idle and scheduler.blocks.used == 0
    texts = [(found[number], ends[number]) for number in numbers]
    return Found(texts, planned, steps, scheduler.preemptions, openings)


def asked(
    loaded: LoadedModel, first: int, schemas: Sequence[dict[str, object]], most: int = 120
) -> list[tuple[GenerationRequest, int, Sequence[int]]]:
    """A request a schema, each with another way of sampling."""
    requests = []
    for place, wanted in enumerate(schemas):
        number = first + place
        style = {} if place % 3 == 0 else {"x-guidance": COMPACT}
        response = compiled(loaded, number, "json", {**wanted, **style})
        assert response.outcome == response.READY, response.error
        chance = random.Random(place)
        prompt = tuple(chance.randrange(3, 290) for _ in range(chance.choice((1, 5, 30))))
        way = WAYS[place % len(WAYS)]
        way = replace(way, seed=place) if way.temperature else way
        requests.append((GenerationRequest(prompt, most, way), number, list(response.forced)))
    return requests


@pytest.mark.parametrize(
    ("ahead", "blocks", "count"),
    [
        (1, 400, COUNT),
        (3, 70, COUNT),
        pytest.param(2, 400, 300, marks=pytest.mark.full),
        pytest.param(2, 80, 100, marks=pytest.mark.full),
    ],
)
def test_every_schema_gives_the_same_tokens(
    loaded: LoadedModel, folder: Path, ahead: int, blocks: int, count: int
) -> None:
    """Together, with others joining, and with blocks for hardly more than one."""
    schemas = [schema(random.Random(number)) for number in range(count)]
    schemas += [{"type": "array", "minItems": 2, "maxItems": 3, "items": RECORD}] * len(WAYS)
    requests = asked(loaded, 1000 * blocks, schemas, 80)
    end = end_of(folder)
    one_by_one = run(shard_of(loaded, blocks), requests, end, runs=False, ahead=ahead)
    with_runs = run(shard_of(loaded, blocks), requests, end, runs=True, ahead=ahead)
    assert with_runs.texts == one_by_one.texts
    assert with_runs.runs > 10 and with_runs.openings > 10 and not one_by_one.runs
    assert with_runs.steps < one_by_one.steps
    assert (with_runs.preemptions > 0) == (blocks < 100)
    tokenizer = tokenizer_of(folder)
    for tokens, finish in with_runs.texts[count:]:
        if finish is FinishReason.EOS:
            json.loads(tokenizer.decode(tokens[:-1], skip_special_tokens=False))


@pytest.mark.parametrize("most", [1, 2, 3, 11])
def test_it_is_cut_at_the_same_token(loaded: LoadedModel, folder: Path, most: int) -> None:
    requests = asked(loaded, 10_000 + 100 * most, [RECORD] * 6, most)
    end = end_of(folder)
    shard = shard_of(loaded, 400)
    assert run(shard, requests, end, runs=True).texts == (
        run(shard_of(loaded, 400), requests, end, runs=False).texts
    )


def test_graphs_compute_runs_as_eager_steps_do(loaded: LoadedModel, folder: Path) -> None:
    requests = asked(loaded, 20_000, [RECORD], 16)
    end = end_of(folder)
    graphs = interpret(shard_of(loaded, 400), loaded, (1, 2))
    found = run(graphs, requests, end, runs=True)
    assert found.runs
    assert found.texts == run(shard_of(loaded, 400), requests, end, runs=False).texts


@pytest.mark.gpu
def test_on_a_gpu_runs_give_the_same_tokens(folder: Path) -> None:
    """In float32, where results do not depend on the number of rows."""
    loaded = load_model(folder, device="cuda")
    load_tokenizer(loaded, folder)
    requests = asked(loaded, 1, [schema(random.Random(n)) for n in range(40)] + [RECORD] * 10)
    sizes = {"max_slots": 16, "max_sequence_length": LONGEST, "max_batch_total_tokens": 4096}
    end = end_of(folder)
    one_by_one = run(LocalShard(loaded, **sizes), requests, end, runs=False)
    with_runs = run(LocalShard(loaded, **sizes), requests, end, runs=True)
    assert with_runs.runs > 20
    assert with_runs.texts == one_by_one.texts
