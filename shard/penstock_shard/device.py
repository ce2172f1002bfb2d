"""The processor that a shard computes on, and small arrays on their way to and from it."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock_shard import log

OLDEST = (7, 5)  # compute capability that kernels are compiled for


def choose_device(name: str | None, rank: int, world_size: int, one_host: bool) -> torch.device:
    """The device of a rank. Raises ValueError where there are not enough GPUs."""
    if name == "cpu" or (name is None and not torch.cuda.is_available()):
        _tune_cpu(world_size)
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if count == 0 or (one_host and world_size > count):
        raise ValueError(f"{world_size} shards on CUDA need {world_size} GPUs, found {count}")
    device = torch.device("cuda", rank % count)
    if problem := _problem(torch.cuda.get_device_capability(device), torch.version.hip):
        raise ValueError(f"{torch.cuda.get_device_name(device)} cannot be served on: {problem}")
    torch.cuda.set_device(device)
    return device


def _problem(capability: tuple[int, int], hip: str | None) -> str | None:
    """Why kernels do not run on a card, as half a sentence; see docs/hardware.md."""
    if hip is not None:
        return "this build of PyTorch is for AMD's cards, and the kernels are for NVIDIA's"
    if capability < OLDEST:
        found, oldest = (".".join(map(str, version)) for version in (capability, OLDEST))
        return f"its compute capability is {found}, and the oldest supported is {oldest}"
    return None


def served_dtype(name: str, device: torch.device) -> str:
    """The type to compute in on a device: cards older than Ampere have no bfloat16."""
    if name != "bfloat16" or device.type != "cuda":
        return name
    if torch.cuda.get_device_capability(device) >= (8, 0):
        return name
    log.warning(
        f"{torch.cuda.get_device_name(device)} has no bfloat16: the model is served in float16, "
        "which has less range: numbers beyond 65504 become infinite"
    )
    return "float16"


def device_name(device: torch.device) -> str:
    """What the maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def upload(values: NDArray[Any], device: torch.device) -> Tensor:
    """A host array on the device, in stream order; the caller may reuse nothing of `values`."""
    host = torch.from_numpy(np.ascontiguousarray(values))
    return host if device.type == "cpu" else host.pin_memory().to(device, non_blocking=True)


def download(values: Tensor) -> Tensor:
    """A copy in host memory, which on CUDA is complete only after an event recorded later."""
    if not values.is_cuda:
        return values
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)


def _tune_cpu(world_size: int) -> None:
    """Share the cores among the ranks, and keep freed buffers instead of returning them.

    By default glibc maps every buffer above 32 MiB afresh: zeroing the pages made a gather of
    32 MiB take 21 ms instead of 6 ms.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // world_size))
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, 1 << 30)
