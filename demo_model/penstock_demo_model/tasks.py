"""Tasks on a given text: its sentiment, and the names in it."""

from __future__ import annotations

from random import Random

from .document import Exchange, ExchangeMaker, choose
from .names import city, organisation, person

_THINGS = (
    "film book hotel restaurant phone laptop camera game song concert meal coffee service room "
    "flight train course teacher museum app printer chair jacket bicycle holiday"
).split()
_GOOD = (
    "wonderful excellent great lovely fantastic brilliant superb delightful perfect amazing "
    "impressive charming"
).split()
_BAD = (
    "terrible awful horrible boring disappointing dreadful useless poor broken rude slow dirty"
).split()
_PLAIN = "blue new large small red wooden green ordinary grey average".split()
_OPINIONS = {
    "positive": (
        _GOOD,
        (
            "I loved this {t}.",
            "The {t} was {a}.",
            "What a {a} {t}!",
            "I am very happy with the {t}.",
            "I would recommend the {t} to everyone.",
            "The {t} was {a} and I will come back.",
            "It was the best {t} that I have ever had.",
            "My family enjoyed the {t} a lot.",
            "This {t} made my day.",
            "The {t} was not bad at all, it was {a}.",
        ),
    ),
    "negative": (
        _BAD,
        (
            "I hated this {t}.",
            "The {t} was {a}.",
            "What a {a} {t}!",
            "I am very unhappy with the {t}.",
            "I would not recommend the {t} to anyone.",
            "The {t} was {a} and I will never come back.",
            "It was the worst {t} that I have ever had.",
            "My family did not enjoy the {t} at all.",
            "This {t} ruined my day.",
            "The {t} was not good, it was {a}.",
        ),
    ),
    "neutral": (
        _PLAIN,
        (
            "The {t} is {a}.",
            "The {t} arrived on Tuesday.",
            "There is a {a} {t} near the station.",
            "I saw the {t} yesterday.",
            "The {t} costs forty euros.",
            "They talked about the {t} for an hour.",
            "The {t} begins at nine.",
            "She asked a question about the {t}.",
        ),
    ),
}


def sentiment(rng: Random) -> Exchange:
    """Is a sentence positive, negative or neutral?"""
    label = rng.choice(list(_OPINIONS))
    adjectives, templates = _OPINIONS[label]
    text = rng.choice(templates).format(t=rng.choice(_THINGS), a=rng.choice(adjectives))
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


_EVENTS = (
    "{p} works for {o} in {c}.",
    "{p} visited {c} last week.",
    "{o} opened a new office in {c}.",
    "{p} joined {o} in January.",
    "Yesterday {p} met engineers from {o}.",
    "{p} was born in {c} and now leads {o}.",
    "{o} hired {p}.",
    "The train from {c} was late, so {p} missed the meeting at {o}.",
    "{p} gave a talk in {c}.",
    "{p} wrote a report about {o} while travelling to {c}.",
    "In {c}, {p} bought shares of {o}.",
    "{o} announced that {p} will move to {c}.",
)


def entities(rng: Random) -> Exchange:
    """The person, the place and the organisation that a sentence names."""
    template = rng.choice(_EVENTS)
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
