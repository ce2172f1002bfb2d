"""Where parameters come from: the checkpoint's safetensors files, memory-mapped, or random numbers.

Each rank reads only its own slice of each tensor, straight into the parameter that it belongs to,
so that loading needs no more memory than the rank's share of the model.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from penstock_quantization.source import Source
from penstock_shard.log import Progress
from penstock_shard.model.families.family import Names
from penstock_shard.weights.checkpoint_files import checkpoint_files

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_FP8 = "F8_E4M3"
_BITS = re.compile(r"\d+")  # in the name of a type, as F8_E4M3
# What is read as it is stored, by the type of what it is read into.
_EXACT = {torch.float8_e4m3fn: _FP8, torch.uint8: "U8", torch.int32: "I32", torch.int8: "I8"}
FP8_DEVIATION = 64.0  # of random numbers: the largest is 448
# What random weights have instead of random numbers, by the end of a name and the type, so that
# a quantised matrix comes out with a deviation of some 0.02.
_SCALES: dict[tuple[str, torch.dtype], float] = {
    ("weight_scale", torch.float32): 0.02 / FP8_DEVIATION,
    ("weight_scale_inv", torch.float32): 0.02 / FP8_DEVIATION,
    ("weight_scale", torch.uint8): 127 - 10,
    ("_scales", torch.uint8): 127 - 10,
    ("weight_scale", torch.float8_e4m3fn): 1.0,
    ("weight_scale_2", torch.float32): 0.01,
    ("weight_global_scale", torch.float32): 100.0,
    ("absmax", torch.float32): 0.04,
    ("_weight_scale", torch.float16): 0.02 / 74,  # of 8 bits
    (".scales", torch.float16): 0.02 / 4.6,  # of 4 bits
    ("weight_scale", torch.float16): 0.02 / 4.6,
    ("SCB", torch.float16): 0.02 * 127 / 74,
}
# Tensors that old checkpoints hold although they follow from config.json.
_DERIVED = (".rotary_emb.inv_freq", ".masked_bias", ".attn.bias", ".attention.bias")


class Weights(Source, Protocol):
    """A source of parameters."""

    def problem(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> str | None:
        """Why no such tensor can be read as this type, as half a sentence; None if one can."""

    def unexpected(self, asked: Set[str]) -> list[str]:
        """Names of tensors that are there, but not asked for and not derived."""

    def finish(self, ignored: Callable[[str], bool]) -> None:
        """Everything was read, but for tensors that may be there although nobody needs them."""


class Rehearsal:
    """A source that gives nothing, to find what another one lacks before anything is allocated."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._asked: set[str] = set()
        self._problems: list[str] = []

    def shape(self, name: str) -> tuple[int, ...] | None:
        return self._weights.shape(name)

    def is_there(self, name: str) -> bool | None:
        return self._weights.is_there(name)

    def stored(self, name: str) -> torch.dtype | None:
        return self._weights.stored(name)

    def is_fp8(self, name: str) -> bool | None:
        return self._weights.is_fp8(name)

    def problem(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> str | None:
        return self._weights.problem(name, shape, dtype)

    def unexpected(self, asked: Set[str]) -> list[str]:
        return self._weights.unexpected(asked)

    def read(
        self, into: Tensor, name: str, shape: tuple[int, ...], dim: int = 0, start: int = 0
    ) -> None:
        self._asked.add(name)
        if problem := self.problem(name, shape, into.dtype):
            self._problems.append(problem)

    def finish(self, ignored: Callable[[str], bool]) -> None:
        """Raises ValueError that names what is missing, of another shape, or unexpected."""
        if self._problems:
            raise ValueError("the checkpoint does not fit config.json: " + _some(self._problems))
        if names := [name for name in self.unexpected(self._asked) if not ignored(name)]:
            raise ValueError(
                f"the checkpoint has {len(names)} tensors that config.json does not account for: "
                + _some(names)
            )


class DummyWeights:
    """Random parameters, made on the device. A replicated parameter is the same on every rank."""

    def shape(self, name: str) -> tuple[int, ...] | None:
        return None

    def is_there(self, name: str) -> bool | None:
        return None

    def stored(self, name: str) -> torch.dtype | None:
        return None

    def is_fp8(self, name: str) -> bool | None:
        return None

    def problem(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> str | None:
        return None

    def unexpected(self, asked: Set[str]) -> list[str]:
        return []

    def read(
        self, into: Tensor, name: str, shape: tuple[int, ...], dim: int = 0, start: int = 0
    ) -> None:
        if len(shape) == 1 and name.endswith("weight"):  # a norm's
            into.fill_(1.0)
            return
        for (ending, dtype), value in _SCALES.items():
            if name.endswith(ending) and into.dtype == dtype:
                into.fill_(value)
                return
        generator = torch.Generator(into.device)
        generator.manual_seed(zlib.crc32(f"{name}:{start}".encode()))
        if into.dtype == torch.float8_e4m3fn:
            wide = torch.empty(into.shape, dtype=torch.float16, device=into.device)
            into.copy_(wide.normal_(0.0, FP8_DEVIATION, generator=generator))
        elif not into.is_floating_point():
            least = torch.iinfo(into.dtype).min
            into.random_(least, torch.iinfo(into.dtype).max + 1, generator=generator)
        else:
            into.normal_(0.0, 0.02, generator=generator)

    def finish(self, ignored: Callable[[str], bool]) -> None:
        return


class Checkpoint:
    """The safetensors files of a model folder."""

    def __init__(self, folder: Path, names: Names | None = None) -> None:
        """Opens the files and reads their headers. Raises ValueError for a folder without any.

        names: of a family, to which those in the files are changed.
        """
        names = names or Names()
        self.folder = folder
        self._slices: dict[str, Any] = {}
        files = checkpoint_files(folder).chosen
        self._open = [opened(path) for path in files]
        for path, file in zip(files, self._open, strict=True):
            for stored in file.keys():  # noqa: SIM118 (the file is no mapping)
                if stored.startswith(names.unserved):
                    continue
                name = renamed(stored, names)
                if name in self._slices:
                    raise ValueError(
                        f"tensor {name} stands twice in {folder}, again in {path.name}"
                    )
                self._slices[name] = file.get_slice(stored)
        # of a type that we do not compute in
        self.is_quantised = any(one.get_dtype() not in _DTYPES for one in self._slices.values())
        self._left = {name: _bytes(part) for name, part in self._slices.items()}
        self._progress = Progress("weights", sum(self._left.values()), "B")

    @property
    def dtype(self) -> str | None:
        """The type most of the tensors have, or None if it is none that we compute in."""
        types = [part.get_dtype() for part in self._slices.values()]
        known = [_DTYPES[name] for name in types if name in _DTYPES]
        return max(set(known), key=known.count) if known else None

    def shape(self, name: str) -> tuple[int, ...] | None:
        part = self._slices.get(name)
        return None if part is None else tuple(part.get_shape())

    def is_there(self, name: str) -> bool | None:
        return name in self._slices

    def stored(self, name: str) -> torch.dtype | None:
        part = self._slices.get(name)
        found = None if part is None else _DTYPES.get(part.get_dtype())
        return None if found is None else getattr(torch, found)

    def is_fp8(self, name: str) -> bool | None:
        part = self._slices.get(name)
        return None if part is None else part.get_dtype() == _FP8

    def problem(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> str | None:
        part = self._slices.get(name)
        if part is None:
            return f"tensor {name} is missing"
        if (found := tuple(part.get_shape())) != shape:
            return f"tensor {name} has shape {list(found)}, but config.json makes it {list(shape)}"
        supported = (_EXACT[dtype],) if dtype in _EXACT else tuple(_DTYPES)
        if part.get_dtype() not in supported:
            return f"tensor {name} has type {part.get_dtype()}; supported: {', '.join(supported)}"
        return None

    def unexpected(self, asked: Set[str]) -> list[str]:
        return sorted(n for n in self._slices.keys() - asked if not n.endswith(_DERIVED))

    def read(
        self, into: Tensor, name: str, shape: tuple[int, ...], dim: int = 0, start: int = 0
    ) -> None:
        if problem := self.problem(name, shape, into.dtype):
            raise ValueError(problem)
        part, shape = self._slices[name], shape or (1,)
        stop = min(start + into.shape[dim], shape[dim])
        count = max(stop - start, 0)
        if count > 0:
            index = (slice(None),) * dim + (slice(start, stop),)
            into.narrow(dim, 0, count).copy_(part[index] if part.get_shape() else part[...])
        into.narrow(dim, count, into.shape[dim] - count).zero_()
        if size := self._left.pop(name, 0):
            self._progress.advance(size)

    def finish(self, ignored: Callable[[str], bool]) -> None:
        self._progress.advance(sum(self._left.values()))
        self._slices.clear()
        self._open.clear()


def renamed(name: str, names: Names) -> str:
    """What a family calls a tensor that a file calls so."""
    for other, ours in names.others:
        if name.startswith(other):
            return ours + name.removeprefix(other)
    return name


def _some(items: list[str]) -> str:
    return "; ".join(items[:5]) + (f"; and {len(items) - 5} more" if len(items) > 5 else "")


def opened(path: Path) -> Any:
    """Raises ValueError for what is no safetensors file."""
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from None


def _bytes(part: Any) -> int:
    """Size of a tensor in its file."""
    bits = _BITS.search(part.get_dtype())
    return int(math.prod(part.get_shape())) * int(bits[0] if bits else 8) // 8
