"""The command `penstock`: a server, and what else the package does.

Without a command it is the launcher, as it always was: `penstock --model-id X`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
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
    become("penstock_launcher.migration", argv)


def _download(argv: Sequence[str]) -> int:
    become("penstock_launcher.server_command", ["download-weights", *argv])


def _quantize(argv: Sequence[str]) -> int:
    become("penstock_shard.quantize", argv)  # with torch, which nothing here imports


def _of(module: str, name: str = "main") -> Callable[[Sequence[str]], int]:
    def run(argv: Sequence[str]) -> int:
        return int(getattr(importlib.import_module(module), name)(argv))

    return run


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "serve": (_serve, "serve a model over HTTP; `serve --help` lists the options"),
    "bench": (_of("penstock.bench.__main__"), "measure a server, or the offline engine"),
    "run-batch": (_of("penstock.batches.run_batch"), "answer a file of requests"),
    "quantize": (_quantize, "make a quantised checkpoint of one in half precision"),
    "chat": (_of("penstock.terminal.chat", "chat"), "talk to a model at this terminal"),
    "run": (_of("penstock.terminal.chat", "run"), "answer one prompt"),
    "doctor": (_of("penstock.terminal.doctor"), "what this machine lacks; for bug reports"),
    "migrate": (_migrate, "another server's command line or manifest, as Penstock's"),
    "download": (_download, "fetch a model into the cache"),
}


def main() -> int:
    """The exit code."""
    argv = sys.argv[1:]
    if argv[:1] in (["--version"], ["-V"]):
        print(f"penstock {penstock.__version__}")
        return 0
    if argv[:1] in (["--help"], ["-h"]):
        print(usage())
        return 0
    if not argv or argv[0].startswith("-"):
        return _serve(argv)
    if argv[0] not in COMMANDS:
        print(f"penstock: there is no command {argv[0]!r}\n{usage()}", file=sys.stderr)
        return 2
    return COMMANDS[argv[0]][0](argv[1:])


def usage() -> str:
    """What --help says."""
    lines = [f"  {name:<12}{what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        ["usage: penstock [COMMAND] [options]", "", "commands:", *lines, "", "Without: serve."]
    )


if __name__ == "__main__":
    sys.exit(main())
