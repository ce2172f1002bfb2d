"""An edit that removes a defence of docs/reliability.md, and the test that tells.

A text that stands once in a file, what stands there without the defence, and a test that must fail
then.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """An edit that some test must notice."""

    row: str  # of docs/reliability.md
    file: str
    old: str
    new: str
    test: str  # path::name


ROUTER, SHARD = "router/penstock_router", "shard/penstock_shard"
LAUNCHER, KERNELS = "launcher/penstock_launcher", "kernels/penstock_kernels"
ENGINE = "tests/router/engine/test_engine.py"
LIFE = "tests/router/api/test_life.py"
GUARD = "tests/router/api/test_guard.py"
BOUNDS = "tests/router/api/test_bounds.py"
CONNECTIONS = "tests/router/api/test_connections.py"
READING = "tests/router/test_reading_time.py"
TOOLS = "tests/router/api/test_tools.py"
SUPERVISOR = "tests/launcher/test_supervisor.py"
