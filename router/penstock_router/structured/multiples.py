"""How large the automata of `multipleOf` become.

Where a number must be a multiple of m, its automaton has a state for each remainder, and is made as
a whole before the first token: in a second and 70 MiB for 131,071, and beyond some millions without
an end. Where several schemas speak of one value it is that of their least common multiple.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from penstock_router.grammar import Grammar, GrammarKind
from penstock_router.request import BadGrammar
from penstock_router.tools.schema import resolve

KEYWORD = "multipleOf"
MOST_STATES = 100_000  # of all multiples of a grammar
FEW_STATES = 1_000  # of a schema, which is not looked at more closely
MOST_MULTIPLES = 32  # that differ, where they may be too large together
_IN_LARK = re.compile(r"(%(?:json|llguidance))\b[^{]*")
_BRANCHES = ("allOf", "anyOf", "oneOf")
_VALUES = frozenset({"enum", "const", "default", "examples"})  # hold no schemas


def check_multiples(grammar: Grammar) -> None:
    """Raises BadGrammar where those of all schemas in it are too large together."""
    text = grammar.text
    if KEYWORD not in text and "\\u" not in text:  # by which a client may write it
        return
    if sum(map(_states_of, _schemas(grammar))) > MOST_STATES:
        raise BadGrammar(
            f"`{KEYWORD}` is too large: the least common multiples of those that speak of one "
            f"value must come to at most {MOST_STATES} in all"
        )


def _schemas(grammar: Grammar) -> Iterator[object]:
    if grammar.kind is GrammarKind.JSON_SCHEMA:
        yield json.loads(grammar.text)
    elif grammar.kind is GrammarKind.LARK:
        for found in _IN_LARK.finditer(grammar.text):
            try:
                yield json.JSONDecoder().raw_decode(grammar.text, found.end())[0]
            except (ValueError, RecursionError):
                raise BadGrammar(f"there must be a JSON schema behind `{found[1]}`") from None


def _states_of(schema: object) -> int:
    nodes = {id(node): node for node in _nodes(schema)}
    places = defaultdict(set)  # of each multiple
    for key, node in nodes.items():
        if (multiple := _multiple(node.get(KEYWORD))) is not None:
            places[multiple].add(key)
    if not isinstance(schema, dict) or _states(places) <= FEW_STATES:
        return _states(places)
    if len(places) > MOST_MULTIPLES:
        raise BadGrammar(f"it has more than {MOST_MULTIPLES} different `{KEYWORD}`")
    speakers = _speakers(schema, nodes)
    met = defaultdict(set)  # at a schema: all that may be asked of its value
    for multiple, keys in places.items():
        for key in _reached(keys, speakers):
            met[key].add(multiple)
    return sum(map(_states, set(map(frozenset, met.values()))))


def _states(multiples: Iterable[Decimal]) -> int:
    """Remainders, and as many again for each that may be combined with others."""
    numbers = list(multiples)
    least = min((int(one.as_tuple().exponent) for one in numbers), default=0)
    whole = [int(one.scaleb(-least)) for one in numbers]
    # the last digits tell of a power of ten
    if all(str(one).rstrip("0") == "1" for one in whole):
        return 0
    common = 1
    for number in whole:
        common = math.lcm(common, number)
        if common > MOST_STATES:  # of thousands it would have a million digits
            break
    return common * len(whole)


def _nodes(node: object) -> Iterator[dict[str, Any]]:
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting += [part for keyword, part in one.items() if keyword not in _VALUES]
        elif isinstance(one, list):
            waiting += one


def _speakers(root: dict[str, Any], nodes: Mapping[int, dict[str, Any]]) -> dict[int, list[int]]:
    """By a schema: those that hold for the same value, and name it."""
    found = defaultdict(list)
    for key, node in nodes.items():
        for keyword in _BRANCHES:
            branches = node.get(keyword)
            for branch in branches if isinstance(branches, list) else ():
                found[id(branch)].append(key)
        if isinstance(reference := node.get("$ref"), str):
            found[id(resolve(root, reference))].append(key)
    return found


def _reached(keys: Iterable[int], speakers: Mapping[int, list[int]]) -> set[int]:
    reached = set(keys)
    waiting = list(reached)
    while waiting:
        for key in speakers.get(waiting.pop(), ()):
            if key not in reached:
                reached.add(key)
                waiting.append(key)
    return reached


def _multiple(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        return None
    return Decimal(repr(value)).normalize()
