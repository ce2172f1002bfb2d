"""/dev/shm, through which NCCL's ranks talk where their GPUs cannot reach each other directly."""

from __future__ import annotations

import os
from collections.abc import Mapping

PATH = "/dev/shm"
# Containers have 64 MiB unless they are told: too little for the buffers of two ranks, which are
# mapped first and fail when they are written to.
LEAST_BYTES = 128 << 20  # of each shard


def notice(shards: int, gpus: int, environ: Mapping[str, str]) -> str | None:
    """A sentence for the operator, where shards on GPUs may find too little; gloo, which serves on
    a CPU, needs none."""
    if shards < 2 or not gpus or environ.get("NCCL_SHM_DISABLE") == "1":
        return None
    try:
        found = os.statvfs(PATH)
    except OSError as error:
        return f"{PATH} cannot be used ({error.strerror}): NCCL needs it between {shards} shards"
    free = found.f_bavail * found.f_frsize
    if free >= (needed := shards * LEAST_BYTES):
        return None
    return (
        f"{PATH} has {free >> 20} MiB free, and {shards} shards may need {needed >> 20}: give the "
        "container more (docker run --shm-size 1g; the chart's sharedMemory), or set "
        "NCCL_SHM_DISABLE=1, which is slower"
    )
