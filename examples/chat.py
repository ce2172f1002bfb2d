"""A conversation through OpenAI's client, answered word by word.

pip install openai
"""

import os

from openai import OpenAI

URL = os.environ.get("PENSTOCK_URL", "http://127.0.0.1:3000")
client = OpenAI(base_url=f"{URL}/v1", api_key=os.environ.get("PENSTOCK_API_KEY", "-"))
model = client.models.list().data[0].id

messages = []
for question in ("What is the capital of France?", "What is the capital of Italy?"):
    messages.append({"role": "user", "content": question})
    stream = client.chat.completions.create(
        model=model, messages=messages, temperature=0, max_tokens=100, stream=True
    )
    answer = ""
    for event in stream:
        piece = event.choices[0].delta.content or ""
        print(piece, end="", flush=True)
        answer += piece
    print()
    messages.append({"role": "assistant", "content": answer})
