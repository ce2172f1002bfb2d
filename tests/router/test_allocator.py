"""Large blocks go back to the system when they are free."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

# In a process of its own: whether a block is mapped by itself, and so unmapped when it is free,
# behind another one of its size that was freed.
PROGRAM = """
import ctypes, sys
from penstock_router.allocator import LARGE_BYTES, keep_no_large_blocks

class Counts(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Counts
if sys.argv[1] == "ours":
    keep_no_large_blocks()
bytearray(4 * LARGE_BYTES)
before = libc.mallinfo2().hblks
block = bytearray(3 * LARGE_BYTES)
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc 2.33 and newer")
@pytest.mark.parametrize(("how", "mapped"), [("ours", 1), ("as it comes", 0)])
def test_a_large_block_is_mapped_by_itself(how: str, mapped: int) -> None:
    program = [sys.executable, "-c", PROGRAM, how]
    told = subprocess.run(program, check=True, capture_output=True, text=True)
    assert int(told.stdout) == mapped
