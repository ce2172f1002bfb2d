"""Where parameters come from: the checkpoint's safetensors files, memory-mapped, or random numbers.

Each rank reads only its own slice of each tensor, straight into the parameter that it belongs to,
so that loading needs no more memory than the rank's share of the model.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from penstock_shard.log import Progress

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# Tensors that old checkpoints hold although they follow from config.json.
_DERIVED = (".rotary_emb.inv_freq", ".masked_bias", ".attn.bias")


class Weights(Protocol):
    """A source of parameters."""

    def read(
        self, into: Tensor, name: str, shape: tuple[int, ...], dim: int = 0, start: int = 0
    ) -> None:
        """Fill `into` with `name`, from `start` on along `dim`; rows beyond its end become zero.

        shape is that of the whole tensor. Raises ValueError that names the tensor.
        """

    def finish(self, ignored: frozenset[str]) -> None:
        """Everything was read; raises ValueError for tensors that nobody asked for."""


class DummyWeights:
    """Random parameters, made on the device. A replicated parameter is the same on every rank."""

    def read(
        self, into: Tensor, name: str, shape: tuple[int, ...], dim: int = 0, start: int = 0
    ) -> None:
        if name.endswith("norm.weight"):
            into.fill_(1.0)
            return
        generator = torch.Generator(into.device)
        generator.manual_seed(zlib.crc32(f"{name}:{start}".encode()))
        into.normal_(0.0, 0.02, generator=generator)

    def finish(self, ignored: frozenset[str]) -> None:
        return


class Checkpoint:
    """The safetensors files of a model folder."""

    def __init__(self, folder: Path) -> None:
        """Opens the files and reads their headers. Raises ValueError for a folder without any."""
        self.folder = folder
        self._slices: dict[str, Any] = {}
        self._read: set[str] = set()
        files = _files(folder)
        self._open = [_open(path) for path in files]
        for path, file in zip(files, self._open, strict=True):
            for name in file.keys():  # noqa: SIM118 (the file is no mapping)
                if name in self._slices:
                    raise ValueError(
                        f"tensor {name} stands twice in {folder}, again in {path.name}"
                    )
                self._slices[name] = file.get_slice(name)
        self._progress = Progress("weights", len(self._slices), "tensors")

    @property
    def dtype(self) -> str | None:
        """The type most of the tensors have, or None if it is none that we compute in."""
        types = [_DTYPES.get(part.get_dtype()) for part in self._slices.values()]
        return max(set(types), key=types.count) if types else None

    def read(
        self, into: Tensor, name: str, shape: tuple[int, ...], dim: int = 0, start: int = 0
    ) -> None:
        part = self._slices.get(name)
        if part is None:
            raise ValueError(f"tensor {name} is missing from the checkpoint {self.folder}")
        found = tuple(part.get_shape())
        if found != shape:
            raise ValueError(
                f"tensor {name} has shape {list(found)}, but config.json makes it {list(shape)}"
            )
        if part.get_dtype() not in _DTYPES:
            raise ValueError(
                f"tensor {name} has type {part.get_dtype()}; supported: {', '.join(_DTYPES)}"
            )
        stop = min(start + into.shape[dim], shape[dim])
        count = max(stop - start, 0)
        if count > 0:
            index = (slice(None),) * dim + (slice(start, stop),)
            into.narrow(dim, 0, count).copy_(part[index])
        into.narrow(dim, count, into.shape[dim] - count).zero_()
        if name not in self._read:
            self._read.add(name)
            self._progress.advance(1)

    def finish(self, ignored: frozenset[str]) -> None:
        unused = self._slices.keys() - self._read
        unexpected = sorted(n for n in unused - ignored if not n.endswith(_DERIVED))
        if unexpected:
            shown = ", ".join(unexpected[:5]) + (", ..." if len(unexpected) > 5 else "")
            raise ValueError(
                f"the checkpoint {self.folder} has {len(unexpected)} tensors that its config.json "
                f"does not account for: {shown}"
            )
        self._progress.advance(len(unused))
        self._slices.clear()
        self._open.clear()


def _files(folder: Path) -> list[Path]:
    """The files that the index names, or all of them."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{index} is no index of safetensors files: {error!r}") from None
        # The index comes with the model: it must not lead out of the model's folder.
        if outside := [name for name in names if Path(name).name != name]:
            raise ValueError(f"{index} names {outside[0]!r}, which is not in its folder")
        paths = [folder / name for name in names]
        if missing := [path.name for path in paths if not path.exists()]:
            raise ValueError(f"{index} names files that are missing: {', '.join(missing)}")
        return paths
    if paths := sorted(folder.glob("*.safetensors")):
        return paths
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise ValueError(
            f"{folder} has only pickled weights (.bin), which can run code when they are loaded; "
            "convert them with transformers: AutoModelForCausalLM.from_pretrained(folder)"
            ".save_pretrained(new_folder)"
        )
    raise ValueError(f"{folder} has no *.safetensors file")


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from None
