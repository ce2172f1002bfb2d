"""Files beside config.json in which old checkpoints say how they are quantised."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock_quantization.methods import KEYS
from penstock_shard.json_file import read_object

# By the method of those that name none.
FILES = {
    "quantize_config.json": "gptq",
    "quant_config.json": "awq",
    "hf_quant_config.json": "modelopt",
}


def quantization_file(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json would say, of a folder whose config.json says nothing of it; else empty.

    Raises ValueError that names the file, where it holds no object.
    """
    if any(config.get(key) for key in KEYS):
        return {}
    for name, method in FILES.items():
        if (path := folder / name).is_file():
            found = read_object(path)
            return {KEYS[0]: {"quant_method": found.get("quant_method") or method, **found}}
    return {}
