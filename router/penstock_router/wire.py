"""Plans as the shards understand them."""

from __future__ import annotations

from array import array

from penstock_proto.shard_pb2 import Admission, StepCommand
from penstock_router.request_wire import REQUEST
from penstock_router.scheduler import Seat, StepPlan


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
    for source, target in plan.copies:
        message.copy_from.append(source)
        message.copy_to.append(target)
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
    prompt = 4 * sequence.prompt_length
    return Admission(
        slot=seat.seated,
        request=REQUEST.encode(
            sequence.request,
            prompt=bytes(sequence.tokens[:prompt]),
            prompt_logprobs=sequence.wants_prompt_logprobs,
            grammar=None,
            client="",
        ),
        generated=bytes(sequence.tokens[prompt:]),
        cached=seat.cached,
        blocks=array("i", seat.blocks).tobytes(),
        grammar=sequence.grammar,
    )
