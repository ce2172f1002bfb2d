"""`python -m penstock.bench serve|throughput|latency|startup`, and `penstock bench`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from penstock.command import to_the_end
from penstock.embedded import ServerError

COMMANDS = {
    "serve": "load a server that is up: throughput, latency, goodput",
    "throughput": "tokens a second of the offline engine (penstock.LLM)",
    "latency": "time of one batch of the offline engine",
    "startup": "time from the start of a server to its first token",
}


def main(argv: Sequence[str] | None = None, prog: str = "penstock bench") -> int:
    """The exit code."""
    listed = "\n".join(f"  {name:<12}{what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} COMMAND [options]",
        description=f"commands (each has --help):\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        parser.print_help(sys.stderr)
        return 2
    command = parser.parse_args(argv[:1]).command
    run = importlib.import_module(f"penstock.bench.{command}").main
    try:
        return int(run(argv[1:], f"{prog} {command}"))
    except ServerError as error:
        print(f"{prog} {command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{prog} {command}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(to_the_end(main))
