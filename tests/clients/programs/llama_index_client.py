"""llama-index's class for TGI."""

from __future__ import annotations

import warnings

warnings.simplefilter("ignore")

from llama_index.core.llms import ChatMessage  # noqa: E402
from llama_index.llms.text_generation_inference import TextGenerationInference  # noqa: E402
from verdict import QUESTION, URL, raised, says, verdict  # noqa: E402

llm = TextGenerationInference(URL, temperature=0.01, max_tokens=20)
HISTORY = [
    ChatMessage(role="system", content="Be brief."),
    ChatMessage(role="user", content=QUESTION),
]


def knows_the_endpoint() -> None:
    assert llm.context_window > 0 and llm.model_name, llm.metadata


def completes() -> None:
    assert "Paris" in llm.complete(QUESTION).text


def completes_in_a_stream() -> None:
    pieces = list(llm.stream_complete(QUESTION))
    assert "Paris" in pieces[-1].text, pieces


def chats() -> None:
    assert "Paris" in llm.chat(HISTORY).message.content


def chats_in_a_stream() -> None:
    pieces = list(llm.stream_chat(HISTORY))
    assert "Paris" in pieces[-1].message.content, pieces


def chats_with_a_seed() -> None:
    assert "Paris" in llm.chat(HISTORY, seed=3, top_p=0.9).message.content


async def works_asynchronously() -> None:
    assert "Paris" in (await llm.acomplete(QUESTION)).text
    pieces = [piece async for piece in await llm.astream_chat(HISTORY)]
    assert "Paris" in pieces[-1].message.content, pieces


def reads_a_refusal() -> None:
    says(raised(lambda: llm.chat(HISTORY, temperature=-1.0)), "temperature")


verdict(
    "llama-index-llms-text-generation-inference",
    knows_the_endpoint,
    completes,
    completes_in_a_stream,
    chats,
    chats_in_a_stream,
    chats_with_a_seed,
    works_asynchronously,
    reads_a_refusal,
)
