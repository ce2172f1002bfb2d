"""Grammars that force more than the library finds in bounded time: they are compiled such that they
force nothing, at once or in the middle of a text, and their texts stay what they would be."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llguidance import LLMatcher

from penstock_proto import shard_pb2
from penstock_router.grammar import Grammar
from penstock_router.request_wire import GRAMMAR
from penstock_router.structured import grammar_from
from penstock_router.structured.json_schema import json_schema
from penstock_router.structured.lark import converted
from penstock_shard.grammars import template as template_module
from penstock_shard.grammars.bits import Bits
from penstock_shard.grammars.compiled import compiled
from penstock_shard.grammars.matching import Constraint, Matching
from penstock_shard.grammars.template import Template
from penstock_shard.grammars.templates import Templates
from penstock_shard.grammars.ways import CHOOSING, FORCING
from support.held import end_of, tokenizer_of

KINDS = shard_pb2.Grammar
LONG = "((a{60}){60}){60}"
RULES = 'start: ("x" | "y") b{60}\nb: c{60}\nc: d{60}\nd: "a"'
TERMINALS = 'start: ("x" | "y") b{60}\nb: A{60}\nA: /a{3600}/'


@pytest.fixture(scope="module")
def folder(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("llama2")


@pytest.fixture(scope="module")
def templates(folder: Path) -> Templates:
    templates = Templates(tokenizer_of(folder).get_vocab_size())
    assert not templates.load((folder / "tokenizer.json").read_text(), [end_of(folder)])
    return templates


class Texts:
    """Sequences that are held to one grammar each."""

    def __init__(self, templates: Templates, folder: Path, slots: int = 2) -> None:
        self.tokenizer = tokenizer_of(folder)
        self.bits = Bits(slots, self.tokenizer.get_vocab_size(), torch.device("cpu"))
        self.matching = Matching(templates, self.bits)
        self.chance = np.random.default_rng(0)

    def step(self, constraints: list[Constraint]) -> list[tuple[int, list[int]]]:
        """A token each, of those that its bits allow. Returns the runs that were told."""
        allowed = np.unpackbits(self.bits.rows.view(np.uint8), axis=1, bitorder="little")
        tokens: Any = torch.tensor(
            [int(self.chance.choice(np.flatnonzero(allowed[one.slot]))) for one in constraints]
        )
        turn = self.matching.turn(tokens, list(enumerate(constraints)))
        turn.wait()
        self.matching.wait()
        return turn.forced

    def text(self, one: Constraint) -> str:
        return str(self.tokenizer.decode(one.taken))


def compile_one(
    templates: Templates, number: int, kind: int, text: str, much: bool = False
) -> Template:
    grammar = shard_pb2.Grammar(kind=kind, text=text)  # type: ignore[arg-type]
    request = shard_pb2.CompileRequest(id=number, grammar=grammar, forces_much=much)
    made = templates.compile(request)
    assert made.outcome == shard_pb2.CompileResponse.READY, made.error
    template = templates.template(number)
    assert template is not None
    return template


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (KINDS.REGEX, LONG),
        (KINDS.LARK, f"start: /{LONG}/"),
        (KINDS.LARK, RULES.replace('("x" | "y") ', "")),
        (KINDS.JSON_SCHEMA, '{"type": "string", "pattern": "^a{50000}$"}'),
        (KINDS.JSON_SCHEMA, '{"const": "%s"}' % ("no end " * 3000)),
    ],
    ids=["pattern", "terminal", "rules", "schema", "literal"],
)
def test_one_that_begins_with_much_forces_nothing(
    templates: Templates, folder: Path, kind: int, text: str
) -> None:
    template = compile_one(templates, 1, kind, text)
    assert not template.forces and not template.matcher(0).compute_ff_tokens()
    texts = Texts(templates, folder)
    one = texts.matching.admit(0, 1, [])
    texts.matching.wait()
    for _ in range(20):
        assert not texts.step([one])
    assert one.failure is None and re.fullmatch('"?a+|"no( end| no|)*.*', texts.text(one))


@pytest.mark.parametrize(
    ("kind", "text"),
    [(KINDS.REGEX, f"(x|y){LONG}"), (KINDS.LARK, RULES)],
    ids=["pattern", "rules"],
)
def test_one_that_does_later_goes_on_without(
    templates: Templates, folder: Path, kind: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that share its automaton do, and those that come later."""
    monkeypatch.setattr("penstock_shard.grammars.compiled.WARM_STEPS", 0)  # it would be found out
    monkeypatch.setattr(template_module, "SOON", 60.0)
    template = compile_one(templates, 2, kind, text)
    assert template.forces
    texts = Texts(templates, folder)
    first, second = (texts.matching.admit(slot, 2, []) for slot in (0, 1))
    texts.matching.wait()
    told = []
    for _ in range(12):
        told += [run for _, run in texts.step([first])]
    assert all(len(run) < 20_000 for run in told), "of 216,000"
    while first.run and first.failure is None:  # decoded, as a run is that is not appended
        del first.run[1:]
        texts.step([first])
    for _ in range(3):
        texts.step([first, second])
    third = texts.matching.admit(1, 2, [])
    texts.matching.wait()
    for _ in range(3):
        texts.step([first, third])
    assert not template.forces
    for one in (first, second, third):
        assert one.failure is None
        assert re.fullmatch("[xy]a+", texts.text(one)), texts.text(one)[:40]


