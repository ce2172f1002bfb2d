"""Vertex AI's storage of models, from which nothing is fetched."""

from __future__ import annotations

from collections.abc import Mapping

from penstock_launcher.errors import LauncherError
from penstock_launcher.options import Options

STORAGE = "AIP_STORAGE_URI"  # where Vertex AI has put a model's artifacts


def storage_notice(options: Options, environ: Mapping[str, str]) -> str | None:
    """What the operator should know of it. Raises LauncherError where the model would have to come
    from there: another one would be served instead, and nobody told."""
    uri = environ.get(STORAGE)
    if not uri:
        return None
    if options.model_id is not None:
        return f"{STORAGE}={uri} is not read: the model is {options.model_id}"
    raise LauncherError(
        f"{STORAGE}={uri} names the model, but Penstock does not fetch from Cloud Storage: give "
        "MODEL_ID, a name on the hub or a folder where the bucket is mounted (Cloud Storage FUSE)"
    )
