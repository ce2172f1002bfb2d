"""How many GPUs and CPU cores this machine lets us use. Loads no torch: asks the driver's tool."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from penstock_launcher.errors import LauncherError
from penstock_launcher.options import Options

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def visible_gpus(environ: Mapping[str, str]) -> int:
    """GPUs that CUDA would show to a process with this environment."""
    installed = _nvidia_smi_gpus()
    devices = environ.get("CUDA_VISIBLE_DEVICES")
    if devices is not None:
        return min(_listed(devices), installed)
    # set by container runtimes; "all" and "void" say nothing about how many there are
    devices = environ.get("NVIDIA_VISIBLE_DEVICES") or "all"
    if devices in ("all", "void"):
        return installed
    return 0 if devices == "none" else min(_listed(devices), installed)


def num_shards(options: Options, gpus: int) -> int:
    """TGI's rule: num-shard, else sharded, else every GPU there is, of all hosts.

    Raises LauncherError.
    """
    gpus = 0 if options.device == "cpu" else gpus * options.nnodes  # hosts are alike
    if options.device == "cuda" and not gpus:
        raise LauncherError("--device cuda was given, but no GPU is visible")
    count = options.num_shard
    if count is None:
        count = options.nnodes if options.sharded is False else max(gpus, options.nnodes)
    if options.sharded and count <= 1:
        raise LauncherError(
            f"--sharded true needs at least 2 shards, but --num-shard is {options.num_shard} "
            f"and {gpus} GPUs are visible"
            if options.num_shard is not None
            else f"--sharded true needs --num-shard or at least 2 GPUs; {gpus} are visible"
        )
    if gpus and count > gpus:
        raise LauncherError(
            f"--num-shard {count} needs as many GPUs, but {gpus} are visible "
            "(--device cpu runs the shards on the CPU)"
        )
    return count


def cpu_cores() -> int:
    """Cores that this process may keep busy: affinity, and the quota of its container."""
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = CGROUP_QUOTA.read_text().split()
        cores = min(cores, max(int(quota) // int(period), 1))
    return cores


def _listed(devices: str) -> int:
    """CUDA stops at the first device that it does not take: an empty name or a negative index."""
    count = 0
    for device in devices.split(","):
        if not device.strip() or device.strip().startswith("-"):
            break
        count += 1
    return count


def _nvidia_smi_gpus() -> int:
    if (tool := shutil.which("nvidia-smi")) is None:
        return 0
    try:
        result = subprocess.run(
            [tool, "--list-gpus"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in result.stdout.splitlines())
