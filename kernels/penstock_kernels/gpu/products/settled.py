"""A wait that Triton leaves out, for products whose left side is made in registers.

On Hopper a product runs beside what follows it and reads its left side from registers until it is
done. Triton cuts it into pieces of 16 columns, and where a loop only adds to a sum it lets all but
one of them run into the next turn. But nobody keeps their registers there: the next turn's numbers
and addresses are written over those of pieces that have not begun, and whole columns of a result
come out wrong, seldom with few rows and now and then with many.
"""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def settled(acc):
    """acc itself, float32: a sum that a loop adds products to. As the loop reads it, it waits for
    them; no instruction comes of it."""
    if INTERPRETED:
        return acc
    else:
        return tl.inline_asm_elementwise(
            "// $0", "=f,0", [acc], dtype=tl.float32, is_pure=True, pack=1
        )
