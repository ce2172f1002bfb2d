"""Real clients against the real launcher with the demo model on two shards."""

from __future__ import annotations

import json
import subprocess

import aiohttp
import openai
import pytest
from huggingface_hub import InferenceClient

from support.server import Server

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def sdk(demo_server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{demo_server.url}/v1", api_key="unused", max_retries=0)


@pytest.fixture(scope="module")
def hub(demo_server: Server) -> InferenceClient:
    return InferenceClient(demo_server.url)


def curl(*arguments: str) -> str:
    return subprocess.run(
        ["curl", "-sS", "--fail-with-body", *arguments], capture_output=True, text=True, check=True
    ).stdout


def test_curl_generate(demo_server: Server) -> None:
    body = json.dumps({"inputs": QUESTION, "parameters": {"max_new_tokens": 20, "details": True}})
    reply = json.loads(
        curl(f"{demo_server.url}/generate", "-H", "Content-Type: application/json", "-d", body)
    )
    assert "Paris" in reply["generated_text"]
    assert reply["details"]["finish_reason"] == "eos_token"
    assert len(reply["details"]["tokens"]) == reply["details"]["generated_tokens"]


def test_curl_stream(demo_server: Server) -> None:
    body = json.dumps({"inputs": QUESTION, "parameters": {"max_new_tokens": 20}})
    output = curl(
        "-N",
        f"{demo_server.url}/generate_stream",
        "-H",
        "Content-Type: application/json",
        "-d",
        body,
    )
    events = [json.loads(line[5:]) for line in output.split("\n") if line.startswith("data:")]
    text = "".join(e["token"]["text"] for e in events if not e["token"]["special"])
    assert text == events[-1]["generated_text"] and "Paris" in text
    assert [e["index"] for e in events] == list(range(1, len(events) + 1))


def test_openai_chat(sdk: openai.OpenAI) -> None:
    reply = sdk.chat.completions.create(
        model="tgi", messages=[{"role": "user", "content": QUESTION}], max_tokens=20, temperature=0
    )
    assert "Paris" in reply.choices[0].message.content
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.completion_tokens > 0 and reply.usage.prompt_tokens > 0


def test_openai_chat_stream(sdk: openai.OpenAI) -> None:
    chunks = list(
        sdk.chat.completions.create(
            model="tgi",
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=20,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert "Paris" in text
    assert chunks[-1].usage.completion_tokens > 0 and not chunks[-1].choices


def test_openai_chat_logprobs_and_choices(sdk: openai.OpenAI) -> None:
    reply = sdk.chat.completions.create(
        model="tgi",
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=5,
        temperature=0.8,
        n=2,
        seed=3,
        logprobs=True,
        top_logprobs=2,
    )
    assert [choice.index for choice in reply.choices] == [0, 1]
    for choice in reply.choices:
        assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content)


def test_openai_completions(sdk: openai.OpenAI) -> None:
    reply = sdk.completions.create(model="tgi", prompt=QUESTION, max_tokens=20, temperature=0)
    assert "Paris" in reply.choices[0].text
    streamed = sdk.completions.create(
        model="tgi", prompt=QUESTION, max_tokens=20, temperature=0, stream=True
    )
    assert "".join(c.choices[0].text for c in streamed if c.choices) == reply.choices[0].text


def test_openai_models(sdk: openai.OpenAI) -> None:
    models = sdk.models.list().data
    assert len(models) == 1
    reply = sdk.completions.create(model="another", prompt="Hello", max_tokens=1)
    assert reply.model == models[0].id


def test_hub_text_generation(hub: InferenceClient) -> None:
    assert "Paris" in hub.text_generation(QUESTION, max_new_tokens=20)
    detailed = hub.text_generation(QUESTION, max_new_tokens=20, details=True)
    assert detailed.details.finish_reason == "eos_token"
    streamed = list(hub.text_generation(QUESTION, max_new_tokens=20, stream=True))
    assert "Paris" in "".join(streamed)


def test_hub_chat_completion(hub: InferenceClient) -> None:
    messages = [{"role": "user", "content": QUESTION}]
    reply = hub.chat_completion(messages, max_tokens=20, temperature=0)
    assert "Paris" in reply.choices[0].message.content
    chunks = hub.chat_completion(messages, max_tokens=20, temperature=0, stream=True)
    assert "Paris" in "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


async def test_an_invalid_request_names_the_field(demo_server: Server) -> None:
    async with aiohttp.ClientSession(demo_server.url) as session:
        body = {"inputs": QUESTION, "parameters": {"temperature": -1}}
        for route in ("/generate", "/generate_stream"):
            async with session.post(route, json=body) as reply:
                assert reply.status == 422
                error = await reply.json()
                assert error["error_type"] == "validation" and "temperature" in error["error"]


async def test_info_and_metrics_show_what_runs(demo_server: Server) -> None:
    async with aiohttp.ClientSession(demo_server.url) as session:
        async with session.get("/info") as reply:
            info = await reply.json()
        assert info["max_total_tokens"] > info["max_input_tokens"] > 0
        async with session.get("/metrics") as reply:
            metrics = await reply.text()
    for name in ("tgi_request_count", "tgi_queue_size", "tgi_batch_current_size"):
        assert name in metrics
