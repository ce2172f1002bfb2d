"""Which tokens end a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock_router.text.definition import read_definition
from penstock_router.text.files import read_json

ALSO_ENDS = {"<|return|>": ("<|call|>",)}  # by the tokenizer's EOS token


def eos_token_ids(model_path: str | Path, config_path: str | None = None) -> frozenset[int]:
    """Ids of the tokens after which generation ends.

    generation_config.json says; config.json where it is silent. The tokenizer's own EOS token is
    always among them, because chat templates end a turn with it, and where that is harmony's, the
    token that ends a call in its place.
    config_path: a tokenizer_config.json that wins over the folder's.
    """
    folder = Path(model_path)
    ids = _ids(read_json(folder / "generation_config.json"))
    if not ids:
        config = read_json(folder / "config.json")
        ids = _ids(config) or _ids(config.get("text_config") or {})
    definition = read_definition(folder, Path(config_path) if config_path else None)
    own = definition.names.get("eos_token")
    ends = () if own is None else (own, *ALSO_ENDS.get(own, ()))
    ids.update(i for i in map(definition.token_id, ends) if i is not None)
    return frozenset(ids)


def _ids(config: dict[str, Any]) -> set[int]:
    value = config.get("eos_token_id")
    values = value if isinstance(value, list) else [value]
    return {v for v in values if isinstance(v, int) and not isinstance(v, bool) and v >= 0}
