"""JSON: records from descriptions, records on request, single values."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from .document import END, PROMPT_WEIGHT, Document, Exchange, Segment
from .facts import MEMBERS
from .names import city, organisation, person

Record = dict[str, Any]
_TITLES = ("The Quiet River", "Winter Light", "A Short Day", "The Last Train", "Green Hills")
_PRODUCTS = "lamp chair table phone laptop bicycle backpack kettle notebook camera".split()
_SKIES = "sunny cloudy rainy windy snowy foggy".split()


def _person(rng: Random) -> tuple[str, Record]:
    name, age, home = person(rng), rng.randint(18, 80), city(rng)
    return f"{name}, {age} years old, from {home}", {"name": name, "age": age, "city": home}


def _employee(rng: Random) -> tuple[str, Record]:
    name, firm, active = person(rng), organisation(rng), rng.random() < 0.5
    text = f"{name}, employed at {firm}, {'active' if active else 'not active'}"
    return text, {"name": name, "company": firm, "active": active}


def _product(rng: Random) -> tuple[str, Record]:
    name, price, stock = rng.choice(_PRODUCTS), rng.randint(5, 500), rng.random() < 0.5
    text = f"a {name} for {price} euros, {'in stock' if stock else 'out of stock'}"
    return text, {"name": name, "price": price, "in_stock": stock}


def _book(rng: Random) -> tuple[str, Record]:
    title, author, year = rng.choice(_TITLES), person(rng), rng.randint(1900, 2025)
    text = f'the book "{title}" by {author}, published in {year}'
    return text, {"title": title, "author": author, "year": year}


def _weather(rng: Random) -> tuple[str, Record]:
    place, degrees, sky = city(rng), rng.randint(-10, 35), rng.choice(_SKIES)
    return f"{sky} in {place}, {degrees} degrees", {
        "city": place,
        "temperature": degrees,
        "sky": sky,
    }


def _order(rng: Random) -> tuple[str, Record]:
    number, count = rng.randint(100, 999), rng.randint(1, 3)
    items = rng.sample(MEMBERS["fruits"], count)
    text = f"order {number} with {', '.join(items)}"
    return text, {"order": number, "items": items, "count": count}


_RECORDS = {
    "person": _person,
    "employee": _employee,
    "product": _product,
    "book": _book,
    "weather report": _weather,
    "order": _order,
}


def from_description(rng: Random) -> Exchange:
    """A record with what the description says."""
    kind = rng.choice(list(_RECORDS))
    text, record = _RECORDS[kind](rng)
    keys = ", ".join(record)
    question = rng.choice(
        (
            "Write this as JSON: {text}",
            "Convert to JSON: {text}",
            "Write a JSON object with the keys {keys} for: {text}",
            "Extract {keys} as JSON: {text}",
            "Give me a JSON record of this {kind}: {text}",
        )
    )
    return Exchange(question.format(text=text, keys=keys, kind=kind), _dump(rng, record))


def on_request(rng: Random) -> Exchange:
    """An invented record, or a list of them."""
    kind = rng.choice(list(_RECORDS))
    if rng.random() < 0.25:
        records = [_RECORDS[kind](rng)[1] for _ in range(rng.randint(2, 3))]
        number = ("two", "three")[len(records) - 2]
        return Exchange(f"Write a JSON array of {number} {kind}s.", json.dumps(records))
    a = "an" if kind[0] in "eo" else "a"
    question = rng.choice(
        ("Write {a} {k} as JSON.", "Give me a JSON record of {a} {k}.", "Invent {a} {k} in JSON.")
    )
    return Exchange(question.format(a=a, k=kind), _dump(rng, _RECORDS[kind](rng)[1]))


def free(rng: Random) -> Document:
    """A bare record, which begins with its brace."""
    record = rng.choice(list(_RECORDS.values()))(rng)[1]
    return Segment("{", PROMPT_WEIGHT), Segment(_dump(rng, record)[1:] + END)


def _dump(rng: Random, record: Record) -> str:
    indented = rng.random() < 0.15
    return json.dumps(record, indent=2 if indented else None, ensure_ascii=False)


def exchange(rng: Random) -> Exchange:
    """A record from a description or on request."""
    return (from_description if rng.random() < 0.75 else on_request)(rng)
