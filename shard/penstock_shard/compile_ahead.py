"""Compiles the kernels of all steps at once, before the first of them runs.

Every step that is going to be a graph is gone through without its kernels (`gpu.ahead`), on a
decoder of as many layers as there are kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from penstock_shard import kv_cache
from penstock_shard.decoder import Decoder, Layer
from penstock_shard.loaded import LoadedModel
from penstock_shard.parallel import VocabularyEmbedding
from penstock_shard.runner import Runner
from penstock_shard.slots import Limits


def compile_ahead(loaded: LoadedModel, limits: Limits, sizes: tuple[int, ...]) -> None:
    """Compile what steps of `limits` launch, with graphs of decode steps of `sizes`."""
    from penstock_kernels.gpu.ahead import compile_only

    decoder = _short(loaded.decoder)
    cache = kv_cache.allocate(
        loaded.decoder, limits.num_blocks, loaded.block_size, loaded.dtype, loaded.device
    )[: len(decoder.layers)]
    runner = Runner(decoder, loaded.group, limits, cache, loaded.device, loaded.dependent_launch)
    with compile_only():
        runner.capture_graphs(sizes, _Run)
        if runner.sampling is not None:
            runner.sampling.rehearse_draws(loaded.dtype)


def _short(decoder: Decoder) -> Decoder:
    """The first layer of every window, and the last one, which computes fewer rows."""
    first: dict[int | None, Layer] = {}
    for layer in decoder.layers[:-1]:
        first.setdefault(layer.window, layer)
    embedding = decoder.embedding
    zeros = _Zeros(embedding.weight, embedding.start, embedding.group)
    return replace(decoder, layers=[*first.values(), decoder.layers[-1]], embedding=zeros)


class _Zeros(VocabularyEmbedding):
    """Looks nothing up: no kernel has written the tokens."""

    def __call__(self, tokens: Tensor) -> Tensor:
        return self.weight.new_zeros(len(tokens), self.weight.shape[1])


class _Run:
    """In place of a graph."""

    def __init__(self, step: Callable[[], None]) -> None:
        step()

    def replay(self) -> None:
        raise NotImplementedError("nothing was captured")
