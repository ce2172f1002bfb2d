"""What SageMaker's contract for containers asks: `serve` as the command, a port, a model folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

COMMAND = "serve"  # how SageMaker starts every container
PORT = "8080"
MODEL = Path("/opt/ml/model")  # where it unpacks the model's archive


def adapt(
    argv: Sequence[str], environ: Mapping[str, str]
) -> tuple[Sequence[str], Mapping[str, str]]:
    """Command line and environment as SageMaker means them; unchanged where it is not at work."""
    if argv[:1] != [COMMAND]:
        return argv, environ
    told = {"SAGEMAKER_BIND_TO_PORT": environ.get("SAGEMAKER_BIND_TO_PORT") or PORT}
    names = ("MODEL_ID", "TGI_MODEL_ID", "HF_MODEL_ID")
    if not any(environ.get(name) for name in names) and (MODEL / "config.json").is_file():
        told["HF_MODEL_ID"] = str(MODEL)
    return argv[1:], {**environ, **told}
