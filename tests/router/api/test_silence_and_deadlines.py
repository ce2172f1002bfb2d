"""Streams that say nothing for long, and requests whose time is up: for every protocol."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from penstock_router.request import GenerationFailed
from support.fake_engine import FakeEngine

HI = [{"role": "user", "content": "hi"}]
STREAMS = [
    ("/generate_stream", {"inputs": "hi"}),
    ("/generate", {"inputs": "hi", "stream": True}),
    ("/generate", {"text": "hi", "stream": True}),
    ("/v1/chat/completions", {"messages": HI, "stream": True}),
    ("/v1/completions", {"prompt": "hi", "stream": True}),
    ("/v1/responses", {"input": "hi", "stream": True}),
    ("/v1/messages", {"messages": HI, "max_tokens": 5, "stream": True}),
    ("/invocations", {"messages": HI, "stream": True}),
]
WHOLE = [
    *(
        (path, {name: v for name, v in body.items() if name != "stream"})
        for path, body in STREAMS[1:]
    ),
    ("/vertex", {"instances": [{"inputs": "hi"}]}),
]


async def read_until(response: Any, what: bytes) -> bytes:
    got = b""
    async with asyncio.timeout(60):
        while what not in got:
            got += await response.content.readany()
    return got


async def test_a_silent_stream_sends_its_head_and_comments(serve: Any) -> None:
    """Comments alone until the first token, then the same events as without them."""
    engine = FakeEngine(script=[10, 2])
    client = await serve(engine, stream_keepalive=0.03)
    for route, body in STREAMS:
        plain = (await client.stream(route, body))[1].replace(":\n\n", "")
        engine.hold = True
        async with client.session.post(client.url + route, json=body) as response:
            assert response.status == 200  # while nothing was generated
            assert response.content_type == "text/event-stream"
            got = await read_until(response, b":\n\n:\n\n")
            engine.release()
            text = (got + await response.read()).decode().replace(":\n\n", "")
        assert [line.split(":")[0] for line in text.split("\n")] == [
            line.split(":")[0] for line in plain.split("\n")
        ]


async def test_an_error_behind_the_head_is_an_event(serve: Any) -> None:
    engine = FakeEngine(hold=True, fail_after=0, failure=GenerationFailed("gone"))
    client = await serve(engine, stream_keepalive=0.02)
    for route, body in STREAMS:
        async with client.session.post(client.url + route, json=body) as response:
            await read_until(response, b":\n\n")
            engine.release()
            assert "Request failed during generation: gone" in (await response.read()).decode()
        engine.hold = True
    await client.quiet()


@pytest.mark.parametrize("timeout", [None, 2.0])
async def test_a_stream_that_waits_for_a_permit_is_not_silent(
    serve: Any, timeout: float | None
) -> None:
    """SGLang's clients wait their turn. Then it goes on, or an error is its last event."""
    engine = FakeEngine(hold=True, script=[10, 2])
    client = await serve(engine, stream_keepalive=0.02)
    first = [asyncio.create_task(client.post("/generate", {"text": "hi"})) for _ in range(16)]
    while len(engine.jobs) < 16:
        await asyncio.sleep(0.01)
    body = {"text": "hi", "stream": True, "timeout": timeout}
    async with client.session.post(client.url + "/generate", json=body) as response:
        assert response.status == 200
        got = await read_until(response, b":\n\n:\n\n")
        assert len(engine.jobs) == 16
        if timeout is None:
            engine.release()
        text = (got + await response.read()).decode()
    engine.release()
    assert [status for status, _ in await asyncio.gather(*first)] == [200] * 16
    assert ("[DONE]" in text) == (timeout is None)
    assert ("not done within 2 seconds" in text) == (timeout is not None)
    await client.quiet()


async def test_no_comments_where_none_are_wanted(serve: Any) -> None:
    engine = FakeEngine(hold=True, script=[10, 2])
    client = await serve(engine, stream_keepalive=0.0)
    task = asyncio.create_task(client.stream("/generate_stream", {"inputs": "hi"}))
    await asyncio.sleep(0.1)
    engine.release()
    _, text = await task
    assert text.startswith("data:") and ":\n\n" not in text.replace("data:", "")


