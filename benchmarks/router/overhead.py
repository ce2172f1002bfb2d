"""What the router itself costs: the real router process in front of a shard that costs nothing.

    python -m benchmarks.router.overhead

Client processes, router and shard share this machine's cores, so tokens a second depend on how many
there are; microseconds of router CPU a token do not. `paced` runs let a step last as long as one of
a GPU and say what the router adds to a real server's time to first token. With `--http-processes`
figures of the router are those of the process that schedules; those that serve HTTP count apart.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, fixed
from benchmarks.configs import write_model_folder
from benchmarks.load import Target, run_case, write_json
from benchmarks.machine import ROOT, facts
from benchmarks.server import COMPONENTS, end, tail

SHAPE = "llama-3.1-8b"  # the tokenizer of a real size; there are no weights
VOCAB = 128_000  # without the special tokens
OUT = ROOT / "benchmarks" / "results" / "router_overhead.json"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run: a load, and how long a step of the shard lasts (0: no time at all)."""

    case: Case
    step_seconds: float = 0.0


MEASUREMENTS = (
    Measurement(fixed("first token, 1 stream", 1, 200, 128, 2)),
    Measurement(fixed("64 streams, short", 64, 512, 32, 32)),
    Measurement(fixed("64 streams, long", 64, 256, 32, 512)),
    Measurement(fixed("256 streams, short", 256, 2048, 32, 32)),
    Measurement(fixed("256 streams, long", 256, 1024, 32, 512)),
    Measurement(fixed("256 streams, 512/128", 256, 768, 512, 128)),
    # With time between the steps nothing coalesces: a write to a socket for every token.
    Measurement(fixed("first token, 1 stream, paced", 1, 100, 128, 2), 0.005),
    Measurement(fixed("64 streams, 128/256, paced", 64, 256, 128, 256), 0.005),
    Measurement(fixed("256 streams, 128/256, paced", 256, 1024, 128, 256), 0.01),
)


@dataclass(frozen=True, slots=True)
class Stand:
    """The processes that run: a router that is ready, and its shard."""

    url: str
    router: int  # process ids
    shard: int
    http: tuple[int, ...]


def start(
    command: list[str], log: Path, configuration: str = "", descriptors: Sequence[int] = ()
) -> tuple[subprocess.Popen[bytes], Any]:
    """Starts a child by the contract of docs/design.md; it, and what it said when it was ready.

    Raises RuntimeError, with the end of its log, when it ends without being ready.
    """
    reading, writing = os.pipe()
    environment = os.environ | {
        "PENSTOCK_READY_FD": str(writing),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), COMPONENTS]),
        "OMP_NUM_THREADS": "1",
    }
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdin=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            env=environment,
            pass_fds=[writing, *descriptors],
            start_new_session=True,
        )
    os.close(writing)
    assert process.stdin is not None
    process.stdin.write(configuration.encode())
    process.stdin.close()
    with os.fdopen(reading) as ready:
        line = ready.readline()
    if not line:
        end(process)
        raise RuntimeError(f"{command[0]} was never ready, it said:\n{tail(log)}")
    return process, json.loads(line)


def router_configuration(model: Path, shard: Path, listener: int, http_processes: int = 0) -> str:
    """A configuration that never limits what is measured."""
    configuration: dict[str, Any] = {
        "model_path": str(model),
        "model_id": SHAPE,
        "model_sha": None,
        "served_model_name": [],
        "tokenizer_config_path": None,
        "tool_call_parser": "auto",
        "reasoning_parser": "auto",
        "shard_sockets": [str(shard)],
        "listener": listener,
        "prometheus_listener": None,
        "http_processes": http_processes,
        "api_key": (),
        "cors_allow_origin": [],
        "max_connections_per_client": 4096,
        "max_requests_per_client": 0,
        "trusted_proxies": [],
        "max_concurrent_requests": 1024,
        "max_best_of": 2,
        "max_stop_sequences": 4,
        "max_top_n_tokens": 5,
        "max_input_tokens": None,
        "max_total_tokens": 8192,
        "waiting_served_ratio": 0.3,
        "max_batch_prefill_tokens": 8192,
        "max_batch_total_tokens": None,
        "max_waiting_tokens": 20,
        "max_batch_size": 256,
        "validation_workers": 1,
        "payload_limit": 2_000_000,
        "strict_requests": False,
        "generation_config": "none",
        "max_client_batch_size": 4,
        "graceful_termination_timeout": 5.0,
        "disable_prefix_cache": False,
        "disable_shared_reads": False,
        "disable_grammar_support": False,
        "step_timeout": 60.0,
        "otlp_endpoint": None,
        "otlp_protocol": None,
        "otlp_service_name": "router",
        "watermark_gamma": 0.5,
        "watermark_delta": 2.0,
        "offline_socket": None,
        "batch_folder": None,
        "batch_storage_limit": 0,
        "predict_route": None,
        "health_route": None,
    }
    return json.dumps(configuration)


