"""How one of several choices is picked, by the log-probabilities of their own tokens.

The three first methods are SGLang's. Each is a table row: a name, a function from scores to one
number a choice or to an index, and whether the choices are scored without the prompt too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Entry = Sequence[Any]  # [log-probability, token id, text of the token]


@dataclass(frozen=True, slots=True)
class Scores:
    """What a backend says of choices. own: for each its entries behind the prompt; alone: the
    same tokens without the prompt, where a method wants them (a value may be None there)."""

    own: Sequence[Sequence[Entry]]
    alone: Sequence[Sequence[Entry]] = ()

    @property
    def totals(self) -> list[float]:
        """The log-probability of each whole choice."""
        return [math.fsum(entry[0] for entry in row) for row in self.own]

    @property
    def means(self) -> list[float]:
        """The same a token."""
        return [total / len(row) for total, row in zip(self.totals, self.own, strict=True)]


Picked = tuple[int, Mapping[str, Any]]  # the index of a choice, and what `meta_info` adds


@dataclass(frozen=True, slots=True)
class Method:
    """A way to pick a choice."""

    name: str
    pick: Callable[[Scores], Picked]
    alone: bool = False  # the choices are scored without the prompt too

    def __call__(self, choices: Sequence[str], scores: Scores) -> tuple[str, dict[str, Any]]:
        """The choice, and its `meta_info`."""
        index, more = self.pick(scores)
        meta = {
            "prompt_logprob": scores.totals,
            "normalized_prompt_logprobs": scores.means,
            "input_token_logprobs": [list(row) for row in scores.own],
            "output_token_logprobs": [[] for _ in choices],
            "choices_method": self.name,
        }
        return choices[index], meta | dict(more)


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _by_mean(scores: Scores) -> Picked:
    return _best(scores.means), {}


def _by_total(scores: Scores) -> Picked:
    return _best(scores.totals), {}


def _greedily(scores: Scores) -> Picked:
    """Token by token those stay that have the likeliest one; behind its end a choice is held for as
    likely as its mean."""
    longest = max(map(len, scores.own))
    rows = [
        [*((entry[0], entry[1]) for entry in row), *[(mean, None)] * (longest - len(row))]
        for row, mean in zip(scores.own, scores.means, strict=True)
    ]
    left = list(range(len(rows)))
    for column in range(longest):
        value, token = max((rows[i][column] for i in left), key=lambda cell: cell[0])
        # The same token behind the same prefix is as likely, however it was rounded.
        left = [
            i
            for i in left
            if rows[i][column][0] == value or (token is not None and rows[i][column][1] == token)
        ]
        if len(left) == 1:
            break
    return left[0], {"greedy_logprob_matrix": [[cell[0] for cell in row] for row in rows]}


def _by_gain(scores: Scores) -> Picked:
    """How much likelier the prompt makes a choice's tokens, in the mean."""
    gains = []
    for own, alone in zip(scores.own, scores.alone, strict=True):
        pairs = [(o[0], a[0]) for o, a in zip(own, alone, strict=True) if a[0] is not None]
        gains.append(math.fsum(o - a for o, a in pairs) / len(pairs) if pairs else -math.inf)
    return _best(gains), {
        "unconditional_token_logprobs": [list(row) for row in scores.alone],
        "normalized_unconditional_prompt_logprobs": gains,
    }


token_length_normalized = Method("token_length_normalized", _by_mean)
greedy_token_selection = Method("greedy_token_selection", _greedily)
unconditional_likelihood_normalized = Method(
    "unconditional_likelihood_normalized", _by_gain, alone=True
)
total_logprob = Method("total_logprob", _by_total)
METHODS = {
    method.name: method
    for method in (
        token_length_normalized,
        greedy_token_selection,
        unconditional_likelihood_normalized,
        total_logprob,
    )
}
ALIASES = {"greedy": greedy_token_selection, "unconditional": unconditional_likelihood_normalized}


def method_of(value: Method | str | None) -> Method:
    """A method itself, by its name, or the default. Raises ValueError."""
    if value is None:
        return token_length_normalized
    if isinstance(value, Method):
        return value
    named: Mapping[str, Method] = METHODS | ALIASES
    if not isinstance(value, str) or value not in named:
        raise ValueError(f"`choices_method` must be one of {', '.join(named)}. Given: {value!r}")
    return named[value]
