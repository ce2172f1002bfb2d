"""What options change of a model folder: its configuration and its weights, and never its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock_launcher.errors import LauncherError
from penstock_launcher.model import Model
from penstock_launcher.options import Options
from penstock_launcher.overlay import merge_config, overlay, prepared

YARN = {"rope_type": "yarn", "factor": 4.0}


def folder_with(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_weights_cache_override(tmp_path):
    names = ("config.json", "tokenizer.json", "model.safetensors", "model.safetensors.index.json")
    model = Model(folder_with(tmp_path / "model", *names), "m", "sha")
    weights = folder_with(tmp_path / "weights", "a.safetensors", "config.json")
    linked = overlay(model, tmp_path / "links", weights, {})
    assert (linked.id, linked.sha) == ("m", "sha")
    files = {path.name: path.resolve() for path in linked.path.iterdir()}
    assert files == {
        "config.json": model.path / "config.json",
        "tokenizer.json": model.path / "tokenizer.json",
        "a.safetensors": weights / "a.safetensors",
    }


def test_weights_cache_override_needs_safetensors(tmp_path):
    model = Model(folder_with(tmp_path / "model", "config.json"), "m", None)
    weights = folder_with(tmp_path / "weights", "pytorch_model.bin")
    with pytest.raises(LauncherError, match="weights-cache-override"):
        overlay(model, tmp_path / "links", weights, {})


def config_of(tmp_path: Path, config: dict[str, Any], options: Options) -> dict[str, Any]:
    """What is served as config.json."""
    source = folder_with(tmp_path / "model", "model.safetensors")
    (source / "config.json").write_text(json.dumps(config))
    model = prepared(Model(source, "m", "sha"), options, tmp_path / "links")
    assert json.loads((source / "config.json").read_text()) == config
    assert (model.path / "model.safetensors").resolve() == source / "model.safetensors"
    served: dict[str, Any] = json.loads((model.path / "config.json").read_text())
    return served


def test_a_model_that_nothing_changes_is_itself(tmp_path: Path) -> None:
    model = Model(folder_with(tmp_path / "m", "config.json"), "m", None)
    assert prepared(model, Options(), tmp_path / "links") is model


def test_entries_of_config_json(tmp_path: Path) -> None:
    options = Options(hf_overrides={"rope_scaling": YARN, "max_position_embeddings": 64})
    served = config_of(tmp_path, {"a": 1, "max_position_embeddings": 16}, options)
    assert served == {"a": 1, "max_position_embeddings": 64, "rope_scaling": YARN}


@pytest.mark.parametrize(
    ("kind", "factor", "scaling"),
    [
        ("dynamic", 2.0, {"rope_type": "dynamic", "factor": 2.0}),
        ("linear", None, {"rope_type": "linear", "factor": 1.0}),
        (None, 3.0, {"rope_type": "linear", "factor": 3.0}),
        (YARN, None, YARN),
        (YARN, 2.0, {"rope_type": "yarn", "factor": 2.0}),
    ],
)
def test_scaling_as_tgi_took_it(
    tmp_path: Path, kind: Any, factor: float | None, scaling: dict[str, Any]
) -> None:
    options = Options(rope_scaling=kind, rope_factor=factor)
    assert config_of(tmp_path, {}, options) == {"rope_scaling": scaling}


def test_older_names_reach_rope_parameters() -> None:
    """Which models read first: what stands beside them would have no effect."""
    config = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    scaled = merge_config(config, {"rope_scaling": YARN})
    assert scaled["rope_parameters"] == {**YARN, "rope_theta": 1e6}
    other = merge_config(config, {"rope_theta": 5e5})
    assert other["rope_parameters"] == {"rope_type": "default", "rope_theta": 5e5}
    off = merge_config({"rope_parameters": {**YARN, "rope_theta": 2.0}}, {"rope_scaling": None})
    assert off["rope_parameters"] == {"rope_theta": 2.0}
    said = merge_config(config, {"rope_parameters": YARN})
    assert said["rope_parameters"] == YARN
    wrong = merge_config(config, {"rope_scaling": "yarn"})
    assert wrong["rope_parameters"] == "yarn", "the check of the model says what is wrong"
    local = {"rope_type": "default", "rope_theta": 1e4}
    kinds = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": local}
    two = merge_config({"rope_parameters": kinds}, {"rope_scaling": YARN})["rope_parameters"]
    assert two == {"full_attention": {**YARN, "rope_theta": 1e6}, "sliding_attention": local}


def test_the_text_part_of_a_larger_model() -> None:
    config = {"text_config": {"a": 1, "b": {"c": 1}}, "d": {"e": 1}}
    changed = merge_config(config, {"text_config": {"b": {}}, "d": {}})
    assert changed == {"text_config": {"a": 1, "b": {}}, "d": {}}


def test_what_contradicts_itself_or_cannot_be_read(tmp_path: Path) -> None:
    model = Model(folder_with(tmp_path / "m"), "m", None)
    both = Options(rope_factor=2.0, hf_overrides={"rope_parameters": YARN})
    with pytest.raises(LauncherError, match="--rope-scaling and --hf-overrides both"):
        prepared(model, both, tmp_path / "links")
    for text in ("{", "[1]", "[" * 100_000):
        (model.path / "config.json").write_text(text)
        with pytest.raises(LauncherError, match=r"config\.json"):
            prepared(model, Options(hf_overrides={"a": 1}), tmp_path / "links")
