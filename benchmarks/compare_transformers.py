"""Penstock against transformers on a CPU: same model, prompts, threads and dtype, in one run.

    python -m benchmarks.compare_transformers --out benchmarks/results/compare_transformers.json

Two workloads of 16 streams: prompts that share nothing, and prompts that share 90 %. transformers
runs in a process of its own (one call after another, one static batch, and its continuous batching
with three block sizes, of which the fastest counts); Penstock is started by its launcher and asked
over HTTP. Rounds have fresh prompts; the first warms up, and of the others the fastest counts, on
both sides. Before each measurement it waits until the machine is quiet.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from benchmarks.cases import Case
from benchmarks.configs import write_model_folder
from benchmarks.load import write_json
from benchmarks.machine import ROOT, facts, wait_until_quiet
from benchmarks.server import penstock
from tokenizers import Tokenizer

from penstock.bench.lengths import Lengths
from penstock.bench.prompts import Prompt
from penstock.bench.protocols import Asking, request_body
from penstock.bench.stream_client import Exchange, connect, http_request

ASKING = Asking(model="tgi")
DEMO_MODEL = ROOT / "launcher" / "penstock_launcher" / "demo_model"


@dataclass(frozen=True, slots=True)
class Workload:
    """A round: `streams` prompts at once."""

    name: str
    streams: int
    prompt: int
    shared: int
    output: int

    def rounds(self, count: int, seed: int, vocab: int) -> list[list[list[int]]]:
        """Prompts of token ids, different in every round."""
        prompt, output = (Lengths("fixed", (float(n),)) for n in (self.prompt, self.output))
        case = Case(self.name, self.streams, self.streams, prompt, output, self.shared)
        high = max(vocab - 300, vocab // 2)  # special tokens are among the first and the last
        drawn = (case.draw(seed + i, (vocab // 8, high)) for i in range(count))
        return [[each.ids for each in prompts] for prompts in drawn]


WORKLOADS = (
    Workload("nothing shared", 16, 128, 0, 64),
    Workload("90 % shared", 16, 400, 360, 32),
)


def transformers_side(
    model: Path, workload: Workload, rounds: list[list[list[int]]], threads: int
) -> dict[str, Any]:
    """Runs `transformers_side` as a process. Raises RuntimeError when it dies."""
    plan = {"model": str(model), "threads": threads, "output": workload.output, "rounds": rounds}
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.transformers_side"],
        input=json.dumps(plan) + "\n",
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )
    if ran.returncode:
        raise RuntimeError(f"the transformers side ended with {ran.returncode}")
    results: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return results


def penstock_side(
    model: Path, workload: Workload, rounds: list[list[list[int]]], threads: int
) -> dict[str, Any]:
    """Starts the launcher, sends each round at once, and returns seconds and texts a round."""
    arguments = ["--model-id", str(model), "--dtype", "float32", "--device", "cpu"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "launcher.log"
        environment = {"OMP_NUM_THREADS": str(threads)}
        with penstock(arguments, log, environment=environment) as server:
            busy = wait_until_quiet()
            ran = asyncio.run(send_rounds(server.url, rounds, workload.output))
    return {"rounds": ran[1:], "busy_cores_before": busy}


async def send_rounds(url: str, rounds: list[list[list[int]]], output: int) -> list[dict[str, Any]]:
    """One round after another over kept-alive connections."""
    address = urlsplit(url)
    host, port = str(address.hostname), int(address.port or 80)
    connections = [await connect(host, port) for _ in rounds[0]]
    results = []
    for prompts in rounds:
        asked = [Prompt(prompt, output) for prompt in prompts]
        bodies = [orjson.dumps(request_body("completions", each, ASKING)) for each in asked]
        requests = [http_request(host, "/v1/completions", body) for body in bodies]
        started = time.monotonic()
        exchanges = [Exchange(started) for _ in requests]
        sending = zip(connections, requests, exchanges, strict=True)
        await asyncio.gather(*(c.exchange(r, e) for c, r, e in sending))
        seconds = time.monotonic() - started
        results.append({"seconds": seconds, "texts": [text_of(e, output) for e in exchanges]})
    return results


def text_of(exchange: Exchange, output: int) -> str:
    """The whole text. Raises RuntimeError when it is not `output` tokens long."""
    if exchange.status != 200 or exchange.failure:
        said = exchange.body()[:300].decode(errors="replace")
        raise RuntimeError(f"Penstock answered {exchange.status} {exchange.failure}: {said}")
    events = [orjson.loads(data) for _, data in exchange.events() if data != b"[DONE]"]
    tokens = [e["usage"]["completion_tokens"] for e in events if e.get("usage")]
    if tokens[-1:] != [output]:
        raise RuntimeError(f"Penstock generated {tokens[-1:]} tokens, asked were {output}")
    return "".join(e["choices"][0]["text"] for e in events if e.get("choices"))


def speed(rounds: list[dict[str, Any]], workload: Workload) -> float:
    """Tokens a second of the fastest round: what disturbs a round can only slow it."""
    seconds = min(each["seconds"] for each in rounds)
    return float(workload.streams * workload.output / seconds)


def equal_texts(
    ours: list[dict[str, Any]], theirs: list[dict[str, Any]], tokenizer: Tokenizer
) -> int:
    """How many answers have the same text as transformers' tokens."""
    equal = 0
    for own_round, other_round in zip(ours, theirs, strict=True):
        for text, tokens in zip(own_round["texts"], other_round["tokens"], strict=True):
            equal += text == tokenizer.decode(tokens, skip_special_tokens=True)
    return equal


