"""The command `penstock`: a server, and what else the package does.

Without a command it is the launcher, as it always was: `penstock --model-id X`.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NoReturn

import penstock


def become(module: str, argv: Sequence[str]) -> NoReturn:
    """Run a module in this process's place, so that signals and exit codes are its own."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *argv])


def _serve(argv: Sequence[str]) -> int:
    if argv and not argv[0].startswith("-"):  # `serve MODEL`, as vLLM has it
        argv = ["--model-id", *argv]
    become("penstock_launcher", argv)


def _migrate(argv: Sequence[str]) -> int:
    # a command line that is translated may have any options of its own
    if argv and argv[0].startswith("-") and any(word.startswith("--check") for word in argv):
        return _of("penstock.replay.command")(argv)
    become("penstock_launcher.migration", argv)


def _download(argv: Sequence[str]) -> int:
    become("penstock_launcher.download_command", argv)


def _quantize(argv: Sequence[str]) -> int:
    become("penstock_shard.weights.quantize", argv)  # with torch, which nothing here imports


def _merge(argv: Sequence[str]) -> int:
    become("penstock_shard.weights.merge", argv)


def _of(module: str, name: str = "main") -> Callable[[Sequence[str]], int]:
    def run(argv: Sequence[str]) -> int:
        return int(getattr(importlib.import_module(module), name)(argv))

    return run


@dataclass(frozen=True, slots=True)
class Command:
    """run: takes what stands behind the name; the exit code."""

    run: Callable[[Sequence[str]], int]
    purpose: str  # one of PURPOSES
    what: str


PURPOSES = ("serve", "talk", "measure", "prepare", "operate")
COMMANDS = {
    "serve": Command(_serve, "serve", "serve a model over HTTP; `serve --help` lists the options"),
    "chat": Command(_of("penstock.terminal.chat", "chat"), "talk", "a conversation with a model"),
    "run": Command(_of("penstock.terminal.chat", "run"), "talk", "answer one prompt"),
    "run-batch": Command(_of("penstock.batches.run_batch"), "talk", "answer a file of requests"),
    "bench": Command(
        _of("penstock.bench.__main__"), "measure", "measure a server, or the offline engine"
    ),
    "download": Command(_download, "prepare", "fetch a model into the cache"),
    "quantize": Command(_quantize, "prepare", "make a quantised checkpoint"),
    "merge": Command(_merge, "prepare", "merge a LoRA adapter into its model"),
    "migrate": Command(
        _migrate, "prepare", "another server's command line or manifest, as Penstock's"
    ),
    "doctor": Command(
        _of("penstock.terminal.doctor"), "operate", "what this machine lacks; for bug reports"
    ),
}


def main() -> int:
    """The exit code."""
    return to_the_end(lambda: _main(sys.argv[1:]))


def to_the_end(run: Callable[[], int]) -> int:
    """The exit code. Who reads our output no more, or interrupts us, gets no traceback."""
    try:
        code = run()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes at its end
        return 128 + signal.SIGPIPE
    except OSError as error:
        print(f"penstock: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 128 + signal.SIGINT


def _main(argv: Sequence[str]) -> int:
    if argv[:1] in (["--version"], ["-V"]):
        print(f"penstock {penstock.__version__}")
        return 0
    if argv[:1] in (["--help"], ["-h"]):
        print(usage())
        return 0
    if not argv or argv[0].startswith("-"):
        return _serve(argv)
    if argv[0] not in COMMANDS:
        nearest = get_close_matches(argv[0], COMMANDS, 1)
        meant = f"; did you mean {nearest[0]}?" if nearest else ""
        print(f"penstock: there is no command {argv[0]!r}{meant}\n\n{usage()}", file=sys.stderr)
        return 2
    return COMMANDS[argv[0]].run(argv[1:])


def usage() -> str:
    """What --help says."""
    lines = ["usage: penstock COMMAND [options]", ""]
    for purpose in PURPOSES:
        lines.append(f"{purpose}:")
        for name, command in COMMANDS.items():
            if command.purpose == purpose:
                lines.append(f"  {name:<12}{command.what}")
    more = "Each has --help, and --config FILE for its options in YAML. Without a command: serve."
    return "\n".join([*lines, "", more])


if __name__ == "__main__":
    sys.exit(main())
