"""Who may have what: every route of the table has a row here, and what is not public answers nobody
without a key, however its path is written.

A new route without a row fails, so that somebody decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

KEY = "correct-Horse.battery"
PUBLIC, KEYED = "public", "needs a key"

# one row a route; HEAD goes with GET
ROWS = {
    ("GET", "/"): PUBLIC,
    ("GET", "/health"): PUBLIC,
    ("GET", "/ping"): PUBLIC,
    ("GET", "/startup"): PUBLIC,
    ("GET", "/live"): PUBLIC,
    ("GET", "/ready"): PUBLIC,
    ("GET", "/metrics"): PUBLIC,
    ("GET", "/docs"): PUBLIC,
    ("GET", "/page/{name}"): PUBLIC,
    ("GET", "/of-a-platform"): PUBLIC,  # --health-route
    ("POST", "/"): KEYED,
    ("POST", "/generate"): KEYED,
    ("POST", "/generate_stream"): KEYED,
    ("POST", "/v1/chat/completions"): KEYED,
    ("POST", "/v1/completions"): KEYED,
    ("POST", "/v1/responses"): KEYED,
    ("POST", "/v1/messages"): KEYED,
    ("POST", "/v1/messages/count_tokens"): KEYED,
    ("POST", "/invocations"): KEYED,
    ("POST", "/vertex"): KEYED,
    ("POST", "/predict-of-a-platform"): KEYED,  # --predict-route
    ("POST", "/tokenize"): KEYED,
    ("POST", "/detokenize"): KEYED,
    ("POST", "/chat_tokenize"): KEYED,
    ("GET", "/model_info"): KEYED,
    ("GET", "/get_model_info"): KEYED,
    ("GET", "/server_info"): KEYED,
    ("GET", "/get_server_info"): KEYED,
    ("GET", "/flush_cache"): KEYED,
    ("POST", "/flush_cache"): KEYED,
    ("POST", "/reset_prefix_cache"): KEYED,
    ("GET", "/version"): KEYED,
    ("GET", "/load"): KEYED,
    ("POST", "/abort_request"): KEYED,
    ("POST", "/concate_and_append_request"): KEYED,
    ("GET", "/health_generate"): KEYED,
    ("GET", "/info"): KEYED,
    ("GET", "/v1/models"): KEYED,
    ("GET", "/v1/models/{id}"): KEYED,
    ("GET", "/openapi.json"): KEYED,
    ("GET", "/api-doc/openapi.json"): KEYED,
    ("POST", "/v1/files"): KEYED,
    ("GET", "/v1/files"): KEYED,
    ("GET", "/v1/files/{id}"): KEYED,
    ("GET", "/v1/files/{id}/content"): KEYED,
    ("DELETE", "/v1/files/{id}"): KEYED,
    ("POST", "/v1/batches"): KEYED,
    ("GET", "/v1/batches"): KEYED,
    ("GET", "/v1/batches/{id}"): KEYED,
    ("POST", "/v1/batches/{id}/cancel"): KEYED,
}
GUARDED = sorted(row for row, kind in ROWS.items() if kind == KEYED)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "QUERY")
# headers that some servers and proxies take for the path or the method
HEADERS = (
    "X-Original-URL: /health",
    "X-Rewrite-URL: /health",
    "X-Forwarded-Path: /health",
    "X-Forwarded-Prefix: /health",
    "X-HTTP-Method-Override: GET",
    "Forwarded: for=127.0.0.1;host=localhost",
    "X-Forwarded-For: 127.0.0.1",
    "Authorization: Bearer",
    "Authorization: Bearer \r\nAuthorization: Bearer x",
    "x-api-key:",
    "Cookie: key=x",
)


@pytest.fixture
def place() -> str:
    """Nothing of this gets as far as the engine."""
    return "beside"


@pytest.fixture
async def client(serve: Any, tmp_path: Path) -> Any:
    return await serve(
        api_key=(KEY,),
        batch_folder=str(tmp_path / "kept"),
        batch_storage_limit=10**6,
        health_route="/of-a-platform",
        predict_route="/predict-of-a-platform",
        root_path="/prefix",
    )


def filled(path: str) -> str:
    return path.replace("{id}", "file-" + "0" * 32).replace("{name}", "dom.js")


def spellings(path: str) -> Iterator[str]:
    """The path as it is, and as it might be written by who wants to be taken for somebody else."""
    path = filled(path)
    encoded = "".join(f"%{ord(letter):02x}" for letter in path[1:])
    yield from (path, f"/prefix{path}", f"/{encoded}", f"/{encoded.upper()}")
    yield from (f"/{path}", f"//{path}", f"{path}/", f"{path}//", f"/.{path}", f"/x/..{path}")
    yield from (f"/health/..{path}", f"/prefix/..{path}", f"/health/%2e%2e{path}")
    yield from (f"/health%2f..{path}", f"{path}/.", f"{path}/../health", f"/page/..{path}")
    yield from (f"{path}/%2e%2e/health", f"{path}%2f", f"{path}%00", f"{path}%20")
    yield from (f"{path};x=/health", f"{path}?/health", f"{path}?path=/health#/health")
    yield from (f"{path}#/health", f"{path}%23/health", f"\\{path[1:]}", path.swapcase())
    yield from (f"http://127.0.0.1{path}", f"http://health{path}", f"http://x/health/..{path}")
    yield from (f"//health{path}", f"http:{path}", f"https://u:p@x{path}")


async def statuses(client: Any, requests: list[bytes]) -> list[bytes]:
    """Answers to requests, each on a connection of its own."""
    one_at_a_time = asyncio.Semaphore(16)

    async def ask(request: bytes) -> bytes:
        async with one_at_a_time:
            return bytes(await client.raw(request))

    return await asyncio.gather(*map(ask, requests))


def request(method: str, target: str, header: str = "X: x") -> bytes:
    body = '{"inputs":"x"}' if method not in ("GET", "HEAD") else ""
    return (
        f"{method} {target} HTTP/1.1\r\nHost: x\r\n{header}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode("latin-1")


async def test_every_route_has_a_row(client: Any) -> None:
    table = {(route.method, route.resource.canonical) for route in client.app.router.routes()}
    heads = {(method, path) for method, path in table if method == "HEAD"}
    assert table - heads == ROWS.keys(), "decide who may have it, and add a row"
    assert {("GET", path) for _, path in heads} == {row for row in ROWS if row[0] == "GET"}


async def test_public_routes_answer_without_a_key(client: Any) -> None:
    targets = [filled(path) for (_, path), kind in ROWS.items() if kind == PUBLIC]
    asked = [request(method, target) for target in targets for method in ("GET", "HEAD")]
    for wanted, answer in zip(asked, await statuses(client, asked), strict=True):
        assert answer.startswith(b"HTTP/1.1 200"), (wanted, answer[:200])


async def test_nobody_gets_in_without_a_key(client: Any) -> None:
    """400 where it is no request, 401 where it is one."""
    asked = []
    for method, path in GUARDED:
        asked += [request(method, spelling) for spelling in spellings(path)]
        asked += [request(method, filled(path), header) for header in HEADERS]
        others = [m for m in METHODS if ("GET" if m == "HEAD" else m, path) not in ROWS]
        asked += [request(other, filled(path)) for other in others]
    for wanted, answer in zip(asked, await statuses(client, asked), strict=True):
        assert answer.split(b" ", 2)[1] in (b"400", b"401"), (wanted, answer[:200])
        assert b"some/model" not in answer
    assert not client.engine.jobs and not client.engine.emptied


async def test_the_table_would_notice(client: Any) -> None:
    """With the key the same requests are let through: 401 is not all that there is."""
    key = f"Authorization: Bearer {KEY}"
    asked = [request(method, filled(path), key) for method, path in GUARDED]
    for wanted in asked:  # in turn: the cache is emptied while nothing runs
        answer = await client.raw(wanted)
        assert answer.split(b" ", 2)[1] in (b"200", b"404", b"415", b"422"), (wanted, answer[:200])
