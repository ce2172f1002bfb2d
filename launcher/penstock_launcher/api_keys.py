"""The API keys: those of the option and those of the file, in one list."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from penstock_launcher.errors import LauncherError
from penstock_launcher.key_file import KeyItem, read_keys
from penstock_launcher.options import Options

MOST = 1024  # every request is compared with all of them


def api_keys(options: Options) -> tuple[KeyItem, ...]:
    """All keys, each once. Raises LauncherError, which holds none of them."""
    keys: list[KeyItem] = [*options.api_key]
    if options.api_key_file is not None:
        keys += read_keys(Path(options.api_key_file))
    if len(keys) > MOST:
        raise LauncherError(f"there may be {MOST} API keys: {len(keys)} were given")
    found: dict[str, KeyItem] = {}
    for key in keys:
        same = found.setdefault(_digest(key), key)
        if _names(same) != _names(key):  # which name and limits count would depend on the reader
            names = " and ".join(sorted({*_names(same), *_names(key)}))
            raise LauncherError(f"the API key named {names} is given twice")
    return tuple(found.values())


def secrets_of(keys: Iterable[KeyItem]) -> list[str]:
    """What the log must not show."""
    secrets: list[str | None] = []
    for key in keys:
        secrets += [key] if isinstance(key, str) else [key.get("key"), key.get("salt")]
    return [secret for secret in secrets if secret is not None]


def _digest(key: KeyItem) -> str:
    if not isinstance(key, str):
        if "sha256" in key:
            return str(key["sha256"])
        key = str(key["key"])
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _names(key: KeyItem) -> list[str]:
    return [] if isinstance(key, str) else [key["name"]]
