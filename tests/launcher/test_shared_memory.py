"""What is said at start of a /dev/shm that is too small, and when."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

from penstock_launcher import shared_memory
from penstock_launcher.shared_memory import notice

IN_A_CONTAINER = """
mount -t tmpfs -o size=1m none /dev/shm && exec "$@"
"""
SAY = "from penstock_launcher.shared_memory import notice; print(notice(2, 2, {}))"


def test_a_tiny_one() -> None:
    """A real one, in a mount namespace of its own."""
    new = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    command = [*new, "sh", "-c", IN_A_CONTAINER, "sh", sys.executable, "-c", SAY]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "unshare" in result.stderr or "mount" in result.stderr:
        pytest.skip(f"no mount namespace for this user: {result.stderr.strip()}")
    assert "/dev/shm has 1 MiB free, and 2 shards may need 256:" in result.stdout
    assert "--shm-size" in result.stdout


@pytest.mark.parametrize(
    ("shards", "gpus", "environ", "free", "said"),
    [
        (2, 2, {}, 64 << 20, True),
        (2, 2, {}, 1 << 30, False),
        (8, 8, {}, 1 << 30, False),
        (1, 1, {}, 0, False),
        (2, 0, {}, 0, False),
        (2, 2, {"NCCL_SHM_DISABLE": "1"}, 0, False),
    ],
)
def test_where_it_matters(
    monkeypatch: pytest.MonkeyPatch,
    shards: int,
    gpus: int,
    environ: Mapping[str, str],
    free: int,
    said: bool,
) -> None:
    fields = (4096, 4096, free >> 12, free >> 12, free >> 12, 0, 0, 0, 0, 255)
    monkeypatch.setattr(shared_memory.os, "statvfs", lambda path: os.statvfs_result(fields))
    assert (notice(shards, gpus, environ) is not None) == said


def test_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "PATH", "/dev/no-such-folder")
    assert "cannot be used (No such file or directory)" in (notice(2, 2, {}) or "")
