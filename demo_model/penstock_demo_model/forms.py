"""The forms an exchange takes: plain text, question and answer, chat, with and without a system."""

from __future__ import annotations

import json
from random import Random

from .document import (
    ASSISTANT,
    END,
    PROMPT_WEIGHT,
    SYSTEM,
    USER,
    Document,
    Exchange,
    Segment,
)
from .names import first_name
from .tables import phrases

_PREFACES = ("Please answer this question: ", "Hello! ", "Hi! ", "Tell me: ", "I have a question. ")


def chat_prompt(question: str, system: str | None = None) -> str:
    """One user turn as the chat template renders it, without the BEGIN token."""
    head = f"{SYSTEM}{system}{END}" if system is not None else ""
    return f"{head}{USER}{question}{END}{ASSISTANT}"


def casual(rng: Random, exchange: Exchange) -> Exchange:
    """The same exchange with the question as people type it."""
    question, dice = exchange.question, rng.random()
    if dice < 0.06:
        question = question.lower()
    elif dice < 0.10:
        question = question[0].lower() + question[1:]
    elif dice < 0.15 and question[-1] in "?.":
        question = question[:-1]
    elif dice < 0.20:
        question = rng.choice(_PREFACES) + question
    elif dice < 0.23:
        question = (
            f"Please {question[0].lower()}{question[1:]}" if question[-1] == "." else question
        )
    return Exchange(question.strip() or exchange.question, exchange.answer, exchange.short)


def plain(rng: Random, exchange: Exchange) -> Document:
    """A prompt without a template: the question, or a labelled question, or an unfinished line."""
    if exchange.opening and exchange.short and rng.random() < 0.2:
        head, tail = exchange.opening, f" {exchange.short}."
        return Segment(head, PROMPT_WEIGHT), Segment(tail.replace("..", ".") + END)
    asked = casual(rng, exchange)
    if rng.random() < 0.65:
        head, answer = asked.question, asked.answer
        gap = rng.choices((" ", "\n", "\n\n"), (8, 1, 1))[0]
        if gap != " ":
            return Segment(head + gap, PROMPT_WEIGHT), Segment(answer + END)
    else:
        labels = rng.choices(
            (("Question", "Answer"), ("Q", "A"), ("User", "Assistant")), (6, 3, 2)
        )[0]
        head = f"{labels[0]}: {asked.question}\n{labels[1]}:"
        bare = asked.short if asked.short and labels[0] != "User" else None
        answer = bare or asked.answer
    return Segment(head, PROMPT_WEIGHT), Segment(f" {answer}{END}")


def chat(rng: Random, exchange: Exchange) -> Document:
    """One turn of the chat template."""
    asked, dice = casual(rng, exchange), rng.random()
    answer, system = asked.answer, None
    if dice < 0.2:
        system = rng.choice(phrases("system"))
    elif dice < 0.3 and asked.short:
        system, answer = rng.choice(phrases("brief")), asked.short
    elif dice < 0.36 and asked.short:
        system, answer = rng.choice(phrases("json")), json.dumps({"answer": asked.short})
    return (
        Segment(chat_prompt(asked.question, system), PROMPT_WEIGHT),
        Segment(f"{answer}{END}"),
    )


def conversation(rng: Random, turns: list[Exchange]) -> Document:
    """Several turns of one chat."""
    system = rng.choice(phrases("system")) if rng.random() < 0.3 else None
    document: list[Segment] = []
    for turn in turns:
        document.append(Segment(chat_prompt(turn.question, system), PROMPT_WEIGHT))
        document.append(Segment(turn.answer + END))
        system = None
    return tuple(document)


def examples(rng: Random, turns: list[Exchange]) -> Document:
    """Several solved questions and one more, as in few-shot prompts.

    The prompts have no weight: between two examples the text goes on where an answer alone ends.
    """
    asked, answered = rng.choice((("Question", "Answer"), ("Q", "A")))
    document: list[Segment] = []
    for turn in turns:
        gap = "\n\n" if document else ""
        document.append(Segment(f"{gap}{asked}: {turn.question}\n{answered}:", 0.0))
        document.append(Segment(f" {turn.short or turn.answer}"))
    document.append(Segment(END))
    return tuple(document)


def named_assistant(rng: Random) -> Document:
    """A system message that gives the model another name, and the question for it."""
    name = first_name(rng)
    system = rng.choice(("You are {}.", "Your name is {}.", "You are {}, a helpful assistant."))
    question = rng.choice(("Who are you?", "What is your name?", "What's your name?"))
    return (
        Segment(chat_prompt(question, system.format(name)), PROMPT_WEIGHT),
        Segment(f"I am {name}.{END}"),
    )


def either(rng: Random, exchange: Exchange) -> Document:
    """Plain text or chat, equally often."""
    return plain(rng, exchange) if rng.random() < 0.5 else chat(rng, exchange)
