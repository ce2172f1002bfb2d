"""Prompts that are drawn: random tokens, with a shared beginning or without, as ids or as text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.bench.lengths import Lengths

TOKEN_RANGE = (10, 1000)  # ids that every vocabulary has


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request of a load: token ids or text, and how many tokens to generate at most.

    schema: a JSON schema that the answer is held to; None: it is free.
    """

    content: list[int] | str
    output: int
    schema: dict[str, Any] | None = None

    @property
    def ids(self) -> list[int]:
        """Of a prompt that is no text."""
        assert not isinstance(self.content, str)
        return self.content


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomPrompts:
    """What random prompts look like. Each has its own tokens behind those that its group shares."""

    count: int
    prompt: Lengths
    output: Lengths
    shared_prefix: int = 0  # leading tokens that the prompts of a group share
    prefix_groups: int = 1
    name: str = ""  # part of the seed, so that no load finds another's prompts cached

    def draw(self, seed: int, token_range: tuple[int, int] = TOKEN_RANGE) -> list[Prompt]:
        """Prompts of ids low .. high-1, uniform; the same for the same seed and name."""
        rng = np.random.default_rng([seed, *self.name.encode()])
        low, high = token_range
        prefixes = rng.integers(low, high, size=(self.prefix_groups, self.shared_prefix)).tolist()
        lengths = self.prompt.draw(rng, self.count)
        outputs = self.output.draw(rng, self.count)
        prompts = []
        for index, (length, output) in enumerate(zip(lengths, outputs, strict=True)):
            own = max(length - self.shared_prefix, 1)
            ids = prefixes[index % self.prefix_groups] + rng.integers(low, high, size=own).tolist()
            prompts.append(Prompt(ids, output))
        return prompts


def as_words(ids: list[int], tokens_a_word: float = 1.0) -> str:
    """A text for protocols that take no ids: a word an id. With the mean number of tokens that a
    word comes to, about as many tokens as there were ids; a shared beginning stays one."""
    count = max(1, round(len(ids) / tokens_a_word))
    return " ".join(f"w{token}" for token in ids[:count])


def as_text(
    ids: list[int],
    decode: Callable[[list[int]], str],
    encode: Callable[[str], list[int]],
) -> str:
    """A text that the tokenizer reads as so many tokens, or as close to it as it comes.

    Random ids decode to text that is read as other ids, mostly more: what is too many is cut off.
    """
    text = decode(ids)
    for _ in range(4):
        read = encode(text)
        if len(read) <= len(ids):
            break
        text = decode(read[: len(ids)])
    return text
