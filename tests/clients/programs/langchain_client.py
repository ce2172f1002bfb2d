"""langchain-openai: chats, streams, tools and schemas, by chat and by responses."""

from __future__ import annotations

from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field
from verdict import QUESTION, URL, verdict


class Place(BaseModel):
    """Where something is."""

    city: str = Field(max_length=20)


def model(**extra: object) -> ChatOpenAI:
    return ChatOpenAI(
        model="gpt-4o", base_url=f"{URL}/v1", api_key="none", temperature=0, max_retries=0,
        max_tokens=60, **extra,
    )  # fmt: skip


def chats() -> None:
    answer = model().invoke(QUESTION)
    assert "Paris" in answer.content and answer.usage_metadata["output_tokens"] > 0, answer


def chats_in_a_stream() -> None:
    assert "Paris" in "".join(chunk.content for chunk in model().stream(QUESTION))


def binds_a_tool() -> None:
    answer = model().bind_tools([Place], tool_choice="Place").invoke(QUESTION)
    assert answer.tool_calls[0]["name"] == "Place" and "city" in answer.tool_calls[0]["args"]


def answers_in_a_schema() -> None:
    place = model().with_structured_output(Place, method="json_schema").invoke(QUESTION)
    assert isinstance(place, Place), place


def by_responses() -> None:
    answer = model(use_responses_api=True).invoke(QUESTION)
    assert "Paris" in answer.text, answer
    streamed = list(model(use_responses_api=True).stream(QUESTION))
    assert "Paris" in "".join(str(chunk.text) for chunk in streamed), streamed


verdict(
    "langchain-openai", chats, chats_in_a_stream, binds_a_tool, answers_in_a_schema, by_responses
)
