"""One client process of the load generator: a plan in on stdin, measurements out on stdout.

stdin   one line of JSON (`Plan`), later one line: the time.monotonic() at which to start
stdout  "ready", and at the end one line of JSON (`report`)
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import uvloop
from benchmarks.cases import Case, Lengths, Prompt, draw_prompts
from benchmarks.stream_client import Connection, Exchange, connect, http_request


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What all workers do together; worker `index` of `workers` does its share of it."""

    host: str
    port: int
    endpoint: str  # "completions", "generate_stream"
    model: str
    api_key: str | None
    case: Case
    seed: int
    token_range: tuple[int, int]
    rate: float | None  # requests a second; None: closed loop
    max_seconds: float
    index: int
    workers: int

    def to_json(self) -> bytes:
        """One line; lengths in their notation."""
        values = dataclasses.asdict(self)
        values["case"] |= {"prompt": str(self.case.prompt), "output": str(self.case.output)}
        return orjson.dumps(values) + b"\n"

    @classmethod
    def from_json(cls, line: bytes) -> Plan:
        """The inverse of `to_json`."""
        values = orjson.loads(line)
        case = values["case"]
        case |= {name: Lengths.parse(case[name]) for name in ("prompt", "output")}
        low, high = values["token_range"]
        return cls(**values | {"case": Case(**case), "token_range": (low, high)})


