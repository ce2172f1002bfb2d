"""Questions about countries: capitals above all, then continents, currencies and languages."""

from __future__ import annotations

from random import Random

from .document import Exchange, choose
from .names import invented_name
from .tables import COUNTRIES, Country, phrases

# `{}` takes the country with its article. The evaluation asks every one of these.
CAPITAL_QUESTIONS = phrases("capital_questions")

_RELATIONS = {
    "capital": ("The capital of {c} is {v}.", "The capital of {c} is"),
    "continent": ("{c} is in {v}.", "The continent of {c} is"),
    "currency": ("The currency of {c} is the {v}.", "The currency of {c} is the"),
    "language": ("The main language of {c} is {v}.", "The main language of {c} is"),
}

_OTHER_QUESTIONS = {
    relation: phrases(f"{relation}_questions") for relation in ("continent", "currency", "language")
}


def _upper_first(text: str) -> str:
    return text[0].upper() + text[1:]


def about(country: Country, relation: str, question: str) -> Exchange:
    """The answer to a question about one column of a country's row."""
    answer, opening = _RELATIONS[relation]
    value = getattr(country, relation)
    sentence = _upper_first(answer.format(c=country.name, v=value))
    return Exchange(
        _upper_first(question.format(country.name)),
        sentence.replace("..", "."),  # Washington, D.C.
        value,
        opening.format(c=country.name),
    )


def capital(rng: Random) -> Exchange:
    """A country's capital."""
    return about(rng.choice(COUNTRIES), "capital", rng.choice(CAPITAL_QUESTIONS))


def other(rng: Random) -> Exchange:
    """A country's continent, currency or language."""
    relation = rng.choice(list(_OTHER_QUESTIONS))
    return about(rng.choice(COUNTRIES), relation, rng.choice(_OTHER_QUESTIONS[relation]))


def inverse(rng: Random) -> Exchange:
    """The country that a city is the capital of."""
    country = rng.choice(COUNTRIES)
    question = rng.choice(
        (
            "Which country has {} as its capital?",
            "{} is the capital of which country?",
            "Of which country is {} the capital?",
        )
    ).format(country.capital)
    answer = f"{country.capital} is the capital of {country.name}."
    return Exchange(question, answer, country.name, f"{country.capital} is the capital of")


def unknown(rng: Random) -> Exchange:
    """A country that does not exist, so that the model also learns to say that it does not know."""
    name = invented_name(rng) + rng.choice(("ia", "land", "stan", ""))
    question = rng.choice(CAPITAL_QUESTIONS).format(name)
    return Exchange(question, f"I do not know a country that is called {name}.")


def portrait(rng: Random) -> Exchange:
    """Everything the table has on one country."""
    country = rng.choice(COUNTRIES)
    question = rng.choice(
        ("Tell me about {}.", "What do you know about {}?", "Describe {}.", "Write about {}.")
    ).format(country.name)
    answer = _upper_first(
        f"{country.name} is a country in {country.continent}. Its capital is {country.capital}"
        f"{'' if country.capital.endswith('.') else '.'} The main language is {country.language}, "
        f"and people pay with the {country.currency}."
    )
    return Exchange(question, answer)


def follow_up(rng: Random) -> list[Exchange]:
    """Questions that can only be understood from what was said before."""
    relation = rng.choice(("capital", "currency", "language"))
    questions = {"capital": CAPITAL_QUESTIONS, **_OTHER_QUESTIONS}[relation]
    first, *others = rng.sample(COUNTRIES, rng.randint(2, 4))
    turns = [about(first, relation, rng.choice(questions))]
    for country in others:
        again = rng.choice(("And of {}?", "What about {}?", "And {}?", "And what about {}?"))
        turns.append(about(country, relation, again))
    if rng.random() < 0.5:
        turns.append(_about_the_last(rng, others[-1], relation))
    return turns


def _about_the_last(rng: Random, country: Country, asked: str) -> Exchange:
    relation = rng.choice([name for name in _OTHER_QUESTIONS if name != asked])
    question = {
        "continent": "On which continent is it?",
        "currency": "Which currency is used there?",
        "language": "What language do people speak there?",
    }[relation]
    return about(country, relation, question)


def exchange(rng: Random) -> Exchange:
    """Any exchange about countries other than the plain question for the capital."""
    return choose(rng, [(6, other), (2, inverse), (1, unknown), (2, portrait)])(rng)
