"""`penstock migrate --check URL URL`: replay requests on two servers, print what differs."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from penstock.bench.options import api_key, header, real
from penstock.replay.answers import SECONDS, Server, Unreachable
from penstock.replay.differences import Difference, differences
from penstock.replay.greedy import is_greedy
from penstock.replay.requests import Request, built_in, read
from penstock_proto.config_file import Parser

PROG = "penstock migrate --check"
MOST_LINES = 12  # of a request
NARROWEST = 60  # columns


class Row(NamedTuple):
    """A request that differs, and in what."""

    request: Request
    difference: Difference


def main(argv: Sequence[str]) -> int:
    """The exit code: 0 where nothing differs, 1 where something does, 2 where nothing was seen."""
    parser = _parser()
    given = parser.parse_args(argv)
    try:
        requests = built_in() if given.input is None else read(given.input)
        servers = list(_servers(given))
        rows = list(_compare(requests, *servers, quiet=given.json))
    except (OSError, Unreachable, ValueError) as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{PROG}: interrupted", file=sys.stderr)
        return 130
    if given.json:
        for row in rows:
            print(json.dumps({"request": row.request.name, **row.difference.named()}))
    else:
        _print_table(rows, given.check)
        differing = len({row.request.name for row in rows})
        print(f"{len(requests)} requests: {len(requests) - differing} alike, {differing} differ")
    return int(bool(rows))


def _parser() -> Parser:
    parser = Parser(
        prog=PROG,
        usage="penstock migrate --check URL URL [-i FILE] [options]",
        description="Replays requests on two servers and prints what differs: status, headers, "
        "fields and, of greedy requests, values. Ids, times and sentences of errors are left out.",
    )
    add = parser.add_argument
    add("--check", nargs=2, required=True, metavar="URL", help="the server of before, and ours")
    add(
        "-i", "--input", type=Path, metavar="FILE",
        help="JSON lines: those of a batch (custom_id, url, body), or bodies alone; "
        "default: some requests of each kind",
    )  # fmt: skip
    key = os.environ.get("PENSTOCK_API_KEY") or None
    add("--api-key", type=api_key, default=key, help="of both; default: PENSTOCK_API_KEY")
    add("--second-api-key", type=api_key, metavar="KEY", help="of the second, where it differs")
    add("--header", type=header, action="append", default=[], metavar="NAME: VALUE")
    add("--timeout", type=real(0.1, 86_400), default=SECONDS, help="seconds without a byte (600)")
    add("--json", action="store_true", help="a JSON object a difference")
    return parser


def _servers(given: argparse.Namespace) -> Iterator[Server]:
    first, second = given.check
    key = given.api_key
    for url, own in ((first, key), (second, given.second_api_key or key)):
        headers = dict(given.header)
        if own:
            headers["Authorization"] = f"Bearer {own}"
        yield Server(url, headers, given.timeout)


def _compare(
    requests: Sequence[Request], first: Server, second: Server, *, quiet: bool
) -> Iterator[Row]:
    """Both servers have each request at the same time, one request after another."""
    shows = sys.stderr.isatty() and not quiet
    with ThreadPoolExecutor(2) as pool:
        servers = (first, second)
        models = list(pool.map(Server.model, servers))
        for number, request in enumerate(requests, 1):
            if shows:
                print(f"\r{number} of {len(requests)}", end="", file=sys.stderr, flush=True)
            asked = [request.for_model(model) for model in models]
            answers = list(pool.map(Server.answer, servers, asked))
            for difference in differences(*answers, values=is_greedy(request)):
                yield Row(request, difference)
    if shows:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _print_table(rows: Sequence[Row], urls: Sequence[str]) -> None:
    if not rows:
        return
    width = max(shutil.get_terminal_size().columns, NARROWEST) if sys.stdout.isatty() else 160
    lines = [("request", "what", *urls)]
    for name, group in itertools.groupby(rows, lambda row: row.request.name):
        cells = [(name, *row.difference.named().values()) for row in group]
        lines += cells[:MOST_LINES]
        if (more := len(cells) - MOST_LINES) > 0:
            lines.append((name, f"and {more} more (--json has them)", "", ""))
    most = [max(len(line[column]) for line in lines) for column in range(4)]
    named = [min(most[0], width // 5), min(most[1], width * 3 // 10)]
    rest = (width - sum(named) - 6) // 2
    widths = [*named, min(most[2], rest), rest]
    for line in lines:
        row = (f"{_cut(text, w):<{w}}" for text, w in zip(line, widths, strict=True))
        print("  ".join(row).rstrip())


def _cut(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"
