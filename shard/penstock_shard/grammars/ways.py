"""Two ways to compile a grammar: one that finds what it forces, and one that does not.

llguidance looks for forced bytes in one call, and for each mask it tokenizes all that it found. So
the 216,000 bytes of `((a{60}){60}){60}` take half a second, and each token of them 90 ms. With the
bounds here a call ends after some 10,000 bytes of a pattern or 20,000 of a literal. What reaches
them is compiled again such that nothing is forced: a token is then a choice of few, and a mask of
the same pattern takes 0.02 ms.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from llguidance import LLParserLimits

# For masks with 128,000 tokens schemas and patterns need 5,000 and 2,000 at most; a programming
# language up to 50,000, and such a grammar is compiled without forcing.
_forcing = partial(
    LLParserLimits, step_lexer_fuel=20_000, step_max_items=10_000, verbose_errors=False
)
# What is left of the fuel for compiling, the library spends on what all texts begin with. Hardly
# any grammar needs more than the smaller one.
FEW, MANY = 100_000, 1_000_000
MOST_OPENING = 16_384  # forced bytes at the beginning


@dataclass(frozen=True)
class Way:
    """How a grammar is compiled."""

    limits: tuple[LLParserLimits, ...]  # the first ones that it fits in
    form: Callable[[str], str]  # of what the library reads


class ExhaustedError(ValueError):
    """A grammar reached its bounds."""


def _unforced(form: str) -> str:
    """The same grammar within one that says that nothing is forced, which holds for all."""
    whole = json.loads(form)["grammars"] if form.startswith("{") else [{"lark_grammar": form}]
    whole[0]["name"] = "whole"
    first = {"lark_grammar": '%llguidance {"no_forcing": true}\nstart: @whole'}
    return json.dumps({"grammars": [first, *whole]})


FORCING = Way(
    (_forcing(initial_lexer_fuel=FEW), _forcing(initial_lexer_fuel=MANY)), lambda form: form
)
CHOOSING = Way((LLParserLimits(verbose_errors=False),), _unforced)
