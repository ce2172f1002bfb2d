"""What the corpus is made of: exchanges, and the documents that they become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
SYSTEM, USER, ASSISTANT, TOOL = "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"
SPECIAL_TOKENS = (PAD, BEGIN, END, SYSTEM, USER, ASSISTANT, TOOL)

ANSWER_WEIGHT = 1.0
# Prompts are learnt a little, so that the model can also continue half a question; at full weight
# most of the loss would be the choice between templates, which nothing can predict.
PROMPT_WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer, before it takes the form of a prompt."""

    question: str
    answer: str  # sentences
    short: str | None = None  # the bare fact, where there is one
    opening: str | None = None  # a statement that `short` completes

    def __post_init__(self) -> None:
        for text in (self.question, self.answer):
            if not text or text != text.strip():
                raise ValueError(f"text must be non-empty and stripped, given {text!r}")


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a document that is tokenised on its own, as prompt and continuation are."""

    text: str
    weight: float = ANSWER_WEIGHT  # of its tokens in the loss


Document = tuple[Segment, ...]
ExchangeMaker = Callable[[Random], Exchange]
DocumentMaker = Callable[[Random], Document]


def choose(rng: Random, weighted: list[tuple[float, ExchangeMaker]]) -> ExchangeMaker:
    """One of the makers, by weight."""
    return rng.choices([maker for _, maker in weighted], [weight for weight, _ in weighted])[0]
