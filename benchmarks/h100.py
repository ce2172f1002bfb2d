"""The cases on a GPU, in one command: start, wait, load, write, end.

    python -m benchmarks.h100 --out results --budget-seconds 540
    python -m benchmarks.h100 --out results --shape llama-3.2-1b --case single c128 -- --num-shard 2

The model has the real shape and random weights (`--load-format dummy`). Results are written after
every case, so that a run that is cut short still leaves what it measured. What follows `--` goes to
the launcher.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES, Case
from benchmarks.configs import SHAPES, SPECIAL, write_model_folder
from benchmarks.load import Target, run_case, write_json
from benchmarks.machine import ROOT, facts
from benchmarks.server import Server, penstock
from benchmarks.steps import between, scrape

from penstock.bench.lengths import Lengths

PEERS = ROOT / "benchmarks" / "peers.json"
LIMITS = ["--max-batch-size", "256", "--max-concurrent-requests", "512"]
LIMITS += ["--max-total-tokens", "8192"]
CASE_SECONDS = 120.0  # a case is cut after so long; vLLM needs 16 s for the longest
WARM_UP = Case("warm-up", 8, 16, Lengths("fixed", (256.0,)), Lengths("fixed", (32.0,)))


def peers(shape: str) -> dict[str, dict[str, dict[str, float]]]:
    """Figures of other engines for this shape, by engine and case."""
    content = json.loads(PEERS.read_text())
    found = content["shapes"].get(shape, {})
    return {engine: found.get(engine, {}) for engine in content["engines"]}


HEADER = f"{'case':<14}{'':<9}{'tok/s':>9}{'TPOT p50':>11}{'TTFT p50 ms':>13}{'ITL p99':>10}"


def table(result: dict[str, Any], others: dict[str, dict[str, dict[str, float]]]) -> str:
    """A case's figures above those of the other engines, with ratios of throughput."""
    name, nan = result["case"]["name"], float("nan")
    tpot, ttft, itl = (result[key] or {} for key in ("tpot_ms", "ttft_ms", "itl_ms"))
    own = result["output_tokens_per_second"]
    lines = [
        f"{name:<14}{'Penstock':<9}{own:>9,.0f}{tpot.get('p50', nan):>11.2f}"
        f"{ttft.get('p50', nan):>13.1f}{itl.get('p99', nan):>10.2f}"
        f"  done {result['completed']}, failed {result['failed']}, cut {result['cut']}, "
        f"client CPU {result['client_cpu']:.2f}"
    ]
    for engine, cases in others.items():
        if peer := cases.get(name):
            speed = peer["output_tokens_per_second"]
            lines.append(
                f"{'':<14}{engine:<9}{speed:>9,.0f}{peer['tpot_ms']:>11.2f}"
                f"{peer.get('ttft_ms', nan):>13.1f}{'':>10}  Penstock / {engine} {own / speed:.2f}"
            )
    return "\n".join(lines)


def token_range(shape: str) -> tuple[int, int]:
    """Ids for prompts: no single bytes, no special tokens."""
    return 257, SHAPES[shape].vocab - SPECIAL


def run(
    server: Server, cases: list[Case], arguments: argparse.Namespace, deadline: float
) -> Iterator[dict[str, Any]]:
    """The result of each case, until the deadline."""
    for case in [WARM_UP, *cases]:
        seconds = min(CASE_SECONDS, deadline - time.monotonic())
        if seconds < 5:
            print(f"{case.name}: no time left", flush=True)
            break
        target = Target(
            url=server.url,
            processes=arguments.processes,
            token_range=token_range(arguments.shape),
            max_seconds=seconds,
        )
        before = scrape(server.url)
        figures = run_case(target, case)
        yield figures | {"steps": between(before, scrape(server.url), figures["seconds"])}


def served(arguments: argparse.Namespace, model: Path, deadline: float) -> int:
    """Starts the server, runs the cases, prints and writes as they end; the failures there were."""
    out, others, results = arguments.out, peers(arguments.shape), []
    options = ["--model-id", str(model), "--load-format", "dummy", *LIMITS, *arguments.launcher]
    ready = deadline - time.monotonic() - 30  # leave time for at least one case
    with penstock(options, out / f"{arguments.shape}.log", ready_seconds=ready) as server:
        content = facts() | {"shape": arguments.shape, "launcher": options}
        content |= {"ready_seconds": round(server.ready_seconds, 1), "info": info(server.url)}
        print(f"{arguments.shape}: ready after {server.ready_seconds:.1f} s\n{HEADER}", flush=True)
        cases = [CASES[name] for name in arguments.case]
        for result in run(server, cases, arguments, deadline):
            results.append(result)
            print(table(result, others), flush=True)
            for failure, count in result["failures"].items():
                print(f"  {count} x {failure}", flush=True)
            write_json(out / f"{arguments.shape}.json", content | {"cases": results})
    return sum(result["failed"] for result in results)


def info(url: str) -> dict[str, Any]:
    """What the server says of itself, derived limits included."""
    with urllib.request.urlopen(f"{url}/info", timeout=30) as answer:
        content: dict[str, Any] = json.load(answer)
    return content


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.h100",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.1-8b")
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--out", type=Path, required=True, help="folder for result and log")
    parser.add_argument("--budget-seconds", type=float, default=540.0, help="for everything")
    parser.add_argument("--processes", type=int, default=8, help="client processes")
    parser.add_argument("launcher", nargs="*", help="arguments of the launcher, after --")
    return parser.parse_args()


def main() -> None:
    """Exit code 1 when a request failed."""
    arguments = parse_arguments()
    deadline = time.monotonic() + arguments.budget_seconds - 20  # to end the server
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        model = write_model_folder(arguments.shape, Path(folder))
        sys.exit(1 if served(arguments, model, deadline) else 0)


if __name__ == "__main__":
    main()
