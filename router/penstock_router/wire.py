"""Plans as the shards understand them."""

from __future__ import annotations

from array import array

from penstock_proto.shard_pb2 import Admission, StepCommand
from penstock_router.request_wire import REQUEST
from penstock_router.scheduler import RunningSequence, StepPlan


def command(plan: StepPlan) -> StepCommand:
    """The command that carries a plan to every shard.

    To be made before the next plan: it reads what runs as it was when the plan was made.
    """
    message = StepCommand(
        step=plan.step,
        repeat=plan.repeat,
        release=plan.release,
        admit=[_admission(running) for running in plan.admit],
        decode_changed=plan.decode_changed,
    )
    for source, target in plan.copies:
        message.copy_from.append(source)
        message.copy_to.append(target)
    if plan.grants:
        slots, blocks = zip(*plan.grants, strict=True)
        message.grant_slot.extend(slots)
        message.grant_block.extend(blocks)
    for running, tokens in plan.runs:
        message.append.add(slot=running.held_slot, tokens=array("i", tokens).tobytes())
        message.chunk_slot.append(running.held_slot)
        message.chunk_length.append(len(tokens))
    for running, length in plan.chunks:
        message.chunk_slot.append(running.held_slot)
        message.chunk_length.append(length)
    if plan.decode_changed:
        message.decode.extend([running.held_slot for running in plan.decode])
        for rows, shared in plan.groups:
            message.group_rows.append(rows)
            message.group_blocks.append(shared)
    return message


def _admission(running: RunningSequence) -> Admission:
    sequence = running.sequence
    prompt = 4 * sequence.prompt_length
    return Admission(
        slot=running.held_slot,
        request=REQUEST.encode(
            sequence.request,
            prompt=bytes(sequence.tokens[:prompt]),
            prompt_logprobs=sequence.wants_prompt_logprobs,
            grammar=None,
            client="",
        ),
        generated=bytes(sequence.tokens[prompt:]),
        cached=running.cached,
        blocks=array("i", running.blocks).tobytes(),
        grammar=sequence.grammar,
    )