def test_one_that_may_force_much_is_never_asked(templates: Templates, folder: Path) -> None:
    """Thirteen million characters, which would be found in some tokens, and take seconds."""
    template = compile_one(templates, 3, KINDS.LARK, TERMINALS, much=True)
    assert not template.forces
    texts = Texts(templates, folder)
    one = texts.matching.admit(0, 3, [])
    texts.matching.wait()
    for _ in range(30):
        assert not texts.step([one])
    assert one.failure is None and re.fullmatch("[xy]a+", texts.text(one))


def test_what_takes_long_to_compile_is_not_while_all_wait(
    templates: Templates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends its sequence, and those that come later have it."""
    monkeypatch.setattr(template_module, "SOON", 0.0)
    tokenizer = templates._tokenizer
    assert tokenizer is not None
    grammar = shard_pb2.Grammar(kind=KINDS.REGEX, text="[ab]{9}")
    with ThreadPoolExecutor(1) as pool:
        template = Template(compiled(tokenizer, grammar), 1, pool)
        assert template.forces and not template.stop_forcing()
        pool.submit(int).result()
        assert not template.forces and template.stop_forcing()


SCHEMA = {
    "type": "object",
    "properties": {"customer_full_name": {"enum": ["x", "yes"]}, "age": {"type": "integer"}},
    "required": ["customer_full_name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "grammar",
    [
        json_schema(SCHEMA, compact=True),
        json_schema(SCHEMA),
        grammar_from("regex", r"[a-z/]{3,9}/\d+(\.\d+)?"),
        converted(grammar_from("grammar", 'root ::= "a" [0-9]+ x\nx ::= ("b" | "c")* "\\n"')),
        grammar_from("grammar", 'start: A B\nA: /[ab]+/\nB: "c"\n%ignore / /'),
    ],
    ids=["compact", "schema", "pattern", "gbnf", "lark"],
)
def test_both_ways_take_the_same_texts(templates: Templates, grammar: Grammar) -> None:
    """Where nothing is forced their masks are equal, and elsewhere one allows more tokens."""
    made = templates._tokenizer
    assert made is not None
    forcing = compiled(made, GRAMMAR.encode(grammar))
    assert forcing.way is FORCING
    chance = np.random.default_rng(0)
    for _ in range(5):
        pair: tuple[LLMatcher, LLMatcher] = forcing.another(FORCING), forcing.another(CHOOSING)
        for _ in range(60):
            few, many = (
                np.unpackbits(np.frombuffer(one.compute_bitmask(), np.uint8)) for one in pair
            )
            assert (few <= many).all()
            if not pair[0].compute_ff_bytes():
                assert (few == many).all()
            bits = np.frombuffer(pair[0].compute_bitmask(), np.uint8)
            token = int(chance.choice(np.unpackbits(bits, bitorder="little").nonzero()[0]))
            assert all(one.consume_token(token) for one in pair)
            if pair[0].is_stopped():
                assert pair[1].is_stopped()
                break
