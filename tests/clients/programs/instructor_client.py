"""instructor: answers as objects of a schema, by tools and by JSON."""

from __future__ import annotations

import instructor
import openai
from pydantic import BaseModel, Field
from verdict import MESSAGES, URL, verdict


class Place(BaseModel):
    """A city."""

    city: str = Field(max_length=20)


def asks(mode: instructor.Mode) -> None:
    sdk = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
    client = instructor.from_openai(sdk, mode=mode)
    place = client.chat.completions.create(
        model="gpt-4o",
        messages=MESSAGES,
        response_model=Place,
        max_retries=0,
        max_tokens=80,
        temperature=0,
    )
    assert isinstance(place, Place), place


def by_tools() -> None:
    asks(instructor.Mode.TOOLS)


def by_schema() -> None:
    asks(instructor.Mode.JSON_SCHEMA)


verdict("instructor", by_tools, by_schema)
