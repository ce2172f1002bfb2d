"""The shard's configuration, as the launcher sends it on standard input."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Self

from penstock_quantization.activations import ACTIVATIONS
from penstock_quantization.kv_scheme import AUTO, NAMES
from penstock_quantization.methods import LOADED, STORED

DTYPES = ("float32", "float16", "bfloat16")
DEVICES = ("cpu", "cuda")
LOAD_FORMATS = ("auto", "dummy")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardConfig:
    """One field an option of the launcher; None where the shard decides itself."""

    model_path: str  # folder with config.json and *.safetensors
    dtype: str | None  # None: the checkpoint's
    device: str | None  # None: cuda if there is one
    load_format: str  # "auto": from the checkpoint; "dummy": random weights
    quantize: str | None  # how half-precision weights are quantised when they are loaded
    kv_cache_dtype: str  # "auto": the model's, or FP8 where the checkpoint was made for that
    kv_block_size: int | None  # tokens; None: 64 on CUDA, 16 on a CPU
    cuda_memory_fraction: float  # share of the GPU's memory that this shard may use
    cuda_graphs: tuple[int, ...] | None  # rows captured; (0,): none; None: sizes up to all slots
    disable_dependent_launch: bool  # every kernel starts only when the one before it has ended
    socket_folder: str
    # Where it listens for a router on another host, and the files of TLS: `address`, `certificate`,
    # `key`, `authorities`. None: at a Unix socket.
    listen: dict[str, str] | None = None
    kv_cache_memory: int | None = None  # bytes of the KV cache; None: what is left
    leave_free: int | None = None  # bytes of the GPU, or of a CPU's host, for others
    deterministic: bool = False  # no row's result depends on what else is computed
    quantize_activations: str | None = None  # in what rows meet 4-bit weights; None: as they are

    def __post_init__(self) -> None:
        _check("dtype", self.dtype, (None, *DTYPES))
        _check("device", self.device, (None, *DEVICES))
        _check("load_format", self.load_format, LOAD_FORMATS)
        _check("quantize", self.quantize, (None, *LOADED, *STORED))
        _check("quantize_activations", self.quantize_activations, (None, *ACTIVATIONS))
        if self.quantize_activations is not None and self.deterministic:
            raise ValueError(
                "quantize_activations and deterministic exclude each other: on a GPU rows are "
                "quantised in steps of many rows alone"
            )
        _check("kv_cache_dtype", self.kv_cache_dtype, (AUTO, *NAMES))
        if self.kv_block_size is not None and not 1 <= self.kv_block_size <= 1024:
            raise ValueError(f"kv_block_size must be from 1 to 1024, not {self.kv_block_size}")
        if not 0 < self.cuda_memory_fraction <= 1:
            raise ValueError(
                f"cuda_memory_fraction must be in (0, 1], not {self.cuda_memory_fraction}"
            )
        for name in ("kv_cache_memory", "leave_free"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise ValueError(f"{name} must not be negative, and is {value}")

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse what the launcher wrote. Raises ValueError for a missing, unknown or bad key."""
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(
                f"shard configuration is a JSON {type(values).__name__}, not an object"
            )
        fields = dataclasses.fields(cls)
        names = {field.name for field in fields}
        needed = {field.name for field in fields if field.default is dataclasses.MISSING}
        if missing := needed - values.keys():
            raise ValueError(f"shard configuration lacks {sorted(missing)}")
        if unknown := values.keys() - names:
            raise ValueError(f"shard configuration has unknown keys {sorted(unknown)}")
        if values["cuda_graphs"] is not None:
            values["cuda_graphs"] = tuple(values["cuda_graphs"])
        return cls(**values)


def _check(name: str, value: str | None, allowed: tuple[str | None, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {list(allowed)}, not {value!r}")
