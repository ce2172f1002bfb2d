"""The prompts that a command line asks for, as ids or as text, whatever the protocol takes."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any

from tokenizers import Tokenizer

from penstock.bench.datasets import SCHEMA, json_schema, sharegpt
from penstock.bench.lengths import Lengths
from penstock.bench.load import Load, Target, run_load
from penstock.bench.prompts import Prompt, RandomPrompts, as_text, as_words
from penstock.bench.protocols import PROTOCOLS

PROBES = (32, 160)  # words of two prompts that show how many tokens a word comes to
OUTPUT = Lengths("fixed", (128.0,))
SHARED = 0.75  # of the longest prompt, by default


class PromptSource:
    """Draws them. Others for each name, so that no run finds another's prompts cached."""

    def __init__(
        self, arguments: argparse.Namespace, target: Target, tokenizer: Tokenizer | None, seed: int
    ) -> None:
        """Asks the server how many tokens a word is, where text has to be made without a
        tokenizer. Raises ValueError where it does not say."""
        self._given = arguments
        self._tokenizer = tokenizer
        self._seed = seed
        self._takes_ids = PROTOCOLS[target.protocol].takes_ids
        self._schema: Any = SCHEMA
        if arguments.schema is not None:
            self._schema = json.loads(arguments.schema.read_text())
        random = arguments.dataset_name in ("random", "shared-prefix")
        makes_text = arguments.dataset_name == "json-schema" or (random and not self._takes_ids)
        self._tokens_a_word = 1.0
        if makes_text and tokenizer is None:
            self._tokens_a_word = tokens_a_word(target)

    def draw(self, count: int, name: str) -> list[Prompt]:
        """So many prompts. Raises ValueError or OSError for a file that is no dataset."""
        given = self._given
        if given.dataset_name == "sharegpt":
            seed = self._seed + (name == "warm-up")
            counted = self._count if self._tokenizer is not None else None
            path, output = given.dataset_path, given.output_len
            return sharegpt(path, count, seed, tokens=counted, output=output)
        drawn = RandomPrompts(
            count=count,
            prompt=given.input_len,
            output=given.output_len or OUTPUT,
            shared_prefix=self._shared_prefix(),
            prefix_groups=given.prefix_groups,
            name=name,
        ).draw(self._seed, given.token_range)
        if given.dataset_name == "json-schema":
            return [json_schema(self._text(each.ids), each.output, self._schema) for each in drawn]
        if self._takes_ids:
            return drawn
        return [replace(each, content=self._text(each.ids)) for each in drawn]

    def _shared_prefix(self) -> int:
        given = self._given
        if given.shared_prefix_len is not None:
            return int(given.shared_prefix_len)
        shared = given.dataset_name == "shared-prefix"
        return int(SHARED * max(given.input_len.values)) if shared else 0

    def _text(self, ids: list[int]) -> str:
        if self._tokenizer is None:
            return as_words(ids, self._tokens_a_word)
        return as_text(ids, self._tokenizer.decode, self._encode)

    def _encode(self, text: str) -> list[int]:
        assert self._tokenizer is not None
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _count(self, text: str) -> int:
        return len(self._encode(text))


def tokens_a_word(target: Target) -> float:
    """By what the server says of two prompts of words. Raises ValueError where it says nothing."""
    counts = []
    for words in PROBES:
        ids = (
            RandomPrompts(
                count=1, prompt=Lengths("fixed", (float(words),)), output=OUTPUT, name="words"
            )
            .draw(0)[0]
            .ids
        )
        probe = Prompt(as_words(ids), 1)
        _, (said,) = run_load(replace(target, processes=1), Load(prompts=[probe]))
        if said["failure"] is not None:
            raise ValueError(f"the first request failed: {said['failure']}")
        if said["prompt_tokens"] is None:
            return 1.0
        counts.append(said["prompt_tokens"])
    return max(float(counts[1] - counts[0]) / (PROBES[1] - PROBES[0]), 0.1)
