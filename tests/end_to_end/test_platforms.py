"""Probes and platforms' names, through the real launcher, router and shards."""

import asyncio
import signal
from pathlib import Path

import aiohttp

from support.server import SMALL, running_server

ENVIRONMENT = {
    "TGI_NUM_SHARD": "1",
    "TGI_API_KEY": "hunter22",
    "TGI_MAX_TOTAL_TOKENS": "512",
    "TGI_HTTP_PROCESSES": "0",
    "AIP_PREDICT_ROUTE": "/v1/endpoints/1:predict",
    "AIP_HEALTH_ROUTE": "/v1/endpoints/1",
    "LOG_LEVEL": "INFO",
}
KEY = {"Authorization": "Bearer hunter22"}


async def status(session: aiohttp.ClientSession, path: str) -> int:
    async with session.get(path) as answer:
        return answer.status


async def becomes(session: aiohttp.ClientSession, path: str, wanted: int) -> None:
    async with asyncio.timeout(60):
        while await status(session, path) != wanted:
            await asyncio.sleep(0.1)


async def test_probes_and_names(tmp_path: Path) -> None:
    with running_server(tmp_path, "--device", "cpu", *SMALL, env=ENVIRONMENT) as server:
        for process in (*server.children("shard"), *server.children("router")):
            assert "hunter22" not in str(process.environ()) + str(process.cmdline())
        async with aiohttp.ClientSession(server.url) as session:
            for path in ("/startup", "/live", "/ready", "/health", "/v1/endpoints/1"):
                assert await status(session, path) == 200, path
            assert await status(session, "/info") == 401
            body = {"instances": [{"inputs": "Hello", "parameters": {"max_new_tokens": 3}}]}
            predict = "/v1/endpoints/1:predict"
            async with session.post(predict, json=body, headers=KEY) as answer:
                assert answer.status == 200 and len((await answer.json())["predictions"]) == 1
            async with session.get("/info", headers=KEY) as answer:
                assert (await answer.json())["max_total_tokens"] == 512
            # a shard that stands still: nothing should be sent here, and nothing be killed for it
            [shard] = server.children("shard")
            shard.suspend()
            try:
                await becomes(session, "/ready", 503)
                assert await status(session, "/live") == 200
            finally:
                shard.resume()
            await becomes(session, "/ready", 200)
            # a drain: the stream that runs goes on, the balancer is told
            long = {"inputs": "a", "parameters": {"max_new_tokens": 400, "ignore_eos_token": True}}
            async with session.post("/generate_stream", json=long, headers=KEY) as stream:
                await stream.content.readline()
                server.process.send_signal(signal.SIGTERM)
                await becomes(session, "/ready", 503)
                assert await status(session, "/live") == 200
                text = await stream.content.read()
        assert b'"generated_text":"' in text
        assert server.process.wait(60) == 0
