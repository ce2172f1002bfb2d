"""`penstock quantize`: a checkpoint in half precision becomes a quantised one.

    penstock quantize --model-id FOLDER --output FOLDER --format fp8
    penstock quantize --model-id FOLDER --output FOLDER --format gptq --calibration text.txt

fp8, int8, nvfp4 and mxfp4 need nothing else; gptq and awq need a text like what the model is going
to see.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from tqdm import tqdm

from penstock_quantization.offline.groups import Grid, Quantised
from penstock_quantization.offline.store import FORMATS, Format
from penstock_shard.model.architecture import Architecture, read_architecture
from penstock_shard.ranks.parallel import Group
from penstock_shard.weights.calibrated import METHODS, Outcome
from penstock_shard.weights.calibration import Calibration
from penstock_shard.weights.checkpoint import Checkpoint, renamed
from penstock_shard.weights.command import check_folders, exit_code, parser_of
from penstock_shard.weights.load_weights import load_decoder
from penstock_shard.weights.parts import choosing, matrices_of
from penstock_shard.weights.rewrite import rewrite, tensors_of

NAME = "penstock quantize"
LONGEST_TEXT = 1 << 30  # bytes
MOST = 1 << 16  # samples, and tokens of one


def quantize(arguments: argparse.Namespace) -> int:
    """Bytes of the new tensors. Raises ValueError with a sentence for what cannot be."""
    folder, output = Path(arguments.model_id), Path(arguments.output)
    chosen = FORMATS[arguments.format]
    check_folders(folder, output)
    if arguments.bits is not None and arguments.bits not in chosen.bits:
        known = ", ".join(map(str, chosen.bits))
        raise ValueError(f"--bits {arguments.bits} is none of {arguments.format}: {known}")
    model = _quantisable(folder)
    matrices = matrices_of(model)
    grid = Grid(arguments.bits or chosen.bits[0], arguments.group_size, chosen.symmetric)
    outcome = Outcome()
    if chosen.store is not None:
        check_groups(model, grid)
        outcome = _calibrated(arguments, folder, model, grid)

    def change(stored: str, tensor: Tensor) -> dict[str, Tensor] | None:
        name = renamed(stored, model.family.names)
        if name in outcome.tensors:
            return {stored: outcome.tensors[name].to(tensor.dtype)}
        matrix = name.removesuffix(".weight")
        if matrix not in matrices or matrix == name:
            return None
        made = _made(chosen, tensor.to(arguments.device), outcome.matrices.get(matrix))
        return {f"{stored.removesuffix('.weight')}.{part}": made[part] for part in made}

    skipped = [model.family.names.head, *choosing(model)]
    config = {"quantization_config": chosen.config(grid, skipped)}
    with tqdm(total=len(tensors_of(folder)), unit="tensor", desc="written") as bar:
        return rewrite(folder, output, config, change, bar.update)


def _quantisable(folder: Path) -> Architecture:
    """Raises ValueError for a model that no format is written of."""
    model = read_architecture(folder)
    if model.scheme is not None:
        raise ValueError(f"{folder} is quantised already ({model.scheme.method})")
    if (keys := model.family.experts) is not None and keys.stacked:
        raise ValueError(
            f"{folder} is of {model.name}, which holds a layer's experts in one tensor: no format "
            "writes such; --quantize quantises them while it loads"
        )
    return model


def _made(chosen: Format, tensor: Tensor, matrix: Quantised | None) -> dict[str, Tensor]:
    if chosen.write is not None:
        return chosen.write(tensor)
    assert chosen.store is not None and matrix is not None
    cpu = Quantised(matrix.q.cpu(), matrix.scale.cpu(), matrix.zero.cpu(), matrix.bits)
    return chosen.store(cpu)


def check_groups(model: Architecture, grid: Grid) -> None:
    """Raises ValueError where groups do not divide the inputs of a matrix."""
    sizes = {"hidden_size": model.hidden_size}
    sizes["num_attention_heads * head_dim"] = model.num_heads * model.head_dim
    if not all(map(model.has_experts, range(model.num_layers))):
        sizes["intermediate_size"] = model.intermediate_size
    if model.experts is not None:
        sizes["the size of an expert"] = model.experts.inner
        sizes["the size of the shared expert"] = model.experts.shared or model.experts.inner
    for what, inputs in sizes.items():
        if grid.group < 8 or inputs % grid.group:
            raise ValueError(f"--group-size {grid.group} does not divide {what} {inputs}")


def _calibrated(
    arguments: argparse.Namespace, folder: Path, model: Architecture, grid: Grid
) -> Outcome:
    if arguments.calibration is None:
        raise ValueError(f"--format {arguments.format} needs --calibration FILE, a text")
    sequences = read_sequences(
        Path(arguments.calibration), folder / "tokenizer.json", arguments.samples, arguments.length
    )
    device = torch.device(arguments.device)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    with contextlib.redirect_stderr(io.StringIO()):  # records for the launcher
        weights = Checkpoint(folder, model.family.names)
        decoder = load_decoder(model, Group(0, 1), weights, dtype, device)
    with tqdm(total=model.num_layers, unit="layer", desc=arguments.format) as bar:
        method = METHODS[arguments.format]
        text = Calibration(decoder, sequences)
        outcome = method(model, text, grid, bar.update)
    if outcome.rounded:
        print(
            f"{outcome.rounded} of {len(outcome.matrices)} matrices are of experts that fewer than "
            f"{grid.group} tokens of the text took: their numbers were rounded to the nearest; a "
            "longer text calibrates more of them"
        )
    return outcome


def read_sequences(text: Path, tokenizer: Path, samples: int, length: int) -> Tensor:
    """[samples, length] tokens, spread evenly over a text.

    Raises ValueError for a text that is too short."""
    if not text.is_file():
        raise ValueError(f"--calibration {text} is no file")
    if not tokenizer.is_file():
        raise ValueError(f"{tokenizer} is missing, which calibration needs")
    if text.stat().st_size > LONGEST_TEXT:
        raise ValueError(f"--calibration {text} has more than {LONGEST_TEXT} bytes")
    ids = (
        Tokenizer.from_file(str(tokenizer))
        .encode(text.read_text(encoding="utf-8"), add_special_tokens=False)
        .ids
    )
    count = len(ids) // length
    if not count:
        raise ValueError(
            f"--calibration {text} has {len(ids)} tokens, fewer than --length {length}"
        )
    whole = torch.tensor(ids[: count * length]).view(count, length)
    chosen = torch.linspace(0, count - 1, min(samples, count)).long()
    return whole[chosen]


def parser() -> argparse.ArgumentParser:
    made = parser_of(NAME, __doc__)
    made.add_argument("--format", required=True, choices=list(FORMATS))
    made.add_argument("--bits", type=int, help="of gptq: 4 (default) or 8")
    made.add_argument("--calibration", help="text file, for gptq and awq")
    for name, (kind, default, what) in CALIBRATING.items():
        made.add_argument(f"--{name}", type=kind, help=f"{what} ({default}), for gptq and awq")
    return made


def _with_defaults(given: argparse.Namespace) -> argparse.Namespace:
    """Raises ValueError for what the format has no use for."""
    values = vars(given)
    if FORMATS[given.format].store is None:
        for name in ("calibration", *CALIBRATING):
            if values[name.replace("-", "_")] is not None:
                raise ValueError(f"--{name} is for gptq and awq, not for {given.format}")
    for name, (_, default, _) in CALIBRATING.items():
        if values[key := name.replace("-", "_")] is None:
            values[key] = default
    return given


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {MOST}")
    return int(text)


# Name of an option, its type, its default and what it says.
CALIBRATING: dict[str, tuple[Callable[[str], int], int, str]] = {
    "group-size": (int, 128, "inputs that share a scale"),
    "samples": (_count, 128, "sequences of the text"),
    "length": (_count, 512, "tokens of a sequence"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    asked = parser().parse_args(argv)

    def work() -> str:
        size = quantize(_with_defaults(asked))
        return f"{asked.output}: {asked.format}, {size:,} bytes of tensors"

    return exit_code(NAME, work)


if __name__ == "__main__":
    sys.exit(main())
