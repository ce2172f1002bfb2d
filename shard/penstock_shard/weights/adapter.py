"""A LoRA adapter (arXiv:2106.09685) as PEFT writes it, and what it makes of a model's tensors.

Of a matrix W [outputs, inputs] it holds A [r, inputs] and B [outputs, r]; merged, W becomes
W + s B A with s = alpha / r, or alpha / sqrt(r) (rsLoRA, arXiv:2312.03732). DoRA (arXiv:2402.09353)
holds the length of each row besides. Other tensors stand in the place of the model's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from penstock_shard.json_file import read_object

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
WRAPPED = "base_model.model."  # in front of the name that the model gives a tensor
# What a tensor of the adapter is for its module, by the end of its name.
PARTS = {
    ".lora_A.weight": "a",
    ".lora_B.weight": "b",
    ".lora_embedding_A": "a",
    ".lora_embedding_B": "b",
    ".lora_magnitude_vector": "lengths",
    ".lora_magnitude_vector.weight": "lengths",
}
WHOLE = (".weight", ".bias")
AROUND = (".base_layer.", ".modules_to_save.")  # what PEFT puts around the model's own modules
# Settings under which a merged matrix is something else than the formula says, and what they may
# be all the same.
ONLY: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "lora_bias": (None, False),
    "layer_replication": (None,),
    "alora_invocation_tokens": (None,),
    "use_qalora": (None, False),
    "use_bdlora": (None, False),
    "megatron_config": (None,),
}
CHANGED_BASE = ("pissa", "olora", "corda")  # ways to begin that alter the model's own matrices
PLAIN = re.compile(r"\^?[\w.]+")  # a pattern that is a name, or the end of one


@dataclass(slots=True)
class Change:
    """What becomes of one tensor: a product that is added, or another tensor in its place."""

    parts: dict[str, Tensor] = field(default_factory=dict)
    embedding: bool = False
    whole: Tensor | None = None
    scale: float = 1.0
    transposed: bool = False  # the model's matrix is [inputs, outputs]

    def of(self, name: str, tensor: Tensor) -> Tensor:
        """The merged tensor, of the same type. Raises ValueError where the shapes do not fit."""
        if self.whole is not None:
            _fits(name, tensor, self.whole.shape)
            return self.whole.to(tensor)
        a, b = (self.parts[part].to(tensor.device, torch.float32) for part in ("a", "b"))
        added = self.scale * (b @ a)
        turned = self.transposed or self.embedding
        _fits(name, tensor, added.T.shape if turned else added.shape)
        matrix = tensor.float() + (added.T if turned else added)
        if (lengths := self.parts.get("lengths")) is not None:
            across = 0 if turned else 1
            own = torch.linalg.vector_norm(matrix, dim=across, keepdim=True)
            wanted = lengths.to(matrix).flatten().unsqueeze(across)
            _fits(name, own, wanted.shape)
            matrix = matrix * (wanted / own)
        return matrix.to(tensor.dtype)


def read_adapter(folder: Path, renamed: Callable[[str], str]) -> dict[str, Change]:
    """What becomes of which tensors, by their names. renamed: as the model is read.

    Raises ValueError, with a sentence, for what is no adapter and for what cannot be merged.
    """
    path = folder / WEIGHTS
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} holds no {CONFIG}: it is no adapter as PEFT writes it")
    if not path.is_file():
        raise ValueError(f"{folder} holds no {WEIGHTS}; pickled weights (.bin) are not read")
    config = read_object(folder / CONFIG)
    _check(config)
    changes: dict[str, Change] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for stored in file.keys():  # noqa: SIM118 (the file is no mapping)
                _note(changes, config, stored, file.get_tensor(stored), renamed)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    for name, change in changes.items():
        if change.whole is None and not {"a", "b"} <= change.parts.keys():
            raise ValueError(f"{path} holds one of the two matrices of {name} alone")
        if change.embedding and "lengths" in change.parts:
            raise ValueError(f"{path} holds DoRA of {name}, an embedding, which cannot be merged")
    if not changes:
        raise ValueError(f"{path} holds no tensors")
    return changes


def _check(config: Mapping[str, Any]) -> None:
    for name, allowed in ONLY.items():
        if config.get(name) not in allowed:
            raise ValueError(f"an adapter with {name} {config.get(name)!r} cannot be merged")
    begun = str(config.get("init_lora_weights", "")).lower()
    if begun.startswith(CHANGED_BASE):
        raise ValueError(
            f"an adapter with init_lora_weights {begun!r} belongs to another base than the model: "
            "have PEFT convert it while it saves (path_initial_model_for_weight_conversion)"
        )


def _note(
    changes: dict[str, Change],
    config: Mapping[str, Any],
    stored: str,
    tensor: Tensor,
    renamed: Callable[[str], str],
) -> None:
    name = stored.removeprefix(WRAPPED)
    for around in AROUND:
        name = name.replace(around, ".")
    end = next((end for end in PARTS if name.endswith(end)), None)
    if end is None:
        if "lora_" in name or not name.endswith(WHOLE):
            raise ValueError(f"the adapter's tensor {stored} is of a kind that cannot be merged")
        changes.setdefault(renamed(name), Change()).whole = tensor
        return
    module = name.removesuffix(end)
    change = changes.setdefault(renamed(f"{module}.weight"), Change())
    change.parts[PARTS[end]] = tensor
    change.embedding |= "embedding" in end
    change.transposed = bool(config.get("fan_in_fan_out"))
    if PARTS[end] == "a":
        change.scale = _scale(config, module, tensor.shape[0])


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    alpha = config.get("lora_alpha", rank)
    for pattern, other in (config.get("alpha_pattern") or {}).items():
        if not PLAIN.fullmatch(pattern):
            raise ValueError(f"alpha_pattern {pattern!r} is no name and no end of a name")
        end = pattern.removeprefix("^")
        if module == end or (end == pattern and module.endswith(f".{end}")):
            alpha = other
            break
    if not isinstance(alpha, int | float) or not math.isfinite(alpha) or not rank:
        raise ValueError(f"lora_alpha of {module} must be a number, not {alpha!r}")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _fits(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(
            f"{name} is {list(tensor.shape)} in the model, and the adapter is for {list(shape)}: "
            "it belongs to another model"
        )
