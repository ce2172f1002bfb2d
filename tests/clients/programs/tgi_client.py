"""The `text-generation` package, TGI's own client."""

from __future__ import annotations

from text_generation import AsyncClient, Client
from text_generation.errors import ValidationError
from verdict import MESSAGES, QUESTION, URL, raised, says, verdict

client = Client(URL, timeout=30)
asynchronous = AsyncClient(URL, timeout=30)
LONG = "word " * 5000


def generates() -> None:
    answer = client.generate(QUESTION, max_new_tokens=20)
    assert "Paris" in answer.generated_text, answer
    assert answer.details.finish_reason.value == "eos_token"


def generates_with_every_parameter() -> None:
    answer = client.generate(
        QUESTION,
        do_sample=True,
        max_new_tokens=5,
        best_of=1,
        repetition_penalty=1.1,
        return_full_text=True,
        seed=1,
        stop_sequences=["."],
        temperature=0.8,
        top_k=10,
        top_p=0.9,
        truncate=100,
        typical_p=0.9,
        watermark=False,
        decoder_input_details=True,
        top_n_tokens=2,
    )
    assert answer.generated_text.startswith(QUESTION)
    assert answer.details.prefill and len(answer.details.top_tokens[0]) == 2


def streams() -> None:
    events = list(client.generate_stream(QUESTION, max_new_tokens=20))
    text = "".join(event.token.text for event in events if not event.token.special)
    assert text == events[-1].generated_text and "Paris" in text


def chats() -> None:
    answer = client.chat(MESSAGES, max_tokens=20, temperature=0.01)
    assert "Paris" in answer.choices[0].message.content, answer


def chats_in_a_stream() -> None:
    chunks = list(client.chat(MESSAGES, max_tokens=20, temperature=0.01, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert "Paris" in text, chunks


def reads_a_refusal() -> None:
    error = raised(lambda: client.generate(LONG))
    assert type(error) is ValidationError, error
    says(error, "inputs")
    error = raised(lambda: client.generate_stream(LONG))
    assert type(error) is ValidationError, error


def reads_a_refused_chat() -> None:
    error = raised(lambda: client.chat(MESSAGES, temperature=-1.0))
    assert type(error) is ValidationError, repr(error)
    says(error, "temperature")


async def works_asynchronously() -> None:
    assert "Paris" in (await asynchronous.generate(QUESTION, max_new_tokens=20)).generated_text
    events = [event async for event in asynchronous.generate_stream(QUESTION, max_new_tokens=20)]
    assert "Paris" in events[-1].generated_text
    if hasattr(asynchronous, "chat"):
        chunks = await asynchronous.chat(MESSAGES, max_tokens=20, temperature=0.01, stream=True)
        texts = [chunk.choices[0].delta.content or "" async for chunk in chunks]
        assert "Paris" in "".join(texts), texts


CHATS = (chats, chats_in_a_stream, reads_a_refused_chat) if hasattr(client, "chat") else ()
verdict(
    "text-generation",
    generates,
    generates_with_every_parameter,
    streams,
    reads_a_refusal,
    works_asynchronously,
    *CHATS,
)
