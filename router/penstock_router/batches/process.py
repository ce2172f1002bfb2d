"""The process that answers batches: started beside the router, and again when it dies.

It is a client of this server like any other, so batches go through the same admission, metrics and
keys, and cost the router's event loop nothing of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

from penstock_router.config import RouterConfig
from penstock_router.logs import log

SERVICE = "penstock.batches.service"
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds until it is started again
END_SECONDS = 5.0


def settings(config: RouterConfig, url: str) -> dict[str, object]:
    """What it is told. Half of what may be asked at once stays everybody else's."""
    return {
        "folder": config.batch_folder,
        "url": _reachable(url),
        "keys": [key.key for key in config.keys if key.key is not None],
        "storage_limit": config.batch_storage_limit,
        "concurrency": max(1, config.max_concurrent_requests // 2),
    }


def _reachable(url: str) -> str:
    """The address for a client on this machine."""
    parts = urlsplit(url)
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(parts.hostname or "")
    return urlunsplit(parts._replace(netloc=f"{host}:{parts.port}")) if host else url


async def answer_batches(config: RouterConfig, url: str, tell: Callable[[bytes], None]) -> None:
    """Runs the process until this is cancelled. tell: gets each line of what it counts."""
    line = json.dumps(settings(config, url)).encode() + b"\n"
    pause = FIRST_PAUSE
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        code = await _run_once(line, tell)
        pause = FIRST_PAUSE if loop.time() - started > LONGEST_PAUSE else pause
        log(
            "WARNING",
            f"the process that answers batches ended with {code}; another in {pause:g} s",
            target="penstock_router.batches",
        )
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


async def _run_once(line: bytes, tell: Callable[[bytes], None]) -> int:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", SERVICE, stdin=pipe, stdout=pipe
    )
    assert process.stdin is not None and process.stdout is not None
    listening = asyncio.create_task(_listen(process.stdout, tell))
    try:
        with contextlib.suppress(ConnectionError):
            process.stdin.write(line)
            await process.stdin.drain()
        await listening
        return await process.wait()
    finally:
        listening.cancel()
        process.stdin.close()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), END_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _listen(source: asyncio.StreamReader, tell: Callable[[bytes], None]) -> None:
    """Lines to their end, which is that of the process. What is wrong is left out."""
    while line := await source.readline():
        with contextlib.suppress(ValueError):
            tell(line)
