"""A field of a dataclass that its message lacks, or the other way round, is an error."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from penstock_proto import request_pb2
from penstock_router.codec import TOKENS, Codec
from penstock_router.request import GenerationRequest
from penstock_router.request_wire import REQUEST
from penstock_router.token_rules import TokenRules


@dataclasses.dataclass(frozen=True)
class More(TokenRules):
    colour: str = ""


@dataclasses.dataclass
class Run:
    tokens: tuple[int, ...] = ()


@pytest.mark.parametrize(
    ("value", "message", "converts", "named"),
    [
        (More, request_pb2.TokenRules, {}, "differ in colour"),
        (Run, request_pb2.TokenRun, {}, "differ in token, tokens"),
        (TokenRules, request_pb2.TokenRules, {"shade": TOKENS}, "differ in shade"),
    ],
    ids=["only here", "other name", "conversion of none"],
)
def test_fields_that_differ(value: Any, message: Any, converts: Any, named: str) -> None:
    with pytest.raises(TypeError, match=named):
        Codec(value, message, **converts)


def test_what_is_not_set_has_the_default_of_the_dataclass() -> None:
    bare = REQUEST.decode(request_pb2.Request(prompt=bytes(4)))
    assert bare == GenerationRequest(prompt=bare.prompt, max_new_tokens=0)
    assert list(bare.prompt) == [0]


def test_fields_that_a_message_has_instead() -> None:
    request = GenerationRequest(prompt=(1,), max_new_tokens=5, max_time=2.0, name="a")
    message = REQUEST.encode(request, prompt=bytes(8), max_time=None)
    assert message == REQUEST.encode(dataclasses.replace(request, prompt=(0, 0), max_time=None))
