"""The type of the KV cache: what `--kv-cache-dtype` says, and what a checkpoint was made for.

Without torch: the launcher checks config.json early.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEYS = ("quantization_config", "compression_config")  # of config.json; the second in old files
AUTO = "auto"
# By the names of `--kv-cache-dtype`: TGI's, then vLLM's.
NAMES = {
    "fp8_e4m3fn": "float8_e4m3fn",
    "fp8_e5m2": "float8_e5m2",
    "fp8": "float8_e4m3fn",
    "fp8_e4m3": "float8_e4m3fn",
}


def declared_kv_cache(config: Mapping[str, Any]) -> str | None:
    """The type for which a checkpoint's scales of keys and values are, of a parsed config.json.

    None where it says none, or one that is not served: a cache of the model's type is more exact.
    """
    given = _given(config)
    scheme = given.get("kv_cache_scheme")  # of compressed-tensors; newer ones of ModelOpt
    if isinstance(scheme, Mapping):
        kind = (scheme.get("type"), scheme.get("num_bits"), scheme.get("dynamic", False))
        per_tensor = scheme.get("strategy", "tensor") == "tensor"
        return NAMES["fp8"] if kind == ("float", 8, False) and per_tensor else None
    is_fp8 = scheme == "static" or given.get("kv_cache_quant_algo") == "FP8"  # AutoFP8; ModelOpt
    return NAMES["fp8"] if is_fp8 else None


def quantises_cache_alone(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint of compressed-tensors has scales of keys and values, and its matrices
    are as they were."""
    given = _given(config)
    whole = given.get("quant_method") == "compressed-tensors" and not given.get("config_groups")
    return whole and bool(given.get("kv_cache_scheme"))


def _given(config: Mapping[str, Any]) -> Mapping[str, Any]:
    given = next((config[key] for key in KEYS if config.get(key)), None)
    return given if isinstance(given, Mapping) else {}
