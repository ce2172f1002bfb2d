"""What a bug report should say about the machine; `--env` prints it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import shutil
import subprocess

from penstock_launcher.devices import cpu_cores

PACKAGES = (
    "penstock",
    "torch",
    "triton",
    "transformers",
    "tokenizers",
    "grpcio",
    "huggingface_hub",
)


def report() -> dict[str, str]:
    """Names and versions; a package that is not installed is left out."""
    lines = {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpu_cores": str(cpu_cores()),
    }
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            lines[package] = importlib.metadata.version(package)
    lines["gpus"] = _gpus()
    return lines


def _gpus() -> str:
    if (tool := shutil.which("nvidia-smi")) is None:
        return "none (no nvidia-smi)"
    query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run([tool, *query], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return f"nvidia-smi failed: {error}"
    return "; ".join(result.stdout.strip().splitlines()) or f"nvidia-smi: {result.stderr.strip()}"
