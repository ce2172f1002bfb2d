"""Arithmetic with small numbers, comparison, counting, spelling and copying."""

from __future__ import annotations

from random import Random

from .document import Exchange, ExchangeMaker, choose
from .names import FIRST_NAMES, invented_name
from .tables import pairs

_SPOKEN = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}


def calculation(rng: Random) -> Exchange:
    """Sums and differences up to 100, products up to 12 x 12, exact quotients."""
    sign = rng.choice("++--**/")
    if sign in "+-":
        a, b = rng.randint(0, 50), rng.randint(0, 50)
        if sign == "-" and a < b:
            a, b = b, a
        result = a + b if sign == "+" else a - b
    else:
        a, b = rng.randint(1, 12), rng.randint(1, 12)
        result = a * b
        if sign == "/":
            a, result = result, a
    shown = sign if rng.random() < 0.6 else _SPOKEN[sign]
    question = rng.choice(
        ("What is {} {} {}?", "How much is {} {} {}?", "Calculate {} {} {}.", "{} {} {} =")
    ).format(a, shown, b)
    opening = f"{a} {shown} {b} {'=' if shown == sign else 'is'}"
    return Exchange(question, f"{opening} {result}.", str(result), opening)


def comparison(rng: Random) -> Exchange:
    """The larger or smaller of two numbers."""
    a, b = rng.sample(range(100), 2)
    word, found = rng.choice((("larger", max(a, b)), ("smaller", min(a, b))))
    other = a + b - found
    return Exchange(f"Which is {word}, {a} or {b}?", f"{found} is {word} than {other}.", str(found))


def counting(rng: Random) -> Exchange:
    """Counting upwards."""
    start = rng.randint(1, 20)
    stop = start + rng.randint(2, 15)
    question = rng.choice(("Count from {} to {}.", "List the numbers from {} to {}."))
    numbers = ", ".join(str(number) for number in range(start, stop + 1))
    return Exchange(question.format(start, stop), f"{numbers}.")


def word_problem(rng: Random) -> Exchange:
    """A sum or a difference inside a story of two sentences."""
    name, thing = rng.choice(FIRST_NAMES), rng.choice("apples books coins eggs pens stamps".split())
    a = rng.randint(2, 20)
    if rng.random() < 0.5:
        b = rng.randint(1, 20)
        question = f"{name} has {a} {thing} and buys {b} more. How many {thing} does {name} have?"
        return Exchange(
            question, f"{a} + {b} = {a + b}, so {name} has {a + b} {thing}.", str(a + b)
        )
    b = rng.randint(1, a)
    question = f"{name} has {a} {thing} and gives away {b}. How many {thing} are left?"
    return Exchange(question, f"{a} - {b} = {a - b}, so {a - b} {thing} are left.", str(a - b))


def copying(rng: Random) -> Exchange:
    """Text that is repeated, spelt or turned to capitals: nothing to know, only to read."""
    words = [rng.choice(pairs("opposites"))[rng.randrange(2)] for _ in range(rng.randint(1, 5))]
    if rng.random() < 0.4:
        words[rng.randrange(len(words))] = invented_name(rng)
    text = " ".join(words)
    kind = rng.randrange(3)
    if kind == 0:
        question = rng.choice(("Repeat after me: {}", "Say: {}", "Repeat this: {}"))
        return Exchange(question.format(text), text)
    if kind == 1:
        return Exchange(f"Write this in capital letters: {words[0]}", words[0].upper())
    return Exchange(f"Spell the word {words[0]}.", "-".join(words[0]))


_MAKERS: list[tuple[float, ExchangeMaker]] = [
    (6, calculation),
    (1, comparison),
    (1, counting),
    (2, word_problem),
    (2, copying),
]


def exchange(rng: Random) -> Exchange:
    """Any of the above."""
    return choose(rng, _MAKERS)(rng)
