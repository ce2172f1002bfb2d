"""A model folder of which a few things are otherwise: links to its files, and beside them what
options change. Shards, router and their checks read this folder, and the model's own stays as it
is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock_launcher.errors import LauncherError
from penstock_launcher.model import Model, check_weights
from penstock_launcher.options import Options

WEIGHT_FILES = (".safetensors", ".safetensors.index.json")
CONFIG = "config.json"
NESTED = "text_config"  # of which an override changes entries; other objects it replaces
ROPE = ("rope_scaling", "rope_parameters")
WIDE = "full_attention"
BESIDE_ROPE = ("rope_theta", "partial_rotary_factor")  # say nothing of the scaling


def prepared(model: Model, options: Options, folder: Path) -> Model:
    """The model as options change it; itself, where none does. folder: one to make.

    Raises LauncherError.
    """
    override = options.weights_cache_override
    weights = Path(override) if override is not None else None
    written = changed_files(model.path, options)
    if weights is None and not written:
        return model
    return overlay(model, folder, weights, written)


def changed_files(model: Path, options: Options) -> dict[str, str]:
    """Texts of the files that options change, by name. Raises LauncherError."""
    if not (change := rope_override(options) | (options.hf_overrides or {})):
        return {}
    return {CONFIG: json.dumps(merge_config(_read(model / CONFIG), change), indent=2)}


def rope_override(options: Options) -> dict[str, Any]:
    """What TGI's two options say, as TGI read them: either may be given alone. vLLM had the first
    with an object."""
    kind, factor = options.rope_scaling, options.rope_factor
    if kind is None and factor is None:
        return {}
    if options.hf_overrides and not options.hf_overrides.keys().isdisjoint(ROPE):
        raise LauncherError("--rope-scaling and --hf-overrides both say how positions are scaled")
    if isinstance(kind, dict):
        return {"rope_scaling": kind if factor is None else {**kind, "factor": factor}}
    scaling = {"rope_type": kind or "linear", "factor": 1.0 if factor is None else factor}
    return {"rope_scaling": scaling}


def merge_config(config: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """config.json with some entries otherwise.

    Newer files have all of the rotary embedding in `rope_parameters`, which models read first:
    what is said under the older names goes there too.
    """
    change = dict(change)
    inner, nested = config.get("rope_parameters"), config.get(NESTED)
    if isinstance(inner, Mapping) and "rope_parameters" not in change:
        change["rope_parameters"] = _rope(inner, change)
    if isinstance(nested, Mapping) and isinstance(change.get(NESTED), Mapping):
        change[NESTED] = merge_config(nested, change[NESTED])
    return {**config, **change}


def _rope(inner: Mapping[str, Any], change: Mapping[str, Any]) -> Any:
    """`rope_parameters` with what is said under the older names. Where layers that slide have
    parameters of their own, the names are those of the others."""
    if isinstance(wide := inner.get(WIDE), Mapping):
        return {**inner, WIDE: _rope(wide, change)}
    said = {name: change[name] for name in BESIDE_ROPE if name in change}
    if "rope_scaling" not in change:
        return {**inner, **said}
    scaling = change["rope_scaling"] or {}
    if not isinstance(scaling, Mapping):
        return scaling  # which the check of the model refuses
    return {**{name: inner[name] for name in BESIDE_ROPE if name in inner}, **scaling, **said}


def overlay(model: Model, folder: Path, weights: Path | None, written: Mapping[str, str]) -> Model:
    """A folder of links: the files of the model, the safetensors of `weights` where they are
    given, and what is written."""
    folder.mkdir()
    if weights is not None:
        check_weights(weights, f"--weights-cache-override {weights}")
    for source in model.path.iterdir():
        replaced = weights is not None and source.name.endswith(WEIGHT_FILES)
        if source.is_file() and source.name not in written and not replaced:
            (folder / source.name).symlink_to(source.absolute())
    for source in weights.iterdir() if weights is not None else ():
        if source.name.endswith(WEIGHT_FILES):
            (folder / source.name).symlink_to(source.absolute())
    for name, text in written.items():
        (folder / name).write_text(text)
    return Model(folder, model.id, model.sha)


def _read(path: Path) -> dict[str, Any]:
    """Empty where there is no such file: the next check says so where it is needed."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise LauncherError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise LauncherError(f"{path} holds a JSON {type(value).__name__}, not an object")
    return value
