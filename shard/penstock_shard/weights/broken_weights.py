"""Which parameter of a model is no number: looked for once something has gone wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from torch import Tensor

from penstock_shard.model.decoder import Decoder


def first_broken(decoder: Decoder) -> str | None:
    """The first parameter on this rank that holds NaN or infinity, in the order of computation."""
    for name, tensor in _parameters(decoder):
        values = tensor.float() if tensor.itemsize == 1 else tensor  # of FP8 there is no isfinite
        if not values.isfinite().all():
            return f"{name} holds {'NaN' if values.isnan().any() else 'infinity'}"
    return None


def _parameters(decoder: Decoder) -> Iterator[tuple[str, Tensor]]:
    """Under their places in the model; those that a checkpoint has apart may stand in one."""
    yield from _tensors_of("embedding", decoder.embedding)
    for index, block in enumerate(decoder.blocks):
        yield from _tensors_of(f"layers.{index}", block)
    yield from _tensors_of("norm", decoder.norm)
    yield from _tensors_of("head", decoder.head)


def _tensors_of(name: str, part: object) -> Iterator[tuple[str, Tensor]]:
    if isinstance(part, Tensor):
        yield name.removesuffix(".data"), part
    elif is_dataclass(part):
        for field in fields(part):
            yield from _tensors_of(f"{name}.{field.name}", getattr(part, field.name))
