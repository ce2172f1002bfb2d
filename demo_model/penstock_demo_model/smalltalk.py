"""Greetings, thanks, and who the model is."""

from __future__ import annotations

from random import Random

from .document import Exchange
from .names import first_name
from .tables import rows


def exchange(rng: Random) -> Exchange:
    """A remark and its reply."""
    return Exchange(*rng.choice(rows("replies")))


def remembered_name(rng: Random) -> list[Exchange]:
    """The user's name, told first and asked for later; other turns may be put between."""
    name = first_name(rng)
    told = rng.choice(("My name is {}.", "I am {}.", "Hello, my name is {}.", "Hi, I am {}."))
    asked = rng.choice(("What is my name?", "Do you remember my name?", "Who am I?"))
    return [
        Exchange(told.format(name), f"Nice to meet you, {name}! How can I help you?"),
        Exchange(asked, f"Your name is {name}.", name),
    ]
