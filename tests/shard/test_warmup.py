"""How many blocks warmup finds, and what it says when that is too few."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from penstock_kernels.reference.device import TorchDevice
from penstock_proto import shard_pb2
from penstock_shard.memory import kv_cache, measure, plan, warmup
from penstock_shard.memory.kv_cache import Shares
from penstock_shard.memory.measure import Measured, graph_sizes
from penstock_shard.memory.memory import too_small
from penstock_shard.memory.plan import DoesNotFit, plan_what_fits
from penstock_shard.memory.smaller import attempts, step_sizes
from penstock_shard.model.decoder import Decoder
from penstock_shard.server import message_limit
from penstock_shard.steps.graphs import GraphSizes
from penstock_shard.steps.runner import Runner
from penstock_shard.weights.loaded_model import LoadedModel
from support.local_shard import LocalShard, load_model


@pytest.fixture(scope="module")
def loaded(checkpoint: Callable[[str], Path]) -> LoadedModel:
    return load_model(checkpoint("llama3"))


def test_blocks_for_the_tokens_asked(loaded: LoadedModel) -> None:
    """Rounded up, and the scratch block beside them."""
    shard = LocalShard(loaded, max_batch_total_tokens=97, max_sequence_length=16, max_slots=1)
    assert shard.warmup.num_blocks == 14
    assert shard.runner.cache.shape == (3, 2, 2, 14, 8, 16)


def test_blocks_for_the_memory_there_is(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = 8 * 3 * 2 * 2 * 16 * 4  # tokens, layers, K and V, heads, width, bytes
    monkeypatch.setattr(kv_cache, "_available_host_bytes", lambda: 4 * 50 * block + 5)
    sizes = {"max_batch_total_tokens": 0, "max_sequence_length": 64, "max_slots": 4}
    assert LocalShard(loaded, **sizes).warmup.num_blocks == 4 * 8 + 1  # more could not be used
    sizes["max_slots"] = 40
    assert LocalShard(loaded, **sizes).warmup.num_blocks == 50  # a quarter of what is free


def test_no_memory(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache, "_available_host_bytes", lambda: 1000)
    with pytest.raises(DoesNotFit, match="lower --max-batch-prefill-tokens or --max-batch-size"):
        LocalShard(loaded, max_batch_total_tokens=0)
    with pytest.raises(
        DoesNotFit, match=r"--max-batch-total-tokens 1024 needs 0 MiB .* only 0 MiB"
    ):
        LocalShard(loaded)


def test_a_cache_in_bytes(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole blocks of them, also more than all slots need: the prefix cache has use for them."""
    block = 8 * 3 * 2 * 2 * 16 * 4
    asked = dataclasses.replace(loaded, shares=Shares(kv_cache=70 * block + 5))
    sizes = {"max_batch_total_tokens": 0, "max_sequence_length": 64, "max_slots": 4}
    shard = LocalShard(asked, **sizes)
    assert shard.warmup.num_blocks == 70
    assert dict(shard.warmup.memory) == {
        "weights": loaded.decoder.nbytes,
        "kv_cache": 70 * block,
    }
    monkeypatch.setattr(kv_cache, "_available_host_bytes", lambda: 70 * block - 1)
    with pytest.raises(DoesNotFit, match=f"--kv-cache-memory {70 * block + 5} needs"):
        LocalShard(asked, **sizes)
    tiny = dataclasses.replace(loaded, shares=Shares(kv_cache=block))
    enough = f"raise --kv-cache-memory {block} to {2 * block} at least"
    with pytest.raises(DoesNotFit, match=f"holds no block of 8 tokens: {enough}"):
        LocalShard(tiny, **sizes)


