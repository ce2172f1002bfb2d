"""What sequences ask of the sampler."""

from __future__ import annotations

import enum

from penstock_proto import shard_pb2


class Feature(enum.IntFlag):
    """What a sequence asks of the sampler. What no row of a step asks for costs nothing."""

    RANDOM = enum.auto()
    TOP_K = enum.auto()
    TOP_P = enum.auto()
    TYPICAL_P = enum.auto()
    MIN_P = enum.auto()
    REPETITION = enum.auto()
    FREQUENCY = enum.auto()  # or presence
    BIAS = enum.auto()
    LOGPROBS = enum.auto()
    RULES = enum.auto()
    GRAMMAR = enum.auto()


SORTED = Feature.TOP_K | Feature.TOP_P
FILTERS = SORTED | Feature.MIN_P
PENALTIES = Feature.REPETITION | Feature.FREQUENCY
SHAPED = PENALTIES | Feature.BIAS | Feature.RULES
TYPICAL = Feature.RANDOM | Feature.TYPICAL_P  # both: a greedy row keeps its most likely token
# What is told of a token, or decides it, beside a grammar. Such a row has its tokens chosen one by
# one, also where a grammar leaves only one.
ONE_BY_ONE = Feature.LOGPROBS | Feature.RULES
# Columns of SamplingState.parameters.
COLUMNS = (
    "temperature",
    "top_p",
    "typical_p",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
)


def features_of(wanted: shard_pb2.Sampling) -> Feature:
    """What a sequence asks for; nothing: its most likely tokens."""
    asked = {
        Feature.RANDOM: wanted.temperature > 0,
        Feature.TOP_K: wanted.top_k > 0,
        Feature.TOP_P: wanted.top_p < 1,
        Feature.TYPICAL_P: wanted.typical_p < 1,
        Feature.MIN_P: wanted.min_p > 0,
        Feature.REPETITION: wanted.repetition_penalty != 1,
        Feature.FREQUENCY: wanted.frequency_penalty != 0 or wanted.presence_penalty != 0,
        Feature.BIAS: len(wanted.logit_bias.token) > 0,
        Feature.LOGPROBS: wanted.logprobs or wanted.top_n > 0 or len(wanted.given) > 0,
        Feature.RULES: wanted.HasField("rules"),
    }
    features = Feature(0)
    for feature, on in asked.items():
        if on:
            features |= feature
    return features
