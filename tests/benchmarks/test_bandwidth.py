"""Every kernel has a line of its speed, and every line launches the kernels that it names."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.configs import SHAPES
from benchmarks.kernels import bandwidth
from benchmarks.kernels.lines.line import COLD, Line
from numpy.typing import NDArray
from torch import Tensor
from triton.runtime.jit import KernelInterface

from penstock_kernels import gpu

MODULES = sorted(Path(str(gpu.__file__)).parent.rglob("*.py"))
ELSEWHERE = {"rank_sum._rank_sum_kernel": "rank_sum.py"}  # of benchmarks/kernels: needs two cards
META = torch.device("meta")  # shapes and dtypes without numbers
HOPPER = (
    "attention.hopper_decode", "attention.hopper_prefill", "products.hopper_gated",
    "products.hopper_int4", "products.hopper_int4_many", "products.hopper_int4_raw",
    "products.hopper_linear", "products.hopper_lut", "products.hopper_qkv",
    "products.hopper_row_ring", "products.hopper_w4a8", "products.hopper_w4a8_gated",
)  # fmt: skip

LINES = [
    pytest.param(line, id=f"{name}-{line.name}-{line.what}".replace(" ", "_"))
    for name in bandwidth.MODELS
    for line in bandwidth.lines(SHAPES[name])
]


def launched_in(source: str) -> set[str]:
    """Functions that are launched: called as NAME[grid](...)."""
    return {
        node.func.value.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Subscript)
        and isinstance(node.func.value, ast.Name)
    }


def test_what_is_launched_is_found() -> None:
    source = (
        "def f(x):\n    table[3] = g(x[1])\n    _kernel[(2,)](x, N=4)\n    return h[0].run(x)\n"
    )
    assert launched_in(source) == {"_kernel"}


def test_every_kernel_has_a_line() -> None:
    """A new kernel needs one in benchmarks/kernels/lines, or a benchmark of its own."""
    launched = {f"{file.stem}.{name}" for file in MODULES for name in launched_in(file.read_text())}
    assert len(launched) > 20
    for name in bandwidth.MODELS:
        with_line = {k for line in bandwidth.lines(SHAPES[name]) for k in line.kernels}
        assert launched - with_line == set(ELSEWHERE)
        assert with_line <= launched
    for file in ELSEWHERE.values():
        assert (Path(bandwidth.__file__).parent / file).exists()


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of kernels as they are launched; none runs. Cards are H100s."""
    seen: list[str] = []

    def record(kernel: Any, grid: object) -> Callable[..., None]:
        module = kernel.fn.__module__.rsplit(".", 1)[1]
        return lambda *args, **kwargs: seen.append(f"{module}.{kernel.fn.__name__}")

    def upload(values: NDArray[Any], device: torch.device) -> Tensor:
        return torch.from_numpy(values).to(device)

    monkeypatch.setattr(KernelInterface, "__getitem__", record)
    for module in HOPPER:
        name = f"penstock_kernels.gpu.{module}.multiprocessors"
        monkeypatch.setattr(name, lambda device: 132)
    for module in ("products", "quantised", "codes", "one_row", "whole_numbers", "rows_in_fp8"):
        name = f"benchmarks.kernels.lines.{module}.multiprocessors"
        monkeypatch.setattr(name, lambda device: 132)
    for module in ("steps.sharing", "sampling.sampling"):
        monkeypatch.setattr(f"penstock_shard.{module}.upload", upload)
    return seen


@pytest.mark.parametrize("line", LINES)
def test_a_line_launches_its_kernels(line: Line, launches: list[str]) -> None:
    launch = line.prepare(META, line.copies)
    for i in (0, line.copies - 1, line.copies):
        launches.clear()
        launch(i)
        assert tuple(dict.fromkeys(launches)) == line.kernels  # those of a search many times


@pytest.mark.parametrize("line", LINES)
def test_what_moves_much_does_not_come_from_l2(line: Line) -> None:
    assert line.moved > 0
    assert line.moved * line.copies >= COLD if not line.small else line.moved < 10e6


def test_bytes_are_those_that_must_be_moved() -> None:
    """Of Llama-3.1-8B, by hand."""
    found = {(line.name, line.what): line for line in bandwidth.lines(SHAPES["llama-3.1-8b"])}
    assert found["down", "8 x 14336 to 4096"].moved == (
        2 * 14336 * 4096 + 2 * 8 * 14336 + 4 * 2 * 8 * 4096  # two partial sums in float32
    )
    assert found["gate-up", "64 x 4096 to 28672"].moved == 2 * (28672 * 4096 + 64 * (4096 + 14336))
    attention = found["decode attention", "64 x 1056 tokens, 960 of them shared"]
    assert attention.moved == (960 + 64 * 96) * 2 * 8 * 128 * 2 + 64 * 2 * 32 * 128 * 2
    prompt = found["prefill attention", "1 x 4096 behind 0"]
    assert prompt.flops == 4 * 32 * 128 * 4096 * 4097 // 2
    assert found["residual and norm", "4096 x 4096"].moved == 4 * 4096 * 4096 * 2
