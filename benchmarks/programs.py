"""Programs of `penstock.lang` with the prefix cache and without it, in one run.

    python -m benchmarks.programs --scale 0.4 --many 16           # on a CPU, the demo model
    python -m benchmarks.programs --model llama-3.1-8b --device cuda --dtype bfloat16 --apart \\
        --repeat 1 --out programs.json

Two servers take turns; with `--apart` the one without the cache runs behind the other, which a
GPU's memory wants. Each runs every program one at a time and many at once, with an empty cache at
the beginning. Claims are those that users quote. How many users of one
long system prompt fit the cache follows from its size.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.configs import SHAPES, write_model_folder
from benchmarks.load import write_json
from benchmarks.machine import ROOT, facts
from benchmarks.program_workloads import Words, Workload, word, workloads
from benchmarks.steps import between, scrape

import penstock.lang as sgl

DEMO_MODEL = ROOT / "launcher" / "penstock_launcher" / "demo_model"
SYSTEM_PROMPT = 500  # tokens, of which users share one copy
OWN_TOKENS = (100, 250, 500, 1000)  # of a user beside it
SAMPLE = 200  # words, by which tokens a word are counted


Servers = dict[bool, sgl.Runtime]  # by whether they have the prefix cache


@dataclass(frozen=True, slots=True)
class Timed:
    """seconds: a program takes, of those that ran one after the other or at once; the least of all
    repeats. computed: tokens of prompts that the cache did not have, a program. device: seconds of
    steps, a program."""

    workload: str
    cache: bool
    threads: int
    programs: int
    seconds: float
    computed: float
    device: float


def timed(runtime: sgl.Runtime, workload: Workload, cache: bool, count: int, threads: int) -> Timed:
    """Run so many programs. The cache is empty before."""
    rows = workload.rows(count)
    sgl.flush_cache(runtime)
    before, started = scrape(runtime.url), time.monotonic()
    workload.program.run_batch(rows, num_threads=threads, temperature=0.0, backend=runtime)
    seconds = time.monotonic() - started
    steps = between(before, scrape(runtime.url), seconds)
    return Timed(
        workload.name,
        cache,
        threads,
        count,
        seconds / count,
        (steps["prompt_tokens"] - steps["cached_tokens"]) / count,
        (steps["decode"]["seconds"] + steps["with_prompts"]["seconds"]) / count,
    )


def measured(servers: Servers, arguments: argparse.Namespace) -> list[Timed]:
    """All programs on these servers, which take turns."""
    words = Words(arguments.seed, arguments.scale, tokens_a_word(next(iter(servers.values()))))
    found: list[Timed] = []
    for workload in workloads(words):
        if arguments.only and workload.name not in arguments.only:
            continue
        for runtime in servers.values():
            workload.program.run_batch(
                workload.rows(arguments.warm_up), temperature=0.0, backend=runtime
            )
        many = max(2, round(arguments.many * workload.share))
        for count, threads in ((arguments.one, 1), (many, many)):
            if not count:
                continue
            runs: dict[bool, list[Timed]] = {cache: [] for cache in servers}
            for _ in range(arguments.repeat):
                for cache, runtime in servers.items():
                    if time.monotonic() > arguments.deadline:
                        print("no time is left", flush=True)
                        return found
                    runs[cache].append(timed(runtime, workload, cache, count, threads))
            for own in runs.values():
                found.append(min(own, key=lambda run: run.seconds))
                print(line(found[-1]), flush=True)
    return found


def line(run: Timed) -> str:
    return (
        f"{run.workload:<16} cache {'on ' if run.cache else 'off'} {run.threads:>4} at once "
        f"{1000 * run.seconds:>9.1f} ms a program, {1000 * run.device:>9.1f} of the device, "
        f"{run.computed:>8.0f} prompt tokens computed"
    )


def start(arguments: argparse.Namespace, model: Path, caches: tuple[bool, ...]) -> Servers:
    """A server with the prefix cache, and one without, which start at once; or one of them."""
    options = dict(option.split("=", 1) for option in arguments.option)

    def make(cache: bool) -> sgl.Runtime:
        return sgl.Runtime(
            str(model),
            device=arguments.device,
            dtype=arguments.dtype,
            load_format=arguments.load_format,
            disable_prefix_cache=not cache,
            max_concurrent_requests=512,
            payload_limit=64 << 20,
            **options,
        )

    with ThreadPoolExecutor(2) as threads:
        return dict(zip(caches, threads.map(make, caches), strict=True))


def tokens_a_word(runtime: sgl.Runtime) -> float:
    """Of random words, by the server's tokenizer."""
    chance = random.Random(0)
    text = " ".join(word(chance) for _ in range(SAMPLE))
    return float(runtime._server.ask("/tokenize", {"prompt": text})["count"]) / SAMPLE


