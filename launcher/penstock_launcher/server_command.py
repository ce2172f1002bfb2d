"""`text-generation-server download-weights MODEL`: what init containers run before the launcher.

Of TGI's commands of that name this one is of use to others; the launcher starts the shards itself.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from penstock_launcher import s3_download
from penstock_launcher.download import fetch
from penstock_launcher.errors import LauncherError
from penstock_launcher.folder import check_entries
from penstock_launcher.hub_token import hub_token
from penstock_launcher.logs import Log
from penstock_launcher.model import HubModel, S3Model, check_folder, is_s3, local_model
from penstock_launcher.options import Options

NOT_HERE = {
    "serve": "the launcher starts the shards itself: run `launcher --model-id MODEL`",
    "quantize": "`launcher --quantize` quantises while it loads; nothing is written",
}


def main() -> int:
    """The exit code: 0 when the model is complete, 1 after a failure, 2 for a bad option."""
    signal.signal(signal.SIGTERM, _end)  # the first process of a container has no default for it
    return run(sys.argv[1:], os.environ)


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Fetch what the arguments name; the environment gives the token and the cache."""
    parser = _parser()
    if argv and argv[0] in NOT_HERE:
        parser.error(f"{argv[0]}: {NOT_HERE[argv[0]]}")
    asked = parser.parse_args(argv)
    log = Log(as_json=asked.json_output, secrets=(hub_token(environ) or "",))
    try:
        folder, sha = _fetch(asked, environ)
    except LauncherError as error:
        log.error(str(error))
        return 1
    log.info("the model is complete", model=asked.model_id, path=str(folder), sha=sha)
    return 0


def _fetch(asked: argparse.Namespace, environ: Mapping[str, str]) -> tuple[Path, str | None]:
    options = Options(model_id=asked.model_id, revision=asked.revision)
    if (model := local_model(options)) is None:
        cache = environ.get("HUGGINGFACE_HUB_CACHE") or None
        if is_s3(asked.model_id):
            return s3_download.fetch(S3Model.parse(asked.model_id, cache, with_weights=True))
        wanted = HubModel(
            asked.model_id, asked.revision, cache, hub_token(environ), with_weights=True
        )
        return fetch(wanted)
    check_entries(model.path)
    return check_folder(model, with_weights=True).path, None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="text-generation-server", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "download-weights",
        help="fetch a model into the hub's cache",
        allow_abbrev=False,
    )
    command.add_argument(
        "model_id", metavar="MODEL", help="name on the hub, s3://BUCKET/PREFIX, or a folder"
    )
    command.add_argument("--revision", help="commit, branch or tag")
    command.add_argument("--json-output", action="store_true", help="write log lines as JSON")
    unused = command.add_argument_group("TGI's, accepted because they change nothing")
    unused.add_argument("--extension", choices=[".safetensors"], help="of the weights")
    unused.add_argument("--logger-level", metavar="LEVEL")
    unused.add_argument("--auto-convert", action=argparse.BooleanOptionalAction)
    unused.add_argument("--no-merge-lora", action="store_true")
    return parser


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
