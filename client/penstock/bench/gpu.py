"""How busy this machine's GPUs are while a load runs, by NVIDIA's management library (NVML).

The library comes with the driver, and a few of its calls are enough; names and shapes: nvml.h.
"""

from __future__ import annotations

import ctypes
import threading
from types import TracebackType
from typing import Any, Self

EVERY_SECONDS = 0.25
LIBRARY = "libnvidia-ml.so.1"
Read = dict[str, float]  # figure -> value, of one GPU at one time


class NvmlUtilization(ctypes.Structure):
    """nvmlUtilization_t: percent of the time in which kernels ran, in which memory was used."""

    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class NvmlMemory(ctypes.Structure):
    """nvmlMemory_t, in bytes."""

    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


# figure -> the call, what it fills, what is meant by that
CALLS: dict[str, tuple[str, type[Any], Any]] = {
    "busy_percent": (
        "nvmlDeviceGetUtilizationRates", NvmlUtilization, lambda use: float(use.gpu)
    ),
    "memory_mib": ("nvmlDeviceGetMemoryInfo", NvmlMemory, lambda memory: memory.used / 2**20),
    "watts": ("nvmlDeviceGetPowerUsage", ctypes.c_uint, lambda power: power.value / 1e3),
}  # fmt: skip
SUMMARY = {"busy_percent": "mean", "memory_mib": "most", "watts": "mean"}


class Nvml:
    """Raises OSError where the library is missing, is another one, or finds no driver."""

    def __init__(self, library: str = LIBRARY) -> None:
        self._library = ctypes.CDLL(library)
        try:
            self._call("nvmlInit_v2")
            count = ctypes.c_uint()
            self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
            self._handles = [self._handle(index) for index in range(count.value)]
        except AttributeError as error:
            raise OSError(str(error)) from None

    def _handle(self, index: int) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self._call("nvmlDeviceGetHandleByIndex_v2", index, ctypes.byref(handle))
        return handle

    def _call(self, name: str, *arguments: Any) -> None:
        if code := getattr(self._library, name)(*arguments):
            describe = self._library.nvmlErrorString
            describe.restype = ctypes.c_char_p
            raise OSError(f"{name} answers {code}: {describe(code).decode(errors='replace')}")

    def read(self) -> list[Read]:
        """Of each GPU; without what the card does not tell, as parts of a card and old ones do."""
        return [self._read(handle) for handle in self._handles]

    def _read(self, handle: ctypes.c_void_p) -> Read:
        told: Read = {}
        for figure, (name, shape, meaning) in CALLS.items():
            filled = shape()
            try:
                self._call(name, handle, ctypes.byref(filled))
            except OSError:
                continue
            told[figure] = meaning(filled)
        return told

    def close(self) -> None:
        """Let go of the library."""
        self._call("nvmlShutdown")


class GpuWatch:
    """Reads in a thread while its block runs. unread: why it reads nothing, where it cannot."""

    def __init__(self, library: str = LIBRARY) -> None:
        self.unread = ""
        self._reads: list[list[Read]] = []
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._nvml: Nvml | None = None
        try:
            self._nvml = Nvml(library)
        except OSError as error:
            self.unread = f"NVML does not answer on this machine ({error})"

    def __enter__(self) -> Self:
        if self._nvml is not None:
            self._thread = threading.Thread(target=self._watch, args=(self._nvml,), daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, nvml: Nvml) -> None:
        """At least once: also of a load that is over at once."""
        while True:
            self._reads.append(nvml.read())
            if self._ended.wait(EVERY_SECONDS):
                return nvml.close()

    @property
    def figures(self) -> list[Read]:
        """Of each GPU, over all reads; empty where nothing was read."""
        return [summed(reads) for reads in zip(*self._reads, strict=True)]


def summed(reads: tuple[Read, ...]) -> Read:
    """Means over the time, and the most that was in use."""
    figures: Read = {}
    for name, how in SUMMARY.items():
        if told := [read[name] for read in reads if name in read]:
            figures[name] = round(max(told) if how == "most" else sum(told) / len(told), 1)
    return figures
