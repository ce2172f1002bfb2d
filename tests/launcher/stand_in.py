"""A small real process that behaves like a shard or a router, well or badly, as its config says.

Run as `python stand_in.py`, with the launcher's contract: JSON on standard input, a ready pipe,
SIGTERM. Keys of the configuration, all optional: see DEFAULTS.
"""

import faulthandler
import json
import os
import signal
import subprocess
import sys
import time

DEFAULTS = {
    "say": [],  # lines for standard error before anything else
    "ready_after": 0.0,  # seconds; null: never
    "ready_line": {"url": "http://127.0.0.1:1"},
    "close_ready_pipe": False,  # without a line
    "end_after": None,  # seconds from start
    "end_with": 0,  # code, negative: minus a signal
    "last_words": [],
    "drain_seconds": 0.0,  # between SIGTERM and the end
    "drain_until": None,  # a file: in place of seconds, the end is when it is there
    "drain_code": 0,
    "ignore_sigterm": False,
    "grandchild": False,
    "end_when_gone": None,  # process id: end (with end_with) as soon as it is gone
    "end_late": 0.0,  # seconds after that
    "report": None,  # file for what this process saw
}


def main() -> None:
    options = DEFAULTS | json.load(sys.stdin)
    started = time.monotonic()
    faulthandler.register(signal.SIGUSR1)
    stop: list[float] = []
    if options["ignore_sigterm"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: stop.append(time.monotonic()))
    if options["grandchild"]:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    write_report(options)
    for line in options["say"]:
        print(line, file=sys.stderr, flush=True)
    ready = os.fdopen(int(os.environ["PENSTOCK_READY_FD"]), "w")
    if options["close_ready_pipe"]:
        ready.close()
    while True:
        elapsed = time.monotonic() - started
        after = options["ready_after"]
        if not ready.closed and after is not None and elapsed >= after:
            print(json.dumps(options["ready_line"]), file=ready)
            ready.close()
        if options["end_after"] is not None and elapsed >= options["end_after"]:
            end(options)
        if options["end_when_gone"] and not alive(options["end_when_gone"]):
            time.sleep(options["end_late"])
            end(options)
        if stop and drained(options, time.monotonic() - stop[0]):
            sys.exit(options["drain_code"])
        time.sleep(0.01)


def drained(options: dict, seconds: float) -> bool:
    if options["drain_until"]:
        return os.path.exists(options["drain_until"])
    return bool(seconds >= options["drain_seconds"])


def end(options: dict) -> None:
    for line in options["last_words"]:
        print(line, file=sys.stderr, flush=True)
    if options["end_with"] < 0:
        os.kill(os.getpid(), -options["end_with"])
        time.sleep(60)
    os._exit(options["end_with"])


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def write_report(options: dict) -> None:
    if options["report"]:
        with open("/proc/self/cmdline", "rb") as cmdline:
            argv = cmdline.read().split(b"\0")
        seen = {"argv": [part.decode() for part in argv], "environment": dict(os.environ)}
        with open(options["report"], "w") as file:
            json.dump(seen, file)


if __name__ == "__main__":
    main()
