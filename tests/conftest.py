"""Without a GPU, Triton's kernels run in its interpreter.

Triton reads this variable when it is imported, which transformers does: so it is set here, before
pytest imports any test.
"""

import os
from pathlib import Path

if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