@contextlib.contextmanager
def stand(model: Path, step_seconds: float, http_processes: int) -> Iterator[Stand]:
    """A fake shard and the real router in front of it, until the block ends."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shard_socket = folder / "shard-0.sock"
        options = {
            "--socket": shard_socket,
            "--vocab-size": VOCAB,
            "--block-size": 64,
            "--num-blocks": 20_000,
            "--step-seconds": step_seconds,
        }
        words = [str(word) for option in options.items() for word in option]
        shard, _ = start(["support.fake_shard", "--no-checks", *words], folder / "shard.log")
        stack.callback(end, shard)
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        configuration = router_configuration(model, shard_socket, listener.fileno(), http_processes)
        router, ready = start(
            ["penstock_router"], folder / "router.log", configuration, [listener.fileno()]
        )
        stack.callback(end, router)
        yield Stand(ready["url"], router.pid, shard.pid, children(router.pid))


def children(pid: int) -> tuple[int, ...]:
    """Processes that a process started."""
    return tuple(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its threads so far, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(running: Stand, case: Case, processes: int) -> dict[str, Any]:
    """One run, with the CPU time that router, shard and clients spent on it."""
    target = Target(
        url=running.url, processes=processes, token_range=(1000, 100_000), max_seconds=60
    )
    groups = ((running.router,), (running.shard,), running.http)
    before = [sum(map(cpu_seconds, group)) for group in groups]
    figures = run_case(target, case)
    after = [sum(map(cpu_seconds, group)) for group in groups]
    router, shard, http = (b - a for a, b in zip(before, after, strict=True))
    if figures["failed"] or figures["cut"]:
        raise RuntimeError(f"{case.name}: {figures['failures']}, cut {figures['cut']}")
    tokens, seconds = figures["output_tokens"], figures["seconds"]
    return figures | {
        "router_cpu_seconds": round(router, 3),
        "router_cpu_share": round(router / seconds, 3),
        "shard_cpu_share": round(shard / seconds, 3),
        "http_cpu_seconds": round(http, 3),
        "http_cpu_share": round(http / seconds, 3),
        "clients_cpu_share": round(figures["client_cpu_seconds"] / seconds, 3),
        "router_us_per_token": round(router / tokens * 1e6, 2),
        "tokens_per_router_cpu_second": round(tokens / router) if router else None,
    }


def split(short: dict[str, Any], long: dict[str, Any], who: str = "router") -> dict[str, float]:
    """CPU a request and a token, from two runs that differ in tokens a request."""
    requests = [run["requests"] for run in (short, long)]
    cpu = [run[f"{who}_cpu_seconds"] / n for run, n in zip((short, long), requests, strict=True)]
    each = [run["output_tokens"] / n for run, n in zip((short, long), requests, strict=True)]
    per_token = (cpu[1] - cpu[0]) / (each[1] - each[0])
    return {
        "us_per_token": round(per_token * 1e6, 2),
        "us_per_request": round((cpu[0] - per_token * each[0]) * 1e6, 1),
    }


def line(name: str, run: dict[str, Any]) -> str:
    """One run for people."""
    return (
        f"{name:<30}{run['output_tokens_per_second']:>10,.0f} tok/s"
        f"{run['router_us_per_token']:>8.1f} µs/token  TTFT p50 {run['ttft_ms']['p50']:.2f}"
        f" p99 {run['ttft_ms']['p99']:.2f} ms  cores: router {run['router_cpu_share']:.2f}"
        f" http {run['http_cpu_share']:.2f} shard {run['shard_cpu_share']:.2f}"
        f" clients {run['clients_cpu_share']:.2f}"
    )


def run_all(model: Path, processes: int, http_processes: int) -> dict[str, dict[str, Any]]:
    """Every measurement, each on fresh processes after a short warm-up."""
    runs: dict[str, dict[str, Any]] = {}
    for each in MEASUREMENTS:
        with stand(model, each.step_seconds, http_processes) as running:
            measure(running, fixed("warm-up", 8, 64, 32, 32), processes)
            runs[each.case.name] = measure(running, each.case, processes)
        runs[each.case.name]["step_seconds"] = each.step_seconds
        print(line(each.case.name, runs[each.case.name]), flush=True)
    return runs


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.router.overhead", description=__doc__
    )
    parser.add_argument("--processes", type=int, default=1, help="client processes")
    parser.add_argument("--http-processes", type=int, default=0, help="of the router")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = write_model_folder(SHAPE, Path(folder))
        runs = run_all(model, arguments.processes, arguments.http_processes)
    costs = {
        f"{who}, {n} streams": split(runs[f"{n} streams, short"], runs[f"{n} streams, long"], who)
        for who in ("router", "http")
        for n in (64, 256)
    }
    for name, cost in costs.items():
        per_token, per_request = cost["us_per_token"], cost["us_per_request"]
        print(f"{name}: {per_token} µs of CPU a token and {per_request} µs a request")
    write_json(
        arguments.out,
        facts() | {"http_processes": arguments.http_processes, "cpu": costs, "runs": runs},
    )


if __name__ == "__main__":
    main()
