"""Products in Triton's interpreter that add up as tensor cores do: in one order for all elements.

The interpreter's are numpy's, and there the order depends on an element's place in its tile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on; with a GPU nothing changes."""
    from triton.runtime import interpreter

    def create_dot(
        self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any
    ) -> Any:
        left, right = a.data.astype(np.float32), b.data.astype(np.float32)
        if a.dtype.is_bf16():
            left, right = _widened(a.data), _widened(b.data)
        total = d.data.astype(np.float32)
        for k in range(left.shape[1]):
            total = total + left[:, k : k + 1] * right[k : k + 1]
        return interpreter.TensorHandle(total, d.dtype.scalar)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)


def _widened(bits: Any) -> Any:
    """bfloat16 as the interpreter holds it: float32 already, or its upper halves."""
    if bits.dtype == np.uint16:
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return bits.astype(np.float32)
