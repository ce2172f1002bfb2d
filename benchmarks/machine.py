"""What a result needs beside its figures to be worth keeping: where, when and with what."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "triton", "transformers", "grpcio", "protobuf", "aiohttp", "uvloop", "numpy")


def facts() -> dict[str, Any]:
    """Date, commit, machine and versions."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {
            "cpu": cpu_name(),
            "cores": len(os.sched_getaffinity(0)),
            "kernel": platform.release(),
            "gpus": gpu_names(),
        },
        "versions": {"python": platform.python_version()} | versions(),
        "command": command(),
    }


def commit() -> str | None:
    """The commit of this checkout, "+" behind it when files differ; None outside of a checkout."""
    run = ["git", "-C", str(ROOT)]
    head = subprocess.run([*run, "rev-parse", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        return None
    changed = subprocess.run([*run, "diff", "--quiet", "HEAD"], capture_output=True).returncode
    return head.stdout.strip() + ("+" if changed else "")


def busy_cores(seconds: float = 1.0) -> float:
    """How many cores the whole machine kept busy while we slept for so long."""

    def busy() -> int:
        ticks = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(ticks) - ticks[3] - ticks[4]  # all but idle and waiting for disks

    before = busy()
    time.sleep(seconds)
    return (busy() - before) / os.sysconf("SC_CLK_TCK") / seconds


def wait_until_quiet(limit: float = 0.2, patience: float = 60.0) -> float:
    """Waits, but not for ever, until others leave the cores alone; how many are busy then.

    Two OpenMP threads on a core that another process wants lose a factor of eight, not two.
    """
    deadline = time.monotonic() + patience
    while (busy := busy_cores()) > limit and time.monotonic() < deadline:
        pass
    return round(busy, 2)


def command() -> list[str]:
    """The arguments, the program's path from the repository's root."""
    program = Path(sys.argv[0]).resolve()
    inside = program.is_relative_to(ROOT)
    return [str(program.relative_to(ROOT)) if inside else program.name, *sys.argv[1:]]


def cpu_name() -> str:
    """The processor's own name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def gpu_names() -> list[str]:
    """Name, driver and memory of each GPU, as nvidia-smi lists them."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        listing = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    return listing.stdout.strip().splitlines() if listing.returncode == 0 else []


def versions() -> dict[str, str]:
    """Installed versions of what speed depends on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
