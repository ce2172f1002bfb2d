"""What an answer consists of, in the order in which it is generated.

Neutral between protocols. Of a call that is complete come `CallStarted`, any number of `Arguments`
and `CallEnded`; nothing else comes between these. A sequence that ends within a call (`length`)
has no `CallEnded` for it. All texts are pieces: they join to what the model said.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer itself."""

    text: str  # not empty


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of what the model thinks before it answers."""

    text: str  # not empty


@dataclass(frozen=True, slots=True)
class CallStarted:
    """A call begins. index counts the calls of one answer, from 0. id is unique."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """A piece of the JSON object that holds a call's arguments."""

    index: int
    json: str  # not empty


@dataclass(frozen=True, slots=True)
class CallEnded:
    """The arguments of a call are complete."""

    index: int


Event = Text | Reasoning | CallStarted | Arguments | CallEnded


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A whole call. arguments: JSON, cut where the sequence was."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    text: str
    reasoning: str
    calls: tuple[ToolCall, ...]


def joined(events: list[Event]) -> Reply:
    """What the events of one sequence come to."""
    texts = [event.text for event in events if isinstance(event, Text)]
    thoughts = [event.text for event in events if isinstance(event, Reasoning)]
    calls: list[tuple[CallStarted, list[str]]] = []
    for event in events:
        if isinstance(event, CallStarted):
            calls.append((event, []))
        elif isinstance(event, Arguments):
            calls[event.index][1].append(event.json)
    whole = (ToolCall(start.id, start.name, "".join(json)) for start, json in calls)
    return Reply("".join(texts), "".join(thoughts), tuple(whole))
