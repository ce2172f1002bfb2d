"""Log lines of the router."""

from __future__ import annotations

import json
import os
import subprocess
import sys

CODE = """
from penstock_router.logs import configure_logs, log
configure_logs()
for number in range(LINES):
    log("INFO", "line", number=number, padding="x" * 200)
print("served", flush=True)
input()
"""
LINES = 1000  # 300 KB, more than a pipe takes


def test_a_launcher_that_is_stopped_holds_up_no_client():
    """It reads no lines, as after Ctrl-Z: they wait for it, and the event loop does not."""
    read, write = os.pipe()
    command = [sys.executable, "-c", CODE.replace("LINES", str(LINES))]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=write, text=True
    )
    os.close(write)
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == "served\n"
    process.stdin.write("\n")
    process.stdin.close()
    with os.fdopen(read) as log:
        lines = [json.loads(line) for line in log]
    assert process.wait() == 0
    assert [line["number"] for line in lines] == [*range(LINES)], "it goes on: none is lost"
