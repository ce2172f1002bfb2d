"""Runs a load: client processes, a common start, progress, and figures of what they measured."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any

from penstock.bench.arrivals import Arrivals
from penstock.bench.prompts import Prompt
from penstock.bench.protocols import PROTOCOLS, Asking
from penstock.bench.summary import PERCENTILES, summarise
from penstock.bench.worker import Plan

MOST_PROCESSES = 64
Progress = Callable[[int], None]  # is told how many requests have ended


class Interrupted(KeyboardInterrupt):
    """Ctrl-C has cut a load; what `run_load` had to return by then."""

    def __init__(self, figures: dict[str, Any], requests: list[dict[str, Any]]) -> None:
        super().__init__()
        self.figures = figures
        self.requests = requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The server under load, and how it is asked."""

    url: str  # of the server, without the protocol's path
    protocol: str = "completions"
    path: str | None = None  # None: the protocol's own
    asking: Asking
    headers: Mapping[str, str] = field(default_factory=dict)
    processes: int = 1
    max_seconds: float = 300.0  # a load is cut after so long


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is sent, and when: all `streams` at once without arrivals, else as they come."""

    prompts: Sequence[Prompt]
    streams: int = 0  # most requests in flight; 0: any
    arrivals: Arrivals | None = None  # None: closed loop


def model_name(url: str, headers: Mapping[str, str]) -> str:
    """What /v1/models of a server names first. Raises OSError or ValueError where it names none."""
    request = urllib.request.Request(f"{url.rstrip('/')}/v1/models", headers=dict(headers))
    with urllib.request.urlopen(request, timeout=30) as answer:
        try:
            return str(json.load(answer)["data"][0]["id"])
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"{url}/v1/models names no model") from error


def run_load(
    target: Target,
    load: Load,
    *,
    seed: int = 0,
    objectives: Mapping[str, float] | None = None,
    points: Sequence[float] = PERCENTILES,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Runs a load once; its figures (`summarise`), and the measurements that they are made of.

    Raises RuntimeError when a client process dies, Interrupted where Ctrl-C cuts it.
    """
    reports, interrupted = run_workers(_plans(target, load, seed), progress)
    requests = [request for each in reports for request in each["requests"]]
    shares = [each["cpu_seconds"] / max(each["wall_seconds"], 1e-9) for each in reports]
    figures = summarise(requests, objectives=objectives, points=points) | {
        "processes": len(reports),
        "client_cpu": round(max(shares), 3),  # of a core, the busiest process
        "client_cpu_seconds": round(sum(each["cpu_seconds"] for each in reports), 3),
    }
    if interrupted:
        raise Interrupted(figures, requests)
    return figures, requests


def _plans(target: Target, load: Load, seed: int) -> list[Plan]:
    """One a process: requests and streams are dealt out in turn."""
    prompts, streams = load.prompts, load.streams
    count = min(target.processes, len(prompts), streams or len(prompts), MOST_PROCESSES)
    due = load.arrivals.due(len(prompts), seed) if load.arrivals else None
    plan = Plan(
        url=target.url,
        protocol=target.protocol,
        path=target.path or PROTOCOLS[target.protocol].path,
        headers=dict(target.headers),
        asking=target.asking,
        prompts=[],
        due=None,
        streams=0,
        max_seconds=target.max_seconds,
    )
    return [
        replace(
            plan,
            prompts=list(prompts[index::count]),
            due=due[index::count] if due is not None else None,
            streams=len(range(index, streams, count)),
        )
        for index in range(count)
    ]


def start_worker(plan: Plan) -> subprocess.Popen[bytes]:
    """A client process that has its plan."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "penstock.bench.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is this process's to handle
    )
    assert worker.stdin is not None
    try:
        worker.stdin.write(plan.to_json())
        worker.stdin.flush()
    except BaseException:
        worker.kill()
        worker.wait()
        raise
    return worker


def run_workers(
    plans: list[Plan], progress: Progress | None = None
) -> tuple[list[dict[str, Any]], bool]:
    """Runs the plans at once, from one common start; their reports, and whether Ctrl-C cut them.

    Raises KeyboardInterrupt for one before the start, or a second one; RuntimeError when a client
    process dies.
    """
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for plan in plans:
            workers.append(start_worker(plan))
        for worker in workers:
            assert worker.stdout is not None
            if worker.stdout.readline() != b"ready\n":
                raise RuntimeError("a client process died before the start")
        start = f"{time.monotonic() + 0.2!r}\n".encode()
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(start)
            worker.stdin.flush()
        return _reports(workers, progress)
    except BrokenPipeError as error:
        raise RuntimeError("a client process died before the start") from error
    finally:
        for worker in workers:
            worker.kill()  # one that has reported is gone already
            worker.wait()


def _reports(
    workers: list[subprocess.Popen[bytes]], progress: Progress | None
) -> tuple[list[dict[str, Any]], bool]:
    """What each worker says at its end, and whether it was interrupted. All are read at once: none
    may wait for a reader."""
    said: SimpleQueue[tuple[int, dict[str, Any] | None]] = SimpleQueue()
    for index, worker in enumerate(workers):
        threading.Thread(target=_read, args=(index, worker, said), daemon=True).start()
    ended = [0] * len(workers)
    reports: dict[int, dict[str, Any]] = {}
    interrupted = False
    while len(reports) < len(workers):
        try:
            index, word = said.get()
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
            _stop(workers)
            continue
        if word is None:
            raise RuntimeError("a client process died while it ran")
        if "requests" in word:
            reports[index] = word
            ended[index] = len(word["requests"])
        else:
            ended[index] = word["ended"]
        if progress is not None:
            progress(sum(ended))
    return [reports[index] for index in range(len(workers))], interrupted


def _stop(workers: list[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        assert worker.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has reported
            worker.stdin.write(b"stop\n")
            worker.stdin.flush()


def _read(
    index: int,
    worker: subprocess.Popen[bytes],
    said: SimpleQueue[tuple[int, dict[str, Any] | None]],
) -> None:
    assert worker.stdout is not None
    for line in worker.stdout:
        word = json.loads(line)
        said.put((index, word))
        if "requests" in word:
            return
    said.put((index, None))
