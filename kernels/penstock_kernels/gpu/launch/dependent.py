"""Dependent launch: a kernel starts while the one before it ends.

Programmatic dependent launch (CUDA C++ programming guide, "Programmatic Dependent Launch and
Synchronization"; sm_90 and later). A kernel that is launched so runs what depends on nothing, its
weights' first tile for instance, until `wait`: from there on everything before it is complete and
visible. It lets the next kernel start by `release`, or else when it has waited. Every kernel
launched so must call `wait` before it reads or writes what others touch, and some program of it
before it returns: order is transitive only then.

A kernel starts when all programs of the one before it have let it or are done. If those (one at
least) let it after their own `wait`, then all that was written before the launch before is complete
even before the kernel's `wait`: so decode attention reads the plan of a step and the tokens of the
ones before, behind the product that places queries, keys and values or behind the rotation. Behind
kernels that let at their own start nothing recent is complete: what that product reads before its
`wait`, slots, positions and block table, was written before the step's embedding, which does not
launch dependently.

Programs that wait hold their shared memory, and others may have to run where none is left. They
cannot be those that are waited for: all programs of the kernel before had started by then, and so,
by the same rule, had those of all kernels before it.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl


@triton.jit
def release(PDL: tl.constexpr):
    """Let what follows start at once, which may then wait beside this kernel: products do so, norms
    and the merge of decode attention, whose successors have weights to load meanwhile."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def wait(PDL: tl.constexpr):
    """Wait for what was launched before, and let what follows start."""
    if PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


def launch(dependent: bool) -> dict[str, Any]:
    """Keyword arguments of a launch whose kernel has PDL: tl.constexpr."""
    return {"PDL": True, "launch_pdl": True} if dependent else {"PDL": False}


def supports_dependent_launch(device: torch.device) -> bool:
    """Whether the device can launch dependently."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
