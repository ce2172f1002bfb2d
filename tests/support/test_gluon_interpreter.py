"""Each fault of a kernel that the interpreter of Gluon is there to find is found, in both orders.

One kernel copies tiles of a matrix through a ring of two stages, multiplies them with the identity
and stores them; `fault` names what it leaves out.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.extra.cuda import gdc_wait

from penstock_kernels.gpu.launch.hopper import tma_descriptor
from support.gluon_interpreter import Interpreted, Late
from support.gluon_values import GluonError

TILES, STAGES = 5, 2
FAULTS = {
    "full": "deadlock|ended before all its copies",
    "empty": "deadlock|wrong",
    "release": "deadlock",
    "early release": "wrong",
    "product": "before it was waited for",
    "fence": "without a fence",
    "bytes": "deadlock",
    "mask": "outside of a tensor",
    "twice": "written twice",
    "dependent": "before the wait for the launch",
    "stage": "barrier 2 of 2",
    "nobody waits": "no program waited",
}


@gluon.jit
def _load(desc, ring, tiles, FAULT: gl.constexpr):
    stages, full, empty, _ = ring
    if FAULT != "dependent" and FAULT != "nobody waits":
        gdc_wait()
    for j in range(tiles):
        stage = j % stages.shape[0]
        if FAULT == "stage":
            stage = j
        if FAULT != "empty":
            mbarrier.wait(empty.index(stage), (j // stages.shape[0] + 1) & 1)
        mbarrier.expect(full.index(stage), 64 * 64 * (4 if FAULT == "bytes" else 2))
        tma.async_copy_global_to_shared(desc, [j * 64, 0], full.index(stage), stages.index(stage))


@gluon.jit
def _multiply(ring, out, rows, tiles, layout: gl.constexpr, FAULT: gl.constexpr):
    stages, full, empty, identity = ring
    line = gl.arange(0, 64, gl.SliceLayout(1, layout))
    column = gl.arange(0, 64, gl.SliceLayout(0, layout))
    one = gl.expand_dims(line, 1) == gl.expand_dims(column, 0)
    identity.store(gl.where(one, 1.0, 0.0).to(identity.dtype))
    if FAULT != "fence":
        fence_async_shared()
    acc = gl.zeros([64, 64], gl.float32, layout)
    for j in range(tiles):
        stage = j % stages.shape[0]
        if FAULT != "full":
            mbarrier.wait(full.index(stage), j // stages.shape[0] & 1)
        acc = warpgroup_mma(stages.index(stage), identity, acc, use_acc=False, is_async=True)
        if FAULT == "early release":
            mbarrier.arrive(empty.index(stage))
        if FAULT != "product":
            acc = warpgroup_mma_wait(0, deps=[acc])
        if FAULT != "release" and FAULT != "early release":
            mbarrier.arrive(empty.index(stage))
        row = line + (0 if FAULT == "twice" else j * 64)
        place = gl.expand_dims(row, 1) * 64 + gl.expand_dims(column, 0)
        inside = gl.expand_dims(row < rows, 1)
        if FAULT == "mask":
            inside = gl.expand_dims(row <= rows, 1)
        gl.store(out + place, acc, mask=inside)


@gluon.jit
def _kernel(desc, out, rows, tiles, STAGES: gl.constexpr, FAULT: gl.constexpr):
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    stages = gl.allocate_shared_memory(desc.dtype, [STAGES, 64, 64], desc.layout)
    identity = gl.allocate_shared_memory(desc.dtype, [64, 64], desc.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=1)
    ring = (stages, full, empty, identity)
    gl.warp_specialize(
        [
            (_multiply, (ring, out, rows, tiles, layout, FAULT)),
            (_load, (desc, ring, tiles, FAULT)),
        ],
        [1],
        [24],
    )


def run(fault: str, loader_first: bool) -> tuple[Tensor, Tensor]:
    """What went in and what came out."""
    torch.manual_seed(0)
    x = torch.randn(TILES * 64 - 7, 64).bfloat16()
    out = torch.full(x.shape, torch.nan, dtype=x.dtype)
    late = [] if fault == "nobody waits" else [Late(x)]
    Interpreted(_kernel, loader_first, late)[(1,)](
        tma_descriptor(x, 64, 64), out, len(x), TILES, STAGES=STAGES, FAULT=fault, launch_pdl=True
    )
    return x, out


@pytest.mark.parametrize("loader_first", [False, True])
def test_a_kernel_without_fault_is_right(loader_first: bool) -> None:
    x, out = run("", loader_first)
    assert torch.equal(x, out)


@pytest.mark.parametrize(("fault", "message"), FAULTS.items())
def test_faults_are_found(fault: str, message: str) -> None:
    """In one of both orders at least, by what says what is wrong or by a wrong result."""
    found = []
    for loader_first in (False, True):
        try:
            x, out = run(fault, loader_first)
        except GluonError as error:
            found.append(str(error))
        else:
            found += [] if torch.equal(x, out) else ["wrong"]
    assert found
    assert all(any(part in text for part in message.split("|")) for text in found), found
