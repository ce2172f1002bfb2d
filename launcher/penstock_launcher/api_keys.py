"""The API keys: those of the option and those of the file, in one list."""

from __future__ import annotations

from pathlib import Path

from penstock_launcher.errors import LauncherError
from penstock_launcher.options import Options

MOST = 1024  # every request is compared with all of them


def api_keys(options: Options) -> tuple[str, ...]:
    """All keys, each once. Raises LauncherError, which holds none of them."""
    keys = [*options.api_key]
    if options.api_key_file is not None:
        keys += _of_file(Path(options.api_key_file))
    if len(keys) > MOST:
        raise LauncherError(f"there may be {MOST} API keys: {len(keys)} were given")
    return tuple(dict.fromkeys(keys))


def _of_file(path: Path) -> list[str]:
    """One key a line; empty lines are none. A file without keys would open the server to all."""
    name = f"--api-key-file {path}"
    try:
        if path.exists() and not path.is_file():
            raise LauncherError(f"{name} is not a file")
        lines = path.read_text().splitlines()
    except OSError as error:
        raise LauncherError(f"{name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LauncherError(f"{name} is not text in UTF-8") from None
    keys = [line.strip() for line in lines]
    for number, key in enumerate(keys, start=1):
        if not key.isprintable():
            raise LauncherError(f"{name}: line {number} must be printable text")
    if not any(keys):
        raise LauncherError(f"{name} holds no key")
    return [key for key in keys if key]
