"""/startup, /live and /ready, and paths that a platform chose."""

import asyncio
import json
from typing import Any

import pytest

from penstock_router.api.platform_routes import with_platform_routes
from penstock_router.api.routes import ROUTES
from router.api.conftest import beside_only
from support.fake_engine import FakeEngine

PROBES = ("/startup", "/live", "/ready")


async def statuses(client: Any) -> list[int]:
    return [(await client.get(path))[0] for path in PROBES]


async def test_a_server_that_serves(serve: Any) -> None:
    client = await serve(FakeEngine(), api_key=("hunter22",))
    assert await statuses(client) == [200, 200, 200], "and nobody needs a key to ask"


@beside_only
async def test_trouble_of_the_shards_is_no_reason_to_kill_the_container(serve: Any) -> None:
    client = await serve(FakeEngine(trouble="no answer from shard 1"))
    assert await statuses(client) == [200, 200, 503]
    assert json.loads((await client.get("/ready"))[1]) == {
        "error": "unhealthy: no answer from shard 1",
        "error_type": "healthcheck",
    }
    client.engine.trouble = ""
    assert await statuses(client) == [200, 200, 200]


async def test_drain(serve: Any) -> None:
    client = await serve(FakeEngine(hold=True, script=[10, 2]))
    running = asyncio.create_task(client.stream("/generate_stream", {"inputs": "hi"}))
    while not client.engine.jobs:
        await asyncio.sleep(0)
    client.drain()
    status, body = await client.get("/ready")
    assert status == 503 and b"the server is shutting down" in body
    assert await statuses(client) == [200, 200, 503]
    client.engine.release()
    assert (await running)[0] == 200


async def test_vertex_paths(serve: Any) -> None:
    paths = {"predict_route": "/v1/endpoints/1:predict", "health_route": "/v1/endpoints/1"}
    client = await serve(FakeEngine(script=[10, 2]), api_key=("hunter22",), **paths)
    assert (await client.get("/v1/endpoints/1"))[0] == 200
    url = client.url + "/v1/endpoints/1:predict"
    body = {"instances": [{"inputs": "hi"}]}
    async with client.session.post(url, json=body) as answer:
        assert answer.status == 401, "a further path of a route that needs the key needs it too"
    headers = {"Authorization": "Bearer hunter22"}
    async with client.session.post(url, json=body, headers=headers) as answer:
        assert answer.status == 200 and len((await answer.json())["predictions"]) == 1


@pytest.mark.parametrize("predict, health", [("/vertex", "/ping"), ("/generate", "/health")])
def test_a_path_that_exists_keeps_its_meaning(predict: str, health: str) -> None:
    assert with_platform_routes(ROUTES, predict, health) == ROUTES
