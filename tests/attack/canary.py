"""The canary: a client that asks small things all the time and writes down how long each took.

A process of its own, so that what it measures is the server and not the attackers' event loop:
`python -m tests.attack.canary URL` prints a JSON line for each answer until it is ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

import aiohttp

PAUSE = 0.02  # seconds between an answer and the next question
TIMEOUT = 30.0
QUESTION = {
    "inputs": "What is the capital of France?",
    "parameters": {"max_new_tokens": 4, "do_sample": False},
}


async def ask(session: aiohttp.ClientSession, kind: str) -> str:
    """The status and, of a generation, the text; or the name of what was raised."""
    try:
        if kind == "health":
            async with session.get("/health") as reply:
                return str(reply.status)
        async with session.post("/generate", json=QUESTION) as reply:
            text = (await reply.json(content_type=None)).get("generated_text", "")
            return f"{reply.status} {text}".strip()
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return type(error).__name__


async def sing(url: str, kind: str) -> None:
    """Ask and print, for ever."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    async with aiohttp.ClientSession(url, timeout=timeout) as session:
        while True:
            start = time.monotonic()
            end = await ask(session, kind)
            sample = {"kind": kind, "start": start, "end": time.monotonic(), "answer": end}
            print(json.dumps(sample), flush=True)
            await asyncio.sleep(PAUSE)


async def main(url: str) -> None:
    """Both songs, as long as whoever started this lives."""
    parent = os.getppid()
    songs = [asyncio.create_task(sing(url, kind)) for kind in ("generate", "health")]
    while os.getppid() == parent:
        await asyncio.sleep(0.5)
    for song in songs:
        song.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
