"""What the runbook's alerts look at shows what happens, with a real server in trouble."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from pathlib import Path

import aiohttp
import pytest

from support.server import running_server

SMALL = (
    *("--device", "cpu", "--max-total-tokens", "300", "--max-input-tokens", "100"),
    *("--max-batch-total-tokens", "640", "--max-batch-size", "8"),
    *("--max-concurrent-requests", "12"),
)
pytestmark = pytest.mark.full
LONG = {"inputs": "Tell me", "parameters": {"max_new_tokens": 250, "ignore_eos": True}}


async def sample(http: aiohttp.ClientSession, selector: str) -> float:
    """The sum of all samples of /metrics that begin so."""
    async with http.get("/metrics") as page:
        text = await page.text()
    found = re.findall(rf"^{re.escape(selector)}\S* (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))


async def test_more_than_fits(tmp_path: Path) -> None:
    """PenstockOverloaded, QueueSlow, FirstTokenSlow, KvFull and Preempting: twelve sequences that
    come to 250 tokens each, in a cache for 640, and as many again that are refused."""
    with running_server(tmp_path, *SMALL) as server:
        async with aiohttp.ClientSession(server.url) as http:
            fullest, waiting = 0.0, 0.0
            before = await sample(http, "penstock_preemptions_total")

            async def ask(number: int) -> int:
                body = LONG | {"inputs": f"{number} Tell me"}  # none shares the other's prefix
                async with http.post("/generate", json=body) as answer:
                    await answer.read()
                    return answer.status

            asking = [asyncio.create_task(ask(number)) for number in range(24)]
            while not all(task.done() for task in asking):
                fullest = max(fullest, await sample(http, "penstock_kv_use_ratio"))
                waiting = max(waiting, await sample(http, "tgi_queue_size"))
                await asyncio.sleep(0.01)
            statuses = [task.result() for task in asking]
            assert sorted(set(statuses)) == [200, 429] and statuses.count(200) >= 12
            assert await sample(http, 'tgi_request_failure{err="overloaded"') >= 1
            assert waiting >= 1 and fullest > 0.95
            assert await sample(http, "penstock_preemptions_total") > before
            for name in ("tgi_request_queue_duration", "penstock_time_to_first_token_seconds"):
                assert await sample(http, f"{name}_sum") > 0, name
            async with http.get("/ready") as ready:  # it is full, and well
                assert ready.status == 200


async def test_the_event_loop_is_late(tmp_path: Path) -> None:
    """PenstockEventLoopLate: a router that the machine does not let run."""
    with running_server(tmp_path, "--device", "cpu") as server:
        [router] = server.children("router")
        async with aiohttp.ClientSession(server.url) as http:
            name = "penstock_event_loop_lag_seconds"
            router.send_signal(signal.SIGSTOP)
            time.sleep(1.5)
            router.send_signal(signal.SIGCONT)

            async def late() -> float:
                within = await sample(http, f'{name}_bucket{{le="0.5"')
                return await sample(http, f"{name}_count") - within

            async with asyncio.timeout(60):
                while await late() < 1:
                    await asyncio.sleep(0.05)
