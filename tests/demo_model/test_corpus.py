"""The text that the shipped weights were trained on stays what it was."""

import hashlib
from random import Random

from penstock_demo_model import (
    arithmetic,
    countries,
    explanations,
    facts,
    forms,
    records,
    smalltalk,
    stories,
    tasks,
    tools,
)

EXCHANGES = [
    *(countries.capital, countries.exchange, facts.exchange, arithmetic.exchange),
    *(explanations.exchange, smalltalk.exchange, tasks.exchange, records.exchange),
    stories.exchange,
]
DOCUMENTS = [
    *(forms.named_assistant, records.free, tools.conversation, tools.choice),
    *(stories.open_story, explanations.code_completion),
]
# Without docstrings, which are those of the Python that runs.
SEEN = "85e10006cdeeb8127f6befeaf67ced20eb10c4503da063005cacb9ee604185fe"


def test_tables_and_templates_make_the_same_text():
    found, rng = hashlib.sha256(), Random(0)
    for _ in range(200):
        made = [forms.either(rng, maker(rng)) for maker in EXCHANGES]
        for document in (*made, *(maker(rng) for maker in DOCUMENTS)):
            found.update("\0".join(f"{part.text}\1{part.weight}" for part in document).encode())
    assert found.hexdigest() == SEEN
