"""What a sequence may ask for. One that asks for more is refused, and the others go on.

What the router alone can get wrong (slots, blocks, the order of steps) is not looked at here: that
is a `BadCommand`, after which no two books would agree.
"""

from __future__ import annotations

import numpy as np

from penstock_kernels.rules import LOOK_BACK
from penstock_proto import shard_pb2
from penstock_shard.sampling.features import COLUMNS
from penstock_shard.steps.limits import ShardLimits
from penstock_shard.steps.scores import MAX_GIVEN


def objection(admission: shard_pb2.Admission, limits: ShardLimits) -> str | None:
    """Why a sequence cannot be computed; None: it can.

    It follows from the command alone, so all ranks refuse the same sequences.
    """
    request = admission.request
    for packed in (request.prompt, admission.generated):
        if len(packed) % 4:
            return f"token ids must have 4 bytes each, not {len(packed)} in all"
    tokens = np.frombuffer(request.prompt + admission.generated, "<i4")
    if not 1 <= len(tokens) <= limits.max_sequence_length:
        return f"a sequence must have 1 to {limits.max_sequence_length} tokens, not {len(tokens)}"
    wrong = tokens[(tokens < 0) | (tokens >= limits.vocab_size)]
    if len(wrong):
        return (
            f"token ids must be at least 0 and below {limits.vocab_size}, the size of the model's "
            f"vocabulary, not {wrong[0]}"
        )
    if request.prompt_top_n > limits.max_top_n:
        return f"prompt_top_n must be at most {limits.max_top_n}, not {request.prompt_top_n}"
    return _objection_to_sampling(request.sampling, limits)


def _objection_to_sampling(wanted: shard_pb2.Sampling, limits: ShardLimits) -> str | None:
    tokens, biases = wanted.logit_bias.token, wanted.logit_bias.value
    values = [*biases, *(getattr(wanted, name) for name in COLUMNS)]
    if len(tokens) != len(biases):
        return f"{len(tokens)} tokens for {len(biases)} values of logit_bias"
    if tokens and max(tokens) >= limits.vocab_size:
        return f"tokens of logit_bias must be below {limits.vocab_size}, not {max(tokens)}"
    if len(wanted.given) > MAX_GIVEN or max(wanted.given, default=0) >= limits.vocab_size:
        return f"given must be at most {MAX_GIVEN} tokens below {limits.vocab_size}"
    if wanted.top_n > limits.max_top_n:
        return f"top_n must be at most {limits.max_top_n}, not {wanted.top_n}"
    if not np.isfinite(values).all() or wanted.temperature < 0:
        return "sampling values must be finite, temperature not below 0"
    if wanted.repetition_penalty <= 0 or wanted.top_p <= 0 or wanted.typical_p <= 0:
        return (
            f"repetition_penalty, top_p and typical_p must be above 0, not "
            f"{wanted.repetition_penalty}, {wanted.top_p} and {wanted.typical_p}"
        )
    if not 0 <= wanted.min_p <= 1:
        return f"min_p must be in [0, 1], not {wanted.min_p}"
    return _objection_to_rules(wanted.rules, limits)


def _objection_to_rules(rules: shard_pb2.TokenRules, limits: ShardLimits) -> str | None:
    if len(rules.allowed) % 4:
        return f"allowed token ids must have 4 bytes each, not {len(rules.allowed)} in all"
    lengths = [len(run.token) for run in rules.banned]
    if lengths and not (min(lengths) and max(lengths) <= LOOK_BACK + 1):
        return f"banned runs must have 1 to {LOOK_BACK + 1} tokens"
    tokens = [*rules.late, *(token for run in rules.banned for token in run.token)]
    allowed = np.frombuffer(rules.allowed, "<u4")
    highest = max(*tokens, 0, int(allowed.max(initial=0)))
    if highest >= limits.vocab_size:
        return f"tokens of rules must be below {limits.vocab_size}, not {highest}"
    if not 0 <= rules.green_share <= 1 or not np.isfinite(rules.green_bias):
        return "green_share must be in [0, 1], green_bias finite"
    return None
