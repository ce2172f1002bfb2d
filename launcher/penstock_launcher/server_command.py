"""`text-generation-server download-weights MODEL`: what init containers run before the launcher.

Of TGI's commands of that name this one is of use to others; the launcher starts the shards itself.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

from penstock_launcher.download_command import add_options, download, end
from penstock_proto.config_file import Parser

NOT_HERE = {
    "serve": "the launcher starts the shards itself: run `launcher --model-id MODEL`",
    "quantize": "`launcher --quantize` quantises while it loads; `penstock quantize` writes files",
}


def main() -> int:
    """The exit code: 0 when the model is complete, 1 after a failure, 2 for a bad option."""
    signal.signal(signal.SIGTERM, end)  # the first process of a container has no default for it
    parser = _parser()
    argv = sys.argv[1:]
    if argv and argv[0] in NOT_HERE:
        parser.error(f"{argv[0]}: {NOT_HERE[argv[0]]}")
    asked = parser.parse_args(argv)
    return download(asked.model_id, asked, os.environ)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="text-generation-server", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    command = commands.add_parser("download-weights", help="fetch a model into the hub's cache")
    command.add_argument(
        "model_id", metavar="MODEL", help="name on the hub, s3://BUCKET/PREFIX, or a folder"
    )
    add_options(command)
    unused = command.add_argument_group("TGI's, accepted because they change nothing")
    unused.add_argument("--extension", choices=[".safetensors"], help="of the weights")
    unused.add_argument("--logger-level", metavar="LEVEL")
    unused.add_argument("--auto-convert", action=argparse.BooleanOptionalAction)
    unused.add_argument("--no-merge-lora", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
