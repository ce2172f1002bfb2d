"""Writes a model folder anew, file by file, with other tensors in the place of some."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from penstock_shard.json_file import read_object
from penstock_shard.weights.checkpoint import opened
from penstock_shard.weights.checkpoint_files import INDEX, checkpoint_files
from penstock_shard.weights.cut_off import check_all_there

# What a tensor becomes: None: itself. Its name is that of the file.
Change = Callable[[str, Tensor], dict[str, Tensor] | None]
CONFIG = "config.json"  # a folder without it is no model
UNFINISHED = ".unfinished"  # a folder of what is written, until all is
LEFT_OUT = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack")


def tensors_of(folder: Path) -> list[str]:
    """Names of all that `rewrite` goes through. Raises ValueError for files that are damaged."""
    names: list[str] = []
    for path in checkpoint_files(folder).chosen:
        check_all_there(path)
        with opened(path) as file:
            names += file.keys()
    return names


def is_free(output: Path) -> bool:
    """Whether a model may be written there: nothing is there but what a run left that was ended."""
    return not output.exists() or set(os.listdir(output)) <= {UNFINISHED}


@contextmanager
def all_or_nothing(output: Path) -> Iterator[Path]:
    """A folder whose files become those of `output` in the end, config.json last. It lies in
    `output`, which may be a mount of its own. Whatever goes wrong, nothing of it stays; a run that
    is killed leaves UNFINISHED, which the next one removes."""
    made = not output.exists()
    parts = output / UNFINISHED
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    try:
        yield parts
        for name in sorted(os.listdir(parts), key=lambda name: name == CONFIG):
            os.rename(parts / name, output / name)
        made = False
    finally:
        shutil.rmtree(output if made else parts, ignore_errors=True)


def rewrite(
    folder: Path,
    output: Path,
    config: dict[str, Any],
    change: Change,
    done: Callable[[], object] = lambda: None,
    files: Mapping[str, Path] = MappingProxyType({}),
) -> int:
    """One file of weights is in memory at a time. config: what config.json gets besides; done:
    called behind each tensor; files: that stand in the place of the model's, by name. Returns the
    bytes of all tensors."""
    with all_or_nothing(output) as parts:
        total = _write(folder, parts, config, change, done)
        for name, path in files.items():
            shutil.copyfile(path, parts / name)
        return total


def _write(
    folder: Path,
    output: Path,
    config: dict[str, Any],
    change: Change,
    done: Callable[[], object],
) -> int:
    places: dict[str, str] = {}
    total = 0
    for path in checkpoint_files(folder).chosen:
        kept: dict[str, Tensor] = {}
        with opened(path) as file:
            for name in file.keys():  # noqa: SIM118 (the file is no mapping)
                tensor = file.get_tensor(name)
                changed = change(name, tensor)
                kept |= {name: tensor} if changed is None else changed
                done()
        kept = {name: tensor.cpu().contiguous() for name, tensor in kept.items()}
        _save(kept, output / path.name)
        places |= dict.fromkeys(kept, path.name)
        total += sum(tensor.nbytes for tensor in kept.values())
    if len(set(places.values())) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        (output / INDEX).write_text(json.dumps(index, indent=2))
    for path in folder.iterdir():
        if path.is_file() and path.name != INDEX and not path.name.endswith(LEFT_OUT):
            shutil.copyfile(path, output / path.name)
    whole = read_object(folder / CONFIG) | config
    (output / CONFIG).write_text(json.dumps(whole, indent=2) + "\n")
    return total


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    """Raises OSError, also of a full disk, for which the library has an error of its own."""
    try:
        save_file(tensors, path, {"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from None
    path.chmod(0o644)
