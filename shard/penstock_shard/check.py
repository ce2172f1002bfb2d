"""Looks at a model folder before anything is loaded; the launcher runs it once, before the shards.

It imports no torch, so an operator reads what is wrong after a tenth of a second, in one sentence
and once, whatever the number of shards. Reads `{"model_path", "load_format", "shards"}` as JSON on
standard input; its ready line is `{"max_positions", "notices"}` or `{"error": sentence}`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from penstock_shard.model.architecture import Architecture, check_split, read_architecture
from penstock_shard.weights.checkpoint_files import checkpoint_files
from penstock_shard.weights.cut_off import check_all_there

SMALLEST = 2  # bytes of a parameter, in the types that are supported


def check(folder: Path, load_format: str, shards: int) -> dict[str, Any]:
    """What the launcher wants to know. Raises ValueError for what cannot be served."""
    model = read_architecture(folder)
    check_split(model, shards)
    notices: tuple[str, ...] = ()
    if load_format == "auto":
        files = checkpoint_files(folder)
        for path in files.chosen:
            check_all_there(path)
        check_size(model, files.size)
        notices = files.notices
    return {"max_positions": model.max_positions, "notices": notices}


def check_size(model: Architecture, size: int) -> None:
    """Raises ValueError where files of so many bytes cannot hold the model."""
    bits = 8 * SMALLEST if model.scheme is None else model.scheme.bits
    needed = model.parameters * bits // 8
    if needed > size:
        raise ValueError(
            f"config.json describes {model.parameters:,} parameters "
            f"(num_hidden_layers {model.num_layers}, hidden_size {model.hidden_size}, "
            f"intermediate_size {model.intermediate_size}, vocab_size {model.vocab_size}), "
            f"at least {needed:,} bytes, but the safetensors hold {size:,} bytes: one of them is "
            "of another model, or files are missing"
        )


def main() -> None:
    config = json.load(sys.stdin)
    try:
        answer = check(Path(config["model_path"]), config["load_format"], config["shards"])
    except (ValueError, OSError) as error:
        answer = {"error": str(error)}
    with open(int(os.environ["PENSTOCK_READY_FD"]), "w") as ready:
        print(json.dumps(answer), file=ready)


if __name__ == "__main__":
    main()
