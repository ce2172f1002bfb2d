"""Answers that are objects of a class: a pydantic model is the schema.

pip install openai pydantic
"""

import os
from typing import Annotated, Literal

from openai import OpenAI
from pydantic import BaseModel, Field


class Capital(BaseModel):
    """With bounds on texts and lists, so that no answer is cut in the middle."""

    city: str = Field(max_length=40)
    kind: Literal["city", "state"]
    known_for: list[Annotated[str, Field(max_length=20)]] = Field(max_length=2)


URL = os.environ.get("PENSTOCK_URL", "http://127.0.0.1:3000")
client = OpenAI(base_url=f"{URL}/v1", api_key=os.environ.get("PENSTOCK_API_KEY", "-"))
completion = client.chat.completions.parse(
    model=client.models.list().data[0].id,
    messages=[{"role": "user", "content": "What is the capital of France?"}],
    response_format=Capital,
    temperature=0,
    max_tokens=400,
)
choice = completion.choices[0]
if choice.finish_reason == "length":
    raise SystemExit("the answer was cut: raise max_tokens, or bound texts in the schema")
capital = choice.message.parsed
print(f"{capital.city} ({capital.kind})")
