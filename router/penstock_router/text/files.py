"""The JSON files of a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty when the file does not exist.

    Raises ValueError that names the file when it is not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        value = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a JSON {type(value).__name__}, not an object")
    return value


def token_content(value: object) -> str | None:
    """The text of a token in tokenizer_config.json: a string, or an object with `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def tokenizer_config(model_path: Path, override: Path | None) -> dict[str, Any]:
    """tokenizer_config.json of the folder, or the file that the operator named instead."""
    if override is not None and override.suffix == ".json":
        if not override.is_file():
            raise ValueError(f"tokenizer_config_path: {override} does not exist")
        return read_json(override)
    return read_json(model_path / "tokenizer_config.json")
