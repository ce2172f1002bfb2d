"""Checkpoints in 4-bit floats (e2m1): NVFP4 and MXFP4, by compressed-tensors, ModelOpt or OpenAI.

Two numbers a byte, the first one low, and a scale for each 16 (NVFP4: e4m3, beside one for the
whole tensor) or 32 (MXFP4: a power of two). Scales of activations are not read: rows keep their
precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penstock_kernels.weight import E8M0_BIAS
from penstock_quantization.lut import Coded
from penstock_quantization.matrix import Slice
from penstock_quantization.scheme import Scheme
from penstock_quantization.source import Source


@dataclass(frozen=True, slots=True)
class Names:
    """Where the parts of a matrix stand, and what they mean."""

    data: str
    scale: str
    group: int  # numbers of a scale
    whole: str | None = None  # the scale of the tensor
    divides: bool = False  # as that one does in compressed-tensors
    blocked: bool = False  # [rows, groups, bytes of a group] instead of [rows, bytes]


NAMES = {
    "nvfp4-pack-quantized": Names(
        ".weight_packed", ".weight_scale", 16, ".weight_global_scale", divides=True
    ),
    "mxfp4-pack-quantized": Names(".weight_packed", ".weight_scale", 32),
    "modelopt-nvfp4": Names(".weight", ".weight_scale", 16, ".weight_scale_2"),
    "mxfp4": Names("_blocks", "_scales", 32, blocked=True),
}


@dataclass(frozen=True, slots=True)
class Fp4:
    """A `LutFormat`."""

    scheme: Scheme
    source: Source
    device: torch.device

    @property
    def _names(self) -> Names:
        return NAMES[self.scheme.stored]

    def is_quantised(self, part: Slice) -> bool:
        found = self.source.is_there(part.name + self._names.scale)
        return not self.scheme.skips(part.name) if found is None else found

    def coded(self, part: Slice, inputs: int) -> Coded:
        names = self._names
        groups = inputs // names.group
        if inputs % names.group:
            raise ValueError(f"{part.name} has {inputs} inputs, no multiple of {names.group}")
        shape = (inputs // 2,) if not names.blocked else (groups, names.group // 2)
        data = self._rows(part, names.data, shape, torch.uint8).flatten(1)
        codes = codes_of(data)
        if names.whole is None:
            scale = power_scales(self._rows(part, names.scale, (groups,), torch.uint8))
            return Coded(codes, "e2m1", scale=scale, group=names.group)
        scale = self._rows(part, names.scale, (groups,), torch.float8_e4m3fn)
        return Coded(codes, "e2m1", None, scale, names.group, self._whole(part))

    def _whole(self, part: Slice) -> Tensor:
        """The tensor's scale, for each of the rows."""
        assert self._names.whole is not None
        name = part.name + self._names.whole
        shape = self.source.shape(name)
        shape = (1,) if shape is None or shape != () else shape
        value = torch.empty(1, dtype=torch.float32, device=self.device)
        self.source.read(value, name, shape)
        return (1 / value if self._names.divides else value).repeat(len(part.rows))

    def _rows(self, part: Slice, ending: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        out = torch.empty(len(part.rows), *shape, dtype=dtype, device=self.device)
        self.source.read(out, part.name + ending, (part.total, *shape), 0, part.rows.start)
        return out


def codes_of(data: Tensor) -> Tensor:
    """Two codes of each byte, the first one low. data: [rows, bytes]."""
    return torch.stack((data & 15, data >> 4), dim=2).flatten(1)


def power_scales(exponents: Tensor) -> Tensor:
    """Scales of MXFP4, which are stored as e8m0, in bfloat16: it holds them all exactly."""
    return (exponents.float() - E8M0_BIAS).exp2().bfloat16()
