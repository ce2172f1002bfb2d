"""What a sequence may not ask for: one sentence each, and nothing else is harmed."""

from __future__ import annotations

import pytest

from penstock_proto import shard_pb2
from penstock_proto.shard_pb2 import LogitBias
from penstock_shard.steps.admissions import objection
from penstock_shard.steps.limits import ShardLimits
from support.shard_driver import admission, neutral

LIMITS = ShardLimits(
    max_prefill_tokens=16,
    max_slots=4,
    max_sequence_length=20,
    max_top_n=5,
    vocab_size=100,
    block_size=4,
    num_blocks=30,
)
TOKENS: dict[str, tuple[list[int], str]] = {
    "none": ([], "a sequence must have 1 to 20 tokens, not 0"),
    "too_many": ([1] * 21, "a sequence must have 1 to 20 tokens, not 21"),
    "beyond": (
        [5, 100, 200],
        "at least 0 and below 100, the size of the model's vocabulary, not 100",
    ),
    "negative": ([-1], "vocabulary, not -1"),
}
SAMPLING: dict[str, tuple[shard_pb2.Sampling, str]] = {
    "uneven": (neutral(logit_bias=LogitBias(token=[1, 2], value=[1.0])), "2 tokens for 1 values"),
    "bias_beyond": (
        neutral(logit_bias=LogitBias(token=[100], value=[1.0])),
        "tokens of logit_bias must be below 100, not 100",
    ),
    "bias": (
        neutral(logit_bias=LogitBias(token=[1], value=[float("inf")])),
        "must be finite",
    ),
    "top_n": (neutral(top_n=6), "top_n must be at most 5, not 6"),
    "cold": (neutral(temperature=-1.0), "temperature not below 0"),
    "temperature": (neutral(temperature=float("nan")), "must be finite"),
    "frequency": (neutral(frequency_penalty=float("inf")), "must be finite"),
    "repetition": (neutral(repetition_penalty=0.0), "repetition_penalty, top_p and typical_p must"),
    "top_p": (neutral(top_p=0.0), "must be above 0"),
    "typical_p": (neutral(typical_p=0.0), "must be above 0"),
    "min_p": (neutral(min_p=1.5), "min_p must be in [0, 1], not 1.5"),
}


@pytest.mark.parametrize("name", TOKENS)
def test_tokens(name: str) -> None:
    tokens, sentence = TOKENS[name]
    assert sentence in str(objection(admission(0, tokens, [1]), LIMITS))


def test_the_most_likely_tokens_of_a_prompt() -> None:
    asked = admission(0, [1], [1], prompt_logprobs=True, prompt_top_n=6)
    assert objection(asked, LIMITS) == "prompt_top_n must be at most 5, not 6"


def test_bytes_that_are_no_tokens() -> None:
    for cut in (admission(0, [1, 2], [1]), admission(0, [1, 2, 3], [1], generated=2)):
        packed = cut if cut.generated else cut.request
        name = "generated" if cut.generated else "prompt"
        setattr(packed, name, b"1234567")
        assert "not 7 in all" in str(objection(cut, LIMITS))


@pytest.mark.parametrize("name", SAMPLING)
def test_sampling(name: str) -> None:
    sampling, sentence = SAMPLING[name]
    assert sentence in str(objection(admission(0, [1], [1], sampling), LIMITS))


def test_what_can_be_computed() -> None:
    everything = neutral(
        temperature=1e-5, top_k=1000, top_p=1e-6, typical_p=1e-6, min_p=1.0,
        repetition_penalty=0.01, frequency_penalty=-2.0, presence_penalty=2.0,
        logit_bias=LogitBias(token=[99], value=[-100.0]), logprobs=True, top_n=5,
    )  # fmt: skip
    assert objection(admission(0, [0, 99] * 10, [1], everything), LIMITS) is None
    assert objection(admission(0, [3], []), LIMITS) is None
