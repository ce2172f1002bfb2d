"""Tasks on a given text: its sentiment, and the names in it."""

from __future__ import annotations

from random import Random

from .document import Exchange, ExchangeMaker, choose
from .names import city, organisation, person
from .tables import phrases, words


def sentiment(rng: Random) -> Exchange:
    """Is a sentence positive, negative or neutral?"""
    label = rng.choice(("positive", "negative", "neutral"))
    text = rng.choice(phrases(f"{label}_opinions")).format(
        t=rng.choice(words("things")), a=rng.choice(words(f"{label}_adjectives"))
    )
    text = text.replace(" a a", " an a").replace(" a e", " an e").replace(" a i", " an i")
    text = text.replace(" a u", " an u").replace(" a o", " an o")
    question = rng.choice(
        (
            "Is this text positive, negative or neutral? {}",
            "What is the sentiment of this text: {}",
            "Classify the sentiment: {}",
            "Classify the text as positive, negative or neutral.\nText: {}",
            "Sentiment of the following sentence: {}",
        )
    )
    return Exchange(question.format(text), f"The sentiment is {label}.", label)


def entities(rng: Random) -> Exchange:
    """The person, the place and the organisation that a sentence names."""
    template = rng.choice(phrases("events"))
    found = {"p": person(rng), "c": city(rng), "o": organisation(rng)}
    kinds = {"p": "Person", "c": "Place", "o": "Organisation"}
    lines = [f"{kinds[key]}: {name}" for key, name in found.items() if f"{{{key}}}" in template]
    question = rng.choice(
        (
            "Find the names in this text: {}",
            "Extract the entities: {}",
            "Which people, places and organisations does this text name? {}",
            "Extract all people, places and organisations.\nText: {}",
        )
    )
    return Exchange(question.format(template.format(**found)), "\n".join(lines))


def reading(rng: Random) -> Exchange:
    """A question whose answer stands in the text before it."""
    who, where, what = person(rng), city(rng), organisation(rng)
    text = f"{who} lives in {where} and works for {what}."
    question, answer, short = rng.choice(
        (
            ("Where does {} live?", f"{who} lives in {where}.", where),
            ("Who does {} work for?", f"{who} works for {what}.", what),
            ("Who lives in that city?", f"{who} lives in {where}.", who),
        )
    )
    return Exchange(f"{text} {question.format(who)}", answer, short)


_MAKERS: list[tuple[float, ExchangeMaker]] = [(4, sentiment), (4, entities), (2, reading)]


def exchange(rng: Random) -> Exchange:
    """Any of the above."""
    return choose(rng, _MAKERS)(rng)