def ratios(runs: list[Timed], claims: dict[str, float | None]) -> dict[str, Any]:
    """Without the cache by with it: seconds a program one at a time and many at once, prompt tokens
    computed. And with it: seconds one at a time by many at once."""
    table: dict[str, Any] = {}
    by = {(run.workload, run.cache, run.threads > 1): run for run in runs}
    for name, claim in claims.items():
        one, many = (
            [by.get((name, cache, several)) for cache in (False, True)] for several in (False, True)
        )
        table[name] = {
            "claim": claim,
            "one": _ratio(one, "seconds"),
            "many": _ratio(many, "seconds"),
            "computed": _ratio(many, "computed"),
            "batch_by_sequential": _ratio([one[1], many[1]], "seconds"),
        }
    return table


def _ratio(pair: Sequence[Timed | None], field: str) -> float | None:
    """Of two runs; None where one was not made."""
    first, second = pair
    if first is None or second is None:
        return None
    return round(float(getattr(first, field)) / float(getattr(second, field)), 2)


def users(info: dict[str, Any]) -> list[dict[str, float]]:
    """How many users fit the cache who share a system prompt, or have a copy each, by the tokens
    that each has of his own. Shared blocks are whole ones."""
    block, blocks = info["kv_block_size"], info["kv_blocks"]
    shared = SYSTEM_PROMPT // block  # whole blocks of the system prompt
    table = []
    for own in OWN_TOKENS:
        each = -(-(SYSTEM_PROMPT + own) // block)
        apart, together = blocks // each, (blocks - shared) // (each - shared)
        table.append(
            {
                "own_tokens": own,
                "apart": apart,
                "together": together,
                "ratio": round(together / apart, 2),
            }
        )
    return table


def shown(table: dict[str, Any], pool: list[dict[str, float]]) -> str:
    """Both tables, in Markdown."""
    lines = ["| program | claim | one at a time | many at once | prompt tokens | batch |"]
    lines.append("|---|---|---|---|---|---|")
    for name, row in table.items():
        cells = [name, *("–" if cell is None else str(cell) for cell in row.values())]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| own tokens of a user | a copy each | one copy | ratio |", "|---|---|---|---|"]
    lines += [
        f"| {r['own_tokens']} | {r['apart']:,} | {r['together']:,} | {r['ratio']} |" for r in pool
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", default="demo", help=f"a folder, demo, or {', '.join(SHAPES)}")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--scale", type=float, default=1.0, help="of all lengths")
    parser.add_argument("--one", type=int, default=6, help="programs, one after the other; 0: none")
    parser.add_argument("--many", type=int, default=64, help="programs, all at once")
    parser.add_argument("--repeat", type=int, default=3, help="runs, of which the fastest counts")
    parser.add_argument("--warm-up", type=int, default=4, help="programs before each")
    parser.add_argument("--seconds", type=float, default=1e9, help="then no other run begins")
    parser.add_argument("--apart", action="store_true", help="one server behind the other")
    parser.add_argument("--only", nargs="*", default=[], help="names of workloads")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--option", nargs="*", default=[], help="name=value, of the launcher")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    arguments.deadline = time.monotonic() + arguments.seconds
    with tempfile.TemporaryDirectory() as temporary:
        model = DEMO_MODEL if arguments.model == "demo" else Path(arguments.model)
        arguments.load_format = "auto"
        if arguments.model in SHAPES:
            model = Path(temporary) / arguments.model
            write_model_folder(arguments.model, model)
            arguments.load_format = "dummy"
        runs: list[Timed] = []
        info: dict[str, Any] = {}
        for caches in ((True,), (False,)) if arguments.apart else ((True, False),):
            servers = start(arguments, model, caches)
            try:
                info = info or servers[True]._server.ask("/info", method="GET")
                runs += measured(servers, arguments)
            finally:
                for runtime in servers.values():
                    runtime.shutdown()
    claims = {w.name: w.claim for w in workloads(Words(0, 0.1, 1.0))}
    table, pool = ratios(runs, claims), users(info)
    print(shown(table, pool))
    if arguments.out:
        figures = {
            "machine": facts(),
            "arguments": {name: str(value) for name, value in vars(arguments).items()},
            "kv_tokens": info["kv_blocks"] * info["kv_block_size"],
            "runs": [asdict(run) for run in runs],
            "ratios": table,
            "users_of_a_500_token_prompt": pool,
        }
        write_json(arguments.out, figures)


if __name__ == "__main__":
    main()