def compare(model: Path, workload: Workload, rounds: int, threads: int) -> dict[str, Any]:
    """Runs one workload on both sides; speeds, ratios, equal answers."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    seed = secrets.randbits(30)
    prompts = workload.rounds(rounds + 1, seed, tokenizer.get_vocab_size())
    theirs = transformers_side(model, workload, prompts, threads)
    ours = penstock_side(model, workload, prompts, threads)
    sides = {name: way for name, way in theirs.items() if "rounds" in way} | {"penstock": ours}
    speeds = {name: speed(side["rounds"], workload) for name, side in sides.items()}
    continuous = [v for name, v in speeds.items() if name.startswith("continuous")]
    own, sequential = speeds["penstock"], "generate one by one"
    return {
        "workload": workload.name,
        "streams": workload.streams,
        "prompt": workload.prompt,
        "shared": workload.shared,
        "output": workload.output,
        "seed": seed,
        "tokens_per_second": {name: round(each, 1) for name, each in speeds.items()},
        "seconds": {n: [round(r["seconds"], 3) for r in s["rounds"]] for n, s in sides.items()},
        "busy_cores_before": {name: side["busy_cores_before"] for name, side in sides.items()},
        "errors": {n: w["error"] for n, w in theirs.items() if "error" in w},
        "ratio_to_generate": round(own / speeds[sequential], 2),
        "ratio_to_continuous_batching": round(own / max(continuous), 2) if continuous else None,
        "equal_answers": equal_texts(ours["rounds"], theirs[sequential]["rounds"], tokenizer),
        "answers": rounds * workload.streams,
    }


def report(result: dict[str, Any]) -> str:
    """The result of one workload for people."""
    lines = [f"{result['workload']}: {result['streams']} streams, prompt {result['prompt']}"]
    lines += [f"  {v:>9,.0f} tok/s  {name}" for name, v in result["tokens_per_second"].items()]
    lines += [f"  {name}: {error}" for name, error in result["errors"].items()]
    lines.append(f"  Penstock / generate one by one   {result['ratio_to_generate']} x")
    lines.append(f"  Penstock / continuous batching   {result['ratio_to_continuous_batching']} x")
    busy = max(result["busy_cores_before"].values())
    lines.append(f"  cores that others kept busy before a measurement: at most {busy}")
    lines.append(f"  equal answers  {result['equal_answers']} of {result['answers']}")
    return "\n".join(lines)


def random_model(folder: Path) -> Path:
    """A tiny Llama with random weights, for when there is no demo model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    write_model_folder("tiny", folder)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    model.float().save_pretrained(folder)
    return folder


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare_transformers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, help="default: the demo model, else a random one")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3, help="counted ones")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    """Compares, prints, writes."""
    arguments = parse_arguments()
    with contextlib.ExitStack() as stack:
        model = arguments.model or DEMO_MODEL
        if not (model / "config.json").exists():
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            model = random_model(Path(folder))
        results = []
        for workload in WORKLOADS:
            results.append(compare(model, workload, arguments.rounds, arguments.threads))
            print(report(results[-1]), flush=True)
    if arguments.out:
        settings = {"model": str(model), "threads": arguments.threads, "dtype": "float32"}
        write_json(arguments.out, facts() | settings | {"workloads": results})


if __name__ == "__main__":
    main()
