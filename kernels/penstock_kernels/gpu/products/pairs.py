"""Numbers in half precision from fewer bits, two an instruction, on cards that multiply pairs.

Triton widens numbers one by one. Here a register of four bytes becomes two or four of pairs by
shifts, masks and one sum or product a pair, or by looking bytes of a table up.
"""

from __future__ import annotations

import triton
import triton.language as tl

from penstock_kernels.gpu.products.hopper_widen import WIDEN, WIDEN_INT8

# Whole numbers of 4 bits plus 8: the low bits of numbers whose last bit is 1, which are 128 and
# more of bfloat16, 1024 and more of float16. $0 and $1: those low in their bytes.
_WHOLE = """{{
.reg .b32 a, b, t, less;
mov.b32 less, {less};
prmt.b32 a, $4, 0, 0x4140;
prmt.b32 b, $4, 0, 0x4342;
lop3.b32 t, a, 0x000f000f, {one}, 0xea;
sub.rn.{type} $0, t, less;
lop3.b32 t, b, 0x000f000f, {one}, 0xea;
sub.rn.{type} $1, t, less;
shr.u32 a, a, 4;
shr.u32 b, b, 4;
lop3.b32 t, a, 0x000f000f, {one}, 0xea;
sub.rn.{type} $2, t, less;
lop3.b32 t, b, 0x000f000f, {one}, 0xea;
sub.rn.{type} $3, t, less;
}}"""
WHOLE_BF16 = tl.constexpr(_WHOLE.format(one="0x43004300", less="0x43084308", type="bf16x2"))
WHOLE_FP16 = tl.constexpr(_WHOLE.format(one="0x64006400", less="0x64086408", type="f16x2"))
MULTIPLY = tl.constexpr("mul.rn.bf16x2 $0, $1, $2;")
SUBTRACT_BF16 = tl.constexpr("sub.rn.bf16x2 $0, $1, $2;")
SUBTRACT_FP16 = tl.constexpr("sub.rn.f16x2 $0, $1, $2;")


@triton.jit
def two_a_byte(byte, CODE: tl.constexpr, dtype: tl.constexpr):
    """The low and the high number of bytes [...], by CODE: [..., 2] of dtype. A byte's numbers come
    from it alone: which bytes a register holds is the compiler's choice."""
    if dtype == tl.bfloat16:
        one, other = tl.inline_asm_elementwise(
            CODE, "=r,=r,=r,=r,r", [byte], dtype=(tl.bfloat16, tl.bfloat16), is_pure=True, pack=4
        )
    else:
        one, other = tl.inline_asm_elementwise(
            CODE, "=r,=r,=r,=r,r", [byte], dtype=(tl.float16, tl.float16), is_pure=True, pack=4
        )
    return tl.join(one, other)


@triton.jit
def whole_numbers(byte, dtype: tl.constexpr):
    """Of 4 bits, stored plus 8: [..., 2]."""
    if dtype == tl.bfloat16:
        return two_a_byte(byte, WHOLE_BF16, dtype)
    else:
        return two_a_byte(byte, WHOLE_FP16, dtype)


@triton.jit
def of_bytes(byte, WHOLE: tl.constexpr):
    """int8 (WHOLE) or bytes of e4m3 in bfloat16."""
    CODE: tl.constexpr = WIDEN_INT8 if WHOLE else WIDEN
    return tl.inline_asm_elementwise(
        CODE, "=r,=r,r", [byte], dtype=tl.bfloat16, is_pure=True, pack=4
    )


@triton.jit
def times(x, by):
    """x * by, of bfloat16."""
    return tl.inline_asm_elementwise(
        MULTIPLY, "=r,r,r", [x, by], dtype=tl.bfloat16, is_pure=True, pack=2
    )


@triton.jit
def less(x, by):
    """x - by, of bfloat16 or float16."""
    if x.dtype == tl.bfloat16:
        return tl.inline_asm_elementwise(
            SUBTRACT_BF16, "=r,r,r", [x, by], dtype=tl.bfloat16, is_pure=True, pack=2
        )
    else:
        return tl.inline_asm_elementwise(
            SUBTRACT_FP16, "=r,r,r", [x, by], dtype=tl.float16, is_pure=True, pack=2
        )
