"""The API keys: those of the option and those of the file, in one list."""

from __future__ import annotations

from pathlib import Path

from penstock_launcher.errors import LauncherError
from penstock_launcher.key_file import read_keys
from penstock_launcher.options import Options
from penstock_proto.api_keys import UNNAMED, ApiKey

MOST = 1024  # every request is compared with all of them


def api_keys(options: Options) -> tuple[ApiKey, ...]:
    """All keys, each once. Raises LauncherError, which holds none of them."""
    keys = [ApiKey.of(key) for key in options.api_key]
    if options.api_key_file is not None:
        keys += read_keys(Path(options.api_key_file))
    if len(keys) > MOST:
        raise LauncherError(f"there may be {MOST} API keys: {len(keys)} were given")
    found: dict[str, ApiKey] = {}
    for key in keys:
        same = found.setdefault(key.sha256, key)
        if same.name != key.name:
            raise LauncherError(_twice(same, key))
    return tuple(found.values())


def secrets_of(keys: tuple[ApiKey, ...]) -> list[str]:
    """What the log must not show."""
    return [text for key in keys for text in (key.key, key.salt) if text is not None]


def _twice(one: ApiKey, other: ApiKey) -> str:
    """Which name and limits count would depend on the reader."""
    names = sorted({one.name, other.name} - {UNNAMED})
    return f"the API key named {' and '.join(names)} is given twice"
