"""Questions about the small facts of `data/facts.txt` and `data/words.txt`."""

from __future__ import annotations

from random import Random

from .document import Exchange, ExchangeMaker, choose
from .tables import pairs, rows, words

MEMBERS = {kind: names for kind, *names in rows("members")}


def general(rng: Random) -> Exchange:
    """A row of the general table."""
    question, answer, short = rng.choice(rows("general"))
    return Exchange(question, answer, short)


def element(rng: Random) -> Exchange:
    """A chemical symbol, the element of a symbol, or an atomic number."""
    name, symbol, number = rng.choice(rows("elements"))
    kind = rng.randrange(3)
    if kind == 0:
        question = rng.choice(
            ("What is the chemical symbol for {}?", "What is the symbol of {}?", "Symbol of {}?")
        ).format(name)
        opening = f"The chemical symbol for {name} is"
        return Exchange(question, f"{opening} {symbol}.", symbol, opening)
    if kind == 1:
        question = f"Which element has the symbol {symbol}?"
        return Exchange(question, f"{symbol} is the symbol for {name}.", name)
    opening = f"The atomic number of {name} is"
    return Exchange(
        f"What is the atomic number of {name}?", f"{opening} {number}.", number, opening
    )


def planet(rng: Random) -> Exchange:
    """A planet's place or description."""
    name, place, description = rng.choice(rows("planets"))
    if rng.random() < 0.5:
        question = f"Which planet is the {place} from the Sun?"
        return Exchange(question, f"{name} is the {place} planet from the Sun.", name)
    question = rng.choice(("What is {}?", "Tell me about the planet {}.", "Describe {}."))
    return Exchange(question.format(name), f"{name} is {description}.")


def animal(rng: Random) -> Exchange:
    """An animal's young, sound, legs or class."""
    name, young, sound, legs, kind = rng.choice(rows("animals"))
    a = "An" if name[0] in "aeiou" else "A"
    question, answer, short = rng.choice(
        (
            (f"What is a young {name} called?", f"A young {name} is called a {young}.", young),
            (f"What is a baby {name} called?", f"A young {name} is called a {young}.", young),
            (f"What sound does {a.lower()} {name} make?", f"{a} {name} {sound}.", sound),
            (f"How many legs does {a.lower()} {name} have?", f"{a} {name} has {legs} legs.", legs),
            (f"What kind of animal is {a.lower()} {name}?", f"{a} {name} is {kind}.", kind),
        )
    )
    return Exchange(question, answer, short)


def colour(rng: Random) -> Exchange:
    """What colour something has, or two colours give."""
    if rng.random() < 0.3:
        first, second, mixed = rng.choice(rows("colour_mixes"))
        question = f"Which colour do {first} and {second} make?"
        return Exchange(question, f"{first.capitalize()} and {second} make {mixed}.", mixed)
    thing, colour_name = rng.choice(rows("colours"))
    question = rng.choice(("What colour is {}?", "What color is {}?", "Which colour is {}?"))
    answer = f"{thing[0].upper()}{thing[1:]} is {colour_name}."
    return Exchange(question.format(thing), answer, colour_name)


def opposite(rng: Random) -> Exchange:
    """A word's opposite."""
    word, other = rng.choice(pairs("opposites"))
    question = rng.choice(
        ("What is the opposite of {}?", "Give the opposite of {}.", "Opposite of {}?")
    ).format(word)
    opening = f"The opposite of {word} is"
    return Exchange(question, f"{opening} {other}.", other, opening)


def inflection(rng: Random) -> Exchange:
    """A plural or a past tense."""
    form, table = rng.choice((("plural", "plurals"), ("past tense", "past_tenses")))
    word, other = rng.choice(pairs(table))
    question = rng.choice(("What is the {} of {}?", "Give the {} of {}.")).format(form, word)
    opening = f"The {form} of {word} is"
    return Exchange(question, f"{opening} {other}.", other, opening)


def calendar(rng: Random) -> Exchange:
    """The day or month before or after another."""
    what, names = rng.choice((("day", words("days")), ("month", words("months"))))
    place = rng.randrange(len(names))
    after = rng.random() < 0.5
    found = names[(place + (1 if after else -1)) % len(names)]
    relation = "after" if after else "before"
    question = rng.choice(("Which {} comes {} {}?", "What {} is {} {}?"))
    answer = f"{found} comes {relation} {names[place]}."
    return Exchange(question.format(what, relation, names[place]), answer, found)


def translation(rng: Random) -> Exchange:
    """An everyday word in another language."""
    language, *words = rng.choice(rows("greetings"))
    meanings = ("hello", "thank you", "goodbye", "yes", "water")
    meaning, word = rng.choice(list(zip(meanings, words, strict=True)))
    question = rng.choice(
        ("How do you say {} in {}?", "What is {} in {}?", "Translate {} into {}.")
    ).format(f'"{meaning}"', language)
    return Exchange(question, f'"{meaning.capitalize()}" in {language} is "{word}".', word)


def members(rng: Random) -> Exchange:
    """Several members of a class, as a list in words or in lines."""
    kind = rng.choice(list(MEMBERS))
    count = rng.randint(2, 5)
    chosen = rng.sample(MEMBERS[kind], count)
    number = words("numbers")[count]
    if rng.random() < 0.4:
        lines = "\n".join(f"{place}. {name}" for place, name in enumerate(chosen, 1))
        return Exchange(f"List {number} {kind}.", lines)
    question = rng.choice(("Name {} {}.", "Can you name {} {}?", "Tell me {} {}."))
    listed = f"{', '.join(chosen[:-1])} and {chosen[-1]}"
    return Exchange(question.format(number, kind), f"{number.capitalize()} {kind} are {listed}.")


_MAKERS: list[tuple[float, ExchangeMaker]] = [
    (6, general),
    (3, element),
    (1, planet),
    (3, animal),
    (2, colour),
    (3, opposite),
    (3, inflection),
    (1, calendar),
    (2, translation),
    (3, members),
]


def exchange(rng: Random) -> Exchange:
    """Any of the above."""
    return choose(rng, _MAKERS)(rng)