async def test_openais_client_passes_over_comments(serve: Any) -> None:
    engine = FakeEngine(hold=True, script=[10, 11, 2])
    client = await serve(engine, stream_keepalive=0.02)
    async with openai.AsyncOpenAI(base_url=client.url + "/v1", api_key="-") as sdk:
        stream = await sdk.chat.completions.create(model="tgi", messages=HI, stream=True)
        asyncio.get_running_loop().call_later(0.1, engine.release)
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices[0].finish_reason == "stop"


# -- deadlines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["field", "header", "option"])
async def test_a_request_that_waits_too_long(serve: Any, way: str) -> None:
    """It is dropped from the queue, and its client told why."""
    client = await serve(FakeEngine(hold=True), max_request_time=0.02 if way == "option" else None)
    headers = {"x-request-timeout": "0.02"} if way == "header" else {}
    cases = [*STREAMS, *WHOLE]
    for route, body in cases:
        sent = {**body, "timeout": 0.02} if way == "field" else body
        async with client.session.post(client.url + route, json=sent, headers=headers) as response:
            assert response.status == 504, (route, body)
            assert response.headers["x-should-retry"] == "false"
            answer = await response.json()
        assert answer["error_type"] == "deadline_exceeded"
        assert "The request was not done within 0.02 seconds" in json.dumps(answer)
    await client.quiet()
    assert all(job.cancelled for job in client.engine.jobs)
    assert await client.count('tgi_request_failure{err="timeout"}') == len(cases)


async def test_a_stream_that_takes_too_long_ends_with_an_error(serve: Any) -> None:
    client = await serve(FakeEngine(hold=True), stream_keepalive=0.02)
    streams = [client.stream(route, {**body, "timeout": 2}) for route, body in STREAMS]
    for (route, _), (status, text) in zip(STREAMS, await asyncio.gather(*streams), strict=True):
        assert status == 200 and text.startswith(":\n\n"), route
        assert text.count("The request was not done within 2 seconds") == 1
    await client.quiet()


async def test_the_least_of_them_counts(serve: Any) -> None:
    client = await serve(FakeEngine(hold=True), max_request_time=0.05)
    status, answer = await client.post(
        "/generate", {"inputs": "hi", "timeout": 500}, headers={"x-request-timeout": "60"}
    )
    assert status == 504 and "0.05 seconds" in answer["error"]


async def test_one_that_is_done_in_time(serve: Any) -> None:
    """On every route."""
    client = await serve(FakeEngine(script=[10, 2]), max_request_time=5.0)
    for route, body in [*STREAMS, *WHOLE]:
        assert (await client.stream(route, body))[0] == 200
    assert await client.count('tgi_request_failure{err="timeout"}') == 0


@pytest.mark.parametrize("limit", [{"max_request_time": 30.0}, {}])
async def test_errors_keep_their_status_beside_a_deadline(serve: Any, limit: Any) -> None:
    """What fails on its own while a time runs is no fault of ours."""
    client = await serve(FakeEngine(fail_after=0, failure=GenerationFailed("gone")), **limit)
    headers = {} if limit else {"x-request-timeout": "30"}
    for route, body in [*STREAMS, *WHOLE]:
        url = client.url + route
        async with client.session.post(url, json=body, headers=headers) as response:
            assert response.status == 424, route
        if route != "/vertex":
            async with client.session.post(url, json={**body, "timeout": 0}) as response:
                assert response.status == 422, route
    await client.quiet()


async def test_what_is_no_time(serve: Any) -> None:
    client = await serve()
    for header in ["0", "-1", "nan", "inf", "soon", "1e7", ""]:
        headers = {"x-request-timeout": header}
        status, answer = await client.post("/generate", {"inputs": "hi"}, headers=headers)
        rule = "`x-request-timeout` must be a number of seconds"
        assert status == 422 and rule in answer["error"]
    for value in [0, -1, 1e7, "5", True]:
        status, answer = await client.post("/generate", {"inputs": "hi", "timeout": value})
        assert status == 422 and "`timeout`" in answer["error"]
