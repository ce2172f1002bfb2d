"""Numbers of 4 bits in registers, two of half precision an instruction.

Triton widens numbers one by one, by some five instructions each. A byte's two numbers are bits of
half precision but for shifts and masks, and one product or sum sets the exponent: eight numbers of
four bytes take 22 instructions (e2m1) or 12 (whole numbers). Needs sm_90 (`mul.bf16x2`).
"""

from __future__ import annotations

import triton
import triton.language as tl

# Bytes 0 and 1 in the halves of a register, then 2 and 3.
_SPREAD = """{
.reg .b32 a, b, t, u, by;
prmt.b32 a, $4, 0, 0x4140;
prmt.b32 b, $4, 0, 0x4342;
"""
# A code's three low bits are moved up to where exponent and mantissa meet, its highest to the sign.
_E2M1 = """
mov.b32 by, {scale};
shl.b32 t, a, {low}; and.b32 t, t, {mask}; shl.b32 u, a, 12;
lop3.b32 t, u, 0x80008000, t, 0xEA; mul.rn.{type} $0, t, by;
shl.b32 t, b, {low}; and.b32 t, t, {mask}; shl.b32 u, b, 12;
lop3.b32 t, u, 0x80008000, t, 0xEA; mul.rn.{type} $1, t, by;
shl.b32 t, a, {high}; and.b32 t, t, {mask}; shl.b32 u, a, 8;
lop3.b32 t, u, 0x80008000, t, 0xEA; mul.rn.{type} $2, t, by;
shl.b32 t, b, {high}; and.b32 t, t, {mask}; shl.b32 u, b, 8;
lop3.b32 t, u, 0x80008000, t, 0xEA; mul.rn.{type} $3, t, by;
}}"""
# A number is the low bits of one whose last bit is 1: 128 in bfloat16, 1024 in float16.
_WHOLE = """
mov.b32 by, {less};
lop3.b32 t, a, 0x000F000F, {one}, 0xEA; add.rn.{type} $0, t, by;
lop3.b32 t, b, 0x000F000F, {one}, 0xEA; add.rn.{type} $1, t, by;
shr.u32 a, a, 4; shr.u32 b, b, 4;
lop3.b32 t, a, 0x000F000F, {one}, 0xEA; add.rn.{type} $2, t, by;
lop3.b32 t, b, 0x000F000F, {one}, 0xEA; add.rn.{type} $3, t, by;
}}"""
E2M1_BFLOAT16 = tl.constexpr(
    _SPREAD + _E2M1.format(scale="0x7E807E80", low=6, high=2, mask="0x01C001C0", type="bf16x2")
)
E2M1_FLOAT16 = tl.constexpr(
    _SPREAD + _E2M1.format(scale="0x74007400", low=9, high=5, mask="0x0E000E00", type="f16x2")
)
WHOLE_BFLOAT16 = tl.constexpr(
    _SPREAD + _WHOLE.format(less="0xC308C308", one="0x43004300", type="bf16x2")
)
WHOLE_FLOAT16 = tl.constexpr(
    _SPREAD + _WHOLE.format(less="0xE408E408", one="0x64006400", type="f16x2")
)
OPERANDS = tl.constexpr("=r,=r,=r,=r,r")


@triton.jit
def unpacked(byte, dtype: tl.constexpr, E2M1: tl.constexpr):
    """Of bytes [...] the low numbers and the high ones, [..., 2] of dtype, which is of 16 bits.

    E2M1: codes of e2m1; else whole numbers that are stored plus 8.
    """
    if dtype == tl.bfloat16:
        CODE: tl.constexpr = E2M1_BFLOAT16 if E2M1 else WHOLE_BFLOAT16
        low, high = tl.inline_asm_elementwise(
            CODE, OPERANDS, [byte], dtype=(tl.bfloat16, tl.bfloat16), is_pure=True, pack=4
        )
    else:
        CODE: tl.constexpr = E2M1_FLOAT16 if E2M1 else WHOLE_FLOAT16
        low, high = tl.inline_asm_elementwise(
            CODE, OPERANDS, [byte], dtype=(tl.float16, tl.float16), is_pure=True, pack=4
        )
    return tl.join(low, high)
