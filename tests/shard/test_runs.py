"""Runs of forced tokens on a shard: how they are found, told and appended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from penstock_proto import shard_pb2
from penstock_shard.grammars.bits import Bits
from penstock_shard.grammars.compiled import Compiled
from penstock_shard.grammars.matching import Matching
from penstock_shard.grammars.template import SEARCHES, Template
from penstock_shard.grammars.templates import Templates
from penstock_shard.grammars.ways import FORCING
from penstock_shard.steps.slots import BadCommand
from penstock_shard.weights.loaded_model import LoadedModel
from support.held import compiled, end_of, load_tokenizer, prompt, tokenizer_of
from support.local_shard import LocalShard, load_model

KEYS = {
    "type": "object",
    "properties": {"customer_full_name": {"enum": ["x", "y"]}, "age_in_years": {"const": 5}},
    "required": ["customer_full_name", "age_in_years"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},
}


@pytest.fixture(scope="module")
def folder(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("llama2")


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    loaded = load_model(folder)
    load_tokenizer(loaded, folder)
    assert compiled(loaded, 1, "json", KEYS).outcome == shard_pb2.CompileResponse.READY
    return loaded


@pytest.fixture
def shard(loaded: LoadedModel) -> LocalShard:
    return LocalShard(loaded)


def append(slot: int, *tokens: int) -> shard_pb2.Append:
    return shard_pb2.Append(slot=slot, tokens=np.array(tokens, np.int32).tobytes())


def test_a_compile_says_what_texts_begin_with(loaded: LoadedModel, folder: Path) -> None:
    opening = compiled(loaded, 2, "json", KEYS).forced
    assert tokenizer_of(folder).decode(list(opening)).startswith('{"customer_full')
    assert not compiled(loaded, 3, "regex", "[ab]{3,6}c").forced


def test_rows_are_those_of_the_result(shard: LocalShard, folder: Path) -> None:
    """Also behind a slot that was refused, of which nothing is computed."""
    shard.run(
        admit=[shard.admission(0, [100_000]), shard.admission(1, prompt(1), grammar=1)],
        chunk_slot=[0, 1], chunk_length=[1, 7], decode_changed=True,
    )  # fmt: skip
    told = []
    for step in range(40):
        changed = {"decode_changed": True, "decode": [0, 1]} if step == 0 else {}
        [result] = shard.run(**changed)
        told += [(one.row, list(one.token)) for one in result.forced]
    assert {row for row, _ in told} == {1}
    assert any("age_in" in tokenizer_of(folder).decode(tokens) for _, tokens in told)


def test_what_is_appended_is_checked(shard: LocalShard) -> None:
    shard.start(0, prompt(1), grammar=1)
    shard.run(decode_changed=True, decode=[0])
    good = {"chunk_slot": [0], "chunk_length": [2], "decode_changed": True}
    for appended, said in (
        ([append(0, 5)], "1 tokens"),
        ([append(0, 5, 100_000)], "append.tokens"),
        ([append(0, 5, 6), append(0, 5, 6)], "twice"),
        ([append(3, 5, 6)], "free slot"),
    ):
        with pytest.raises(BadCommand, match=said):
            shard.run(append=appended, **good)
        shard.runner.book.next_step = shard._step = shard._step - 1


def test_a_prompt_that_is_not_computed_cannot_go_on(shard: LocalShard) -> None:
    shard.run(admit=[shard.admission(0, prompt(1))], chunk_slot=[0], chunk_length=[3],
              decode_changed=True)  # fmt: skip
    with pytest.raises(BadCommand, match="has computed 3 of 7"):
        shard.run(append=[append(0, 5, 6)], chunk_slot=[0], chunk_length=[2])


def test_searches_end_where_they_find_nothing() -> None:
    nothing: Any = None
    template = Template(Compiled(nothing, FORCING, nothing, 0.0), 1, nothing)
    for token in (1, 2):
        for _ in range(SEARCHES):
            assert template.may_begin_run(token)
            template.learn(token, found=False)
    assert not template.may_begin_run(1) and template.may_begin_run(3)
    template.learn(3, found=True)
    for _ in range(2 * SEARCHES):
        template.learn(3, found=False)
    assert template.may_begin_run(3), "it has begun one"


def test_sequences_move_to_the_automaton_of_their_slot(folder: Path) -> None:
    """Those that began before there were several, and go on as they would have."""
    tokenizer = tokenizer_of(folder)
    templates = Templates(tokenizer.get_vocab_size(), automata=3)
    assert not templates.load((folder / "tokenizer.json").read_text(), [end_of(folder)])
    grammar = shard_pb2.Grammar(kind=shard_pb2.Grammar.JSON_SCHEMA, text=json.dumps(KEYS))
    templates.compile(shard_pb2.CompileRequest(id=1, grammar=grammar))
    bits = Bits(6, tokenizer.get_vocab_size(), torch.device("cpu"))
    matching = Matching(templates, bits)
    begun = templates.template(1)
    assert begun is not None
    constraints = [matching.admit(slot, 1, []) for slot in range(6)]
    matching.wait()
    for _ in range(4):  # each compile submits the next
        templates._growing.submit(int).result()
    rows = list(enumerate(constraints))
    for _ in range(8):
        allowed = np.unpackbits(bits.rows[:6].view(np.uint8), axis=1, bitorder="little")
        tokens: Any = torch.tensor([int(np.flatnonzero(row)[0]) for row in allowed])
        matching.turn(tokens, rows).wait()
        matching.wait()
    assert [one.home for one in constraints] == [0, 1, 2, 0, 1, 2]
    assert len({tuple(one.taken) for one in constraints}) == 1
    assert (bits.rows[:6] == bits.rows[0]).all()
