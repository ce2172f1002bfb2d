"""The mixture of documents that the model is trained on; a seed gives the same text every time."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from . import (
    arithmetic,
    countries,
    docstrings,
    explanations,
    facts,
    forms,
    records,
    smalltalk,
    stories,
    tasks,
    tools,
)
from .document import Document, DocumentMaker, Exchange, ExchangeMaker, choose

_SHORT: list[tuple[float, ExchangeMaker]] = [
    (3, countries.capital),
    (2, countries.exchange),
    (4, facts.exchange),
    (3, arithmetic.exchange),
    (2, explanations.exchange),
    (2, smalltalk.exchange),
    (2, tasks.exchange),
    (1, records.exchange),
    (1, docstrings.question),
]


def _turns(rng: Random, count: int) -> list[Exchange]:
    return [choose(rng, _SHORT)(rng) for _ in range(count)]


def _conversation(rng: Random) -> Document:
    """Two to six turns, some of which refer to earlier ones."""
    turns = _turns(rng, rng.randint(1, 4))
    dice = rng.random()
    if dice < 0.35:
        place = rng.randint(0, len(turns))
        turns[place:place] = countries.follow_up(rng)
    elif dice < 0.55:
        told, asked = smalltalk.remembered_name(rng)
        turns = [told, *turns, asked]
    return forms.conversation(rng, turns)


def _long_conversation(rng: Random) -> Document:
    """A chat that fills a good part of the context."""
    return forms.conversation(rng, _turns(rng, rng.randint(10, 45)))


def _examples(rng: Random) -> Document:
    """A few-shot prompt: mostly of one kind, as people write them."""
    count = rng.randint(2, 6) if rng.random() < 0.85 else rng.randint(10, 60)
    if rng.random() < 0.3:
        return forms.examples(rng, _turns(rng, count))
    maker = choose(rng, _SHORT)
    return forms.examples(rng, [maker(rng) for _ in range(count)])


def _either(maker: ExchangeMaker) -> DocumentMaker:
    return lambda rng: forms.either(rng, maker(rng))


# Shares of documents. A conversation has ten times the tokens of a question, a long one fifty.
_MIXTURE: list[tuple[float, DocumentMaker]] = [
    (20, _either(countries.capital)),
    (8, _either(countries.exchange)),
    (14, _either(facts.exchange)),
    (12, _either(arithmetic.exchange)),
    (7, _either(explanations.exchange)),
    (4, _either(smalltalk.exchange)),
    (0.7, forms.named_assistant),
    (8, _either(tasks.exchange)),
    (4, _either(records.exchange)),
    (0.7, records.free),
    (3, tools.conversation),
    (1.5, tools.choice),
    (4, _either(stories.exchange)),
    (1, stories.open_story),
    (0.7, explanations.code_completion),
    (4, _either(docstrings.question)),
    (2.5, docstrings.page),
    (4, _conversation),
    (0.4, _long_conversation),
    (1.5, _examples),
]


def documents(seed: int, count: int) -> Iterator[Document]:
    """`count` documents of the mixture."""
    rng = Random(seed)
    makers = [maker for _, maker in _MIXTURE]
    for maker in rng.choices(makers, [weight for weight, _ in _MIXTURE], k=count):
        yield maker(rng)


def text(document: Document) -> str:
    """The document as one string."""
    return "".join(segment.text for segment in document)
