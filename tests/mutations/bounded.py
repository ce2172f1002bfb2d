"""A command with an end: `python bounded.py SECONDS COMMAND...`; nothing it started is left behind.

Tests start servers, whose processes have groups and sessions of their own; without a defence they
may outlive their test, or keep it from ending. So this process is the parent of every orphan among
its descendants, takes their ends as they come, and at its own kills what is left. Imports nothing
of ours.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
HUNG = 124  # the exit code, as that of timeout(1); else that of the command


def main() -> int:
    seconds, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(HUNG))
    signal.setitimer(signal.ITIMER_REAL, float(seconds))
    try:
        started = subprocess.Popen(command, start_new_session=True)  # waits where it goes
        return end_of(started.pid)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        kill_all()


def end_of(command: int) -> int:
    while True:
        process, status = os.wait()
        if process == command:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def kill_all() -> None:
    """The children of one that is killed are ours then."""
    children = f"/proc/self/task/{threading.get_native_id()}/children"
    while True:
        with open(children) as listed:
            for child in listed.read().split():
                os.kill(int(child), signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    sys.exit(main())
