"""Names of people, places and organisations, and invented ones that can only be copied."""

from __future__ import annotations

from random import Random

from .country_table import COUNTRIES

FIRST_NAMES = (
    "Ada Alan Alice Amir Ana Anna Ben Carla Carlos Chen Clara Daniel David Diego Elena Emma Eva "
    "Fatima Felix Grace Hana Hugo Ines Ivan Jack James Jane Jonas Julia Kai Kofi Lara Leo Lena "
    "Lina Lucas Luis Maria Marta Max Maya Mia Mina Nadia Nina Noah Nora Olga Omar Oscar Paul Peter "
    "Priya Rosa Ruth Sam Sara Sofia Tara Theo Thomas Tim Tom Vera Victor Yara Yuki Zoe"
).split()
LAST_NAMES = (
    "Adams Ali Baker Bauer Bianchi Brown Carter Costa Diaz Dubois Evans Fischer Garcia Green "
    "Hansen Hill Ito Jansen Johnson Jones Khan Kim King Klein Kumar Lee Lopez Martin Mensah Meyer "
    "Miller Moreau Nguyen Novak Okafor Olsen Park Patel Perez Petrov Reed Rossi Santos Sato "
    "Silva Singh Smith Stone Suzuki Tanaka Taylor Torres Wagner Walker Weber White Wilson Wong"
).split()
CITIES = tuple(country.capital for country in COUNTRIES) + tuple(
    "Amsterdam Barcelona Boston Chicago Dubai Edinburgh Geneva Hamburg Istanbul Karachi Lagos "
    "Lyon Melbourne Milan Montreal Mumbai Munich Naples Osaka Oxford Porto Seattle Shanghai "
    "Sydney Toronto Turin Vancouver Venice Zurich".split()
)
_COMPANY_STEMS = (
    "Acme Alpha Apex Aurora Beacon Blue Bright Cedar Cobalt Delta Eagle Falcon Global Golden "
    "Horizon Iron Lake Lunar Maple Meridian North Nova Ocean Orion Pacific Pine Quantum River "
    "Silver Solar Star Stone Summit Titan Union Vertex Vista Willow Zenith"
).split()
_COMPANY_KINDS = (
    "Airlines Bank Books Energy Foods Group Hospital Industries Institute Labs Logistics Motors "
    "Museum Press Records Robotics Software Studios Systems University"
).split()
_ONSETS = "b br c d dr f g gr h j k l m n p pr qu r s st t tr v w z".split()
_VOWELS = "a e i o u".split()
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
    stem = invented_name(rng) if rng.random() < 0.2 else rng.choice(_COMPANY_STEMS)
    return f"{stem} {rng.choice(_COMPANY_KINDS)}"
