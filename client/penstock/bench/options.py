"""The command line of `penstock bench serve`; the names are vLLM's where it has one."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from penstock.bench.lengths import Lengths
from penstock.bench.load import MOST_PROCESSES
from penstock.bench.protocols import BACKENDS
from penstock_proto.config_file import Parser

DATASETS = ("random", "shared-prefix", "sharegpt", "json-schema")
OBJECTIVES = ("ttft", "tpot", "e2el")
MOST_PROMPTS = 200_000
HEADER = re.compile(
    r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)"
)


def whole(low: int, high: int) -> Callable[[str], int]:
    """Reads an integer within bounds."""

    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not >= {low:,} and <= {high:,}")
        return value

    read.__name__ = "integer"
    return read


def real(low: float, high: float) -> Callable[[str], float]:
    """Reads a number within bounds."""

    def read(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value:g} is not >= {low:g} and <= {high:g}")
        return value

    read.__name__ = "number"
    return read


def lengths(text: str) -> Lengths:
    try:
        return Lengths.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def rate(text: str) -> float | None:
    """Requests a second; None for `inf`."""
    return None if text == "inf" else real(1e-3, 1e6)(text)


def objective(text: str) -> tuple[str, float]:
    name, _, limit = text.partition(":")
    if name not in OBJECTIVES:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected NAME:MILLISECONDS with one of {', '.join(OBJECTIVES)}"
        )
    return name, real(0, 1e9)(limit)


def points(text: str) -> list[float]:
    return [real(0, 100)(part) for part in text.split(",")]


def header(text: str) -> tuple[str, str]:
    if (found := HEADER.fullmatch(text)) is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME: VALUE")
    return found[1], found[2]


def api_key(text: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise argparse.ArgumentTypeError("a key is printable ASCII without blanks")
    return text


def token_range(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,8})-([0-9]{1,8})", text)
    low, high = (int(found[1]), int(found[2])) if found else (0, 0)
    if not low < high <= 10_000_000:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected LOW-HIGH with LOW < HIGH <= 10,000,000"
        )
    return low, high


def json_object(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a JSON object")
    return value


def serve_parser(prog: str, backend: str = "penstock") -> argparse.ArgumentParser:
    """The parser; `backend` is the default."""
    parser = Parser(
        prog=prog,
        usage=f"{prog} [options]",
        description="Load a server that is up, and measure throughput and latency. LENGTHS are N, "
        "uniform:LOW:HIGH or lognormal:MEDIAN:SIGMA:MAX tokens.",
    )
    _server(parser.add_argument_group("server"), backend)
    _dataset(parser.add_argument_group("prompts"))
    _traffic(parser.add_argument_group("traffic"))
    _sampling(parser.add_argument_group("what is asked for"))
    _output(parser.add_argument_group("results"))
    return parser


Group = Any  # argparse has no public name for it


def _server(group: Group, backend: str) -> None:
    add = group.add_argument
    add("--backend", choices=BACKENDS, default=backend, help="the protocol (%(default)s)")
    add("--base-url", "--url", metavar="URL", help="default: --host and --port")
    add("--host", default="127.0.0.1")
    add(
        "--port",
        type=whole(1, 65535),
        help="default: the first of 3000, 8000, 30000 and 8080 that somebody listens at",
    )
    add("--endpoint", metavar="PATH", help="default: the protocol's own")
    add("--model", help="default: what /v1/models names first")
    add("--served-model-name", metavar="NAME", help="what requests call it, where it differs")
    add("--tokenizer", help="folder or hub id, to make and count text; default: none is needed")
    key = os.environ.get("OPENAI_API_KEY") or None
    add("--api-key", type=api_key, default=key, help="default: OPENAI_API_KEY")
    add("--header", type=header, action="append", default=[], metavar="NAME: VALUE")
    add(
        "--ready-check-timeout-sec",
        type=real(0, 86400),
        default=0.0,
        metavar="SECONDS",
        help="wait so long for the server",
    )


def _dataset(group: Group) -> None:
    add = group.add_argument
    add("--dataset-name", "--dataset", choices=DATASETS, default="random")
    add("--dataset-path", type=Path, metavar="FILE", help="of sharegpt: JSON or JSON lines")
    add("--num-prompts", type=whole(1, MOST_PROMPTS), default=100)
    add("--input-len", "--random-input-len", type=lengths, default="512", metavar="LENGTHS")
    add(
        "--output-len",
        "--random-output-len",
        "--sharegpt-output-len",
        type=lengths,
        metavar="LENGTHS",
        help="default: 128; of sharegpt that of the answers in the file",
    )
    add(
        "--shared-prefix-len",
        "--random-prefix-len",
        type=whole(0, 1_000_000),
        metavar="TOKENS",
        help="leading tokens that prompts of a group share (part of --input-len); default: 0, "
        "of shared-prefix 3/4 of the longest prompt",
    )
    add("--prefix-groups", type=whole(1, 100_000), default=1, help="different shared prefixes")
    add("--schema", type=Path, metavar="FILE", help="of json-schema; default: a person's record")
    add(
        "--token-range",
        type=token_range,
        default="10-1000",
        metavar="LOW-HIGH",
        help="ids of random prompts; must fit the model's vocabulary (%(default)s)",
    )
    add("--seed", type=whole(0, 2**32 - 1), help="default: a fresh one, which is in the result")


def _traffic(group: Group) -> None:
    add = group.add_argument
    add(
        "--max-concurrency",
        type=whole(1, 100_000),
        nargs="+",
        default=[None],
        metavar="N",
        help="most requests in flight, and with --request-rate inf always so many; "
        "several are run one after another",
    )
    add(
        "--request-rate",
        type=rate,
        nargs="+",
        default=[None],
        metavar="R",
        help="arrivals a second, or inf; several are run one after another",
    )
    add(
        "--burstiness",
        type=real(0.01, 1000),
        default=1.0,
        help="shape of the gaps: 1 is Poisson, below burstier, above smoother",
    )
    add("--ramp-up-strategy", choices=["linear", "exponential"], help="of a rate that changes")
    add("--ramp-up-start-rps", type=real(1e-3, 1e6), metavar="R")
    add("--ramp-up-end-rps", type=real(1e-3, 1e6), metavar="R")
    add("--num-warmups", type=whole(0, 10_000), default=2, help="requests before (%(default)s)")
    add("--flush-cache", action="store_true", help="POST /flush_cache before each run")
    add(
        "--processes",
        type=whole(1, MOST_PROCESSES),
        default=1,
        help="of the client; more where `client CPU` comes near 1",
    )
    add("--max-seconds", type=real(1, 86400), default=600.0, help="a run is cut after so long")


def _sampling(group: Group) -> None:
    add = group.add_argument
    add("--temperature", type=real(0, 100), default=0.0, help="default: 0, greedy")
    add("--top-p", type=real(0, 1), default=1.0)
    add(
        "--ignore-eos",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="every answer has its full length; a server that knows no such field needs --no-…",
    )
    add(
        "--count-tokens",
        action="store_true",
        help="have the server say in every event how many tokens there are "
        "(continuous_usage_stats): gaps are then exact where an event brings several",
    )
    add("--extra-body", type=json_object, default={}, metavar="JSON", help="more fields")


def _output(group: Group) -> None:
    add = group.add_argument
    add("--goodput", type=objective, nargs="+", metavar="NAME:MS", help="ttft, tpot, e2el")
    add("--metric-percentiles", type=points, default="50,90,99", metavar="P,…")
    add("--percentile-metrics", default="ttft,tpot,itl,e2el", metavar="NAME,…")
    add("--disable-tqdm", action="store_true", help="no progress bar")
    add("--out", type=Path, metavar="FILE", help="write all runs as JSON")
    add("--plot", type=Path, metavar="FILE.png", help="needs matplotlib: penstock[plot]")
    add("--compare", type=Path, metavar="FILE", help="an older --out: end with 1 if it was better")
    add("--tolerance", type=real(0, 10), default=0.05, help="of --compare, a share (%(default)s)")
    add("--save-result", action="store_true", help="write JSON with vLLM's names")
    add("--result-dir", type=Path, default=Path(), metavar="FOLDER")
    add("--result-filename", metavar="NAME")
