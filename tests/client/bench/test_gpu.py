"""GPU use by NVML: a library with nvml.h's calls and structures, and machines that have none."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from penstock.bench.gpu import GpuWatch, Nvml, summed
from penstock.bench.report import report

# Two cards as nvml.h declares what they fill; the second is a part of a card, which tells less.
# NVML_ERROR_NOT_SUPPORTED is 3, NVML_ERROR_DRIVER_NOT_LOADED 9.
LIBRARY = """
typedef struct { unsigned int gpu, memory; } nvmlUtilization_t;
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
static int cards[2] = {0, 1};
int nvmlInit_v2(void) { return INIT; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 9 ? "Driver Not Loaded" : "Not Supported"; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, int **card) {
  *card = &cards[index];
  return 0;
}
int nvmlDeviceGetUtilizationRates(int *card, nvmlUtilization_t *use) {
  use->gpu = 93;
  use->memory = 41;
  return *card ? 3 : 0;
}
int nvmlDeviceGetMemoryInfo(int *card, nvmlMemory_t *memory) {
  memory->total = 150754820096ULL;
  memory->used = 137438953472ULL + *card * 1048576ULL;
  memory->free = memory->total - memory->used;
  return 0;
}
int nvmlDeviceGetPowerUsage(int *card, unsigned int *milliwatts) {
  *milliwatts = 612500;
  return *card ? 3 : 0;
}
"""


def library(folder: Path, init: int = 0) -> str:
    """Compiled as the driver's is: what is read crosses C's calls."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler is here")
    source, made = folder / "nvml.c", folder / "libnvml.so"
    source.write_text(LIBRARY)
    build = [compiler, f"-DINIT={init}", "-shared", "-fPIC", "-o", str(made), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    return str(made)


def test_figures_are_read_as_the_driver_fills_them(tmp_path: Path) -> None:
    whole, part = Nvml(library(tmp_path)).read()
    assert whole == {"busy_percent": 93.0, "memory_mib": 131072.0, "watts": 612.5}
    assert part == {"memory_mib": 131073.0}


def test_a_load_that_is_over_at_once_has_figures(tmp_path: Path) -> None:
    with GpuWatch(library(tmp_path)) as watch:
        pass
    assert watch.unread == ""
    assert watch.figures == [
        {"busy_percent": 93.0, "memory_mib": 131072.0, "watts": 612.5},
        {"memory_mib": 131073.0},
    ]


def test_figures_are_means_and_the_most_memory() -> None:
    reads = ({"busy_percent": 50.0, "memory_mib": 9.0}, {"busy_percent": 100.0, "memory_mib": 5.0})
    assert summed(reads) == {"busy_percent": 75.0, "memory_mib": 9.0}
    assert summed(({}, {})) == {}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("libno-such-library.so", "cannot open shared object file"),
        ("libc.so.6", "nvmlInit_v2"),
        ("without a driver", "nvmlInit_v2 answers 9: Driver Not Loaded"),
    ],
)
def test_a_machine_without_nvml_says_so(tmp_path: Path, name: str, sentence: str) -> None:
    with GpuWatch(name if name.startswith("lib") else library(tmp_path, init=9)) as watch:
        pass
    assert watch.figures == []
    assert watch.unread.startswith("NVML does not answer") and sentence in watch.unread


def figures(**more: Any) -> dict[str, Any]:
    told = {"label": "c1", "requests": 1, "failures": {}, "client_cpu": 0, "tokens_reported": True}
    return told | {"tokens_an_event": 1, "counts_along": False} | more


def test_the_report_says_what_was_read() -> None:
    whole = {"busy_percent": 93.04, "memory_mib": 131072.0, "watts": 612.5}
    said = report(figures(gpus=[whole, {"memory_mib": 5.0}], gpus_unread=""), ["ttft"])
    assert "93.0%  612 W, 131,072 MiB" in said and "not told  5 MiB" in said
    assert "no figures of GPUs" not in said
    said = report(figures(gpus=[], gpus_unread="NVML does not answer"), ["ttft"])
    assert "note: no figures of GPUs: NVML does not answer" in said


@pytest.mark.gpu
def test_the_cards_of_this_machine() -> None:
    for card in Nvml().read():
        assert 0 <= card.get("busy_percent", 0) <= 100
        assert card["memory_mib"] > 100 and card.get("watts", 50) > 10
