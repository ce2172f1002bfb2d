"""`python -m penstock.benchmark_serving`: `penstock bench serve` under the name and with the
defaults of vLLM's script, so that its command lines go on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from penstock.bench.serve import main as serve
from penstock.command import to_the_end


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    argv = sys.argv[1:] if argv is None else argv
    return serve(argv, "python -m penstock.benchmark_serving", "vllm")


if __name__ == "__main__":
    sys.exit(to_the_end(main))
