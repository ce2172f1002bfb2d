"""The named cases, on the load generator of `penstock.bench`.

python -m benchmarks.load --url http://127.0.0.1:3000 --case c32 --processes 2 --out c32.json
python -m benchmarks.load --url … --case all
python -m benchmarks.load --url … --rate 8 --requests 200 --prompt lognormal:300:0.8:4000
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import secrets
import sys
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES, Case
from benchmarks.machine import facts

from penstock.bench import load
from penstock.bench.arrivals import Arrivals
from penstock.bench.lengths import Lengths
from penstock.bench.prompts import TOKEN_RANGE, as_words
from penstock.bench.protocols import PROTOCOLS, Asking
from penstock.bench.summary import HEADER, row


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The server under load, and how it is asked."""

    url: str
    endpoint: str = "completions"
    model: str | None = None  # None: what /v1/models names first
    api_key: str | None = None
    processes: int = 1
    token_range: tuple[int, int] = TOKEN_RANGE
    max_seconds: float = 300.0  # a case

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}


def run_case(
    target: Target, case: Case, *, seed: int | None = None, rate: float | None = None
) -> dict[str, Any]:
    """Runs one case; its figures, with what reproduces it.

    Without a seed a fresh one is drawn, so that a second run of a case on the same server does not
    measure the first run's prefix cache.
    """
    seed = secrets.randbits(32) if seed is None else seed
    prompts = case.draw(seed, target.token_range)
    if not PROTOCOLS[target.endpoint].takes_ids:
        prompts = [dataclasses.replace(each, content=as_words(each.ids)) for each in prompts]
    asked = load.Target(
        url=target.url,
        protocol=target.endpoint,
        asking=Asking(
            model=target.model or load.model_name(target.url, target.headers),
            temperature=case.temperature,
            top_p=case.top_p,
        ),
        headers=target.headers,
        processes=target.processes,
        max_seconds=target.max_seconds,
    )
    arrivals = None if rate is None else Arrivals(rate=rate)
    streams = case.streams if rate is None else 0
    sent = load.Load(prompts=prompts, streams=streams, arrivals=arrivals)
    figures, _ = load.run_load(asked, sent, seed=seed)
    return {
        "case": dataclasses.asdict(case) | {"prompt": str(case.prompt), "output": str(case.output)},
        "seed": seed,
        "rate": rate,
        **figures,
    }


def run_cases(
    target: Target, cases: list[Case], *, seed: int | None = None, rate: float | None = None
) -> list[dict[str, Any]]:
    """Runs the cases one after another and prints a line for each, after a short warm-up."""
    lengths = Lengths("fixed", (32.0,))
    run_case(target, Case("warm-up", 2, 4, lengths, Lengths("fixed", (8.0,))))
    print(HEADER, flush=True)
    results = []
    for case in cases:
        results.append(run_case(target, case, seed=seed, rate=rate))
        print(row(case.name, case.streams, results[-1]), flush=True)
        for failure, count in results[-1]["failures"].items():
            print(f"  {count} x {failure}", flush=True)
    return results


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a result file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def chosen_cases(arguments: argparse.Namespace) -> list[Case]:
    """The named cases, with what the command line changes about them."""
    changes = {
        name: getattr(arguments, name)
        for name in (
            "streams",
            "requests",
            "prompt",
            "output",
            "shared_prefix",
            "prefix_groups",
            "temperature",
            "top_p",
        )
        if getattr(arguments, name) is not None
    }
    if not arguments.case:
        own = Case("own", 8, 32, Lengths("fixed", (128.0,)), Lengths("fixed", (64.0,)))
        return [dataclasses.replace(own, **changes)]
    names = list(CASES) if "all" in arguments.case else arguments.case
    return [dataclasses.replace(CASES[name], **changes) for name in names]


def token_range(text: str) -> tuple[int, int]:
    """Reads LOW-HIGH. Raises ValueError for anything else."""
    low, high = (int(part) for part in text.split("-"))
    if not 0 <= low < high:
        raise ValueError(f"token range {text!r}: expected LOW-HIGH with LOW < HIGH")
    return low, high


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", required=True, help="of the server, without a path")
    parser.add_argument("--case", nargs="+", choices=[*CASES, "all"], default=[])
    parser.add_argument("--streams", type=int, help="closed loop: requests in flight")
    parser.add_argument("--requests", type=int)
    parser.add_argument("--prompt", type=Lengths.parse, metavar="LENGTHS", help=Lengths.__doc__)
    parser.add_argument("--output", type=Lengths.parse, metavar="LENGTHS")
    parser.add_argument("--shared-prefix", type=int, help="leading tokens that prompts share")
    parser.add_argument("--prefix-groups", type=int, help="so many different shared prefixes")
    parser.add_argument("--rate", type=float, help="open loop: Poisson arrivals a second")
    parser.add_argument("--seed", type=int, help="default: a fresh one, written to the result")
    parser.add_argument("--endpoint", choices=PROTOCOLS)
    parser.add_argument("--model")
    parser.add_argument("--api-key")
    parser.add_argument("--processes", type=int, help="client processes")
    parser.add_argument("--token-range", type=token_range, metavar="LOW-HIGH", help="of prompt ids")
    parser.add_argument("--max-seconds", type=float, help="a case is cut after so long")
    parser.add_argument("--temperature", type=float, help="default: 0, greedy")
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    return parser.parse_args()


def main() -> None:
    """Runs the chosen cases against a server that is up already."""
    arguments = parse_arguments()
    fields = [field.name for field in dataclasses.fields(Target)]
    given = {name: getattr(arguments, name) for name in fields}
    target = Target(**{name: value for name, value in given.items() if value is not None})
    cases = chosen_cases(arguments)
    results = run_cases(target, cases, seed=arguments.seed, rate=arguments.rate)
    if arguments.out:
        settings = dataclasses.asdict(target) | {"api_key": None}
        write_json(arguments.out, facts() | {"target": settings, "cases": results})
    if any(result["failed"] for result in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
