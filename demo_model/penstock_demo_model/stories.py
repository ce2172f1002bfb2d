"""Longer texts that stay on one subject: stories, poems, emails, descriptions."""

from __future__ import annotations

from random import Random

from .document import END, PROMPT_WEIGHT, Document, Exchange, ExchangeMaker, Segment, choose
from .names import city, first_name
from .tables import phrases, rows, words


def _story(rng: Random, hero: str) -> str:
    """Twelve sentences or so; every noun that matters returns, so that the thread can be seen."""
    name, friend = rng.sample([first_name(rng) for _ in range(4)], 2)
    place, treasure, trouble = map(rng.choice, map(phrases, ("places", "treasures", "troubles")))
    quality = rng.choice(words("qualities"))
    companion = rng.choice([other for other in words("heroes") if other != hero])
    a, thing = ("an" if hero[0] in "aeiou" else "a"), treasure.split(" ", 1)[1]
    parts = [rng.choice(row) if len(row) > 1 else row[0] for row in rows("sentences")]
    text = " ".join(part for part in parts if part).format(
        a=a,
        h=hero,
        n=name,
        p=place,
        q=quality,
        t=trouble,
        r=treasure,
        x=thing,
        c=companion,
        f=friend,
        l=rng.choice(phrases("lessons")),
    )
    return text


def story(rng: Random) -> Exchange:
    """A story about a hero whom the request names."""
    hero = rng.choice(words("heroes"))
    a = "an" if hero[0] in "aeiou" else "a"
    if rng.random() < 0.25:
        return Exchange(rng.choice(("Tell me a story.", "Write a short story.")), _story(rng, hero))
    question = rng.choice(
        (
            "Tell me a story about {}.",
            "Write a short story about {}.",
            "Tell me a short story about {}.",
            "Write a story about {}.",
        )
    )
    return Exchange(question.format(f"{a} {hero}"), _story(rng, hero))


def poem(rng: Random) -> Exchange:
    """Four or eight lines with one rhyme scheme."""
    subject, many, colour, others, thing = rng.choice(rows("poems"))
    stanzas = [
        f"The {many} are {colour}, the {many} are wide,\n"
        f"I walk with {subject} at my side.\n"
        f"The {others} go by and softly say:\n"
        "come back to us another day.",
        f"Oh {subject}, how quiet you are tonight,\n"
        f"with {thing} and {many} in the {colour} light.\n"
        f"The {others} are resting, the world is still,\n"
        "and slowly the moon climbs over the hill.",
    ]
    rng.shuffle(stanzas)
    question = rng.choice(("Write a poem about {}.", "Write a short poem about {}."))
    return Exchange(question.format(subject), "\n\n".join(stanzas[: rng.randint(1, 2)]))


def email(rng: Random) -> Exchange:
    """A short email with a purpose."""
    purpose, body = rng.choice(rows("purposes"))
    reader, writer = first_name(rng), first_name(rng)
    question = rng.choice(("Write an email to {p}.", "Write a short email to {p}."))
    question = question.format(p=purpose)
    if rng.random() < 0.6:
        question += f" The reader is {reader}, and I am {writer}."
    text = body.format(d=rng.choice(words("days")[:5]))
    return Exchange(question, f"Dear {reader},\n\n{text}\n\nKind regards,\n{writer}")


def day(rng: Random) -> Exchange:
    """A day in a city."""
    place = city(rng)
    morning = rng.choice(("a walk through the old town", "a coffee near the market", "the museum"))
    noon = rng.choice(("lunch in a small restaurant", "soup at the market", "a picnic in a park"))
    evening = rng.choice(("a concert", "dinner with a view", "a walk along the water"))
    answer = (
        f"In the morning you could begin with {morning}. At noon, have {noon} and rest a little. "
        f"In the afternoon, visit the oldest building of {place} and look at the city from above. "
        f"In the evening, enjoy {evening}. That is a full day in {place}!"
    )
    question = rng.choice(("Plan a day in {}.", "What can I do in {} in one day?"))
    return Exchange(question.format(place), answer)


def open_story(rng: Random) -> Document:
    """A story whose first words are the prompt."""
    text = _story(rng, rng.choice(words("heroes")))
    parts = text.split(" ")
    cut = rng.randint(1, 8)
    head, tail = " ".join(parts[:cut]), " ".join(["", *parts[cut:]])
    return Segment(head, PROMPT_WEIGHT), Segment(tail + END)


_MAKERS: list[tuple[float, ExchangeMaker]] = [(6, story), (2, poem), (2, email), (2, day)]


def exchange(rng: Random) -> Exchange:
    """Any of the above."""
    return choose(rng, _MAKERS)(rng)
