"""A launcher whose log nobody reads, or that has no standard descriptors."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path


def test_a_server_goes_on_when_nobody_reads_its_log(tmp_path: Path) -> None:
    """Its pipe is full from the start, and the launcher ends as ever."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.write(write, b"x" * 4096)
    command = [sys.executable, "-m", "penstock_launcher", "--model-id", "/no/such/folder", "--env"]
    process = subprocess.Popen(command, stdout=write, stderr=subprocess.DEVNULL)
    os.close(write)
    assert process.wait(60) == 1
    os.close(read)


def test_no_standard_output_at_all() -> None:
    command = f"exec {sys.executable} -m penstock_launcher --model-id /no/such/folder >&-"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (1, "")


def test_the_next_file_is_no_standard_one() -> None:
    """A launcher without standard output opened its pipes and sockets under that number."""
    code = """
import os
from penstock_launcher.outlet import open_standard_descriptors
open_standard_descriptors()
assert os.fstat(1).st_rdev == os.stat(os.devnull).st_rdev
assert min(os.pipe()) > 2
"""
    command = ["sh", "-c", 'exec "$@" >&- <&-', "sh", sys.executable, "-c", code]
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
