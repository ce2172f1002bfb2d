"""HTTP in two processes of its own: the answers of one, and permits and counts that are shared.

Every request has a connection of its own, so that both processes serve: they take turns.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from support.server import Server, running_server

PERMITS = 6
ARGUMENTS = ("--device", "cpu", "--max-concurrent-requests", str(PERMITS))
QUESTION = "What is the capital of France?"
CHAT = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 12}
LONG = {"inputs": "Tell me a story.", "parameters": {"max_new_tokens": 1500, "ignore_eos": True}}
SHORT = {"inputs": "Hello", "parameters": {"max_new_tokens": 20, "ignore_eos": True}}


def tgi(**parameters: Any) -> dict[str, Any]:
    return {"inputs": QUESTION, "parameters": {"max_new_tokens": 12, **parameters}}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "generate": ("/generate", tgi(details=True)),
    "generate with its prompt": (
        "/generate",
        tgi(details=True, decoder_input_details=True, top_n_tokens=3),
    ),
    "generate, sampled": (
        "/generate",
        tgi(do_sample=True, seed=7, temperature=0.9, top_p=0.8, details=True),
    ),
    "generate to a stop": ("/generate", tgi(stop=["Par"], details=True)),
    "stream": ("/generate_stream", tgi(details=True, top_n_tokens=2)),
    "stream to a stop": ("/generate_stream", tgi(stop=["Par"], details=True)),
    "stream to its length": ("/generate_stream", tgi(max_new_tokens=3)),
    "compatible stream": ("/", {**tgi(stop=["is"]), "stream": True}),
    "chat": ("/v1/chat/completions", {**CHAT, "temperature": 0}),
    "chat with choices": (
        "/v1/chat/completions",
        {**CHAT, "n": 2, "seed": 3, "temperature": 0.8, "logprobs": True, "top_logprobs": 2},
    ),
    "chat stream to a stop": (
        "/v1/chat/completions",
        {
            **CHAT,
            "temperature": 0,
            "stop": ["Par"],
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    ),
    "completions": (
        "/v1/completions",
        {"prompt": [QUESTION, "Hello"], "max_tokens": 8, "logprobs": 2, "temperature": 0},
    ),
    "a prompt with ranks": (
        "/v1/completions",
        {"prompt": QUESTION, "max_tokens": 1, "prompt_logprobs": 1, "temperature": 0},
    ),
    "completions stream": (
        "/v1/completions",
        {"prompt": QUESTION, "max_tokens": 8, "stop": [" of", "Par"], "stream": True, "seed": 5},
    ),
    "tokenize": ("/tokenize", {"inputs": QUESTION}),
    "refusal": ("/generate", tgi(temperature=-1)),
}


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("beside")
    with running_server(folder, *ARGUMENTS, "--http-processes", "0") as server:
        assert not server.children("front")
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("front")
    with running_server(folder, *ARGUMENTS, "--http-processes", "2") as server:
        assert len(server.children("front")) == 2
        yield server


async def ask(server: Server, path: str, body: Any) -> tuple[int, str]:
    """Status and body of a request on a connection of its own."""
    async with (
        aiohttp.ClientSession(server.url) as session,
        session.post(path, json=body) as reply,
    ):
        return reply.status, await reply.text()


def plain(text: str) -> list[Any]:
    """Every JSON value of an answer or of its events, less what differs between two requests."""
    lines = [line.partition(":")[2] for line in text.split("\n") if line.startswith("data:")]
    values = [json.loads(line) for line in lines or [text] if line.strip() != "[DONE]"]
    return [_plain(value) for value in values] + [len(lines)]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        hidden = ("id", "created", "cached_tokens")
        return {
            name: _plain(inner)
            for name, inner in value.items()
            if name not in hidden or isinstance(inner, int) and name == "id"
        }
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value


@pytest.mark.parametrize("case", CASES)
async def test_the_answers_are_those_of_one_process(
    beside: Server, server: Server, case: str
) -> None:
    path, body = CASES[case]
    status, expected = await ask(beside, path, body)
    assert status == (422 if case == "refusal" else 200), expected
    if case.endswith("to a stop"):
        assert '"finish_reason":"stop' in expected
    for _ in range(2):  # each of the two processes
        there, text = await ask(server, path, body)
        assert (there, plain(text)) == (status, plain(expected))


async def metrics(server: Server) -> dict[str, float]:
    async with aiohttp.ClientSession(server.url) as session, session.get("/metrics") as reply:
        lines = (await reply.text()).splitlines()
    rows = (line.rsplit(" ", 1) for line in lines if line and line[0] != "#")
    return {name: float(value) for name, value in rows}


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.02)


class Stream:
    """A long stream on a connection of its own."""

    def __init__(self, server: Server, body: dict[str, Any]) -> None:
        self.lines: list[str] = []
        self.begun = asyncio.Event()
        self.task = asyncio.create_task(self._read(server, body))

    async def _read(self, server: Server, body: dict[str, Any]) -> None:
        async with (
            aiohttp.ClientSession(server.url) as session,
            session.post("/generate_stream", json=body) as reply,
        ):
            assert reply.status == 200, await reply.text()
            async for line in reply.content:
                if line.startswith(b"data:"):
                    self.lines.append(line[5:].decode())
                    self.begun.set()

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def streams(server: Server, count: int, body: dict[str, Any] = LONG) -> list[Stream]:
    """So many streams, which have begun."""
    made = [Stream(server, body) for _ in range(count)]
    await asyncio.wait_for(asyncio.gather(*(stream.begun.wait() for stream in made)), 60)
    return made


async def idle(server: Server) -> bool:
    now = await metrics(server)
    return now["penstock_kv_blocks_used"] == 0 and now["tgi_batch_current_size"] == 0


async def test_permits_are_those_of_the_server(server: Server) -> None:
    """All are out: 429 from either process. What clients leave is there again, for either."""
    running = await streams(server, PERMITS)
    refused = [await ask(server, "/generate", SHORT) for _ in range(4)]
    assert [status for status, _ in refused] == [429] * 4
    for stream in running[:3]:
        await stream.leave()

    async def three() -> bool:
        answers = await asyncio.gather(*(ask(server, "/generate", SHORT) for _ in range(3)))
        return [status for status, _ in answers] == [200] * 3

    await until(three)
    for stream in running[3:]:
        await stream.leave()
    await until(lambda: idle(server))


async def test_no_permit_is_lost_in_a_crowd(server: Server) -> None:
    before = await metrics(server)
    answers = await asyncio.gather(*(ask(server, "/generate", SHORT) for _ in range(80)))
    statuses = [status for status, _ in answers]
    assert set(statuses) == {200, 429} and statuses.count(200) >= PERMITS
    assert all(len(json.loads(text)["generated_text"]) for status, text in answers if status == 200)
    for _ in range(2):
        after = await asyncio.gather(*(ask(server, "/generate", SHORT) for _ in range(PERMITS)))
        assert [status for status, _ in after] == [200] * PERMITS
    for _ in range(2):  # whichever process is asked
        now = await metrics(server)
        grown = {name: now[name] - before[name] for name in now if name in before}
        assert grown["tgi_request_count"] == 80 + 2 * PERMITS
        assert grown["tgi_request_success"] == statuses.count(200) + 2 * PERMITS
        assert grown['tgi_request_failure{err="overloaded"}'] == statuses.count(429)
        assert grown["tgi_request_generated_tokens_count"] == grown["tgi_request_success"]


async def test_who_leaves_frees_its_sequence(server: Server) -> None:
    before = await metrics(server)
    running = await streams(server, 2)
    now = await metrics(server)
    assert now["tgi_batch_current_size"] == 2 and now["penstock_kv_blocks_used"] > 0
    for stream in running:
        await stream.leave()
    await until(lambda: idle(server))
    now = await metrics(server)
    name = "penstock_client_disconnects_total"
    assert now[name] - before[name] == 2


async def test_a_process_that_stands_still_holds_up_nobody_else(server: Server) -> None:
    """Nor does it lose anything: it goes on where it stood."""
    body = {**LONG, "parameters": {**LONG["parameters"], "max_new_tokens": 500}}
    running = await streams(server, 2, body)
    front = server.children("front")[0]
    front.send_signal(signal.SIGSTOP)
    try:
        await asyncio.wait(
            [stream.task for stream in running], timeout=60, return_when=asyncio.FIRST_COMPLETED
        )
        await asyncio.sleep(0.3)
        stalled = [stream for stream in running if not stream.task.done()]
        assert len(stalled) == 1, "one of the two streams is that of the process"
        heard = len(stalled[0].lines)
        assert heard < 500
    finally:
        front.send_signal(signal.SIGCONT)
    await asyncio.wait_for(asyncio.gather(*(stream.task for stream in running)), 60)
    for stream in running:
        assert len(stream.lines) == 500
        assert json.loads(stream.lines[-1])["generated_text"]
    texts = [[json.loads(line)["token"]["text"] for line in stream.lines] for stream in running]
    assert texts[0] == texts[1]
    assert await idle(server)


async def test_a_signal_for_the_group_is_no_end_of_a_front(server: Server) -> None:
    """A terminal sends its SIGINT to all; it is the router that says when it is over."""
    fronts = server.children("front")
    for front in fronts:
        front.send_signal(signal.SIGINT)
        front.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.2)
    assert all(front.status() != psutil.STATUS_ZOMBIE for front in fronts)
    assert [status for status, _ in [await ask(server, "/generate", SHORT) for _ in range(2)]] == [
        200,
        200,
    ]


def test_what_listens_is_the_router(server: Server) -> None:
    """Fronts get their connections from it, so a port is never shared with a stranger."""
    port = int(server.url.rsplit(":", 1)[1])
    [router] = server.children("router")
    for process in (router, *server.children("front")):
        listening = {
            connection.laddr.port
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == ({port} if process == router else set())
