"""The whole loop of a tool: the model calls, the program answers, until nothing is called.

pip install openai
"""

import json
import os

from openai import OpenAI

WEATHER = {"Paris": "sunny, 21 degrees", "Rome": "rain, 17 degrees"}


def get_weather(city: str) -> str:
    return WEATHER.get(city, "unknown")


FUNCTIONS = {"get_weather": get_weather}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "maxLength": 40}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
]
ROUNDS = 3

URL = os.environ.get("PENSTOCK_URL", "http://127.0.0.1:3000")
client = OpenAI(base_url=f"{URL}/v1", api_key=os.environ.get("PENSTOCK_API_KEY", "-"))
model = client.models.list().data[0].id
messages = [{"role": "user", "content": "What is the weather in Paris?"}]
for turn in range(ROUNDS):
    # The demo model has not learnt to call by itself; most others may be left to it ("auto").
    choice = "required" if turn == 0 else "none"
    message = (
        client.chat.completions.create(
            model=model,
            messages=messages,
            tools=TOOLS,
            tool_choice=choice,
            temperature=0,
            max_tokens=100,
        )
        .choices[0]
        .message
    )
    messages.append(message)
    if not message.tool_calls:
        print(message.content)
        break
    for call in message.tool_calls:
        arguments = json.loads(call.function.arguments)
        result = FUNCTIONS[call.function.name](**arguments)
        print(f"{call.function.name}({arguments}) = {result}")
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
