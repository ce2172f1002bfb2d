"""A shard holds sequences to grammars, whatever else it does with them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import validate

from penstock_proto import shard_pb2
from penstock_proto.shard_pb2 import LogitBias
from penstock_shard.grammars import slowness
from penstock_shard.weights.loaded_model import LoadedModel
from support.held import (
    SCHEMA,
    compiled,
    end_of,
    held_text,
    load_tokenizer,
    prompt,
    tokenizer_of,
)
from support.local_shard import LocalShard, interpret, load_model
from support.shard_driver import neutral

pytestmark = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning:triton", "ignore::DeprecationWarning"
)

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 1.5},
    "top_k": {"temperature": 1.5, "top_k": 3},
    "top_p": {"temperature": 1.5, "top_p": 0.3},
    "min_p": {"temperature": 1.5, "min_p": 0.5},
    "typical": {"temperature": 1.5, "typical_p": 0.3},
    "penalties": {"repetition_penalty": 1.7, "frequency_penalty": 1.0},
    "bias": {"temperature": 1.0, "logit_bias": LogitBias(token=[40, 41], value=[50, -50])},
    "logprobs": {"logprobs": True, "top_n": 3},
}


@pytest.fixture(scope="module")
def folder(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("llama2")


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    loaded = load_model(folder)
    load_tokenizer(loaded, folder)
    assert compiled(loaded, 1, "json", SCHEMA).outcome == shard_pb2.CompileResponse.READY
    assert compiled(loaded, 2, "regex", "[ab]{3,6}c").outcome == shard_pb2.CompileResponse.READY
    return loaded


@pytest.fixture(scope="module")
def shard(loaded: LoadedModel) -> LocalShard:
    return LocalShard(loaded)


@pytest.mark.parametrize("way", [pytest.param("greedy", marks=pytest.mark.full), "top_p"])
def test_graphs_draw_as_eager_steps_do(
    shard: LocalShard, loaded: LoadedModel, folder: Path, way: str
) -> None:
    graphs = interpret(LocalShard(loaded), loaded, (1,))
    sampling = neutral(seed=1, **WAYS[way])
    texts = [
        held_text(one, folder, 0, prompt(1), 2, most=7, sampling=sampling)[0]
        for one in (shard, graphs)
    ]
    assert texts[0] == texts[1]
    assert re.fullmatch("[ab]{3,6}c", texts[0])


@pytest.mark.parametrize("way", WAYS)
def test_the_text_is_what_the_schema_allows(shard: LocalShard, folder: Path, way: str) -> None:
    for seed in range(2):
        sampling = neutral(seed=seed, **WAYS[way])
        text, _ = held_text(shard, folder, 0, prompt(seed), 1, sampling=sampling, most=40)
        validate(json.loads(text), SCHEMA)


def test_several_steps_of_a_command_are_as_one_by_one(shard: LocalShard, folder: Path) -> None:
    one = held_text(shard, folder, 0, prompt(1), 1, most=30)
    assert held_text(shard, folder, 3, prompt(1), 1, most=30, repeat=3) == one


def test_another_row_is_as_it_would_be_without(shard: LocalShard) -> None:
    """Also one that is drawn, in a step with prompts, and whose slot had a grammar before."""
    sampling = neutral(temperature=1.0, top_p=0.9, seed=5)
    alone = [shard.start(2, prompt(3), sampling), *shard.decode([2], 12)[0]]
    shard.release(2)
    together = [shard.start(2, prompt(3), sampling)]
    rows = shard.run(
        admit=[shard.admission(0, prompt(4), grammar=1)],
        chunk_slot=[0], chunk_length=[7], decode_changed=True, decode=[2],
    )  # fmt: skip
    together.append(rows[0].token[0])
    together += shard.decode([2, 0], 11)[0]
    shard.release(0, 2)
    assert together == alone
    assert [shard.start(0, prompt(3), sampling), *shard.decode([0], 12)[0]] == alone
    shard.release(0)


def test_resumed_in_the_middle_it_goes_on_as_before(shard: LocalShard, folder: Path) -> None:
    _, whole = held_text(shard, folder, 0, prompt(6), 1, most=40)
    begun = [shard.start(1, prompt(6), grammar=1), *shard.decode([1], 4)[0]]
    shard.release(1)
    known = prompt(6) + begun
    rest = [shard.start(4, known, grammar=1, generated=len(begun))]
    rest += shard.decode([4], len(whole) - 6)[0]
    shard.release(4)
    assert begun + rest == whole


def test_a_prompt_in_chunks_has_its_first_token_held(shard: LocalShard, folder: Path) -> None:
    tokens = prompt(8, 20)
    one = shard.start(0, tokens, grammar=2)
    shard.release(0)
    shard.run(admit=[shard.admission(5, tokens, grammar=2)], chunk_slot=[5], chunk_length=[9],
              decode_changed=True)  # fmt: skip
    [result] = shard.run(chunk_slot=[5], chunk_length=[11])
    shard.release(5)
    assert result.token[0] == one
    assert tokenizer_of(folder).decode([one])[0] in "ab"


def test_a_matcher_that_fails_ends_its_sequence_alone(
    shard: LocalShard, loaded: LoadedModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It compiles; behind its twelfth letter more may follow than the library follows up."""
    monkeypatch.setattr("penstock_shard.grammars.compiled.WARM_STEPS", 0)  # it would be found out
    many = range(2500)
    lark = "start: /[ab]{12}/ (" + " | ".join(f"r{n}" for n in many) + ")\n"
    lark += "\n".join(f'r{n}: "x" s{n % 5}' for n in many) + "\n"
    lark += "\n".join(f's{n}: "{letter}"' for n, letter in enumerate("cdefg"))
    failing = compiled(loaded, 9, "lark", lark)
    assert failing.outcome == shard_pb2.CompileResponse.READY
    plain = [shard.start(0, prompt(2)), *shard.decode([0], 40)[0]]
    shard.release(0)
    shard.run(
        admit=[shard.admission(0, prompt(2)), shard.admission(1, prompt(3), grammar=9)],
        chunk_slot=[0, 1], chunk_length=[7, 7], decode_changed=True,
    )  # fmt: skip
    refused, tokens, held = [], [], []
    for step in range(41):
        changed = {"decode_changed": True, "decode": [0, 1]} if step == 0 else {}
        [result] = shard.run(**changed)
        refused += result.refused
        tokens.append(result.token[0])
        held += [] if refused else [result.token[1]]
    shard.release(0, 1)
    assert {refusal.slot for refusal in refused} == {1}
    assert re.fullmatch("[ab]{6,12}", tokenizer_of(folder).decode(held)), "it failed midway"
    assert tokens[:40] == plain[1:]
    for refusal in refused:
        assert refusal.kind == shard_pb2.Refusal.GRAMMAR_FAILED
        assert "grammar" in refusal.message


