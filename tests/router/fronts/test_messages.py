"""What a front is told at its start, and requests as messages."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_proto.front_pb2 import FromFront, ScoredPrompt, Submission
from penstock_router.fronts import messages
from penstock_router.fronts.config import FrontConfig, limits_line, read_limits
from penstock_router.grammar import Grammar
from penstock_router.request import GenerationRequest, Sampling
from penstock_router.request_wire import KINDS, REQUEST, SAMPLING
from penstock_router.token_rules import TokenRules
from penstock_router.top_table import TopTable
from router.api.conftest import CONFIG
from support.fake_engine import limits

ROUTER = dataclasses.replace(
    CONFIG,
    http_processes=3,
    cors_allow_origin=("a", "ü\n"),
    shard_sockets=("x", "y"),
    api_key=('"', "b,c"),
)
FRONT = FrontConfig(router=ROUTER, frames=5, handover=6, permits=7, place=2)


def lines(*parts: bytes) -> io.StringIO:
    return io.StringIO(b"".join(parts).decode())


def test_both_lines_arrive() -> None:
    source = lines(FRONT.line(), limits_line(limits(max_total_tokens=77)))
    assert FrontConfig.read(source) == FRONT
    assert read_limits(source) == limits(max_total_tokens=77)


@pytest.mark.parametrize(
    "changes", [{"colour": 1}, {"place": None}, {"router": None}], ids=["unknown", "less", "none"]
)
def test_what_does_not_fit_is_an_error(changes: dict[str, object]) -> None:
    values = json.loads(FRONT.line())
    for name, value in changes.items():
        if value is None:
            del values[name]
        else:
            values[name] = value
    with pytest.raises((TypeError, KeyError)):
        FrontConfig.read(lines(json.dumps(values).encode() + b"\n"))


def test_limits_that_do_not_fit_are_an_error() -> None:
    values = dataclasses.asdict(limits()) | {"colour": 1}
    with pytest.raises(TypeError):
        read_limits(lines(json.dumps(values).encode() + b"\n"))


@pytest.mark.parametrize("read", [FrontConfig.read, read_limits])
def test_the_end_of_the_input_is_no_message(read: object) -> None:
    with pytest.raises(EOFError):
        read(lines())  # type: ignore[operator]


def float32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


values = st.floats(-1e30, 1e30)
tokens = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5)
samplings = st.builds(
    Sampling,
    temperature=values,
    top_k=st.integers(0, 2**31 - 1),
    top_p=values,
    typical_p=values,
    min_p=values,
    repetition_penalty=values,
    frequency_penalty=values,
    presence_penalty=values,
    seed=st.integers(0, 2**64 - 1),
    logit_bias=st.lists(st.tuples(st.integers(0, 2**31 - 1), values), max_size=5).map(tuple),
    logprobs=st.booleans(),
    top_n=st.integers(0, 20),
    given=st.lists(st.integers(0, 2**31 - 1), max_size=5).map(tuple),
    rules=st.one_of(
        st.none(),
        st.builds(
            TokenRules,
            allowed=st.one_of(st.just(()), tokens.map(lambda ids: array("I", ids))),
            late=tokens.map(tuple),
            min_tokens=st.integers(0, 2**31),
            banned=st.lists(tokens.map(tuple), max_size=3).map(tuple),
            green_share=st.sampled_from((0.0, 0.25)),
            green_bias=st.sampled_from((0.0, 2.5)),
        ),
    ),
)
grammars = st.one_of(
    st.none(), st.builds(Grammar, st.sampled_from(sorted(KINDS)), st.text(max_size=20))
)


@given(samplings)
def test_sampling_is_what_it_was_to_the_precision_of_float32(sampling: Sampling) -> None:
    """Each field by itself, so that none can stand in for another."""
    there = SAMPLING.decode(SAMPLING.encode(sampling))
    for field in dataclasses.fields(Sampling):
        value = getattr(sampling, field.name)
        if field.name == "logit_bias":
            value = tuple((token, float32(bias)) for token, bias in value)
        elif isinstance(value, float):
            value = float32(value)
        assert getattr(there, field.name) == value, field.name
    # What the shards get is the same, wherever the API is.
    assert SAMPLING.encode(there) == SAMPLING.encode(sampling)


@given(
    prompt=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50),
    packed=st.booleans(),
    length=st.integers(0, 2**31),
    flags=st.tuples(st.booleans(), st.booleans()),
    top_n=st.integers(0, 20),
    max_time=st.one_of(st.none(), st.floats(0, 1e6, exclude_min=True)),
    priority=st.integers(-100, 100),
    name=st.text(max_size=20),
    cache_salt=st.binary(max_size=40),
    sampling=samplings,
    grammar=grammars,
)
def test_a_request_is_the_same_on_the_other_side(
    prompt: list[int],
    packed: bool,
    length: int,
    flags: tuple[bool, bool],
    top_n: int,
    max_time: float | None,
    priority: int,
    name: str,
    cache_salt: bytes,
    sampling: Sampling,
    grammar: Grammar | None,
) -> None:
    request = GenerationRequest(
        prompt=array("I", prompt) if packed else tuple(prompt),
        max_new_tokens=length,
        sampling=SAMPLING.decode(SAMPLING.encode(sampling)),
        ignore_eos=flags[0],
        prompt_logprobs=flags[1],
        prompt_top_n=top_n,
        max_time=max_time,
        priority=priority,
        prompt_logprobs_start=length,
        name=name,
        cache_salt=cache_salt,
        grammar=grammar,
    )
    frame = FromFront(submit=[Submission(sequence=7, request=REQUEST.encode(request))])
    arrived = FromFront.FromString(frame.SerializeToString()).submit[0]
    assert arrived.sequence == 7
    there = REQUEST.decode(arrived.request)
    assert dataclasses.replace(there, prompt=tuple(there.prompt)) == dataclasses.replace(
        request, prompt=tuple(prompt)
    )


@given(
    logprobs=st.lists(st.floats(-100, 0, width=32), max_size=20),
    top_n=st.integers(0, 5),
    without=st.integers(1, 4),
)
def test_what_a_prompt_scores_is_the_same_on_the_other_side(
    logprobs: list[float], top_n: int, without: int
) -> None:
    tops = [
        [(10 * place + i, value - i) for i in range(top_n)] for place, value in enumerate(logprobs)
    ]
    table = TopTable(without)
    for top in tops:
        table.append(top)
    told = table if top_n and logprobs else []
    ranks = [0] * without + [place + 1 for place in range(len(logprobs))]
    message = messages.scored_prompt(3, [*[None] * without, *logprobs], told, ranks)
    arrived = ScoredPrompt.FromString(message.SerializeToString())
    there, likely, same = messages.scores_of(arrived)
    assert same == ranks
    assert there == [*[None] * without, *logprobs]
    rounded = [[(token, float32(value)) for token, value in top] for top in tops]
    assert [*likely] == ([*[()] * without, *rounded] if top_n and logprobs else [])
