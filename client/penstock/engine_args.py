"""vLLM's arguments of an engine, and what the launcher is told for them."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from penstock.vllm_arguments import NOTHING, NOTICES, REFUSED, TUNING

SEQUENCES = 512  # at once on a GPU, where nobody says otherwise
DTYPES = {"half": "float16", "float": "float32", "auto": None}
UNITS = {"k": 1_000, "K": 1_024, "m": 1_000_000, "M": 1 << 20}


def _dtype(value: Any) -> Any:
    name = str(value).removeprefix("torch.")
    return DTYPES.get(name, name)


def _length(value: Any) -> Any:
    """Tokens: a number, "8k", "auto" or -1."""
    if value in ("auto", -1):
        return None
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM])?", value)):
        return int(float(match[1]) * UNITS.get(match[2], 1))
    return value


def _unless(*neutral: Any) -> Callable[[Any], Any]:
    return lambda value: None if value in neutral else value


def _switch(value: Any) -> bool | None:
    if value is None or value in (True, False):
        return None if value is None else bool(value)
    raise ValueError("must be True or False")


def _entries(value: Any) -> str | None:
    """JSON of a dict; vLLM also takes a function, which would run where the model is loaded."""
    if not isinstance(value, Mapping):
        raise ValueError("must be a dict")
    return json.dumps(dict(value), allow_nan=False) if value else None


@dataclass(frozen=True, slots=True)
class Honoured:
    """An argument that is an option of the launcher."""

    option: str
    value: Callable[[Any], Any] = lambda value: value
    default: Any = None


HONOURED: Mapping[str, Honoured] = {
    "revision": Honoured("revision"),
    "served_model_name": Honoured("served_model_name"),
    "tensor_parallel_size": Honoured("num_shard", default=1),
    "dtype": Honoured("dtype", _dtype),
    "quantization": Honoured("quantize"),
    "load_format": Honoured("load_format", lambda v: "auto" if v == "safetensors" else v),
    "download_dir": Honoured("huggingface_hub_cache"),
    "gpu_memory_utilization": Honoured("cuda_memory_fraction", default=0.92),
    "kv_cache_memory_bytes": Honoured("kv_cache_memory"),
    "hf_overrides": Honoured("hf_overrides", _entries),
    "rope_scaling": Honoured("rope_scaling", _entries),
    "kv_cache_dtype": Honoured("kv_cache_dtype", _unless("auto")),
    "block_size": Honoured("kv_block_size"),
    "max_model_len": Honoured("max_total_tokens", _length),
    "max_num_seqs": Honoured("max_batch_size"),
    "max_num_batched_tokens": Honoured("max_batch_prefill_tokens", _length),
    "max_logprobs": Honoured("max_top_n_tokens", default=20),
    "enforce_eager": Honoured("cuda_graphs", lambda v: "0" if _switch(v) else None),
    "enable_prefix_caching": Honoured("disable_prefix_cache", lambda v: _switch(v) is False),
    "generation_config": Honoured("generation_config", lambda v: "none" if v == "vllm" else v),
    "tool_call_parser": Honoured("tool_call_parser"),
    "reasoning_parser": Honoured("reasoning_parser", lambda v: v or None),
    "otlp_traces_endpoint": Honoured("otlp_endpoint"),
    "device": Honoured("device", _unless("auto")),
    "api_key": Honoured("api_key"),
    "port": Honoured("port", default=0),
}

# What LLM itself reads, by what it may be.
OWN: Mapping[str, tuple[tuple[type, ...], str]] = {
    "tokenizer": ((str, os.PathLike), "text or a path"),
    "seed": ((Integral,), "a whole number"),
    "chat_template": ((str, os.PathLike), "text or a path"),
    "override_generation_config": ((Mapping,), "a dict"),
    "hf_token": ((str, bool), "text"),
    "quiet": ((bool,), "True or False"),
    "use_tqdm_on_load": ((bool,), "True or False"),
    "launcher_options": ((Mapping,), "a dict"),
}
# of the launcher's options -> arguments of LLM
NAMES = {one.option: name for name, one in HONOURED.items()} | {
    "max_input_tokens": "max_model_len",
    "tokenizer_config_path": "chat_template",
}


def own_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those that LLM itself reads, without None. Raises TypeError."""
    own = {name: arguments[name] for name in OWN if arguments.get(name) is not None}
    for name, value in own.items():
        kinds, words = OWN[name]
        if not isinstance(value, kinds):
            raise TypeError(f"{name} must be {words}, not {type(value).__name__}")
    return own


def launcher_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What the launcher is told. Raises TypeError for unknown names, ValueError for what cannot be
    had; warns of what has no effect."""
    options: dict[str, Any] = {}
    for name, one in HONOURED.items():
        value = arguments.get(name, one.default)
        try:
            options[one.option] = None if value is None else one.value(value)
        except ValueError as error:
            raise ValueError(f"{name} {error}. Given: {value!r}") from None
    for name, value in arguments.items():
        if name in HONOURED or name in TUNING or name in OWN:
            continue
        if name in NOTICES:
            if value not in NOTHING:
                warnings.warn(f"{name} {NOTICES[name]}", stacklevel=4)
        elif name in REFUSED:
            neutral, reason = REFUSED[name]
            if value not in neutral:
                raise ValueError(f"{name}={value!r} {reason}")
        else:
            raise TypeError(f"LLM has no argument {name!r}")
    return options