def test_a_matcher_that_is_slow_ends_its_sequence_alone(
    shard: LocalShard, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind some such tokens."""
    made = compiled(loaded, 63, "regex", "[ab]{60}")
    assert made.outcome == shard_pb2.CompileResponse.READY
    monkeypatch.setattr(slowness, "SLOW_SECONDS", -1.0)  # each is
    shard.run(
        admit=[shard.admission(0, prompt(2)), shard.admission(1, prompt(3), grammar=63)],
        chunk_slot=[0, 1], chunk_length=[7, 7], decode_changed=True,
    )  # fmt: skip
    refused = []
    for step in range(12):
        changed = {"decode_changed": True, "decode": [0, 1]} if step == 0 else {}
        [result] = shard.run(**changed)
        refused.append([(one.slot, one.kind) for one in result.refused])
    shard.release(0, 1)
    few = slowness.SLOW_TOKENS - 2  # further ones behind that of the prompt
    assert not any(refused[:few])
    assert refused[few] == [(1, shard_pb2.Refusal.GRAMMAR_FAILED)]


def test_the_processor_s_time_counts_and_no_other() -> None:
    watch = slowness.Stopwatch()
    time.sleep(10 * slowness.SLOW_SECONDS)
    assert not watch.was_slow()
    end = time.thread_time() + 2 * slowness.SLOW_SECONDS
    while time.thread_time() < end:
        pass
    assert watch.was_slow()


def test_a_least_number_of_tokens_holds_back_an_end_that_need_not_be(
    shard: LocalShard, loaded: LoadedModel, folder: Path
) -> None:
    """Where the grammar allows nothing else, the text ends in spite of it."""
    end = end_of(folder)
    for number, pattern in ((60, "[ab]+"), (61, "[ab]{3}")):
        assert compiled(loaded, number, "regex", pattern).outcome == shard_pb2.CompileResponse.READY
        bias = LogitBias(token=[end], value=[50])  # it ends as soon as it may
        for least in (0, 9):
            rules = shard_pb2.TokenRules(late=[end], min_tokens=least)
            sampling = neutral(logit_bias=bias, rules=rules)
            text, tokens = held_text(
                shard, folder, 0, prompt(3), number, sampling=sampling, most=14
            )
            assert re.fullmatch(pattern, text)
            if number == 60:
                assert len(tokens) == max(1, least)


def test_rules_that_leave_no_token_are_not_said_to_be_the_model_s_fault(shard: LocalShard) -> None:
    """Nor do they count as NaN."""
    rules = shard_pb2.TokenRules(allowed=bytes((5, 0, 0, 0)))
    [result] = shard.run(
        admit=[shard.admission(0, prompt(1), neutral(rules=rules), grammar=2)],
        chunk_slot=[0], chunk_length=[7], decode_changed=True,
    )  # fmt: skip
    [refused] = result.refused
    assert (refused.slot, refused.kind) == (0, shard_pb2.Refusal.BAD_ADMISSION)
    assert "leaves no token" in refused.message
    shard.release(0)


def test_a_grammar_that_fails_at_once_is_refused(loaded: LoadedModel) -> None:
    """Not when a text is generated."""
    properties = {f"p{n}": {"type": "string"} for n in range(1000)}
    response = compiled(loaded, 62, "json", {"type": "object", "properties": properties})
    assert response.outcome == shard_pb2.CompileResponse.REFUSED
    assert "items" in response.error


def test_a_grammar_that_is_not_known_refuses(shard: LocalShard) -> None:
    [result] = shard.run(
        admit=[shard.admission(0, prompt(1), grammar=77)],
        chunk_slot=[0], chunk_length=[7], decode_changed=True,
    )  # fmt: skip
    assert [(r.slot, r.kind) for r in result.refused] == [(0, shard_pb2.Refusal.GRAMMAR_FAILED)]
    shard.release(0)


def test_what_is_forgotten_lives_on_in_those_that_run(
    shard: LocalShard, loaded: LoadedModel, folder: Path
) -> None:
    compiled(loaded, 5, "regex", "abc")
    first = shard.start(0, prompt(1), grammar=5)
    shard.run(decode_changed=True, decode=[0], forget_grammar=[5])
    rest = shard.decode([0], 6)[0]
    shard.release(0)
    assert loaded.grammars.template(5) is None
    assert tokenizer_of(folder).decode([first])[0] == "a" and rest[-1] == end_of(folder)


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("json", {"type": "array", "uniqueItems": True}, "uniqueItems"),
        ("json", {"not": {"type": "string"}}, "not"),
        ("json", {"type": "string", "format": "nonsense"}, "nonsense"),
        ("regex", "(?=a)b", "look-around"),
        ("lark", "start: x", "x"),
        ("lark", 'start: <|nothing|> "a"', "<|nothing|>"),
        ("json", "{", ""),
    ],
)
def test_what_cannot_be_held_to_is_refused(
    loaded: LoadedModel, kind: str, text: Any, said: str
) -> None:
    response = compiled(loaded, 50, kind, text)
    assert response.outcome == shard_pb2.CompileResponse.REFUSED
    assert said in response.error and "\n" not in response.error
    assert loaded.grammars.template(50) is None
