"""Compiles the kernels of all steps at once, before the first of them runs.

Every step that is going to be a graph is gone through without its kernels (`ahead`), on a
decoder of as many layers as there are kinds.
"""

from __future__ import annotations

from collections.abc import Callable

from penstock_shard.log import Progress
from penstock_shard.memory import kv_cache
from penstock_shard.sampling.rehearsal import rehearse_draws
from penstock_shard.steps.graphs import GraphSizes
from penstock_shard.steps.limits import ShardLimits
from penstock_shard.steps.operations import operations
from penstock_shard.steps.runner import Runner
from penstock_shard.weights.loaded_model import LoadedModel


def compile_ahead(loaded: LoadedModel, limits: ShardLimits, graphs: GraphSizes) -> None:
    """Compile what steps of `limits` launch, those that are going to be graphs."""
    from penstock_kernels.gpu.launch.ahead import compile_only

    decoder = loaded.decoder.for_compiling()
    cache = kv_cache.allocate(loaded.decoder, limits.num_blocks, loaded.block_size, loaded.device)[
        : len(decoder.specs())
    ]
    ops = operations(loaded, decoder, limits, cache)
    runner = Runner(decoder, loaded.group, limits, cache, *ops, loaded.grammars)
    with compile_only(Progress("compile", 0, "kernels").reach):
        runner.capture_graphs(graphs, _Run)
        if runner.sampling is not None:
            rehearse_draws(runner.sampling, loaded.dtype)


class _Run:
    """In place of a graph."""

    def __init__(self, step: Callable[[], None]) -> None:
        step()

    def replay(self) -> None:
        raise NotImplementedError("nothing was captured")
