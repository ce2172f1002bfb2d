"""`penstock run-batch -i in.jsonl -o out.jsonl`: answers a file of requests in OpenAI's format."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from penstock.batches.requests import survey
from penstock.batches.results import ResultFile, WrongFile
from penstock.batches.runner import Batch, Counts, run
from penstock.batches.sending import Server, Unreachable, check_reachable
from penstock.bench.options import api_key, header, real, whole
from penstock.embedded import EmbeddedServer, ServerError
from penstock_proto.config_file import Parser

PROG = "penstock run-batch"


def main(argv: Sequence[str]) -> int:
    """The exit code: 0 when every line has its result, 1 where the batch could not go on."""
    arguments, launcher = parse(argv)
    try:
        return answer(arguments, launcher)
    except (OSError, ServerError, Unreachable, ValueError, WrongFile) as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{PROG}: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def answer(arguments: argparse.Namespace, launcher: Sequence[str]) -> int:
    """Everything. Raises what `main` reports."""
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(contextlib.closing(ResultFile(arguments.output)))
        errors = None
        if arguments.error_file is not None:
            if arguments.error_file.resolve() == arguments.output.resolve():
                raise WrongFile("--error-file and --output must be two files")
            errors = stack.enter_context(contextlib.closing(ResultFile(arguments.error_file)))
        batch = Batch(
            requests=arguments.input,
            survey=survey(arguments.input),
            output=output,
            errors=errors,
        )
        url = stack.enter_context(_served(arguments, launcher))
        headers = dict(arguments.header)
        if arguments.api_key and arguments.url:
            headers.setdefault("Authorization", f"Bearer {arguments.api_key}")
        server = Server(
            url=url, headers=headers, tries=arguments.tries, seconds=arguments.request_seconds
        )
        asyncio.run(check_reachable(server))
        total = batch.survey.lines
        bar = tqdm(total=total, unit=" requests", disable=arguments.disable_tqdm)
        stack.enter_context(bar)

        def show(counts: Counts) -> None:
            bar.update(counts.ended - bar.n)
            bar.set_postfix(failed=counts.failed, refresh=False)

        counts = asyncio.run(
            run(batch, server, concurrency=arguments.max_concurrency, progress=show)
        )
    print(f"{counts.completed:,} answered, {counts.failed:,} failed, of {counts.total:,}")
    return 0


@contextlib.contextmanager
def _served(arguments: argparse.Namespace, launcher: Sequence[str]) -> Iterator[str]:
    """The address of a server: one that is up, or one of our own for as long as it is needed."""
    if arguments.url is not None:
        yield arguments.url.rstrip("/").removesuffix("/v1")
        return
    options = launcher_options(launcher)
    options.setdefault("max_concurrent_requests", str(max(128, 2 * arguments.max_concurrency)))
    names = {name: f"--{name.replace('_', '-')}" for name in options} | {"model_id": "--model"}
    with EmbeddedServer(arguments.model, names=names, **options) as server:
        yield server.url


def launcher_options(argv: Sequence[str]) -> dict[str, Any]:
    """`--num-shard 2 --json-output` as {"num_shard": "2", "json_output": True}; what is given
    several times is a list.

    Raises ValueError for what is no option.
    """
    options: dict[str, Any] = {}
    words = list(argv)
    while words:
        name, given, value = words.pop(0).partition("=")
        if not name.startswith("--"):
            raise ValueError(f"{name!r}: expected an option of the launcher (--name value)")
        if not given and words and not words[0].startswith("--"):
            given, value = "=", words.pop(0)
        options.setdefault(name[2:].replace("-", "_"), []).append(value if given else True)
    return {name: many[0] if len(many) == 1 else many for name, many in options.items()}


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and what stands behind `--` for the launcher."""
    cut = list(argv).index("--") if "--" in argv else len(argv)
    parser = Parser(
        prog=PROG,
        description="Answer a file of requests in OpenAI's batch format. The same command, run "
        "again after a crash, goes on behind what it has written.",
        epilog="What follows -- goes to the launcher of --model: -- --num-shard 2",
    )
    add = parser.add_argument
    add("-i", "--input", "--input-file", type=Path, required=True, metavar="FILE")
    add("-o", "--output", "--output-file", type=Path, required=True, metavar="FILE")
    add("--error-file", type=Path, metavar="FILE", help="for what failed; default: --output")
    served = parser.add_mutually_exclusive_group(required=True)
    served.add_argument("--url", help="of a server that is up")
    served.add_argument("--model", "--model-id", help="folder or hub id: a server of its own")
    key = os.environ.get("OPENAI_API_KEY") or None
    add("--api-key", type=api_key, default=key, help="of --url; default: OPENAI_API_KEY")
    add("--header", type=header, action="append", default=[], metavar="NAME: VALUE")
    add("--max-concurrency", type=whole(1, 4096), default=64, help="requests at a time (64)")
    add("--tries", type=whole(1, 1000), default=8, help="of a request that the server puts off")
    add("--request-seconds", type=real(1, 86400), default=3600.0, help="for one answer")
    add("--disable-tqdm", action="store_true", help="no progress bar")
    return parser.parse_args(argv[:cut]), list(argv[cut + 1 :])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
