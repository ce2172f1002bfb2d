"""Limits of API keys, as clients meet them: beside what decides, and in front of it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from penstock_proto.api_keys import ApiKey, digest_of
from support.fake_engine import FakeEngine

PLAIN = "a-plain-key"


def key(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "key": f"key-of-{name}", **fields}


def bearer(name: str) -> dict[str, Any]:
    return {"headers": {"Authorization": f"Bearer key-of-{name}"}}


async def ask(client: Any, name: str, path: str = "/generate", **body: Any) -> tuple[int, Any, Any]:
    """Status, headers and body."""
    body = body or {"inputs": "hi", "parameters": {"max_new_tokens": 5}}
    async with client.session.post(client.url + path, json=body, **bearer(name)) as response:
        return response.status, response.headers, await response.json()


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def test_requests_a_minute(serve: Any) -> None:
    """With the headers that OpenAI's clients read; other keys and looks are not concerned."""
    keys = (key("a", requests_per_minute=2), key("b"), PLAIN)
    client = await serve(FakeEngine(script=[10, 2]), api_key=keys)
    for left in (1, 0):
        status, headers, _ = await ask(client, "a")
        assert status == 200
        assert headers["x-ratelimit-limit-requests"] == "2"
        assert headers["x-ratelimit-remaining-requests"] == str(left)
        assert 0 < float(headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 60
        assert "x-ratelimit-limit-tokens" not in headers
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    for path, body in (("/generate", {}), ("/v1/chat/completions", chat), ("/tokenize", chat)):
        status, headers, answer = await ask(client, "a", path, **body)
        assert status == 429 and answer["error_type"] == "rate_limit"
        assert "The API key 'a' may send 2 requests a minute" in str(answer["error"])
        assert 0 < int(headers["Retry-After"]) <= 30
        assert 0 < int(headers["Retry-After-Ms"]) <= 30_000
        assert headers["x-ratelimit-remaining-requests"] == "0"
        if path.startswith("/v1"):
            assert answer["error"]["code"] == "rate_limit_exceeded"
    assert len(client.engine.jobs) == 2
    assert (await client.get("/info", **bearer("a")))[0] == 200
    assert (await ask(client, "b"))[0] == 200
    status, headers, _ = await ask(client, "b")
    assert status == 200 and not [name for name in headers if name.startswith("x-ratelimit")]


async def test_tokens_a_minute(serve: Any) -> None:
    """What it might take is reserved, and what it did not take comes back."""
    fake = FakeEngine(hold=True, script=[10, 11, 2])
    client = await serve(fake, api_key=(key("a", tokens_per_minute=60),))
    body = {"inputs": "hi", "parameters": {"max_new_tokens": 40}}
    running = asyncio.create_task(ask(client, "a", **body))
    await until(lambda: fake.jobs)
    prompt = len(fake.requests[0].prompt)
    status, headers, answer = await ask(client, "a", **body)
    assert status == 429 and "may take 60 tokens a minute" in answer["error"]
    assert int(headers["x-ratelimit-remaining-tokens"]) <= 60 - prompt - 40 + 1
    assert int(headers["Retry-After"]) >= 10
    small = {"inputs": "hi", "parameters": {"max_new_tokens": 2}}
    another = asyncio.create_task(ask(client, "a", **small))
    await until(lambda: len(fake.jobs) == 2)
    fake.release()
    status, headers, _ = await running
    assert status == 200 and headers["x-ratelimit-limit-tokens"] == "60"
    assert (await another)[0] == 200
    status, headers, _ = await ask(client, "a", **body)
    assert status == 200, "what was reserved in vain is back"
    assert await client.count('penstock_key_prompt_tokens_total{key="a"}') == 3 * prompt
    assert await client.count('penstock_key_generated_tokens_total{key="a"}') == 3 + 2 + 3
    assert await client.count('penstock_key_requests_total{key="a"}') == 4
    assert await client.count('penstock_key_refused_total{key="a"}') == 1


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
async def test_requests_at_a_time_end_with_their_clients(serve: Any, path: str) -> None:
    fake = FakeEngine(hold=True)
    client = await serve(fake, api_key=(key("a", concurrent_requests=1),))
    running = asyncio.create_task(ask(client, "a", path))
    await until(lambda: fake.jobs)
    status, headers, answer = await ask(client, "a")
    assert status == 429 and headers["Retry-After"] == "1"
    assert "may have 1 requests at a time" in answer["error"]
    running.cancel()
    await until(lambda: not client.quotas.open)
    fake.hold, fake.script = False, [10, 2]
    assert (await ask(client, "a"))[0] == 200


async def test_who_leaves_is_charged_for_what_came(serve: Any) -> None:
    fake = FakeEngine(script=[10] * 100, tokens_per_turn=1)
    client = await serve(fake, api_key=(key("a", tokens_per_minute=10_000),))
    fake.hold = True
    task = asyncio.create_task(ask(client, "a", "/generate_stream"))
    await until(lambda: fake.jobs)
    job = fake.jobs[0]
    for _ in range(3):
        fake._step(job)
    if client.front is not None:
        await client.front.round_trip()
    task.cancel()
    await until(lambda: not client.quotas.open)
    assert await client.count('penstock_key_generated_tokens_total{key="a"}') == 3
    assert await client.count('penstock_key_prompt_tokens_total{key="a"}') == len(
        job.request.prompt
    )


async def test_limits_come_before_the_body(serve: Any) -> None:
    """Nothing of a request beyond them is read."""
    client = await serve(api_key=(key("a", requests_per_minute=1),))
    await ask(client, "a")
    head = (
        b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer key-of-a\r\nContent-Length: 19000\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(head)  # and not a byte of the body
    text = await asyncio.wait_for(reader.readuntil(b"\r\n"), 60)
    assert text.startswith(b"HTTP/1.1 429")
    writer.close()


async def test_priority_has_a_ceiling(serve: Any) -> None:
    client = await serve(FakeEngine(script=[10, 2]), api_key=(key("a", max_priority=3),))
    for priority, status in ((4, 422), (3, 200), (-100, 200)):
        parameters = {"max_new_tokens": 3, "priority": priority}
        found, _, answer = await ask(client, "a", inputs="hi", parameters=parameters)
        assert found == status
        if status == 422:
            assert "`priority` must be at most 3 with this API key. Given: 4" in answer["error"]
    more = {"Authorization": "Bearer key-of-a", "x-priority": "4"}
    assert (await client.post("/generate", {"inputs": "hi"}, headers=more))[0] == 422


async def test_a_key_known_by_its_digest(serve: Any) -> None:
    keys = ({"name": "d", "sha256": digest_of("key-of-d")},)
    client = await serve(FakeEngine(script=[10, 2]), api_key=keys)
    assert (await ask(client, "d"))[0] == 200
    for wrong in (digest_of("key-of-d"), "key-of-D", "key-of-d "):
        headers = {"Authorization": f"Bearer {wrong}"}
        assert (await client.get("/info", headers=headers))[0] == 401 or wrong.endswith(" ")


async def test_batches_need_the_key_itself(serve: Any, tmp_path: Path) -> None:
    """They are sent with it, later."""
    keys = ({"name": "d", "sha256": digest_of("key-of-d")}, key("a"))
    client = await serve(api_key=keys, batch_folder=str(tmp_path), batch_storage_limit=10**6)
    body = {
        "input_file_id": "file-" + "0" * 32,
        "endpoint": "/v1/completions",
        "completion_window": "24h",
    }
    status, _, answer = await ask(client, "d", "/v1/batches", **body)
    assert status == 422 and "no more than the SHA-256" in answer["error"]["message"]
    status, _, answer = await ask(client, "a", "/v1/batches", **body)
    assert status == 422 and "a file of yours" in answer["error"]["message"]


async def test_keys_with_one_salt_share_prefixes(serve: Any) -> None:
    keys = (key("a", salt="s"), key("b", salt="s"), key("c"), key("d", salt="key-of-c"))
    client = await serve(FakeEngine(script=[10, 2]), api_key=keys)
    for name in "abcd":
        assert (await ask(client, name))[0] == 200
    a, b, c, d = (request.cache_salt for request in client.engine.requests)
    assert a == b and len({a, c, d}) == 3


async def test_the_name_stands_in_log_and_metrics_and_the_key_nowhere(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    keys = (key("team-a", requests_per_minute=3), PLAIN)
    client = await serve(FakeEngine(script=[10, 2]), api_key=keys)
    caplog.set_level(logging.INFO, "penstock_router.api")
    await ask(client, "team-a")
    await ask(client, "team-a", "/tokenize", inputs="hi")
    await ask(client, "team-a", inputs="")
    await ask(client, "team-a")
    headers = {"Authorization": f"Bearer {PLAIN}"}
    await client.post("/generate", {"inputs": "hi"}, headers=headers)
    await client.get("/info")  # nobody's
    records = [r for r in caplog.records if r.name == "penstock_router.api"]
    found = [(r.getMessage(), r.fields.get("key"), r.fields["status"]) for r in records]  # type: ignore[attr-defined]
    assert found == [
        ("Success", "team-a", 200),
        ("Success", "team-a", 200),
        ("Failure", "team-a", 422),
        ("Failure", "team-a", 429),
        ("Success", "unnamed", 200),
        ("Failure", None, 401),
    ]
    page = (await client.get("/metrics"))[1].decode()
    assert 'penstock_key_requests_total{key="team-a"} 3' in page
    assert 'penstock_key_requests_total{key="unnamed"} 1' in page
    for secret in ("key-of-team-a", PLAIN, digest_of(PLAIN)[:12]):
        assert secret not in page and not any(secret in str(r.__dict__) for r in caplog.records)


async def test_without_keys_there_is_nothing_of_it(serve: Any) -> None:
    client = await serve(FakeEngine(script=[10, 2]))
    assert (await client.post("/generate", {"inputs": "hi"}))[0] == 200
    assert b"penstock_key_" not in (await client.get("/metrics"))[1]
    assert not client.quotas.open


async def test_other_keys_count_at_once(serve: Any) -> None:
    """As on SIGHUP: a name keeps what it used."""
    client = await serve(FakeEngine(script=[10, 2]), api_key=(key("a", requests_per_minute=2),))
    await ask(client, "a")
    changed = (ApiKey.of(key("a", requests_per_minute=1)), ApiKey.of(key("b")))
    client.quotas.replace(changed)
    if client.front is None:
        from penstock_router.api.keys import KEYS

        client.app[KEYS].replace(changed)
    else:
        from penstock_router.api.keys import KEYS

        client.front.engine.on_keys = client.app[KEYS].replace
        client.front.link.replace_keys(changed)
        await client.front.round_trip()
    assert (await ask(client, "b"))[0] == 200
    assert (await ask(client, "a"))[0] == 200  # one of two was left, and one fits
    status, headers, _ = await ask(client, "a")
    assert status == 429 and headers["x-ratelimit-limit-requests"] == "1"
