"""Names of people, places and organisations, and invented ones that can only be copied."""

from __future__ import annotations

from random import Random

from .tables import COUNTRIES, words

FIRST_NAMES, LAST_NAMES = words("first_names"), words("last_names")
CITIES = [country.capital for country in COUNTRIES] + words("cities")
_ONSETS, _VOWELS = words("onsets"), "aeiou"
_CODAS = ["", "", "", "l", "n", "r", "s", "m", "nd", "x"]


def invented_name(rng: Random) -> str:
    """A name that no list holds: two or three syllables."""
    syllables = (
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
        for _ in range(rng.randint(2, 3))
    )
    return "".join(syllables).capitalize()


def first_name(rng: Random) -> str:
    """A first name; one in five is invented, so that names are copied and not recalled."""
    return invented_name(rng) if rng.random() < 0.2 else rng.choice(FIRST_NAMES)


def person(rng: Random) -> str:
    """First and last name."""
    last = invented_name(rng) if rng.random() < 0.2 else rng.choice(LAST_NAMES)
    return f"{first_name(rng)} {last}"


def city(rng: Random) -> str:
    """A city; one in ten is invented."""
    return invented_name(rng) if rng.random() < 0.1 else rng.choice(CITIES)


def organisation(rng: Random) -> str:
    """A company, museum, university or the like."""
    stem = invented_name(rng) if rng.random() < 0.2 else rng.choice(words("company_stems"))
    return f"{stem} {rng.choice(words('company_kinds'))}"
