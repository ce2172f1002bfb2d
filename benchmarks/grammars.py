"""What structured output costs: the same load with a JSON schema and without, on one server.

    python -m benchmarks.grammars --shape llama-3.1-8b --out results \\
        --tokenizer ../shared/assets/tokenizers/llama-3.1

The model has the real shape and random weights; masks cost what the vocabulary and the schema make
them cost, so the tokenizer is a real one. Each schema is an array with more items than 256 tokens
hold, so every answer has 256. Rounds alternate, and each figure is that of the faster round. Random
weights write much white space where they may; compact cases allow none, as models write hardly any.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, fixed
from benchmarks.configs import SHAPES, write_model_folder
from benchmarks.h100 import token_range
from benchmarks.load import Target, run_case, write_json
from benchmarks.machine import facts
from benchmarks.server import penstock
from benchmarks.steps import scrape

LIMITS = ["--max-batch-size", "256", "--max-concurrent-requests", "512"]
LIMITS += ["--max-total-tokens", "4096"]
ITEMS = 200


def array_of(properties: dict[str, Any]) -> str:
    """The schema of an array of objects that have all of these properties."""
    items = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return json.dumps({"type": "array", "minItems": ITEMS, "items": items})


WORD = {"type": "string", "pattern": "^[a-z]{3,12}$"}
AGE = {"type": "integer", "minimum": 0, "maximum": 120}
SCHEMAS = {
    "short keys": array_of({"name": WORD, "email": WORD, "age": AGE}),
    "long keys": array_of(
        {
            "customer_full_name_as_registered": {"enum": ["a", "b", "c"]},
            "primary_electronic_mail_address": {"enum": ["x", "y"]},
            "number_of_years_since_registration": {"type": "integer", "minimum": 0, "maximum": 99},
        }
    ),
}
# Name, schema, whether white space is fixed.
WAYS = (
    *((name, schema, False) for name, schema in SCHEMAS.items()),
    *((f"{name}, compact", schema, True) for name, schema in SCHEMAS.items()),
)
HEADER = f"{'streams':>7} {'schema':<20}{'tok/s':>10}{'without':>10}{'ratio':>7}" + (
    f"{'mask ms':>9}{'wait ms':>9}{'TPOT p50':>10}"
)


def model_folder(shape: str, tokenizer: Path | None, where: Path) -> Path:
    """A folder of the shape, with a real tokenizer where one is given."""
    folder = write_model_folder(shape, where)
    if tokenizer is not None:
        packed = tokenizer / "tokenizer.json.gz"
        if packed.exists():
            (folder / "tokenizer.json").write_bytes(gzip.decompress(packed.read_bytes()))
        else:
            shutil.copyfile(tokenizer / "tokenizer.json", folder / "tokenizer.json")
        shutil.copyfile(tokenizer / "tokenizer_config.json", folder / "tokenizer_config.json")
        (folder / "tokenizer_config.json").chmod(0o644)
    return folder


def measured(target: Target, case: Case) -> dict[str, Any]:
    """The case's figures, with what its masks took a step on the shard's host."""
    before = scrape(target.url)
    figures = run_case(target, case)
    after = scrape(target.url)

    def grown(name: str) -> float:
        return after.get((name, ""), 0.0) - before.get((name, ""), 0.0)

    steps = max(grown("penstock_mask_seconds_count"), 1.0)
    figures["mask_ms"] = round(1e3 * grown("penstock_mask_seconds_sum") / steps, 4)
    figures["mask_wait_ms"] = round(1e3 * grown("penstock_mask_wait_seconds_sum") / steps, 4)
    return figures


def faster(one: dict[str, Any] | None, other: dict[str, Any]) -> dict[str, Any]:
    """Of two rounds."""
    key = "output_tokens_per_second"
    return other if one is None or other[key] > one[key] else one


def row(streams: int, name: str, held: dict[str, Any], free: dict[str, Any]) -> str:
    """A line of the table."""
    speed, without = held["output_tokens_per_second"], free["output_tokens_per_second"]
    tpot = (held["tpot_ms"] or {}).get("p50", float("nan"))
    return (
        f"{streams:>7} {name:<20}{speed:>10,.0f}{without:>10,.0f}{speed / without:>7.3f}"
        f"{held['mask_ms']:>9.3f}{held['mask_wait_ms']:>9.3f}{tpot:>10.2f}"
        f"{'' if not held['failed'] else '  failed ' + str(held['failed'])}"
    )


def compare(
    target: Target, streams: int, rounds: int, temperature: float, each: int
) -> list[dict[str, Any]]:
    """All schemas at so many streams, `each` requests of every stream; prints a line for each."""
    requests = min(each * streams, 256)
    free_case = replace(
        fixed(f"free {streams}", streams, requests, 128, 256), temperature=temperature
    )
    best: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        best["free"] = faster(best.get("free"), measured(target, free_case))
        for name, schema, compact in WAYS:
            case = replace(free_case, name=f"{name} {streams}", schema=schema, compact=compact)
            best[name] = faster(best.get(name), measured(target, case))
    for name, *_ in WAYS:
        print(row(streams, name, best[name], best["free"]), flush=True)
    return [best["free"], *(best[name] for name, *_ in WAYS)]


def main() -> None:
    """One command, one table; exit code 1 when a request failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.grammars",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.1-8b")
    parser.add_argument("--tokenizer", type=Path, help="folder of a real tokenizer.json(.gz)")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--each", type=int, default=4, help="requests of a stream")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--processes", type=int, default=4, help="client processes")
    parser.add_argument("--out", type=Path, required=True, help="folder for result and log")
    parser.add_argument("launcher", nargs="*", help="arguments of the launcher, after --")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        model = model_folder(arguments.shape, arguments.tokenizer, Path(folder))
        options = ["--model-id", str(model), "--load-format", "dummy", *LIMITS]
        options += arguments.launcher
        log = arguments.out / f"grammars_{arguments.shape}.log"
        with penstock(options, log) as server:
            target = Target(
                url=server.url,
                processes=arguments.processes,
                token_range=token_range(arguments.shape),
            )
            warm_up = fixed("warm-up", 8, 16, 128, 32)
            run_case(target, warm_up)
            for _, schema, compact in WAYS:
                run_case(target, replace(warm_up, schema=schema, compact=compact))
            print(f"{arguments.shape}\n{HEADER}", flush=True)
            for streams in arguments.streams:
                results += compare(
                    target, streams, arguments.rounds, arguments.temperature, arguments.each
                )
                content = facts() | {"shape": arguments.shape, "launcher": options}
                write_json(
                    arguments.out / f"grammars_{arguments.shape}.json", content | {"cases": results}
                )
    raise SystemExit(any(figures["failed"] for figures in results))


if __name__ == "__main__":
    main()