def test_what_others_need(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left free; the cache may have the rest."""
    block = 8 * 3 * 2 * 2 * 16 * 4
    monkeypatch.setattr(kv_cache, "_available_host_bytes", lambda: 100 * block)
    sizes = {"max_batch_total_tokens": 0, "max_sequence_length": 64, "max_slots": 40}
    for left, blocks in ((70 * block, 30), (40 * block, 60)):
        asked = dataclasses.replace(loaded, shares=Shares(leave_free=left))
        assert LocalShard(asked, **sizes).warmup.num_blocks == blocks
    nothing = dataclasses.replace(loaded, shares=Shares(leave_free=101 * block))
    with pytest.raises(DoesNotFit, match=f"holds no block .* lower --leave-free {101 * block}"):
        LocalShard(nothing, **sizes)


def test_what_is_said_of_a_gpu_that_others_fill(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100 << 20, 1000 << 20))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 150 << 20)
    on_a_gpu = dataclasses.replace(loaded, device=torch.device("cuda", 0))
    said = too_small(on_a_gpu)
    assert "lower --max-batch-prefill-tokens or --max-batch-size; CUDA's own and" in said
    assert "other processes' memory is 750 of the GPU's 1000 MiB" in said
    said = too_small(dataclasses.replace(on_a_gpu, shares=Shares(fraction=0.05)))
    assert "raise --cuda-memory-fraction 0.05" in said


@pytest.mark.parametrize(
    ("shares", "allowed"),
    [(Shares(), 1.0), (Shares(fraction=0.8), 0.8), (Shares(0.8, leave_free=300), 0.7)],
)
def test_what_a_gpu_gives(monkeypatch: pytest.MonkeyPatch, shares: Shares, allowed: float) -> None:
    """The least of what the operator says; what others hold counts."""
    monkeypatch.setattr(kv_cache, "CUDA_RESERVE", 10)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (600, 1000))
    found = kv_cache.free_bytes(torch.device("cuda"), shares, 1, 100)
    assert found == 1000 * allowed - 400 - 100 - 10


def test_m7_positions_that_no_memory_holds(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_cache, "total_bytes", lambda device, world_size: 1000)
    with pytest.raises(DoesNotFit, match="rotations of 64 positions .* lower --max-total-tokens"):
        LocalShard(loaded, max_sequence_length=64)


@pytest.mark.parametrize("positions", [64, 2**24])
def test_m7_a_command_of_the_longest_prompts(loaded: LoadedModel, positions: int) -> None:
    """gRPC takes no larger number than its own."""
    model = dataclasses.replace(loaded.model, max_positions=positions)
    limit = message_limit(dataclasses.replace(loaded, model=model))
    assert 16 << 20 <= limit < 2**31


def test_graphs_that_do_not_fit(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def capture(runner: Runner, sizes: GraphSizes) -> int:
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr(warmup, "_capture_graphs", capture)
    with pytest.raises(DoesNotFit, match=r"129 blocks .*--cuda-graphs 0 \(tried to allocate"):
        LocalShard(loaded)


def test_fewer_graphs_and_a_smaller_cache_are_tried_and_said(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """F12: the same calls as on a GPU whose memory ends where graphs of two rows are left."""
    tried: list[tuple[int, int, int]] = []
    measured = measure.measure

    def capture(runner: Runner, sizes: GraphSizes) -> int:
        tried.append((sizes.decode[-1], sizes.prompt_tokens, runner.limits.num_blocks))
        if len(sizes.decode) > 2:
            raise torch.OutOfMemoryError("tried to allocate 2 GiB\nand more")
        return 0

    monkeypatch.setattr(warmup, "_capture_graphs", capture)
    monkeypatch.setattr(plan, "graph_sizes", lambda loaded, limits: GraphSizes((1, 2, 4, 8), 64))
    monkeypatch.setattr(plan, "_compile_ahead", lambda loaded, limits, graphs: None)
    without = GraphSizes(())
    monkeypatch.setattr(
        plan, "measure", lambda loaded, limits, _: measured(loaded, limits, without)
    )
    sizes = {"max_batch_total_tokens": 0, "max_sequence_length": 64, "max_slots": 6}
    shard = LocalShard(loaded, **sizes)
    assert tried == [(8, 64, 49), (8, 64, 42), (2, 16, 36)] and shard.warmup.num_blocks == 36
    said = capsys.readouterr().err
    assert (
        "trying 36 of 49 blocks and graphs of up to 2 rows and 16 prompt tokens: "
        "tried to allocate 2 GiB" in said
    )
    assert "and more" not in said
    tried.clear()
    LocalShard(loaded, **(sizes | {"max_batch_total_tokens": 1024}))  # is what it is to be
    assert tried == [(8, 64, 129), (2, 16, 129)]


def test_a_smaller_step_is_tried_and_said(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """F12: halved until it fits, and the router is told."""
    really = plan.measure

    def measured(loaded: LoadedModel, limits: Any, graphs: GraphSizes) -> Any:
        if limits.max_prefill_tokens > 150:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 TB")
        return really(loaded, limits, graphs)

    monkeypatch.setattr(plan, "measure", measured)
    shard = LocalShard(loaded, max_prefill_tokens=500)
    assert shard.runner.limits.max_prefill_tokens == shard.warmup.max_prefill_tokens == 125
    said = capsys.readouterr().err
    assert "a step of 250 prompt tokens does not fit in memory, trying 125" in said
    with pytest.raises(RuntimeError, match="something else"):
        monkeypatch.setattr(plan, "measure", broken)
        LocalShard(loaded, max_prefill_tokens=500)


def test_a_trial_step_without_memory_is_no_time(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F12: the runner refuses its sequences, and a refusal is no step that was measured."""
    forward = Decoder.forward

    def short(self: Decoder, step: Any, tokens: torch.Tensor, *more: Any) -> Any:
        if len(tokens) > 150:
            raise torch.OutOfMemoryError("tried to allocate 2 GiB")
        return forward(self, step, tokens, *more)

    monkeypatch.setattr(Decoder, "forward", short)
    shard = LocalShard(loaded, max_prefill_tokens=500)
    assert shard.warmup.max_prefill_tokens == 125


def broken(loaded: LoadedModel, limits: Any, graphs: GraphSizes) -> Any:
    raise RuntimeError("something else")


def test_several_ranks_do_not_try(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are in the middle of a collective."""

    def measured(loaded: LoadedModel, limits: Any, graphs: GraphSizes) -> Any:
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr(plan, "measure", measured)
    two = dataclasses.replace(loaded, group=type(loaded.group)(1, 2))
    with pytest.raises(DoesNotFit, match="memory ran out on rank 1: lower .* allocate 2 GiB"):
        LocalShard(two)


@pytest.mark.parametrize(
    ("graphs", "blocks", "fixed", "expected"),
    [
        ((1, 2, 4, 8), 100, False, [(4, 100), (4, 87), (2, 75), (0, 50), (0, 25)]),
        ((1, 2, 4, 8), 100, True, [(4, 100), (2, 100), (0, 100)]),
        ((), 100, False, [(0, 100), (0, 87), (0, 75), (0, 50), (0, 25)]),
        ((), 2, False, [(0, 2)]),
    ],
)
def test_what_is_tried(
    graphs: tuple[int, ...], blocks: int, fixed: bool, expected: list[tuple[int, int]]
) -> None:
    sizes = GraphSizes(graphs, 1000)
    found = [(len(one.graphs.decode), one.blocks) for one in attempts(sizes, blocks, fixed)]
    assert found == expected


def test_which_steps_are_tried() -> None:
    """Smaller ones, with fewer sequences where there are few prompt tokens; without graphs last."""
    assert list(step_sizes(300, 8, graphs=True)) == [
        (300, 8, True), (150, 8, True), (75, 8, True), (64, 8, True), (64, 8, False)
    ]  # fmt: skip
    assert list(step_sizes(1024, 256, graphs=False)) == [
        (1024, 256, False), (512, 128, False), (256, 64, False), (128, 32, False), (64, 16, False)
    ]  # fmt: skip
    assert list(step_sizes(1, 256, graphs=False)) == [(1, 256, False)]


@pytest.mark.parametrize("name", ["max_prefill_tokens", "max_slots", "max_sequence_length"])
def test_sizes_must_be_positive(loaded: LoadedModel, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        LocalShard(loaded, **{name: 0})


@pytest.mark.parametrize("longest", [1, 2, 3, 8, 9])
def test_the_smallest_limits(loaded: LoadedModel, longest: int) -> None:
    """Warmup's own steps must fit whatever it is asked for."""
    shard = LocalShard(
        loaded, max_sequence_length=longest, max_slots=1, max_prefill_tokens=1, max_top_n=0
    )
    shard.start(0, [7])


@pytest.mark.parametrize(
    ("asked", "captured"),
    [
        ((1, 4, 8), (1, 4)),
        ((512,), (4,)),
        ((1, 2), (1, 2)),
        ((0,), ()),
        (None, (1, 2, 4)),
    ],
)
def test_sizes_of_graphs_beyond_all_slots_are_that_of_all_slots(
    loaded: LoadedModel, asked: tuple[int, ...] | None, captured: tuple[int, ...]
) -> None:
    """A step never has more rows, and 512 must not mean none."""
    limits = LocalShard(loaded, max_slots=4).runner.limits
    there = dataclasses.replace(loaded, device=torch.device("cuda"), cuda_graphs=asked)
    assert graph_sizes(there, limits) == GraphSizes(captured, limits.max_prefill_tokens)
    assert not graph_sizes(loaded, limits).decode


def test_the_largest_step_is_timed_after_one_that_may_compile(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = LocalShard(loaded, max_prefill_tokens=200, max_sequence_length=50, max_slots=4)
    taken = iter([30.0, 0.1])
    ran: list[shard_pb2.StepCommand] = []

    def run(runner: Runner, command: shard_pb2.StepCommand) -> Any:
        ran.append(command)
        return run_step(runner, command)._replace(seconds=next(taken))

    run_step = measure._run
    monkeypatch.setattr(measure, "_run", run)
    assert measure._prefill(shard.runner, loaded, 2).seconds == 0.1
    assert [sum(command.chunk_length) for command in ran] == [200, 200]


def test_what_copies_blocks_is_compiled_before_the_first_request(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[tuple[list[int], list[int]]] = []

    def copy(self: TorchDevice, cache: torch.Tensor, source: Any, target: Any) -> None:
        copied.append((source.tolist(), target.tolist()))

    monkeypatch.setattr(TorchDevice, "copy_blocks", copy)
    LocalShard(loaded, max_sequence_length=1, max_slots=1, max_prefill_tokens=1)
    assert copied == [([1], [2])]


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (
            lambda d: d.blocks[1].mlp.down.weight.data[3],
            torch.nan,
            r"layers.1.mlp.down.weight holds NaN",
        ),
        (
            lambda d: d.blocks[0].input_norm.weight[5],
            torch.inf,
            "layers.0.input_norm.weight holds inf",
        ),
        (lambda d: d.norm.weight, torch.nan, "norm.weight holds NaN in float32$"),
        (
            lambda d: d.blocks[2].attention.qkv.data[7, 7],
            -torch.inf,
            "layers.2.attention.qkv",
        ),
        (lambda d: d.head.weight.data[300], torch.nan, "head.weight holds NaN"),
        (lambda d: d.norm.weight, 3e38, "weights are finite in float32, so what is computed"),
    ],
    ids=["M3-weight", "M3-norm", "M3-last-norm", "M3-inf", "M3-head", "M3-overflow"],
)
def test_a_model_whose_logits_are_no_numbers_does_not_start(
    checkpoint: Callable[[str], Path],
    place: Callable[[Decoder], torch.Tensor],
    value: float,
    sentence: str,
) -> None:
    broken = load_model(checkpoint("llama2"))
    place(broken.decoder).fill_(value)
    with pytest.raises(
        ValueError, match=f"logits are not finite numbers.* at warmup: .*{sentence}"
    ):
        LocalShard(broken)


RAN = measure.Ran(0.1, finite=True)
MIB = 1 << 20


def gpu_of(free: int) -> Callable[[LoadedModel, Any, GraphSizes], Measured]:
    """Measures as a GPU does of which so many bytes are left for graphs, steps and the cache: a
    token takes 1 MiB of a step, a sequence 4 MiB of draws, graphs as much as a step."""

    def measured(loaded: LoadedModel, limits: Any, graphs: GraphSizes) -> Measured:
        step = limits.max_prefill_tokens * MIB
        workspace, captured = max(step, 4 * MIB * limits.max_slots), step * bool(graphs.decode)
        if workspace + captured > free:
            raise torch.OutOfMemoryError("tried to allocate")
        return Measured(RAN, RAN, MIB, workspace, captured, free - workspace - captured, True)

    return measured


@pytest.mark.parametrize(
    ("free", "tokens", "slots", "graphs"),
    [
        (4096 * MIB, 1024, 64, True),
        (2048 * MIB + 100_000, 512, 64, True),  # a cache that holds no step of 1,024
        (1500 * MIB, 512, 64, True),
        (200 * MIB, 64, 16, True),
        (100 * MIB, 64, 16, False),
    ],
)
def test_steps_leave_room_for_a_cache(
    loaded: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    tokens: int,
    slots: int,
    graphs: bool,
) -> None:
    """F12: steps and graphs are measured first, and smaller ones leave the cache more."""
    monkeypatch.setattr(plan, "measure", gpu_of(free))
    monkeypatch.setattr(plan, "graph_sizes", lambda loaded, limits: GraphSizes((1,), 64))
    monkeypatch.setattr(plan, "_compile_ahead", lambda loaded, limits, graphs: None)
    asked = shard_pb2.WarmupRequest(
        max_prefill_tokens=1024, max_slots=64, max_sequence_length=64, max_top_n=5
    )
    found = plan_what_fits(loaded, asked)
    assert (found.request.max_prefill_tokens, found.request.max_slots) == (tokens, slots)
    assert bool(found.graphs.decode) == graphs
    assert found.blocks >= measure.probe_blocks(loaded, found.request)
    assert asked.max_prefill_tokens == 1024


def test_a_cache_of_a_given_size_makes_steps_smaller(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The operator said what it must hold, and nothing of how large steps are."""
    monkeypatch.setattr(plan, "measure", gpu_of(300 * MIB))
    asked = shard_pb2.WarmupRequest(
        max_prefill_tokens=256, max_slots=4, max_sequence_length=64, max_top_n=5,
        max_batch_total_tokens=100 * MIB // (3 * 2 * 2 * 16 * 4),
    )  # fmt: skip
    assert plan_what_fits(loaded, asked).request.max_prefill_tokens == 128
    said = capsys.readouterr().err
    assert "trying 128 and 4 sequences: --max-batch-total-tokens" in said
    monkeypatch.setattr(plan, "measure", gpu_of(99 * MIB))
    with pytest.raises(DoesNotFit, match="needs 100 MiB .* only 35 MiB are free"):
        plan_what_fits(loaded, asked)
