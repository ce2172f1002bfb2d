"""The cases of the load generator as data."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from penstock.bench.lengths import Lengths
from penstock.bench.prompts import Prompt, RandomPrompts


@dataclass(frozen=True, slots=True)
class Case:
    """A closed loop of `streams`, or with a rate an open one, over `requests` requests."""

    name: str
    streams: int
    requests: int
    prompt: Lengths
    output: Lengths
    shared_prefix: int = 0  # leading tokens that the prompts of a group share
    prefix_groups: int = 1
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0
    schema: str = ""  # JSON schema that the answers are held to

    def draw(self, seed: int, token_range: tuple[int, int]) -> list[Prompt]:
        """The case's requests. Its name goes into the seed, so that one case never finds another's
        prompts cached."""
        prompts = RandomPrompts(
            count=self.requests,
            prompt=self.prompt,
            output=self.output,
            shared_prefix=self.shared_prefix,
            prefix_groups=self.prefix_groups,
            name=self.name,
        ).draw(seed, token_range)
        schema = json.loads(self.schema) if self.schema else None
        return [replace(prompt, schema=schema) for prompt in prompts]


def fixed(
    name: str, streams: int, requests: int, prompt: int, output: int, prefix: int = 0
) -> Case:
    """A case with one length of prompt and one of output."""
    lengths = [Lengths("fixed", (float(tokens),)) for tokens in (prompt, output)]
    return Case(name, streams, requests, lengths[0], lengths[1], prefix)


def sampled(name: str, case: Case) -> Case:
    """The same as most clients ask: by chance, within a nucleus."""
    return replace(case, name=name, temperature=0.7, top_p=0.95)


CASES = {
    case.name: case
    for case in (
        fixed("single", 1, 4, 128, 256),
        fixed("c8", 8, 16, 512, 128),
        fixed("c32", 32, 96, 512, 128),
        fixed("c64", 64, 192, 512, 128),
        fixed("c128", 128, 384, 512, 128),
        fixed("c256", 256, 768, 512, 128),
        fixed("agent1000", 64, 256, 1024, 64, prefix=1000),
        fixed("fewshot2000", 32, 128, 2048, 32, prefix=2000),
        fixed("long", 16, 32, 7000, 64),
        sampled("c8-sampled", fixed("c8", 8, 16, 512, 128)),
        sampled("c64-sampled", fixed("c64", 64, 192, 512, 128)),
    )
}