def completions_body(
    model: str,
    prompt: Prompt,
    temperature: float = 0.0,
    top_p: float = 1.0,
    schema: str = "",
    compact: bool = False,
) -> bytes:
    """A streaming /v1/completions request with token ids, of exactly `output` tokens."""
    held: dict[str, Any] = {}
    if schema:
        held["structured_outputs"] = {"json": schema, "disable_any_whitespace": compact}
    return orjson.dumps(
        held
        | {
            "model": model,
            "prompt": prompt.tokens,
            "max_tokens": prompt.output,
            "temperature": temperature,
            "top_p": top_p,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )


def generate_body(prompt: Prompt, temperature: float = 0.0, top_p: float = 1.0) -> bytes:
    """A /generate_stream request: TGI takes text only, so the ids become words, one or more tokens
    each; the answer's details say how many tokens it generated."""
    words = " ".join(f"w{token}" for token in prompt.tokens)
    parameters: dict[str, float] = {
        "max_new_tokens": prompt.output, "ignore_eos": True, "details": True
    }  # fmt: skip
    if temperature > 0:
        parameters |= {"do_sample": True, "temperature": temperature}
    if top_p < 1:
        parameters["top_p"] = top_p
    return orjson.dumps({"inputs": words, "parameters": parameters})


class Worker:
    """Runs its share of the requests and keeps every exchange."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        prompts = draw_prompts(plan.case, plan.seed, plan.token_range)
        self.requests = [self._request(p) for p in prompts[plan.index :: plan.workers]]
        self.exchanges: list[Exchange] = []
        self.idle: list[Connection] = []

    def _request(self, prompt: Prompt) -> bytes:
        plan, case = self.plan, self.plan.case
        headers = {"Authorization": f"Bearer {plan.api_key}"} if plan.api_key else {}
        if plan.endpoint == "completions":
            path = "/v1/completions"
            body = completions_body(
                plan.model, prompt, case.temperature, case.top_p, case.schema, case.compact
            )
        else:
            body, path = generate_body(prompt, case.temperature, case.top_p), "/generate_stream"
        return http_request(plan.host, path, body, headers)

    async def run(self, start: float) -> None:
        """Returns when all requests have ended or `max_seconds` are over."""
        await asyncio.sleep(start - time.monotonic())
        loops = self._open_loop(start) if self.plan.rate else self._closed_loop()
        tasks = [asyncio.ensure_future(each) for each in loops]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self.plan.max_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _closed_loop(self) -> list[Any]:
        queue = deque(self.requests)

        async def stream() -> None:
            while queue:
                await self._send(queue.popleft(), time.monotonic())

        streams = len(range(self.plan.index, self.plan.case.streams, self.plan.workers))
        return [stream() for _ in range(streams)]

    def _open_loop(self, start: float) -> list[Any]:
        """Poisson arrivals. A request's clock starts when it was due, not when it got its turn."""
        plan = self.plan
        assert plan.rate is not None
        gaps = np.random.default_rng([plan.seed, 1]).exponential(1 / plan.rate, plan.case.requests)
        due_times = start + np.cumsum(gaps)[plan.index :: plan.workers]

        async def arrival(request: bytes, due: float) -> None:
            await asyncio.sleep(due - time.monotonic())
            await self._send(request, due)

        return [
            arrival(request, float(due))
            for request, due in zip(self.requests, due_times, strict=True)
        ]

    async def _send(self, request: bytes, started: float) -> None:
        exchange = Exchange(started)
        self.exchanges.append(exchange)
        connection = None
        try:
            while self.idle and (connection is None or connection.closed):
                connection = self.idle.pop()
            if connection is None or connection.closed:
                connection = await connect(self.plan.host, self.plan.port)
            await connection.exchange(request, exchange)
        except OSError as error:
            exchange.failure = str(error)
        except asyncio.CancelledError:
            exchange.failure = "cut"
            raise
        finally:
            if connection is not None and not connection.closed:
                if exchange.failure is None:
                    self.idle.append(connection)
                else:
                    connection.close()


def measure(exchange: Exchange) -> dict[str, Any]:
    """What one exchange says: times in seconds, gaps in integer microseconds."""
    times: list[float] = []
    usage: dict[str, Any] = {}
    failure = exchange.failure
    if exchange.status != 200:
        said = exchange.body()[:200].decode(errors="replace")
        failure = failure or f"HTTP {exchange.status}: {said}"
    else:
        for when, data in exchange.events():
            event = {} if data == b"[DONE]" else orjson.loads(data)
            if event.get("error"):
                failure = f"error event: {event['error']}"
            usage = token_counts(event) or usage
            if event.get("choices") or "token" in event:
                times.append(when)
    gaps = np.diff(times) * 1e6 if len(times) > 1 else np.zeros(0)
    return {
        "started": exchange.started,
        "first": times[0] if times else None,
        "last": times[-1] if times else None,
        "tokens": usage.get("completion_tokens", len(times)),
        "prompt_tokens": usage.get("prompt_tokens"),
        "cached_tokens": (usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
        "failure": failure,
        "gaps_us": [int(gap) for gap in gaps],
    }


def token_counts(event: dict[str, Any]) -> dict[str, Any] | None:
    """OpenAI's usage, or TGI's details under the same names; None in all but a closing event."""
    if details := event.get("details"):
        return {
            "completion_tokens": details["generated_tokens"],
            "prompt_tokens": details.get("input_length"),
        }
    usage: dict[str, Any] | None = event.get("usage")
    return usage


def report(worker: Worker, cpu_seconds: float, wall_seconds: float) -> dict[str, Any]:
    """All measurements of this process, and how busy it was."""
    return {
        "requests": [measure(exchange) for exchange in worker.exchanges],
        "cpu_seconds": cpu_seconds,
        "wall_seconds": wall_seconds,
    }


def main() -> None:
    """The process: read the plan, wait for the start, run, report."""
    worker = Worker(Plan.from_json(sys.stdin.buffer.readline()))
    print("ready", flush=True)
    start = float(sys.stdin.readline())
    cpu, wall = time.process_time(), time.monotonic()
    uvloop.run(worker.run(start))
    cpu, wall = time.process_time() - cpu, time.monotonic() - max(wall, start)
    # A file of its own: with PYTHONUNBUFFERED set, sys.stdout.buffer is raw and writes to a pipe no
    # more than 64 KiB of it.
    with open(sys.stdout.fileno(), "wb", closefd=False) as out:
        out.write(orjson.dumps(report(worker, cpu, wall)) + b"\n")
    os._exit(0)  # thousands of exchanges need no tidying


if __name__ == "__main__":
    main()
