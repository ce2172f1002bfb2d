"""Plans as the shards understand them, and sampling parameters as messages."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from penstock_proto.shard_pb2 import Admission, StepCommand
from penstock_proto.shard_pb2 import Sampling as WireSampling
from penstock_router.request import Sampling, TopTokens
from penstock_router.scheduler import Seat, StepPlan
from penstock_router.token_rules import rules_of, wire_rules


def command(plan: StepPlan) -> StepCommand:
    """The command that carries a plan to every shard.

    To be made before the next plan: it reads the seats as they were when the plan was made.
    """
    message = StepCommand(
        step=plan.step,
        repeat=plan.repeat,
        release=plan.release,
        admit=[_admission(seat) for seat in plan.admit],
        decode_changed=plan.decode_changed,
    )
    if plan.grants:
        slots, blocks = zip(*plan.grants, strict=True)
        message.grant_slot.extend(slots)
        message.grant_block.extend(blocks)
    for seat, tokens in plan.runs:
        message.append.add(slot=seat.seated, tokens=array("i", tokens).tobytes())
        message.chunk_slot.append(seat.seated)
        message.chunk_length.append(len(tokens))
    for seat, length in plan.chunks:
        message.chunk_slot.append(seat.seated)
        message.chunk_length.append(length)
    if plan.decode_changed:
        message.decode.extend([seat.seated for seat in plan.decode])
        for rows, shared in plan.groups:
            message.group_rows.append(rows)
            message.group_blocks.append(shared)
    return message


def _admission(seat: Seat) -> Admission:
    sequence = seat.sequence
    return Admission(
        slot=seat.seated,
        tokens=bytes(sequence.tokens),
        generated=sequence.generated,
        cached=seat.cached,
        begun=seat.begun,
        blocks=array("i", seat.blocks).tobytes(),
        sampling=wire_sampling(sequence.request.sampling),
        prompt_logprobs=sequence.wants_prompt_logprobs,
        prompt_top_n=sequence.request.prompt_top_n if sequence.wants_prompt_logprobs else 0,
        prompt_logprobs_start=sequence.request.prompt_logprobs_start,
        grammar=sequence.grammar,
    )


def top_lists(tokens: Iterable[int], logprobs: Iterable[float], count: int) -> list[TopTokens]:
    """The most likely tokens of each place, from fields that hold `count` for each, one place
    after the other."""
    likely = list(zip(tokens, logprobs, strict=True))
    return [likely[first : first + count] for first in range(0, len(likely), count)]


def wire_sampling(sampling: Sampling) -> WireSampling:
    """Sampling parameters as a message."""
    return WireSampling(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        typical_p=sampling.typical_p,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        frequency_penalty=sampling.frequency_penalty,
        presence_penalty=sampling.presence_penalty,
        seed=sampling.seed,
        bias_token=[token for token, _ in sampling.logit_bias],
        bias=[bias for _, bias in sampling.logit_bias],
        logprobs=sampling.logprobs,
        top_n=sampling.top_n,
        given=sampling.given,
        rules=wire_rules(sampling.rules),
    )


def sampling_of(message: WireSampling) -> Sampling:
    """The parameters in a message of `wire_sampling`, to float32's precision."""
    return Sampling(
        temperature=message.temperature,
        top_k=message.top_k,
        top_p=message.top_p,
        typical_p=message.typical_p,
        min_p=message.min_p,
        repetition_penalty=message.repetition_penalty,
        frequency_penalty=message.frequency_penalty,
        presence_penalty=message.presence_penalty,
        seed=message.seed,
        logit_bias=tuple(zip(message.bias_token, message.bias, strict=True)),
        logprobs=message.logprobs,
        top_n=message.top_n,
        given=tuple(message.given),
        rules=rules_of(message.rules) if message.HasField("rules") else None,
    )
