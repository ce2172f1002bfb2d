"""Programs that `programs` measures: what users of prefix caches write.

Texts are random words, made to a number of tokens, so that every model takes them; lengths are
those of the claims that users quote, times a scale for small models.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import penstock.lang as sgl

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 16},
        "occupation_of_the_person": {"type": "string", "maxLength": 16},
        "age_in_years": {"type": "integer", "minimum": 10, "maximum": 99},
        "sentiment_of_the_article": {"enum": ["positive", "negative", "neutral"]},
    },
    "required": [
        "name",
        "occupation_of_the_person",
        "age_in_years",
        "sentiment_of_the_article",
    ],
    "additionalProperties": False,
}


class Words:
    """Random text of a wanted number of tokens, as a server counts them."""

    def __init__(self, seed: int, scale: float, tokens_a_word: float) -> None:
        self._chance = random.Random(seed)
        self._scale = scale
        self._rate = tokens_a_word

    def text(self, tokens: int, scaled: bool = True) -> str:
        """So many tokens, roughly. scaled: times the scale."""
        count = max(1, round(tokens * (self._scale if scaled else 1) / self._rate))
        return " ".join(word(self._chance) for _ in range(count))

    def size(self, tokens: int) -> int:
        """Tokens to generate."""
        return max(4, round(tokens * self._scale))


def word(chance: random.Random) -> str:
    """Two to five letters."""
    return "".join(chance.choice(LETTERS) for _ in range(chance.randint(2, 5)))


@dataclass(frozen=True, slots=True)
class Workload:
    """A program with rows of arguments. share: of the programs that run at once, as some do more
    than others. claim: what users quote of it, as a ratio."""

    name: str
    program: sgl.Program
    row: Callable[[], dict[str, Any]]
    share: float
    claim: float | None = None

    def rows(self, count: int) -> list[dict[str, Any]]:
        return [self.row() for _ in range(count)]


def workloads(words: Words) -> list[Workload]:
    """All of them."""
    makers = (few_shot, agent, json_records, suffixes, tree_of_thought, multi_turn)
    return [make(words) for make in makers]


def few_shot(words: Words) -> Workload:
    """Ten examples of 200 tokens, a question, a short answer."""
    examples = "\n\n".join(f"Q: {words.text(180)}\nA: {words.text(20)}" for _ in range(10))

    @sgl.function
    def program(s: Any, question: str) -> None:
        s += examples + "\n\nQ: " + question + "\n"
        s += "A:" + sgl.gen("answer", max_tokens=words.size(16), ignore_eos=True)

    return Workload("few-shot", program, lambda: {"question": words.text(30)}, 1.0, 10.0)


def agent(words: Words) -> Workload:
    """A system prompt of 1,000 tokens, then three steps of thought and observation."""
    system = words.text(1000)

    @sgl.function
    def program(s: Any, task: str, observations: Sequence[str]) -> None:
        s += system + "\n\nTask: " + task + "\n"
        for step, observation in enumerate(observations):
            s += f"Step {step}:" + sgl.gen(max_tokens=words.size(32), ignore_eos=True)
            s += f"\nObservation {step}: {observation}\n"
        s += "Answer:" + sgl.gen("answer", max_tokens=words.size(16), ignore_eos=True)

    return Workload(
        "agent",
        program,
        lambda: {"task": words.text(40), "observations": [words.text(60) for _ in range(3)]},
        0.5,
        5.0,
    )


def multi_turn(words: Words) -> Workload:
    """Four turns behind a short system prompt, which all conversations share."""
    system = words.text(100)

    @sgl.function
    def program(s: Any, questions: Sequence[str]) -> None:
        s += sgl.system(system)
        for question in questions:
            s += sgl.user(question)
            s += sgl.assistant(sgl.gen(max_tokens=words.size(48), ignore_eos=True))

    def row() -> dict[str, Any]:
        return {"questions": [words.text(300) for _ in range(4)]}

    return Workload("multi-turn", program, row, 0.25)


def tree_of_thought(words: Words) -> Workload:
    """Two plans, two ways to follow each, a judgement of each way."""
    shots = words.text(800)

    @sgl.function
    def program(s: Any, question: str) -> None:
        s += shots + "\n\n" + question + "\n"
        plans = s.fork(2)
        for number, plan in enumerate(plans):
            plan += f"Plan {number}:" + sgl.gen(
                max_tokens=words.size(32), temperature=0.3, ignore_eos=True
            )
        for plan in plans:
            ways = plan.fork(2)
            for number, way in enumerate(ways):
                way += f"\nWay {number}:" + sgl.gen(
                    max_tokens=words.size(48), temperature=0.3, ignore_eos=True
                )
                way += "\nIt is " + sgl.select("judgement", ["right", "wrong", "unclear"])

    return Workload("tree of thought", program, lambda: {"question": words.text(80)}, 0.1)


def json_records(words: Words) -> Workload:
    """Instructions of 500 tokens, an article of 150, an object by a schema."""
    instructions = words.text(500)

    @sgl.function
    def program(s: Any, article: str) -> None:
        s += instructions + "\n\nArticle: " + article + "\nAs JSON: "
        s += sgl.gen("record", max_tokens=160, json_schema=SCHEMA)

    return Workload("JSON", program, lambda: {"article": words.text(150)}, 0.5, 3.0)


def suffixes(words: Words) -> Workload:
    """A hundred suffixes of one prefix of 500 tokens, scored at once."""

    @sgl.function
    def program(s: Any, prefix: str, choices: Sequence[str]) -> None:
        s += prefix
        s += sgl.select("suffix", choices)

    return Workload(
        "100 suffixes",
        program,
        lambda: {
            "prefix": words.text(500),
            "choices": [" " + words.text(8, scaled=False) for _ in range(100)],
        },
        0.05,
    )
