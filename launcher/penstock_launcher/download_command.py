"""`penstock download MODEL`: fetch a model before the server that needs it starts."""

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
from penstock_launcher.meter import told_to
from penstock_launcher.model import HubModel, S3Model, check_folder, is_s3, local_model
from penstock_launcher.options import Options
from penstock_proto.config_file import Parser

INTERRUPTED = "interrupted; the same command goes on from here"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 when the model is complete, 1 after a failure, 2 for a bad option."""
    signal.signal(signal.SIGTERM, end)  # the first process of a container has no default for it
    parser = Parser(
        prog="penstock download", description="Fetch a model, or what is missing of it."
    )
    parser.add_argument("model_id", nargs="?", metavar="MODEL", help="what to fetch")
    parser.add_argument("--model-id", "--model", dest="model", metavar="MODEL", help="the same")
    add_options(parser)
    asked = parser.parse_args(argv)
    if (asked.model_id is None) == (asked.model is None):
        parser.error("give one MODEL: a name on the hub, s3://BUCKET/PREFIX, or a folder")
    return download(asked.model_id or asked.model, asked, os.environ)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those that `download` reads."""
    parser.add_argument("--revision", help="commit, branch or tag")
    parser.add_argument("--json-output", action="store_true", help="write log lines as JSON")


def download(model: str, asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Fetch it; the environment gives the token and the cache. The exit code."""
    log = Log(as_json=asked.json_output, secrets=(hub_token(environ) or "",))

    def interrupted(_number: int, _frame: object) -> None:
        log.error(INTERRUPTED)
        log.close()
        os._exit(130)  # the hub's threads would fetch their files to the end first

    signal.signal(signal.SIGINT, interrupted)
    try:
        with told_to(lambda line: log.child_line("download", line)):
            folder, sha = _fetch(model, asked.revision, environ)
    except LauncherError as error:
        log.error(str(error))
        return 1
    finally:
        log.close()
    log.info("the model is complete", model=model, path=str(folder), sha=sha)
    return 0


def _fetch(name: str, revision: str | None, environ: Mapping[str, str]) -> tuple[Path, str | None]:
    if (model := local_model(Options(model_id=name, revision=revision))) is not None:
        check_entries(model.path)
        return check_folder(model, with_weights=True).path, None
    cache = environ.get("HUGGINGFACE_HUB_CACHE") or None
    if is_s3(name):
        return s3_download.fetch(S3Model.parse(name, cache, with_weights=True))
    return fetch(HubModel(name, revision, cache, hub_token(environ), with_weights=True))


def end(number: int, _frame: object) -> None:
    """Handles a signal."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
