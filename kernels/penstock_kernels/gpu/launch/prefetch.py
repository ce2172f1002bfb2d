"""Reading into the second cache what the kernel behind the next one is going to read.

Memory rests while small kernels of a step of few rows wait for each other. What waits there can ask
for the next weight meanwhile: PTX ISA, "cp.async.bulk.prefetch", of sm_90 and later.
"""

from __future__ import annotations

from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

LANES = 32  # threads that ask
GRANULE = 512  # bytes: 16 for each of them

_ASK = gl.constexpr("""
{
cp.async.bulk.prefetch.L2.global [$1], $2;
mov.b32 $0, 0;
}
""")


@gluon.jit
def prefetch(source, BYTES: gl.constexpr):
    """One warp asks for the program's share of `source`, BYTES of it, a multiple of GRANULE."""
    layout: gl.constexpr = gl.BlockedLayout([1], [32], [1], [0])
    lane = gl.arange(0, 32, layout)
    place = (gl.program_id(0) * 32 + lane).to(gl.int64) * (BYTES // 32)
    size = gl.full([32], BYTES // 32, gl.int32, layout)
    gl.inline_asm_elementwise(
        _ASK, "=r,l,r", [source.to(gl.int64) + place, size], dtype=gl.int32, is_pure=False, pack=1
    )


def share(source: Tensor, most: int, programs: int) -> int:
    """Bytes of each program, of at most so many in all."""
    return min(source.nbytes, most) // (programs * GRANULE) * GRANULE
