"""How the commands that make a model folder end: in a line, and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch


def run(program: str, work: Callable[[], str]) -> int:
    """Do the work and print what it says came of it. The exit code."""
    try:
        print(work())
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    return 0
