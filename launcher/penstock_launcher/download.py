"""Fetches a model from the hub into its cache; the launcher runs this as a child of its own.

So a signal ends a download at once, and the hub's token is known to no other process. Reads
`HubModel` as JSON on standard input; its ready line is `{"path", "sha"}` or `{"error": sentence}`.
"""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub as hub
from huggingface_hub import constants, errors
from tqdm import tqdm

from penstock_launcher.errors import LauncherError
from penstock_launcher.meter import Meter, say
from penstock_launcher.model import BESIDE, KEPT, HubModel, choose_files
from penstock_launcher.task_answer import answer


def fetch(wanted: HubModel) -> tuple[Path, str]:
    """Folder and commit. Raises LauncherError when the hub or the repository does not let us."""
    try:
        folder = _cached(wanted) if constants.HF_HUB_OFFLINE else _fetch_if_possible(wanted)
    except (errors.HfHubHTTPError, httpx.HTTPError, OSError, ValueError) as error:
        raise LauncherError(_explain(error, wanted)) from error
    return folder, folder.name


def _fetch_if_possible(wanted: HubModel) -> Path:
    """A server that restarts while the hub is down or refuses to talk goes on with what it had."""
    try:
        return _fetch_online(wanted)
    except (errors.HfHubHTTPError, httpx.TransportError) as error:
        if not _passing(error):
            raise
        try:
            folder = _cached(wanted)
        except OSError:
            raise error from None
        reason = str(error).strip().splitlines()[:1] or [repr(error)]
        say("WARN", f"{reason[0]}: serving {wanted.model_id} from the cache")
        return folder


def _passing(error: Exception) -> bool:
    """Whether the hub says nothing about the model: it cannot be reached, is overloaded or ill."""
    if isinstance(error, errors.HfHubHTTPError):
        return error.response is not None and (
            error.response.status_code == 429 or error.response.status_code >= 500
        )
    return isinstance(error, httpx.TransportError)


def _fetch_online(wanted: HubModel) -> Path:
    api = hub.HfApi(token=wanted.token or False)
    info = api.model_info(wanted.model_id, revision=wanted.revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    files = choose_files(list(sizes), wanted)
    meter = Meter(sum(sizes[name] for name in files))
    folder = _snapshot(wanted, allow_patterns=files, tqdm_class=bar_class(meter))
    meter.finish()
    return folder


def _cached(wanted: HubModel) -> Path:
    """The same choice of files as `choose_files` makes, without the hub's list of them."""
    beside = [f"{name}*.safetensors" for name in BESIDE]
    left_out = beside if wanted.with_weights else ["*.safetensors"]
    return _snapshot(
        wanted,
        allow_patterns=["*" + ending for ending in KEPT],
        ignore_patterns=["*/*", *left_out],
        local_files_only=True,
    )


def _snapshot(wanted: HubModel, **settings: Any) -> Path:
    return Path(
        hub.snapshot_download(
            wanted.model_id,
            revision=wanted.revision,
            cache_dir=wanted.cache,
            token=wanted.token or False,
            **settings,
        )
    )


def _explain(error: Exception, wanted: HubModel) -> str:
    name = wanted.model_id + (f" at {wanted.revision}" if wanted.revision else "")
    if isinstance(error, errors.GatedRepoError):
        return f"access to {name} is restricted: accept its terms on the hub and set HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{wanted.model_id} has no revision {wanted.revision!r}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub knows no model {name}, or it is private and HF_TOKEN is not set"
    if isinstance(error, errors.LocalEntryNotFoundError) and constants.HF_HUB_OFFLINE:
        return f"{name} is not complete in the cache, and HF_HUB_OFFLINE forbids to fetch it"
    if isinstance(error, PermissionError):
        return (
            f"{name} could not be stored: user {os.getuid()} may not write {error.filename}; give "
            "the folder to that user (chown), or run the server as the one that it belongs to"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{name} could not be stored: {error.strerror} ({error.filename})"
    reason = str(error).strip().splitlines()
    return (
        f"{name} could not be fetched from {constants.ENDPOINT}: {reason[0] if reason else error!r}"
    )


def bar_class(meter: Meter) -> type[Any]:
    """A tqdm that tells the meter instead of drawing; the hub makes one for its bytes."""

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **settings: Any) -> None:
            self._counts_bytes = settings.get("unit") == "B"
            super().__init__(*args, **settings | {"file": io.StringIO(), "disable": False})

        def display(self, *_args: Any, **_settings: Any) -> None:
            if self._counts_bytes:
                meter.reached(self.n)

    return Bar


def main() -> None:
    wanted = HubModel(**json.load(sys.stdin))
    answer(lambda: fetch(wanted))


if __name__ == "__main__":
    main()
