"""Which tokens end a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock_router.text.files import read_json, token_content


def eos_token_ids(model_path: str | Path) -> frozenset[int]:
    """Ids of the tokens after which generation ends.

    generation_config.json says; config.json where it is silent. The tokenizer's own EOS token is
    always among them, because chat templates end a turn with it.
    """
    folder = Path(model_path)
    ids = _ids(read_json(folder / "generation_config.json"))
    if not ids:
        config = read_json(folder / "config.json")
        ids = _ids(config) or _ids(config.get("text_config") or {})
    if (own := _tokenizer_eos(folder)) is not None:
        ids.add(own)
    return frozenset(ids)


def _ids(config: dict[str, Any]) -> set[int]:
    value = config.get("eos_token_id")
    values = value if isinstance(value, list) else [value]
    return {v for v in values if isinstance(v, int) and not isinstance(v, bool) and v >= 0}


def _tokenizer_eos(folder: Path) -> int | None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        text = token_content(read_json(folder / name).get("eos_token"))
        if text is not None:
            return _added_token_id(folder, text)
    return None


def _added_token_id(folder: Path, text: str) -> int | None:
    path = folder / "tokenizer.json"
    for token in read_json(path).get("added_tokens") or ():
        if token.get("content") == text:
            return int(token["id"])
    return None
