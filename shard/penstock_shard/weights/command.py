"""What the commands that write a model folder have in common: its folders, its device, its end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from penstock_proto.config_file import Parser
from penstock_shard.weights.rewrite import CONFIG, is_free


def parser_of(name: str, about: str | None) -> argparse.ArgumentParser:
    """With the options that all of them have."""
    parser = Parser(
        prog=name, description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model-id", required=True, help="folder with config.json and safetensors")
    parser.add_argument("--output", required=True, help="folder that is made")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default=device, help="where it computes"
    )
    return parser


def check_folders(model: Path, output: Path) -> None:
    """Raises ValueError where no model is, or where something is that would be written over."""
    if not (model / CONFIG).is_file():
        raise ValueError(f"--model-id {model} is no folder with a config.json")
    if not is_free(output):
        raise ValueError(f"--output {output} is not empty")


def exit_code(name: str, work: Callable[[], str]) -> int:
    """Do the work and print what it says of itself, or a sentence that says what cannot be."""
    try:
        said = work()
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    print(said)
    return 0
