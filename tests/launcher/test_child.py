"""A child, as the supervisor sees it."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from pathlib import Path

import pytest

from penstock_launcher.child import Child, Program, Role
from penstock_launcher.logs import Log

STAND_IN = str(Path(__file__).with_name("stand_in.py"))


@pytest.mark.parametrize("tell", [Child.terminate, Child.show_stacks])
async def test_one_that_has_just_ended_is_still_reaped(tell) -> None:
    """A signal that comes between a child's end and its SIGCHLD takes nothing from reap()."""
    argv = (sys.executable, STAND_IN)
    program = Program("shard 0", Role.SHARD, argv, {"end_after": 0.0}, dict(os.environ))
    child = Child(program, Log(as_json=False, stream=io.StringIO()))
    try:
        await asyncio.to_thread(os.waitid, os.P_PID, child.group, os.WEXITED | os.WNOWAIT)
        tell(child)
        assert child.reap() and child.ended.result() == 0
    finally:
        child.signal(signal.SIGKILL)
