"""Grammars over the tokenizers that real models have, as the router reads them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import orjson
import pytest
from llguidance import LLMatcher
from tokenizers import Tokenizer

from penstock_proto import shard_pb2
from penstock_router.grammar import Grammar, GrammarKind
from penstock_router.request_wire import GRAMMAR
from penstock_router.structured import grammar_from
from penstock_router.structured.json_schema import json_schema
from penstock_router.structured.lark import converted
from penstock_router.text.definition import read_definition
from penstock_shard.grammars.compiled import Compiled
from penstock_shard.grammars.template import MANY, Template
from penstock_shard.grammars.templates import Templates
from penstock_shard.grammars.ways import FORCING, Way
from support.assets import assets
from support.real_tokenizers import tokenizer_folder

NAMES = (
    "deepseek-v3",
    "llama-3.1",
    "mistral-7b-v0.3",
    "mistral-tekken-240911",
    "openllama-zh",
    "pythia-410m",
    "qwen3",
)
EOS = 2
SCHEMA = Grammar(GrammarKind.JSON_SCHEMA, '{"type": "integer", "minimum": 3, "maximum": 7}')


class Real:
    """A tokenizer, and grammars over it."""

    def __init__(self, folder: Path) -> None:
        tree = orjson.dumps(read_definition(folder).tree).decode()
        self.tokenizer = Tokenizer.from_str(tree)
        self.templates = Templates(self.tokenizer.get_vocab_size())
        self.problem = self.templates.load(tree, [EOS])
        self._ids = 0

    def matcher(self, grammar: Grammar) -> LLMatcher:
        self._ids += 1
        request = shard_pb2.CompileRequest(id=self._ids, grammar=GRAMMAR.encode(grammar))
        response = self.templates.compile(request)
        assert response.outcome == shard_pb2.CompileResponse.READY, response.error
        template = self.templates.template(self._ids)
        assert template is not None
        return template.matcher(0)

    def takes(self, matcher: LLMatcher, *texts: str | int) -> bool:
        """Whether it takes these texts, or tokens, and could end there."""
        for text in texts:
            ids = [text]
            if isinstance(text, str):
                ids = self.tokenizer.encode(text, add_special_tokens=False).ids
            if not matcher.consume_tokens(ids):
                return False
        return bool(matcher.is_accepting())


def unpacked(folder: Path, name: str) -> Path:
    if (assets() / "tokenizers" / name / "tokenizer.json.gz").exists():
        return tokenizer_folder(name, folder)
    return assets() / "tokenizers" / name


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Real:
    return Real(tokenizer_folder("llama-3.1", tmp_path_factory.mktemp("real")))


@pytest.mark.parametrize("name", NAMES)
def test_every_real_tokenizer_has_grammars(name: str, tmp_path: Path) -> None:
    real = Real(unpacked(tmp_path, name))
    assert not real.problem
    schema = {
        "type": "object",
        "properties": {"größe": {"type": "integer", "minimum": 0, "maximum": 999}},
        "required": ["größe"],
        "additionalProperties": False,
    }
    matcher = real.matcher(json_schema(schema, compact=True))
    found: list[int] = []
    while not matcher.is_stopped() and len(found) < 60:
        bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, bitorder="little").nonzero()[0]
        token = int(EOS if EOS in allowed else allowed[len(found) % len(allowed)])
        assert matcher.consume_token(token), matcher.get_error()
        if token != EOS:
            found.append(token)
    value = json.loads(real.tokenizer.decode(found))
    assert isinstance(value["größe"], int)


def test_structural_tags_hold_behind_their_triggers(llama: Real) -> None:
    structure = {"begin": "<f=a>", "schema": json.loads(SCHEMA.text), "end": "</f>"}
    grammar = grammar_from("structural_tag", {"structures": [structure], "triggers": ["<f="]})
    assert llama.takes(llama.matcher(grammar), "no call at all < 3")
    assert llama.takes(llama.matcher(grammar), "first <f=a>5</f> then <f=a>3</f> end")
    assert not llama.takes(llama.matcher(grammar), "first <f=a>9</f>")
    assert not llama.takes(llama.matcher(grammar), "first <f=b>5</f>")


def test_gbnf_and_lark_are_told_apart(llama: Real) -> None:
    gbnf = converted(grammar_from("grammar", 'root ::= "a" [0-9]+ x\nx ::= ("b" | "c")* "\\n"'))
    assert llama.takes(llama.matcher(gbnf), "a12bc\n")
    lark = grammar_from("grammar", '?start: NAME "=" NUMBER -> set\n%ignore WS')
    assert llama.takes(llama.matcher(lark), "abc = 1.5")
    assert not llama.takes(llama.matcher(lark), "1 = abc")


def test_white_space_cannot_go_on(llama: Real) -> None:
    grammar = grammar_from("json", {"type": "array", "items": {"type": "integer"}})
    assert llama.takes(llama.matcher(grammar), "[ 1,\n    2]")
    assert not llama.takes(llama.matcher(grammar), "[\n\n\n1]")
    assert not llama.takes(llama.matcher(grammar), "[     1]")


def test_what_takes_too_long_is_given_up(llama: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    """And counted, until it ends by itself."""
    monkeypatch.setattr("penstock_shard.grammars.templates.COMPILE_SECONDS", 0.0001)
    grammar = GRAMMAR.encode(grammar_from("json", {"enum": [f"value {i}" for i in range(4000)]}))
    response = llama.templates.compile(shard_pb2.CompileRequest(id=999, grammar=grammar))
    assert response.outcome == shard_pb2.CompileResponse.TOO_SLOW
    assert llama.templates.template(999) is None


def test_a_grammar_that_many_ask_for_has_several_automata(llama: Real) -> None:
    made: list[LLMatcher] = []

    def another(_: Way) -> LLMatcher:
        made.append(llama.matcher(SCHEMA))
        return made[-1]

    with ThreadPoolExecutor(1) as pool:
        first = Compiled(llama.matcher(SCHEMA), FORCING, another, 0.0)
        template = Template(first, 3, pool)

        def settled() -> int:
            for _ in range(3):  # each compile submits the next
                pool.submit(int).result()
            return len(made)

        for slot in range(MANY - 1):
            template.matcher(slot)
        assert settled() == 0
        template.matcher(0)
        assert settled() == 2
        for slot in range(3):
            matcher = template.matcher(slot)
            assert matcher.compute_bitmask() == llama.matcher(SCHEMA).compute_bitmask()
            assert llama.takes(matcher, "5")
        for _ in range(2 * MANY):
            template.matcher(0)
        assert settled() == 2


def test_masks_do_not_depend_on_slices(llama: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words of every length, and what ends them."""
    word = {"type": "string", "pattern": "^[a-z]{3,12}$"}
    grammar = json_schema({"type": "array", "items": word}, compact=True)
    sliced = llama.matcher(grammar)
    tokenizer = llama.templates._tokenizer
    assert tokenizer is not None
    with monkeypatch.context() as patch:
        patch.setattr(llama.templates, "_tokenizer", tokenizer.with_slices([]))
        plain = llama.matcher(grammar)
    for text in ("[", '"', *"abcdefghijkl", '"', "]"):
        assert sliced.compute_bitmask() == plain.compute_bitmask()
        tokens = llama.tokenizer.encode(text, add_special_tokens=False).ids
        assert sliced.consume_tokens(tokens) and plain.consume_tokens(tokens)
    assert sliced.is_accepting()


def test_without_a_token_that_ends_a_text_there_are_none(tmp_path: Path) -> None:
    templates = Templates(100)
    assert "ends a text" in templates.load("{}", [])
    request = shard_pb2.CompileRequest(id=1, grammar=GRAMMAR.encode(SCHEMA))
    assert "ends a text" in templates.compile(request).error
