"""Longer texts that stay on one subject: stories, poems, emails, descriptions."""

from __future__ import annotations

from random import Random

from .document import END, PROMPT_WEIGHT, Document, Exchange, ExchangeMaker, Segment, choose
from .names import city, first_name

_HEROES = (
    "fox owl rabbit bear cat dog mouse robot dragon sailor baker gardener painter girl boy king "
    "queen wizard farmer fisherman clockmaker turtle lion horse pigeon miller"
).split()
_PLACES = (
    "in a small village by the sea",
    "in a quiet forest",
    "in a tall lighthouse",
    "in a busy harbour",
    "in a castle on a hill",
    "in a valley full of flowers",
    "in an old mill by the river",
    "in a town under the mountains",
    "in a little house at the edge of a wood",
    "on an island far away",
)
_TREASURES = (
    "a golden key",
    "an old map",
    "a silver bell",
    "a lost letter",
    "a warm red coat",
    "a magic lamp",
    "a music box",
    "a blue stone",
    "a basket of apples",
    "a wooden boat",
)
_TROUBLES = (
    "a great storm came over the land",
    "the river stopped flowing",
    "all the lights went out",
    "a thick fog covered everything",
    "the bridge broke in two",
    "snow closed every road",
    "the well ran dry",
    "the old clock stopped",
)
_QUALITIES = "brave clever curious kind patient quiet cheerful stubborn gentle proud".split()
_LESSONS = (
    "that small steps can lead far",
    "that a friend is worth more than gold",
    "that asking for help is never a shame",
    "that patience opens every door",
    "that kindness comes back",
    "that even the smallest can be brave",
)


def _story(rng: Random, hero: str) -> str:
    """Twelve sentences or so; every noun that matters returns, so that the thread can be seen."""
    name, friend = rng.sample([first_name(rng) for _ in range(4)], 2)
    place, treasure, trouble = rng.choice(_PLACES), rng.choice(_TREASURES), rng.choice(_TROUBLES)
    quality, companion = rng.choice(_QUALITIES), rng.choice([h for h in _HEROES if h != hero])
    a, thing = ("an" if hero[0] in "aeiou" else "a"), treasure.split(" ", 1)[1]
    parts = [
        rng.choice(
            (
                "Once upon a time there was {a} {h} called {n}.",
                "There once was {a} {h} whose name was {n}.",
            )
        ),
        rng.choice(
            (
                "{n} lived {p} and was very {q}.",
                "The {h} lived {p}, and everyone knew how {q} {n} was.",
            )
        ),
        rng.choice(
            (
                "Every morning {n} went for a long walk.",
                "{n} liked to watch the clouds and to listen to the wind.",
                "",
            )
        ),
        rng.choice(("One day {t}.", "One evening {t}.", "Then, without any warning, {t}.")),
        rng.choice(
            (
                "Nobody knew what to do.",
                "Everyone was afraid, but {n} was not.",
                '"We must do something," said {n}.',
            )
        ),
        "{n} remembered an old tale about {r}.",
        rng.choice(
            (
                '"If I find the {x}, all will be well," said the {h}.',
                "The tale said that the {x} could help.",
            )
        ),
        "So {n} set out to look for it.",
        rng.choice(
            (
                "On the way {n} met a {c} called {f}.",
                "After three days {n} met a {c} whose name was {f}.",
            )
        ),
        rng.choice(
            (
                '"I will come with you," said {f}.',
                '"I know where the {x} is," said {f}.',
                "{f} was hungry, and {n} shared the last piece of bread.",
            )
        ),
        rng.choice(
            (
                "Together they searched until the stars came out.",
                "They walked all night and did not rest.",
                "They climbed over rocks and crossed cold water.",
            )
        ),
        rng.choice(
            (
                "At last they found the {x} under a stone.",
                "At last they found the {x} in a hollow tree.",
                "At last they saw the {x} shining in the dark.",
            )
        ),
        rng.choice(
            (
                "They carried it home, and soon everything was as before.",
                "When they brought it home, the trouble was over.",
            )
        ),
        rng.choice(("{n} had learnt {l}.", "From that day on {n} knew {l}.")),
        rng.choice(
            (
                "And {n} and {f} stayed friends for ever.",
                "The {h} and the {c} lived happily ever after.",
            )
        ),
    ]
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
        l=rng.choice(_LESSONS),
    )
    return text


def story(rng: Random) -> Exchange:
    """A story about a hero whom the request names."""
    hero = rng.choice(_HEROES)
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


_POEM_SUBJECTS = {
    "the sea": ("waves", "blue", "sails", "salt"),
    "the night": ("stars", "dark", "dreams", "silver"),
    "winter": ("snow", "white", "fires", "ice"),
    "spring": ("flowers", "green", "birds", "rain"),
    "the river": ("waters", "clear", "bridges", "stones"),
    "autumn": ("leaves", "golden", "winds", "mist"),
    "the forest": ("trees", "deep", "paths", "moss"),
}


def poem(rng: Random) -> Exchange:
    """Four or eight lines with one rhyme scheme."""
    subject = rng.choice(list(_POEM_SUBJECTS))
    many, colour, others, thing = _POEM_SUBJECTS[subject]
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


_PURPOSES = {
    "invite a friend to dinner": "I would like to invite you to dinner on {d} evening. I will cook "
    "something simple, and we can talk as long as we like. Please tell me if you can come.",
    "thank a colleague": "thank you very much for your help on {d}. Without you I would not have "
    "finished in time. I hope that I can return the favour soon.",
    "ask for a day off": "I would like to take {d} off. My work for the week is finished, and a "
    "colleague will answer my calls. Please let me know if this suits you.",
    "move a meeting": "I am sorry, but I cannot come to our meeting as planned. Could we move it to "
    "{d}? Any hour in the morning would suit me well.",
    "report a problem": "since {d} the printer on our floor does not work. It shows a red light and "
    "makes a loud noise. Could you please send somebody to look at it?",
}
_DAYS = "Monday Tuesday Wednesday Thursday Friday".split()


def email(rng: Random) -> Exchange:
    """A short email with a purpose."""
    purpose = rng.choice(list(_PURPOSES))
    reader, writer = first_name(rng), first_name(rng)
    question = rng.choice(("Write an email to {p}.", "Write a short email to {p}."))
    question = question.format(p=purpose)
    if rng.random() < 0.6:
        question += f" The reader is {reader}, and I am {writer}."
    text = _PURPOSES[purpose].format(d=rng.choice(_DAYS))
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
    text = _story(rng, rng.choice(_HEROES))
    words = text.split(" ")
    cut = rng.randint(1, 8)
    head, tail = " ".join(words[:cut]), " ".join(["", *words[cut:]])
    return Segment(head, PROMPT_WEIGHT), Segment(tail + END)


_MAKERS: list[tuple[float, ExchangeMaker]] = [(6, story), (2, poem), (2, email), (2, day)]


def exchange(rng: Random) -> Exchange:
    """Any of the above."""
    return choose(rng, _MAKERS)(rng)
