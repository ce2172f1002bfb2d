"""Scales of keys and values in a checkpoint: a number for each layer.

A stored number times its scale is a key's. Who writes checkpoints has several names for the same.
"""

from __future__ import annotations

import math

import torch

from penstock_quantization.source import Source

# Beside the module of attention: compressed-tensors and AutoFP8; ModelOpt; older ones of each.
KEY = ("k_scale", "k_proj.k_scale", "attn.k_scale", "qkv_proj.k_scale", "k_proj.output_scale")
VALUE = ("v_scale", "v_proj.v_scale", "attn.v_scale", "qkv_proj.v_scale", "v_proj.output_scale")
BOTH = "kv_scale"  # the first of AutoFP8
ENDS = tuple(f".{name}" for name in (*KEY, *VALUE, BOTH))


def kv_scales(source: Source, module: str) -> tuple[float, float]:
    """Of the keys and the values of an attention module; 1 where the checkpoint has none.

    Raises ValueError that names the tensor, for one that is no positive number.
    """
    return _scale(source, module, KEY), _scale(source, module, VALUE)


def _scale(source: Source, module: str, names: tuple[str, ...]) -> float:
    for name in (f"{module}.{end}" for end in (*names, BOTH)):
        shape = source.shape(name)
        if shape is None:
            continue
        if math.prod(shape) != 1:
            raise ValueError(
                f"tensor {name} has shape {list(shape)}: of the scales of keys and values only one "
                "for each layer is supported; --kv-cache-dtype auto serves without them"
            )
        scale = torch.ones(shape or (1,))  # as it stays where nothing is read yet
        source.read(scale, name, shape)
        value = float(scale)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"tensor {name} is {value}, but a scale is a positive number")
        return value
    return 1.0
