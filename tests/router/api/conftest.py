"""A real server on loopback: the whole API over a fake engine.

Every test that takes `serve` runs twice: with the API beside the engine, and with the API in front
of it, behind frames and a pair of sockets. `@beside_only` is for what no frame can change.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import web

from penstock_proto.front_pb2 import ToFront
from penstock_router.api import make_app, make_runner
from penstock_router.api.interface import Engine
from penstock_router.api.interface import Metrics as ApiMetrics
from penstock_router.api.quota import Ledger, NearLedger
from penstock_router.api.service import SERVICE
from penstock_router.config import RouterConfig
from penstock_router.metrics import Metrics
from penstock_router.quotas import Quotas
from penstock_router.text import TextModel
from support.fake_engine import FakeEngine
from support.joined_front import JoinedFront, joined_front
from support.small_text import byte_level, write_folder

CONFIG = RouterConfig(
    model_path="",
    model_id="some/model",
    model_sha="abc",
    served_model_name=(),
    tokenizer_config_path=None,
    tool_call_parser="auto",
    reasoning_parser="auto",
    shard_sockets=(),
    listener=-1,  # tests bring their own
    prometheus_listener=None,
    http_processes=0,
    api_key=(),
    cors_allow_origin=(),
    max_connections_per_client=1000,
    max_requests_per_client=0,
    trusted_proxies=(),
    max_concurrent_requests=16,
    max_best_of=2,
    max_stop_sequences=4,
    max_top_n_tokens=5,
    max_input_tokens=None,
    max_total_tokens=None,
    waiting_served_ratio=0.3,
    max_batch_prefill_tokens=None,
    max_batch_total_tokens=None,
    max_waiting_tokens=20,
    max_batch_size=None,
    validation_workers=1,
    payload_limit=20_000,
    strict_requests=False,
    generation_config="auto",
    otlp_endpoint=None,
    otlp_protocol=None,
    otlp_service_name="router",
    watermark_gamma=0.5,
    watermark_delta=2.0,
    max_client_batch_size=4,
    graceful_termination_timeout=1.0,
    disable_prefix_cache=False,
    disable_shared_reads=False,
    disable_grammar_support=False,
    step_timeout=60.0,
)


@dataclasses.dataclass
class Client:
    """A running server, both of its sides, and a session that talks to it."""

    url: str
    port: int
    engine: FakeEngine
    front: JoinedFront | None  # where the API is not beside the engine
    text: TextModel
    runner: web.AppRunner
    session: aiohttp.ClientSession
    quotas: Quotas

    @property
    def app(self) -> web.Application:
        """What runs."""
        return self.runner.app

    async def post(self, path: str, body: Any, **kwargs: Any) -> tuple[int, Any]:
        """Status and decoded body."""
        async with self.session.post(self.url + path, json=body, **kwargs) as response:
            return response.status, await response.json()

    async def get(self, path: str, **kwargs: Any) -> tuple[int, bytes]:
        async with self.session.get(self.url + path, **kwargs) as response:
            return response.status, await response.read()

    async def stream(self, path: str, body: Any) -> tuple[int, str]:
        """Status and everything that came."""
        async with self.session.post(self.url + path, json=body) as response:
            return response.status, (await response.read()).decode()

    async def raw(self, data: bytes) -> bytes:
        """Send bytes on a connection of their own and read until the server closes it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        return answer

    def drain(self) -> None:
        """Turn new requests away, as SIGTERM does."""
        self.engine.draining = True
        if self.front is not None:
            self.front.link_frames.send(ToFront(draining=True))

    async def quiet(self) -> None:
        """Wait until nothing runs, every permit is back and nobody remembers a sequence."""
        permits, front = self.app[SERVICE].permits, self.front
        async with asyncio.timeout(60):
            while self.engine.live or permits.free != 16 or (front and front.entries):
                await asyncio.sleep(0.01)

    async def count(self, line: str) -> float:
        """The value of a sample in /metrics, with everything in it that was counted until now."""
        for row in (await self.app[SERVICE].metrics.scrape()).decode().splitlines():
            if row.startswith(line + " "):
                return float(row.rsplit(" ", 1)[1])
        raise AssertionError(f"no sample {line}")


Serve = Callable[..., Awaitable[Client]]


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Any]:
    """The loop that the router runs on: its transports and its clock differ from asyncio's."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    folder: Path = write_folder(tmp_path_factory.mktemp("model"), byte_level())
    return TextModel.load(folder, None, 1)


@pytest.fixture(params=["beside", "in front"])
def place(request: pytest.FixtureRequest) -> str:
    """Where the API is."""
    return str(request.param)


beside_only = pytest.mark.parametrize("place", ["beside"], indirect=True)


@pytest.fixture
async def serve(text: TextModel, place: str) -> AsyncIterator[Serve]:
    """Starts servers: `client = await serve(engine, api_key=("k",))`."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(fake: FakeEngine | None = None, **changes: Any) -> Client:
            fake = fake or FakeEngine()
            config = dataclasses.replace(CONFIG, **changes)
            counts = Metrics(fake.limits.max_input_tokens, fake.limits.max_total_tokens)
            quotas = Quotas(config.keys)
            counts.keys = quotas.samples
            ledger: Ledger = NearLedger(quotas)
            front = None
            engine: Engine = fake
            metrics: ApiMetrics = counts
            if place == "in front":
                front = await stack.enter_async_context(joined_front(fake, counts, quotas=quotas))
                engine, metrics, ledger = front.engine, front.metrics, front.ledger
            app = make_app(config, engine, text, metrics, ledger=ledger)
            runner = make_runner(app)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            session = await stack.enter_async_context(aiohttp.ClientSession())
            url = f"http://127.0.0.1:{port}"
            return Client(url, port, fake, front, text, runner, session, quotas)

        yield start
