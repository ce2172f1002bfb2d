"""The operator's token for the model hub: from the environment, or from an earlier login."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

# The first that is set counts. HF_API_TOKEN is TGI's name, HUGGING_FACE_HUB_TOKEN an older one.
VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN")
TRUE = ("1", "on", "yes", "true")
LONGEST = 4096  # bytes of a file that holds a token


def hub_token(environ: Mapping[str, str]) -> str | None:
    """The token; None where there is none. Whitespace around it is not part of it."""
    for name in VARIABLES:
        if token := environ.get(name, "").strip():
            return token
    # the hub's own library leaves a login unused then
    if environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").lower() in TRUE:
        return None
    path = _file_of_login(environ)
    with contextlib.suppress(OSError, ValueError):
        if path.is_file():
            with path.open(encoding="ascii") as file:
                return file.read(LONGEST).strip() or None
    return None


def _file_of_login(environ: Mapping[str, str]) -> Path:
    """Where `hf auth login` puts it."""
    if path := environ.get("HF_TOKEN_PATH"):
        return Path(path).expanduser()
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = environ.get("HF_HOME") or f"{cache}/huggingface"
    return Path(home).expanduser() / "token"
