"""huggingface_hub's InferenceClient, from 0.23 on."""

from __future__ import annotations

import huggingface_hub
from huggingface_hub import AsyncInferenceClient, InferenceClient
from verdict import MESSAGES, QUESTION, URL, raised, says, verdict

VERSION = tuple(int(part) for part in huggingface_hub.__version__.split(".")[:2])
client = InferenceClient(model=URL)
STOP = "stop" if VERSION >= (0, 25) else "stop_sequences"


def generates() -> None:
    assert "Paris" in client.text_generation(QUESTION, max_new_tokens=20)


def generates_with_details() -> None:
    answer = client.text_generation(
        QUESTION, max_new_tokens=20, details=True, decoder_input_details=True, seed=3
    )
    assert answer.details.finish_reason == "eos_token", answer
    assert len(answer.details.tokens) == answer.details.generated_tokens
    assert answer.details.prefill[0].logprob is None


def generates_with_every_parameter() -> None:
    answer = client.text_generation(
        QUESTION,
        best_of=1,
        do_sample=True,
        max_new_tokens=5,
        repetition_penalty=1.1,
        frequency_penalty=0.1,
        return_full_text=True,
        seed=1,
        temperature=0.8,
        top_k=10,
        top_p=0.9,
        truncate=100,
        typical_p=0.9,
        watermark=False,
        **{STOP: ["."]},
    )
    assert answer.startswith(QUESTION), answer


def stops() -> None:
    answer = client.text_generation(QUESTION, max_new_tokens=20, **{STOP: ["Paris"]})
    assert answer.endswith("Paris"), answer


def streams() -> None:
    pieces = list(client.text_generation(QUESTION, max_new_tokens=20, stream=True))
    assert len(pieces) > 1 and "Paris" in "".join(pieces), pieces


def streams_with_details() -> None:
    events = list(client.text_generation(QUESTION, max_new_tokens=20, stream=True, details=True))
    assert "Paris" in events[-1].generated_text, events[-1]
    assert events[-1].details.generated_tokens == len(events)


def chats() -> None:
    answer = client.chat_completion(MESSAGES, max_tokens=20, temperature=0)
    assert "Paris" in answer.choices[0].message.content, answer
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage.completion_tokens > 0


def chats_with_every_parameter() -> None:
    answer = client.chat_completion(
        MESSAGES,
        frequency_penalty=0.1,
        logit_bias=None,
        logprobs=True,
        max_tokens=5,
        n=1,
        presence_penalty=0.1,
        seed=1,
        stop=["."],
        temperature=0.8,
        tool_choice="none",
        tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        top_logprobs=5,
        top_p=0.9,
    )
    first = answer.choices[0].logprobs.content[0]
    assert len(first.top_logprobs) == 5, first


def chats_in_a_stream() -> None:
    chunks = list(client.chat_completion(MESSAGES, max_tokens=20, stream=True, temperature=0))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "Paris" in "".join(delta.content or "" for delta in deltas), deltas
    assert all(delta.role == "assistant" for delta in deltas), deltas


def chats_as_openai() -> None:
    chats = getattr(InferenceClient(base_url=URL) if VERSION >= (0, 24) else client, "chat", None)
    if chats is not None:
        answer = chats.completions.create(messages=MESSAGES, model="tgi", max_tokens=20)
        assert answer.choices[0].message.content


def reads_a_refusal() -> None:
    """The parameters that the client itself lets through."""
    says(raised(lambda: client.text_generation(QUESTION, temperature=-1.0)), "temperature")
    says(
        raised(lambda: client.text_generation(QUESTION, temperature=-1.0, stream=True)),
        "temperature",
    )


def reads_a_refused_chat() -> None:
    says(raised(lambda: client.chat_completion(MESSAGES, temperature=-1.0)), "temperature")
    says(
        raised(lambda: client.chat_completion(MESSAGES, temperature=-1.0, stream=True)),
        "temperature",
    )


def reads_that_a_prompt_is_too_long() -> None:
    says(raised(lambda: client.text_generation("word " * 5000, max_new_tokens=5)), "inputs")
    long = [{"role": "user", "content": "word " * 5000}]
    says(raised(lambda: client.chat_completion(long, max_tokens=5)), "maximum context length")


def knows_the_endpoint() -> None:
    """As Hugging Face's own provider, where the client knows several; newer ones dropped it."""
    provider = {"provider": "hf-inference"} if VERSION >= (0, 28) else {}
    endpoint = InferenceClient(model=URL, **provider)
    if hasattr(endpoint, "get_endpoint_info"):
        assert endpoint.get_endpoint_info()["max_total_tokens"] > 0
    if hasattr(endpoint, "health_check"):
        assert endpoint.health_check()


async def works_asynchronously() -> None:
    asynchronous = AsyncInferenceClient(model=URL)
    assert "Paris" in await asynchronous.text_generation(QUESTION, max_new_tokens=20)
    pieces = [
        piece
        async for piece in await asynchronous.text_generation(
            QUESTION, max_new_tokens=20, stream=True
        )
    ]
    assert "Paris" in "".join(pieces)
    answer = await asynchronous.chat_completion(MESSAGES, max_tokens=20, temperature=0)
    assert "Paris" in answer.choices[0].message.content


verdict(
    "huggingface_hub",
    generates,
    generates_with_details,
    generates_with_every_parameter,
    stops,
    streams,
    streams_with_details,
    chats,
    chats_with_every_parameter,
    chats_in_a_stream,
    chats_as_openai,
    reads_a_refusal,
    reads_a_refused_chat,
    reads_that_a_prompt_is_too_long,
    knows_the_endpoint,
    works_asynchronously,
)
