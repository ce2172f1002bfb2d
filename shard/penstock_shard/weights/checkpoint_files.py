"""Which safetensors of a model folder are its checkpoint, and which are something else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from penstock_shard.json_file import read_object

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SECOND_COPY = "consolidated"  # the same weights for Mistral's own loader
ADAPTER = "adapter"


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """The files to read, and what the operator should know about the choice, as sentences."""

    chosen: tuple[Path, ...]
    notices: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes, headers included."""
        return sum(path.stat().st_size for path in self.chosen)


def checkpoint_files(folder: Path) -> CheckpointFiles:
    """As transformers has it: model.safetensors alone, else what the index names, else all but
    second copies and adapters. Raises ValueError for a folder without weights."""
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise ValueError(_no_weights(folder))
    chosen, notices = _choose(folder, found)
    if not chosen:
        raise ValueError(f"{folder} holds an adapter ({found[0].name}), and no model to adapt")
    if left := [path.name for path in found if path not in chosen]:
        what = f"{chosen[0].name} holds" if len(chosen) == 1 else f"{len(chosen)} others hold"
        notices.append(f"not served, as {what} the weights: {_list(left)}")
    return CheckpointFiles(tuple(chosen), tuple(notices))


def _choose(folder: Path, found: list[Path]) -> tuple[list[Path], list[str]]:
    if folder / WHOLE in found:
        return [folder / WHOLE], []
    named = _index(folder)
    missing = [path.name for path in named if path not in found]
    if named and not missing:
        return named, []
    notices = [f"{INDEX} is stale: it names {_list(missing)}, not here"] if missing else []
    weights = [path for path in found if not path.name.startswith(ADAPTER)]
    first_copy = [path for path in weights if not path.name.startswith(SECOND_COPY)]
    return first_copy or weights, notices


def _index(folder: Path) -> list[Path]:
    """The files that the index names; none where there is no index."""
    path = folder / INDEX
    if not path.exists():
        return []
    places = read_object(path).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(n, str) for n in places.values()):
        raise ValueError(f"{path} is no index of safetensors files: weight_map is no map of names")
    names = sorted(set(places.values()))
    # The index comes with the model: it must not lead out of the model's folder.
    if outside := [name for name in names if Path(name).name != name]:
        raise ValueError(f"{path} names {outside[0]!r}, which is not in its folder")
    return [folder / name for name in names]


def _no_weights(folder: Path) -> str:
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        return (
            f"{folder} has only pickled weights (.bin), which can run code when they are loaded; "
            "convert them with transformers: AutoModelForCausalLM.from_pretrained(folder)"
            ".save_pretrained(new_folder)"
        )
    return f"{folder} has no *.safetensors file"


def _list(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
