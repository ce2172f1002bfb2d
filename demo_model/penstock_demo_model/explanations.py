"""Definitions, instructions in steps and pieces of code."""

from __future__ import annotations

from random import Random

from .document import END, PROMPT_WEIGHT, Document, Exchange, Segment, choose
from .tables import blocks, rows

SNIPPETS = blocks("snippets.code")


def definition(rng: Random) -> Exchange:
    """What something is."""
    term, text = rng.choice(rows("definitions"))
    if rng.random() < 0.15:
        term = term.title()  # "What is Deep Learning?"
    question = rng.choice(
        ("What is {}?", "What is {}?", "Explain {}.", "What does {} mean?", "Can you explain {}?")
    ).format(term)
    return Exchange(question, text)


def how_to(rng: Random) -> Exchange:
    """The steps that lead to something."""
    task, *steps = rng.choice(rows("how_to"))
    question = rng.choice(
        ("How do I {}?", "How can I {}?", "Explain how to {}.", "Tell me how to {}.")
    ).format(task)
    if rng.random() < 0.5:
        return Exchange(question, "\n".join(f"{n}. {step}" for n, step in enumerate(steps, 1)))
    words = ["First", *("Then", "Next", "After that")[: len(steps) - 2], "Finally"]
    sentences = (
        f"{word}, {step[0].lower()}{step[1:]}" for word, step in zip(words, steps, strict=True)
    )
    return Exchange(question, " ".join(sentences))


def code(rng: Random) -> Exchange:
    """A function on request."""
    what, source = rng.choice(SNIPPETS)
    question = rng.choice(
        (
            "Write a Python function that {}.",
            "Write a function that {}.",
            "Give me Python code that {}.",
        )
    ).format(what)
    return Exchange(question, source if rng.random() < 0.5 else f"```python\n{source}\n```")


def code_completion(rng: Random) -> Document:
    """The body of a function whose first line is the prompt."""
    _, source = rng.choice(SNIPPETS)
    head, body = source.split("\n", 1)
    return Segment(head, PROMPT_WEIGHT), Segment(f"\n{body}{END}")


def exchange(rng: Random) -> Exchange:
    """Any of the above."""
    return choose(rng, [(6, definition), (2, how_to), (2, code)])(rng)
