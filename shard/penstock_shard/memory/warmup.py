"""Warmup: run the largest step there will be, then give the KV cache the memory that is left."""

from __future__ import annotations

import torch

from penstock_proto import shard_pb2
from penstock_shard import log
from penstock_shard.memory import kv_cache
from penstock_shard.memory.measure import make_runner
from penstock_shard.memory.memory import check_left, fixed_cache, ledger
from penstock_shard.memory.out_of_memory import give_back
from penstock_shard.memory.peak import settled_bytes
from penstock_shard.memory.plan import DoesNotFit, Plan, limits_of, plan_what_fits, reason
from penstock_shard.memory.smaller import attempts
from penstock_shard.phases import SPENT, phase
from penstock_shard.ranks.agreement import check_room
from penstock_shard.steps.graphs import Capture, CountedCapture, GraphSizes
from penstock_shard.steps.runner import Runner
from penstock_shard.weights.broken_weights import first_broken
from penstock_shard.weights.loaded_model import LoadedModel

PHASES = ("compile", "warm-up", "capture")


def warm_up(
    loaded: LoadedModel, request: shard_pb2.WarmupRequest
) -> tuple[Runner, shard_pb2.WarmupResponse]:
    """Returns the runner that serves and what the router must know. A collective.

    Raises ValueError for a request that contradicts itself and for a model whose logits are no
    numbers, DoesNotFit for too little memory.
    """
    _check(request)
    _check_rotations(loaded, request.max_sequence_length)
    plan = plan_what_fits(loaded, request)
    request, measured = plan.request, plan.measured
    prefill, decode = measured.prefill, measured.decode
    # Rank 0 knows, and every rank takes part before any gives up: no other must wait for one that
    # has.
    if not loaded.group.minimum(prefill.finite and decode.finite, loaded.device):
        raise ValueError(_not_finite(loaded))
    runner, graphs = _allocate_what_fits(loaded, plan)
    blocks = runner.limits.num_blocks
    with phase("warm-up"):
        costs = runner.step_costs()
    if costs:
        told = ", ".join(f"{rows}: {seconds * 1e3:.2f}" for rows, seconds in costs.items())
        log.info(f"ms of steps with prompts by rows: {told}")
    log.info(f"KV cache: {blocks} blocks of {loaded.block_size} tokens in {loaded.cache_dtype}")
    return runner, shard_pb2.WarmupResponse(
        num_blocks=blocks,
        prefill_seconds=prefill.seconds,
        decode_seconds=decode.seconds,
        memory_used=kv_cache.used_bytes(loaded.device),
        memory=ledger(loaded, runner.cache.nbytes, measured.workspace, graphs),
        memory_total=kv_cache.total_bytes(loaded.device, loaded.group.world_size),
        phases={name: SPENT[name] for name in PHASES if name in SPENT},
        cost_rows=costs.keys(),
        cost_seconds=costs.values(),
        max_prefill_tokens=request.max_prefill_tokens,
        max_slots=request.max_slots,
    )


def _allocate_what_fits(loaded: LoadedModel, plan: Plan) -> tuple[Runner, int]:
    """The KV cache and graphs beside it, or less of both, with room for the largest step in what is
    free then. Returns the bytes of graphs, too."""
    request, measured = plan.request, plan.measured
    problem = ""
    for attempt in attempts(plan.graphs, plan.blocks, fixed_cache(loaded, request)):
        if problem:
            log.warning(
                f"KV cache and graphs do not fit in memory, trying {attempt.blocks} of "
                f"{plan.blocks} blocks and graphs of {attempt.graphs}: {problem}"
            )
        try:
            runner = make_runner(loaded, limits_of(loaded, request, attempt.blocks))
            runner.row_bytes = measured.row
            needed = measured.workspace + (measured.graphs if attempt.graphs.decode else 0)
            check_room(loaded.group, loaded.device, needed)
            graphs = _capture_graphs(runner, attempt.graphs)
            check_left(loaded.group, loaded.device, loaded.shares, measured.workspace)
            return runner, graphs
        except (RuntimeError, MemoryError) as error:
            problem = reason(error, loaded)
        runner = None  # type: ignore[assignment]  # its memory
        give_back(loaded.device)
    raise DoesNotFit(
        f"the KV cache of {plan.blocks} blocks and the graphs of steps do not fit in memory: lower "
        f"--cuda-memory-fraction, --max-batch-total-tokens or --max-batch-prefill-tokens, or "
        f"switch graphs off by --cuda-graphs 0 ({problem})"
    )


def _not_finite(loaded: LoadedModel) -> str:
    name = str(loaded.dtype).removeprefix("torch.")
    reason = f"the weights are finite in {name}, so what is computed from them overflows"
    if (broken := first_broken(loaded.decoder)) is not None:
        reason = f"{broken} in {name}"
    if name == "float16":
        reason += "; --dtype bfloat16 has a wider range"
    return f"the model's logits are not finite numbers (NaN or infinity) at warmup: {reason}"


def _capture_graphs(runner: Runner, sizes: GraphSizes) -> int:
    """Returns the bytes that they take."""
    if not sizes.decode:
        return 0
    before = settled_bytes(runner.device)
    with phase("capture"):
        capture = CountedCapture(Capture())
        runner.capture_graphs(sizes, capture, capture.expect)
    seconds = SPENT["capture"]
    log.info(f"captured graphs of steps, up to {sizes.decode[-1]} decode rows, in {seconds:.1f} s")
    return max(0, settled_bytes(runner.device) - before)


def _check(request: shard_pb2.WarmupRequest) -> None:
    for name in ("max_prefill_tokens", "max_slots", "max_sequence_length"):
        if getattr(request, name) < 1:
            raise ValueError(f"{name} must be at least 1, not {getattr(request, name)}")


def _check_rotations(loaded: LoadedModel, positions: int) -> None:
    """Raises DoesNotFit where no memory holds their table, and what it is made of."""
    needed = 2 * positions * loaded.model.head_dim * torch.float32.itemsize
    if needed > kv_cache.total_bytes(loaded.device, loaded.group.world_size):
        raise DoesNotFit(
            f"the rotations of {positions} positions take {needed / 1e9:.1f} GB, more than there "
            "is: lower --max-total-tokens"
        )
