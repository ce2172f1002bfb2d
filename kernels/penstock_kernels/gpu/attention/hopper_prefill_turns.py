"""What a program of `hopper_prefill` does turn after turn: its partitions ask the same."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl


@gluon.jit
def task(plan, turn):
    """The program's tile of a turn: its head, first row, rows (0: none) and their first position.

    Tiles come longest first; every other turn goes through the programs backwards, so that none
    gets the longest one of each.
    """
    tiles, positions, total, kv_heads = plan
    programs, program = gl.num_programs(0), gl.program_id(0)
    index = turn * programs + gl.where(turn % 2 == 0, program, programs - 1 - program)
    entry = tiles + 2 * (index // kv_heads)
    rows = gl.load(entry + 1, mask=index < total, other=0)
    first_row = gl.load(entry, mask=index < total, other=0)
    first_row = gl.where(rows > 0, first_row, 0).to(gl.int64)
    start = gl.load(positions + first_row).to(gl.int32)
    return index % kv_heads, first_row, rows, start


@gluon.jit
def span(start, rows, window, N: gl.constexpr, WINDOW: gl.constexpr):
    """First token of a tile's keys, at a multiple of N, and their end."""
    stop = gl.where(rows > 0, start + rows, 0)
    begin = 0 * stop
    if WINDOW:
        begin = gl.minimum(gl.maximum(start + 1 - window, 0) // N * N, stop)
    return begin, stop


@gluon.jit
def turns(plan):
    return gl.cdiv(plan[2], gl.num_programs(0))
