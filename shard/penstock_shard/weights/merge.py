"""`penstock merge`: a model and a LoRA adapter become a model of its own.

    penstock merge --model-id FOLDER --adapter FOLDER --output FOLDER

The adapter is one that PEFT wrote. Tokenizer files beside it win over the model's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from penstock_shard.model.architecture import read_architecture
from penstock_shard.weights.adapter import read_adapter
from penstock_shard.weights.checkpoint import renamed
from penstock_shard.weights.command import check_folders, exit_code, parser_of
from penstock_shard.weights.rewrite import rewrite, tensors_of

NAME = "penstock merge"

# What a training writes beside its adapter where it has changed the tokenizer or the template.
TEXT = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)


def merge(model_id: str, adapter: str, output: str, device: str) -> int:
    """Tensors that were changed. device: where it computes.

    Raises ValueError with a sentence for what cannot be."""
    folder, out, beside = Path(model_id), Path(output), Path(adapter)
    check_folders(folder, out)
    model = read_architecture(folder)
    if model.scheme is not None:
        raise ValueError(
            f"{folder} is quantised ({model.scheme.method}): merge into the model in half "
            "precision, and quantise what comes of it"
        )
    names = model.family.names
    changes = read_adapter(beside, lambda name: renamed(name, names))
    stored = tensors_of(folder)
    if unknown := changes.keys() - {renamed(name, names) for name in stored}:
        raise ValueError(
            f"--adapter {beside} is for {sorted(unknown)[0]} and {len(unknown) - 1} more that "
            f"{folder} does not hold: it belongs to another model, or to matrices that share "
            "their numbers with others"
        )

    def change(stored: str, tensor: Tensor) -> dict[str, Tensor] | None:
        found = changes.get(renamed(stored, names))
        return None if found is None else {stored: found.of(stored, tensor.to(device))}

    files = {name: beside / name for name in TEXT if (beside / name).is_file()}
    with tqdm(total=len(stored), unit="tensor", desc="written") as bar:
        rewrite(folder, out, {}, change, bar.update, files)
    return len(changes)


def parser() -> argparse.ArgumentParser:
    made = parser_of(NAME, __doc__)
    made.add_argument("--adapter", required=True, help="folder with adapter_config.json")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    asked = parser().parse_args(argv)

    def work() -> str:
        count = merge(asked.model_id, asked.adapter, asked.output, asked.device)
        return f"{asked.output}: {count} tensors changed"

    return exit_code(NAME, work)


if __name__ == "__main__":
    sys.exit(main())
