"""Offline throughput: tokens a second that `penstock.LLM` generates for the prompts of one call.

    python -m benchmarks.offline --shape llama-3.1-8b --out results --variants 256,0 512,2048

Random weights, random prompts without a prefix in common, and nothing ends before its length, as in
vLLM's `bench throughput`. `first_token_seconds` is from the start of this program (of the first
engine) to the first token of a first prompt.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.configs import SHAPES, SPECIAL, write_model_folder
from benchmarks.machine import facts

from penstock import LLM, SamplingParams

POSITIONS = 4096
STEPS = re.compile(
    r'^tgi_batch_inference_duration_(sum|count)\{method="(\w+)"\} ([\d.e+-]+)$', re.MULTILINE
)


def program_age() -> float:
    """Seconds since this process began."""
    fields = Path("/proc/self/stat").read_bytes().rpartition(b") ")[2].split()
    began = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # proc(5): starttime
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began


def prompts_of(count: int, length: int, vocab: int, seed: int) -> list[list[int]]:
    """Token ids."""
    chance = random.Random(seed)
    return [[chance.randrange(vocab - SPECIAL) for _ in range(length)] for _ in range(count)]


def device_time(llm: LLM) -> dict[str, float]:
    """Seconds and steps of the device since its start, with prompts in them and without."""
    found = STEPS.findall(llm.call("/metrics", None))
    return {f"{method}_{what}": float(value) for what, method, value in found}


def measured(llm: LLM, prompts: list[list[int]], params: SamplingParams) -> dict[str, Any]:
    """One call."""
    before, begin = device_time(llm), time.monotonic()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.monotonic() - begin
    generated = sum(len(output.outputs[0].token_ids) for output in outputs)
    device = {name: value - before.get(name, 0.0) for name, value in device_time(llm).items()}
    busy = sum(value for name, value in device.items() if name.endswith("sum"))
    return {
        "seconds": round(seconds, 3),
        "output_tokens_per_second": round(generated / seconds, 1),
        "total_tokens_per_second": round((generated + sum(map(len, prompts))) / seconds, 1),
        "requests_per_second": round(len(prompts) / seconds, 2),
        "device_busy": round(busy / seconds, 3),
        "device": {name: round(value, 3) for name, value in device.items()},
    }


def rows(options: argparse.Namespace, model: Path) -> Iterator[dict[str, Any]]:
    """Of each variant, at each temperature."""
    for place, (seats, batched) in enumerate(map(_variant, options.variants)):
        if program_age() > options.budget_seconds:
            return
        begin = time.monotonic() - (program_age() if place == 0 else 0.0)
        with LLM(
            model,
            load_format="dummy",
            max_num_seqs=seats or None,
            max_num_batched_tokens=batched or None,
            max_model_len=POSITIONS,
            quiet=place > 0,
        ) as llm:
            llm.generate([[1, 2, 3]], SamplingParams(max_tokens=1), use_tqdm=False)
            first = time.monotonic() - begin
            limits = llm.server.facts
            for run, temperature in enumerate(options.temperatures):
                params = SamplingParams(
                    temperature=temperature, max_tokens=options.output_len, ignore_eos=True
                )
                seed = 100 * place + run
                vocab = limits["vocab_size"]
                prompts = prompts_of(options.num_prompts, options.input_len, vocab, seed)
                yield {
                    "max_num_seqs": limits["max_batch_size"],
                    "max_num_batched_tokens": limits["max_batch_prefill_tokens"],
                    "temperature": temperature,
                    "cold": place == 0,
                    "first_token_seconds": round(first, 2),
                    **measured(llm, prompts, params),
                }


def _variant(text: str) -> tuple[int, int]:
    seats, batched = text.split(",")
    return int(seats), int(batched)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.offline", description=__doc__)
    parser.add_argument("--shape", default="llama-3.1-8b", choices=sorted(SHAPES))
    parser.add_argument("--num-prompts", type=int, default=1000)
    parser.add_argument("--input-len", type=int, default=512)
    parser.add_argument("--output-len", type=int, default=128)
    parser.add_argument(
        "--variants",
        nargs="+",
        default=["0,0"],
        help="max_num_seqs,max_num_batched_tokens of engines, one after the other; 0: default",
    )
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--budget-seconds", type=float, default=1e9, help="begin none after")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "shape": options.shape,
        "prompts": [options.num_prompts, options.input_len, options.output_len],
        **facts(),
        "rows": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        model = write_model_folder(options.shape, Path(folder) / options.shape)
        for row in rows(options, model):
            result["rows"].append(row)
            print(json.dumps(row), flush=True)
            text = json.dumps(result, indent=1) + "\n"
            (options.out / f"offline_{options.shape}.json").write_text(text)


if __name__ == "__main__":
    main()
