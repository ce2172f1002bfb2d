"""One target in a process of its own: what it cannot survive is seen from outside."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import resource
import signal
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

CPU_SECONDS = 10.0  # of one input; then SIGPROF ends the process
MEMORY_BYTES = 2 << 30  # more than it has when it begins
MOST_FINDINGS = 5

CORPUS = Path(__file__).parent / "corpus"


def known(name: str) -> list[Path]:
    """What was found before, in the order of names."""
    return sorted((CORPUS / name).glob("*"))


def work(name: str, seconds: float, rounds: int, seed: int, current: Path) -> int:
    """The number of findings; each is a file in the corpus. current: the input that runs."""
    target = TARGETS[name]()
    logging.disable(logging.WARNING)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what is logged otherwise
    _limit_memory()
    findings: dict[str, Path] = {}
    ends = time.monotonic() + seconds
    count = 0
    try:
        for data in _inputs(target, name, rounds, seed):
            if time.monotonic() > ends or len(findings) >= MOST_FINDINGS:
                break
            count += 1
            current.write_bytes(data)
            if (fault := _fault(target, data)) is not None:
                where, text = fault
                if where not in findings:
                    findings[where] = keep(name, data)
                    print(f"{name}: {findings[where]}\n{text}", flush=True)
    finally:
        target.close()
    print(f"{name}: {count} inputs, {len(findings)} findings", flush=True)
    return len(findings)


def keep(name: str, data: bytes) -> Path:
    """A finding becomes a part of the corpus."""
    path = CORPUS / name / hashlib.sha256(data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _inputs(target: Target, name: str, rounds: int, seed: int) -> Iterator[bytes]:
    """Seeds and what is known, as they are and then changed; rounds: of changed ones."""
    chance = random.Random(seed)
    pool = [*target.seeds, *(path.read_bytes() for path in known(name))]
    yield from pool
    for _ in range(rounds):
        data = target.mutate(chance, chance.choice(pool), pool)
        yield data
        if chance.random() < 0.02 and len(pool) < 2000:
            pool.append(data)  # so that changes add up


def _fault(target: Target, data: bytes) -> tuple[str, str] | None:
    """Where it failed and how; None where it ended as it may."""
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        target.run(data)
    except target.typed:
        return None
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} at {place.filename}:{place.lineno}"
        return where, "".join(traceback.format_exception(error)[-12:])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return None


def _limit_memory() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_BYTES, resource.RLIM_INFINITY))
