"""With whom a request shares cached prefixes: by its key, and by what it says itself."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

HI = [{"role": "user", "content": "hi"}]
KEYS = ("first, with a comma", "second", "third")
# A body that says so itself, for every shape of one.
BODIES = {
    "/generate": lambda salt: {"inputs": "x", "parameters": {"cache_salt": salt}},
    "/generate_stream": lambda salt: {"inputs": "x", "parameters": {"cache_salt": salt}},
    "/v1/completions": lambda salt: {"prompt": "x", "cache_salt": salt},
    "/v1/chat/completions": lambda salt: {"messages": HI, "cache_salt": salt},
    "/vertex": lambda salt: {"instances": [{"inputs": "x", "parameters": {"cache_salt": salt}}]},
    "/invocations": lambda salt: {"messages": HI, "cache_salt": salt},
}


async def salt(client: Any, path: str, given: str | None, key: str | None) -> bytes:
    """That of the sequence which a request makes."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    done = len(client.engine.jobs)
    body = BODIES[path](given)
    async with client.session.post(client.url + path, json=body, headers=headers) as response:
        assert response.status == 200 and "x-ignored-fields" not in response.headers
        await response.read()
    [job] = client.engine.jobs[done:]
    return bytes(job.request.cache_salt)


async def test_one_salt_a_key_and_given_salt(serve: Any) -> None:
    """Nothing that a client says makes its salt that of another key, and no route differs."""
    client = await serve(api_key=KEYS)
    own = [await salt(client, "/generate", None, key) for key in KEYS]
    found = set(own)
    for key, given in itertools.product(KEYS, ("a", "b", "\u00fc" * 1024, own[0].hex())):
        salts = {await salt(client, path, given, key) for path in BODIES}
        assert len(salts) == 1 and not salts & found
        found |= salts
    assert all(len(one) == 32 for one in found)
    assert own == [await salt(client, "/v1/completions", None, key) for key in KEYS]


async def test_without_keys_all_share_unless_they_say_otherwise(serve: Any) -> None:
    client = await serve()
    assert await salt(client, "/generate", None, None) == b""
    assert await salt(client, "/generate", None, "of another server") == b""
    given = {await salt(client, "/generate", name, None) for name in ("a", "b", "a")}
    assert len(given) == 2 and b"" not in given


@pytest.mark.parametrize("path", ["/generate", "/v1/completions"])
@pytest.mark.parametrize("wrong", ["", "x" * 1025, 7, ["a"]])
async def test_a_salt_is_a_text_of_some_length(serve: Any, path: str, wrong: Any) -> None:
    client = await serve()
    status, body = await client.post(path, BODIES[path](wrong))
    assert status == 422 and "cache_salt" in str(body)
    assert not client.engine.jobs


async def test_any_of_the_keys_will_do(serve: Any) -> None:
    client = await serve(api_key=KEYS)
    for key in (*KEYS, "first", " with a comma", ""):
        headers = {"Authorization": f"Bearer {key}"}
        assert (await client.get("/info", headers=headers))[0] == (200 if key in KEYS else 401)
