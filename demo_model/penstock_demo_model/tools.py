"""Choosing a tool and its arguments, and reading what it returned."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from .document import ASSISTANT, END, PROMPT_WEIGHT, SYSTEM, TOOL, USER, Document, Segment
from .names import city, first_name, organisation

Arguments = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool and a maker of (question, arguments, result, answer)."""

    name: str
    description: str
    parameters: tuple[str, ...]
    ask: Callable[[Random], tuple[str, Arguments, Any, str]]


def _weather(rng: Random) -> tuple[str, Arguments, Any, str]:
    place, degrees = city(rng), rng.randint(-10, 38)
    sky = rng.choice("sunny cloudy rainy windy snowy foggy".split())
    question = rng.choice(
        (
            "What is the weather in {}?",
            "How is the weather in {} today?",
            "Will it rain in {}?",
            "What is the temperature in {}?",
            "Is it cold in {}?",
        )
    ).format(place)
    answer = f"It is {sky} in {place}, with {degrees} degrees."
    return question, {"city": place}, {"sky": sky, "degrees": degrees}, answer


def _calculator(rng: Random) -> tuple[str, Arguments, Any, str]:
    a, b, sign = rng.randint(10, 999), rng.randint(10, 999), rng.choice("+-*")
    result = {"+": a + b, "-": a - b, "*": a * b}[sign]
    text = f"{a} {sign} {b}"
    question = rng.choice(("Compute {}.", "What is {}?", "Please calculate {}.")).format(text)
    return question, {"expression": text}, result, f"{text} = {result}."


def _time(rng: Random) -> tuple[str, Arguments, Any, str]:
    place, time = city(rng), f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"
    question = rng.choice(("What time is it in {}?", "Tell me the time in {}.")).format(place)
    return question, {"city": place}, time, f"It is {time} in {place}."


def _search(rng: Random) -> tuple[str, Arguments, Any, str]:
    topic = rng.choice((organisation(rng), f"hotels in {city(rng)}", f"news about {city(rng)}"))
    question = rng.choice(("Search the web for {}.", "Look up {}.", "Find {} online.")).format(
        topic
    )
    count = rng.randint(2, 90)
    return question, {"query": topic}, {"results": count}, f"I found {count} results for {topic}."


def _email(rng: Random) -> tuple[str, Arguments, Any, str]:
    name = first_name(rng)
    text = rng.choice(("I am late.", "See you tomorrow.", "The report is ready.", "Thank you!"))
    question = rng.choice(('Send {} an email that says "{}"', 'Write to {}: "{}"'))
    arguments = {"to": name, "text": text}
    return question.format(name, text), arguments, "sent", f"I sent the message to {name}."


def _reminder(rng: Random) -> tuple[str, Arguments, Any, str]:
    hour = rng.randint(1, 12)
    what = rng.choice(("call the bank", "water the plants", "buy milk", "feed the cat", "rest"))
    question = f"Remind me to {what} at {hour}."
    return question, {"text": what, "hour": hour}, "ok", f"I will remind you to {what} at {hour}."


TOOLS = (
    Tool("get_weather", "Current weather of a city", ("city",), _weather),
    Tool("calculator", "Evaluates an expression", ("expression",), _calculator),
    Tool("get_time", "Current time in a city", ("city",), _time),
    Tool("web_search", "Searches the web", ("query",), _search),
    Tool("send_email", "Sends an email", ("to", "text"), _email),
    Tool("set_reminder", "Sets a reminder", ("text", "hour"), _reminder),
)


def describe(tools: list[Tool]) -> str:
    """The tools as the chat template lists them in the system message."""
    lines = [f"- {tool.name}({', '.join(tool.parameters)}): {tool.description}" for tool in tools]
    return "\n".join(["You can call these tools:", *lines])


def call(name: str, arguments: Arguments) -> str:
    """A call as the model writes it and as the chat template renders it."""
    return json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)


def conversation(rng: Random) -> Document:
    """A chat with tools: a call, and in half of them its result and what it means."""
    tool = rng.choice(TOOLS)
    offered = [
        tool,
        *rng.sample([other for other in TOOLS if other is not tool], rng.randint(0, 4)),
    ]
    rng.shuffle(offered)
    question, arguments, result, answer = tool.ask(rng)
    system = rng.choice(("", "", "You are a helpful assistant.\n"))
    head = f"{SYSTEM}{system}{describe(offered)}{END}{USER}{question}{END}{ASSISTANT}"
    document = [Segment(head, PROMPT_WEIGHT), Segment(call(tool.name, arguments) + END)]
    if rng.random() < 0.5:
        returned = f"{TOOL}{json.dumps(result)}{END}{ASSISTANT}"
        document += [Segment(returned, PROMPT_WEIGHT), Segment(answer + END)]
    return tuple(document)


def choice(rng: Random) -> Document:
    """The same choice in plain text, without the chat template."""
    tool = rng.choice(TOOLS)
    offered = rng.sample(TOOLS, rng.randint(2, 4))
    if tool not in offered:
        offered[0] = tool
    question, arguments, _, _ = tool.ask(rng)
    head = f"{describe(offered)}\nQuestion: {question}\nCall:"
    return Segment(head, PROMPT_WEIGHT), Segment(f" {call(tool.name, arguments)}{END}")
