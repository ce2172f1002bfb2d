"""What stands before every route: key, host, origin, size and kind of the body."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from typing import Any

import pytest

KEY = "correct-Horse.battery"
PROBES = ("/", "/health", "/ping", "/metrics", "/startup", "/live", "/ready")
PAGES = ("/docs", "/page/{name}")  # that ask for a key and hold nothing
PUBLIC = {("GET", path) for path in (*PROBES, *PAGES)}
HOSTS = ["x", "a/health?", "a/metrics", "a#", "a?", "a@b", "", "a b", "x\r\nHost: y"]


@pytest.fixture
def place() -> str:
    """Nothing of this gets as far as the engine."""
    return "beside"


def all_routes(client: Any) -> set[tuple[str, str]]:
    """Every method and path that the application answers to, straight from its route table."""
    found = {(route.method, route.resource.canonical) for route in client.app.router.routes()}
    assert len(found) > 25
    return found


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def raw_request(method: str, path: str, host: str, key: str | None = None) -> bytes:
    authorization = "" if key is None else f"Authorization: Bearer {key}\r\n"
    body = '{"inputs":"x","messages":[],"prompt":"x","instances":[]}' if method == "POST" else ""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{authorization}Connection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


@pytest.mark.parametrize("host", HOSTS)
async def test_no_route_without_key(serve: Any, host: str) -> None:
    """New routes are in the table, so they fail here until they need the key too."""
    client = await serve(api_key=(KEY,))
    for method, path in all_routes(client):
        public = ("GET" if method == "HEAD" else method, path) in PUBLIC
        for target in (
            path.replace("{id}", "m").replace("{name}", "dom.js"),
            f"http://evil/health?{path}",
        ):
            answer = await client.raw(raw_request(method, target, host))
            if public and "evil" not in target:
                assert status_of(answer) in (200, 400)
            elif target == path:
                assert status_of(answer) in (400, 401), (method, path, host, answer[:200])
    assert not client.engine.jobs


async def test_paths_that_only_look_public(serve: Any) -> None:
    client = await serve(api_key=(KEY,))
    for path in (
        "/health/", "//health", "/health/../info", "/%68ealth/..%2finfo", "/health%2f..%2finfo",
        "/HEALTH", "/health;x", "/metrics/x", "/info?/health", "/info#/health", "/nowhere",
        "http://127.0.0.1/info", "*",
    ):  # fmt: skip
        answer = await client.raw(raw_request("GET", path, "x"))
        assert status_of(answer) in (400, 401, 404), path
        assert b"model_id" not in answer
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        assert status_of(await client.raw(raw_request(method, "/health", "x"))) in (401, 400)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Bearer {KEY}", 200),
        (f"bearer {KEY}", 200),
        (f"Bearer {KEY.lower()}", 401),  # TGI took any case
        (f"Bearer {KEY[:-1]}", 401),
        (f"Bearer {KEY}x", 401),
        (f"Basic {KEY}", 401),
        (KEY, 401),
        ("Bearer", 401),
        ("Bearer \u00fc", 401),
        (None, 401),
    ],
)
async def test_key(serve: Any, header: str | None, status: int) -> None:
    client = await serve(api_key=(KEY,))
    headers = {} if header is None else {"Authorization": header}
    assert (await client.get("/info", headers=headers))[0] == status
    answer, body = await client.post("/v1/chat/completions", {}, headers=headers)
    assert answer == (422 if status == 200 else 401)
    assert KEY not in json.dumps(body)


async def test_key_is_compared_in_constant_time() -> None:
    import ast
    import inspect

    from penstock_router.api import keys

    tree = ast.parse(inspect.getsource(keys.Keys))
    compared = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    assert not [text for text in compared if "given" in text or "digest ==" in text]
    assert "hmac.compare_digest" in ast.unparse(tree)


async def test_origins(serve: Any) -> None:
    client = await serve(api_key=(KEY,))
    headers = {"Origin": "http://page", "Access-Control-Request-Method": "POST"}
    async with client.session.options(client.url + "/generate", headers=headers) as response:
        assert response.status == 200
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert "authorization" in response.headers["Access-Control-Allow-Headers"]
        assert response.headers["Access-Control-Allow-Methods"] == "GET,POST,DELETE"
    client = await serve(cors_allow_origin=("http://page",))
    for origin, allowed in [("http://page", "http://page"), ("http://other", None)]:
        for path, body in (("/generate", {"inputs": "x"}), ("/generate_stream", {"inputs": "x"})):
            async with client.session.post(
                client.url + path, json=body, headers={"Origin": origin}
            ) as response:
                assert response.headers.get("Access-Control-Allow-Origin") == allowed


async def test_body_too_large(serve: Any) -> None:
    client = await serve()
    assert (await client.post("/generate", {"inputs": "x" * 20_000}))[0] == 413
    head = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    answer = await client.raw(head + b"Connection: close\r\nContent-Length: 20001\r\n\r\n")
    assert status_of(answer) == 413  # not a byte of the body was needed

    async def endless() -> Any:
        for _ in range(100):
            yield b" " * 1000

    headers = {"Content-Type": "application/json"}
    async with client.session.post(
        client.url + "/generate", data=endless(), headers=headers
    ) as response:
        assert response.status == 413
        assert (await response.json())["error_type"] == "payload_too_large"
    padded = b'{"inputs":"x"}'.ljust(20_000)  # exactly the limit
    async with client.session.post(
        client.url + "/generate", data=padded, headers=headers
    ) as response:
        assert response.status == 200


async def test_compressed_body(serve: Any) -> None:
    client = await serve()
    bomb = gzip.compress(b"\0" * 10_000_000)
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    async with client.session.post(
        client.url + "/generate", data=bomb, headers=headers
    ) as response:
        assert response.status == 415


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (b'{"inputs":"x"}', "application/json", 200),
        (b'{"inputs":"x"}', "application/json; charset=utf-8", 200),
        (b'{"inputs":"x"}', "application/vnd.api+json", 200),
        (b'{"inputs":"x"}', "application/x-www-form-urlencoded", 415),
        (b'{"inputs":"x"}', None, 415),
        (b'{"inputs":', "application/json", 400),
        (b"", "application/json", 400),
        (b"[" * 200, "application/json", 400),
        (b"[" * 5000, "application/json", 422),
        (b'{"inputs":NaN}', "application/json", 422),
        (b'{"inputs":"\xff"}', "application/json", 400),
        (b"[]", "application/json", 422),
        (b"null", "application/json", 422),
    ],
)
async def test_kind_of_body(serve: Any, data: bytes, content_type: str | None, status: int) -> None:
    client = await serve()
    kind = f"Content-Type: {content_type}\r\n" if content_type else ""
    for path in ("/generate", "/tokenize", "/v1/completions" if status != 200 else "/"):
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{kind}Connection: close\r\n"
        answer = await client.raw(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        assert status_of(answer) == status, (path, answer)
        if status != 200:
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error_type"]


async def test_unknown_paths_and_methods(serve: Any) -> None:
    client = await serve()
    for path in ("/nowhere", "/v2/models", "/%0a%1b[31mX", "/\u00e9"):
        status, body = await client.get(path)
        assert status == 404 and json.loads(body)["error_type"] == "not_found"
    async with client.session.get(client.url + "/generate") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-1.2_3", True), ("a" * 128, True), ("a" * 129, False), ("a b", False), ("\u00e9", False)],
)
async def test_request_id(serve: Any, given: str, kept: bool) -> None:
    client = await serve()
    for path in ("/generate", "/generate_stream"):
        async with client.session.post(
            client.url + path, json={"inputs": "x"}, headers={"x-request-id": given}
        ) as response:
            answered = response.headers["x-request-id"]
            assert (answered == given) is kept
            assert kept or len(answered) == 32


async def test_slow_body_holds_no_permit(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock_router.api import bodies

    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.2)
    client = await serve(max_concurrent_requests=1)
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(
        b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{"
    )
    await asyncio.sleep(0.05)
    assert (await client.post("/generate", {"inputs": "x"}))[0] == 200
    assert status_of(await asyncio.wait_for(reader.read(1000), 60)) == 408
    writer.close()


async def test_documents(serve: Any) -> None:
    """Every route is described."""
    client = await serve()
    openapi = json.loads((await client.get("/openapi.json"))[1])
    assert openapi == json.loads((await client.get("/api-doc/openapi.json"))[1])
    for method, path in all_routes(client):
        if method != "HEAD" and path not in PAGES and "openapi" not in path:
            assert method.lower() in openapi["paths"][path]
    references = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                references.add(value["$ref"].removeprefix("#/components/"))
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(openapi)
    components = openapi["components"]
    assert references <= {f"{kind}/{name}" for kind in components for name in components[kind]}
    assert ("securitySchemes" in components) is bool(openapi["paths"]["/info"]["get"]["security"])
    properties = openapi["components"]["schemas"]["GenerateParameters"]["properties"]
    assert {"temperature", "top_k", "priority", "logit_bias"} <= properties.keys()


async def test_pages_load_nothing_from_elsewhere(serve: Any) -> None:
    """Only browsers get one at /, and every file it names is there."""
    client = await serve(api_key=(KEY,))
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    assert await client.get("/", headers={"Accept": "*/*"}) == (200, b"")
    for path in ("/", "/docs"):
        status, page = await client.get(path, headers=browser)
        assert status == 200 and b"<!doctype html>" in page
        named = re.findall(rb'(?:src|href)="(page/[\w.]+)"', page)
        scripts = {name.decode() for name in named}
        assert len(scripts) >= 3 and b"http://" not in page and b"https://" not in page
        for script in scripts:
            status, text = await client.get("/" + script)
            assert status == 200 and b"https://" not in text
            more = re.findall(rb'from "\./([\w.]+)"', text)
            for name in more:
                assert (await client.get(f"/page/{name.decode()}"))[0] == 200
    for name in ("__init__.py", "nothing.js", "%2e%2e%2fserver.py"):
        assert (await client.get(f"/page/{name}"))[0] in (401, 404)


async def test_who_asks_is_known_to_the_scheduler(serve: Any) -> None:
    """By the key's name, else by the address."""
    body = {"inputs": "x", "parameters": {"max_new_tokens": 1}}
    client = await serve()
    await client.post("/generate", body)
    assert client.engine.jobs[-1].request.client == "127.0.0.1"
    client = await serve(trusted_proxies=("127.0.0.1",))
    await client.post("/generate", body)
    await client.post("/generate", body, headers={"X-Forwarded-For": "10.0.0.7"})
    assert [job.request.client for job in client.engine.jobs[-2:]] == ["", "10.0.0.7"]
