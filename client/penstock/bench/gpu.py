"""How busy this machine's GPUs are while a load runs, by NVIDIA's management library (NVML)."""

from __future__ import annotations

import ctypes
import threading
from types import TracebackType
from typing import Any, Self

EVERY_SECONDS = 0.25
LIBRARY = "libnvidia-ml.so.1"


class _Utilization(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


class Nvml:
    """The few calls that are needed. Raises OSError where the library is missing or answers no."""

    def __init__(self, library: str = LIBRARY) -> None:
        self._library = ctypes.CDLL(library)
        self._call("nvmlInit_v2")
        count = ctypes.c_uint()
        self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        self._handles = []
        for index in range(count.value):
            handle = ctypes.c_void_p()
            self._call("nvmlDeviceGetHandleByIndex_v2", index, ctypes.byref(handle))
            self._handles.append(handle)

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            raise OSError(f"{name} answers {code}")

    def read(self) -> list[tuple[float, float, float]]:
        """Of each GPU: percent of the time busy, MiB in use, watts."""
        read = []
        for handle in self._handles:
            use, memory, power = _Utilization(), _Memory(), ctypes.c_uint()
            self._call("nvmlDeviceGetUtilizationRates", handle, ctypes.byref(use))
            self._call("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
            self._call("nvmlDeviceGetPowerUsage", handle, ctypes.byref(power))
            read.append((float(use.gpu), memory.used / 2**20, power.value / 1e3))
        return read

    def close(self) -> None:
        """Let go of the library."""
        self._call("nvmlShutdown")


class GpuWatch:
    """Reads in a thread while its block runs. Without NVML it reads nothing."""

    def __init__(self, library: str = LIBRARY) -> None:
        self._reads: list[list[tuple[float, float, float]]] = []
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        try:
            self._nvml: Nvml | None = Nvml(library)
        except (OSError, AttributeError):
            self._nvml = None

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
        try:
            while not self._ended.wait(EVERY_SECONDS):
                self._reads.append(nvml.read())
            nvml.close()
        except OSError:  # a card that tells less than others
            return

    @property
    def figures(self) -> list[dict[str, float]]:
        """Of each GPU; empty where nothing was read."""
        return [
            {
                "busy_percent": round(sum(each[0] for each in reads) / len(reads), 1),
                "memory_mib": round(max(each[1] for each in reads)),
                "watts": round(sum(each[2] for each in reads) / len(reads), 1),
            }
            for reads in zip(*self._reads, strict=True)
        ]
