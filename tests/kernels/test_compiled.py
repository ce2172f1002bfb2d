"""Every GPU kernel compiles for every card that docs/hardware.md names, and fits its memory. None
fills registers from which a product still reads.

The interpreter takes programs that the compiler refuses. Here the compiler runs, for cards that are
not there; nothing is executed.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from support.cards import SHARED_KIB

pytest.importorskip("triton")
TESTS = Path(__file__).parent.parent
# Kernels that nothing launches on other cards: docs/hardware.md says what stands in for them.
HOPPER = {
    "hopper_decode",
    "hopper_gated",
    "hopper_int4",
    "hopper_int4_many",
    "hopper_int4_raw",
    "hopper_int4_row",
    "hopper_linear",
    "hopper_lut",
    "hopper_merge",
    "hopper_plan",
    "hopper_prefill",
    "hopper_qkv",
    "hopper_row",
    "hopper_row_ring",
    "hopper_w4a8",
    "hopper_w4a8_gated",
}
SINCE = {
    89: {"quantise", "w4a8_linear", "widen"},
    90: {"rank_sum", "rank_choice"},
}  # by the first capability
# Of arithmetic alone, which one card compiles as another does: some of the cards compile each.
ANY_CARD = {"draw", "parts", "penalties", "threshold"}


Lines = dict[int, list[dict[str, Any]]]  # by capability


def compiled(which: str, capabilities: Sequence[int]) -> Lines:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    if which == "few":  # where a line of source is in the code changes no code
        environment["TRITON_DISABLE_LINE_INFO"] = "1"
    done = subprocess.run(
        [sys.executable, "-m", "support.compiled_kernels", which, *map(str, capabilities)],
        cwd=TESTS, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines: Lines = {capability: [] for capability in capabilities}
    for line in map(json.loads, done.stdout.splitlines()):
        lines[line["capability"]].append(line)
    return lines


def modules_with_kernels() -> set[str]:
    """By name, those of `penstock_kernels.gpu` that launch something."""
    import penstock_kernels.gpu as package

    names = [
        found.name for found in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    ]
    modules = {name.rpartition(".")[2]: importlib.import_module(name) for name in names}
    return {
        name
        for name, module in modules.items()
        if any(attribute.endswith("_kernel") for attribute in vars(module))
    }


def expected(capability: int) -> set[str]:
    later = {name for first, names in SINCE.items() if capability < first for name in names}
    return modules_with_kernels() - later - (set() if capability // 10 == 9 else HOPPER)


@pytest.mark.timeout(1800)
def test_kernels_compile_and_fit() -> None:
    """A variant or two of each kernel."""
    check(compiled("few", (75, 80, 89, 90, 100)))


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_every_variant_compiles_and_fits() -> None:
    """In every dtype, with wide, odd and many heads, biases and other norms."""
    check(compiled("all", tuple(SHARED_KIB)))


def check(found: Lines) -> None:
    seen: set[str] = set()
    for capability, lines in found.items():
        kernels = {line["kernel"].split(".")[0] for line in lines}
        assert expected(capability) - ANY_CARD <= kernels <= expected(capability)
        seen |= kernels
        most = SHARED_KIB[capability] * 1024
        assert not [line for line in lines if line["shared"] > most]
        assert not [line for line in lines if line["running"]]
    assert seen >= ANY_CARD
