"""The fake model accepts what the protocol allows and refuses what it forbids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from penstock_proto.shard_pb2 import (
    Admission,
    Refusal,
    Sampling,
    StepCommand,
    StepError,
    WarmupRequest,
)
from support.fake_model import (
    BadCommand,
    FakeModelConfig,
    FakeShardModel,
    expected_tokens,
)
from support.shard_driver import admission
from support.zero_cost_model import ZeroCostModel

CONFIG = FakeModelConfig(vocab_size=100, block_size=4, num_blocks=20)
PROMPT = [5, 6, 7, 8, 9, 10]  # a full block and a half


def command(step: int, **fields: object) -> StepCommand:
    fields.setdefault("repeat", 1)
    return StepCommand(step=step, **fields)  # type: ignore[arg-type]


def start(slot: int = 0, blocks: tuple[int, ...] = (1, 2)) -> StepCommand:
    """Admits PROMPT and computes it whole."""
    return command(
        1, admit=[admission(slot, PROMPT, list(blocks))], chunk_slot=[slot], chunk_length=[6]
    )


def tokens_of(model: FakeShardModel, *commands: StepCommand) -> list[list[int]]:
    results = [result for each in commands for result in model.run(each)]
    assert not any(result.HasField("error") for result in results), results[-1].error.message
    return [list(result.token) for result in results]


def test_chunks_then_decode_give_the_straight_loop() -> None:
    steps = tokens_of(
        FakeShardModel(CONFIG),
        command(1, admit=[admission(3, PROMPT, [1])], chunk_slot=[3], chunk_length=[4]),
        command(2, grant_slot=[3], grant_block=[2], chunk_slot=[3], chunk_length=[2]),
        command(3, decode_changed=True, decode=[3], repeat=2),
        command(5, grant_slot=[3], grant_block=[7]),
    )
    assert steps[0] == []
    assert [row for step in steps[1:] for row in step] == expected_tokens(PROMPT, 4, CONFIG)


def test_rows_are_decodes_in_list_order_then_finished_chunks() -> None:
    model = FakeShardModel(CONFIG)
    other = [11, 12]
    steps = tokens_of(
        model,
        start(0),
        command(
            2,
            admit=[admission(1, other, [3])],
            chunk_slot=[1],
            chunk_length=[2],
            decode_changed=True,
            decode=[0],
        ),
        command(3, decode_changed=True, decode=[1, 0]),
    )
    first, second = expected_tokens(PROMPT, 3, CONFIG), expected_tokens(other, 2, CONFIG)
    assert steps == [[first[0]], [first[1], second[0]], [second[1], first[2]]]


def test_resume_after_preemption_continues_the_same_tokens() -> None:
    model = FakeShardModel(CONFIG)
    wanted = expected_tokens(PROMPT, 4, CONFIG)
    steps = tokens_of(
        model,
        start(0),
        command(2, decode_changed=True, decode=[0]),
        command(3, release=[0], decode_changed=True),
        command(
            4,
            admit=[admission(5, PROMPT + wanted[:2], [1, 9], generated=2, cached=4)],
            chunk_slot=[5],
            chunk_length=[4],
        ),
        command(5, decode_changed=True, decode=[5], grant_slot=[5], grant_block=[10]),
    )
    assert steps == [[wanted[0]], [wanted[1]], [], [wanted[2]], [wanted[3]]]


def test_two_slots_share_a_cached_block() -> None:
    model = FakeShardModel(CONFIG)
    second = admission(1, PROMPT, [1, 3], cached=4)
    steps = tokens_of(model, start(0), command(2, admit=[second], chunk_slot=[1], chunk_length=[2]))
    assert steps[0] == steps[1]


def test_seed_counts_only_when_sampling_and_eos_ends() -> None:
    def seeded(seed: int, temperature: float) -> list[int]:
        return expected_tokens(PROMPT, 8, CONFIG, Sampling(seed=seed, temperature=temperature))

    assert seeded(1, 0.0) == seeded(2, 0.0) != seeded(1, 1.0) != seeded(2, 1.0)
    often = FakeModelConfig(vocab_size=100, eos_token=3, eos_every=4)
    runs = [expected_tokens([i], 200, often) for i in range(50)]
    assert all(run[-1] == 3 and 3 not in run[:-1] for run in runs)
    assert 2 < sum(map(len, runs)) / 50 < 8  # geometric with mean 4


def test_logprobs_top_tokens_and_prompt_logprobs() -> None:
    model = FakeShardModel(CONFIG)
    sampling = Sampling(top_p=1, typical_p=1, repetition_penalty=1, logprobs=True, top_n=3)
    asked = admission(0, PROMPT, [1, 2], sampling=sampling, prompt_logprobs=True, prompt_top_n=2)
    first, second = model.run(
        command(1, admit=[asked], chunk_slot=[0], chunk_length=[4])
    ) + model.run(command(2, chunk_slot=[0], chunk_length=[2]))
    assert [(p.slot, p.start, len(p.logprob)) for p in first.prompt] == [(0, 0, 4)]
    assert [(p.slot, p.start, len(p.logprob)) for p in second.prompt] == [(0, 4, 1)]
    tops = [np.frombuffer(p.top_token, np.int32) for p in (*first.prompt, *second.prompt)]
    assert list(map(len, tops)) == [8, 2]
    for place, token in enumerate(PROMPT[1:5]):
        assert token in tops[0][2 * place :][:2]
    assert len(second.logprob) == 1 and second.logprob[0] < 0
    (top,) = second.top
    assert len(top.token) == 3 and second.token[0] in top.token
    assert list(top.logprob) == sorted(top.logprob, reverse=True)


LONG = list(range(1, 13))

BAD: dict[str, tuple[list[StepCommand], str]] = {
    "step number": ([start(), command(3)], "says step 3, expected 2"),
    "repeat 0": ([StepCommand(step=1)], "repeat is 0"),
    "release of an empty slot": ([command(1, release=[4])], "release: slot 4 is empty"),
    "chunk of an unknown slot": ([command(1, chunk_slot=[2], chunk_length=[1])], "slot 2 is empty"),
    "grant to an unknown slot": ([command(1, grant_slot=[2], grant_block=[1])], "slot 2 is empty"),
    "decode of a released slot": (
        [start(), command(2, decode_changed=True, decode=[0]), command(3, release=[0])],
        "decode: slot 0 is empty",
    ),
    "admit into a used slot": ([start(), command(2, admit=[admission(0, [1], [3])])], "is taken"),
    "chunk beyond the tokens": (
        [command(1, admit=[admission(0, [1], [1])], chunk_slot=[0], chunk_length=[2])],
        "chunk of 2 tokens, 1 are left",
    ),
    "chunk after the prompt": (
        [start(), command(2, chunk_slot=[0], chunk_length=[1])],
        "chunk of 1 tokens, 0 are left",
    ),
    "decode before the prompt is done": (
        [
            command(1, admit=[admission(0, PROMPT, [1, 2])], chunk_slot=[0], chunk_length=[4]),
            command(2, decode_changed=True, decode=[0]),
        ],
        "slot 0 has computed 4 of 6",
    ),
    "chunk and decode in one step": (
        [
            command(
                1,
                admit=[admission(0, PROMPT, [1, 2])],
                chunk_slot=[0],
                chunk_length=[6],
                decode_changed=True,
                decode=[0],
            )
        ],
        "has a chunk and decodes",
    ),
    "too few blocks": (
        [command(1, admit=[admission(0, PROMPT, [1])], chunk_slot=[0], chunk_length=[6])],
        "writes position 4, its 1 blocks hold 4",
    ),
    "too few blocks in a grant of several steps": (
        [start(), command(2, decode_changed=True, decode=[0], repeat=3)],
        "step 4: slot 0 writes position 8",
    ),
    "a block in two slots": (
        [start(), command(2, admit=[admission(1, [1, 2], [2])])],
        "gets block 2 to write, which another slot holds",
    ),
    "a block granted twice": (
        [start(), command(2, grant_slot=[0], grant_block=[1])],
        "gets block 1 to write",
    ),
    "scratch block": ([command(1, admit=[admission(0, [1], [0])])], "valid are 1 .. 19"),
    "block out of range": ([command(1, admit=[admission(0, [1], [20])])], "valid are 1 .. 19"),
    "repeat with chunks": (
        [command(1, admit=[admission(0, [1], [1])], chunk_slot=[0], chunk_length=[1], repeat=2)],
        "repeat 2 with chunks",
    ),
    "cached block never written": (
        [command(1, admit=[admission(0, PROMPT, [1, 2], cached=4)])],
        "nothing was written there",
    ),
    "cached block of another prefix": (
        [start(), command(2, admit=[admission(1, [5, 6, 7, 9, 1], [1, 3], cached=4)])],
        "holds its token 3: it holds another prefix",
    ),
    "cached block of the right tokens in another place": (
        [
            command(1, admit=[admission(0, LONG, [1, 2, 3])], chunk_slot=[0], chunk_length=[12]),
            command(2, admit=[admission(1, LONG[4:], [2, 4], cached=4)]),
        ],
        "holds its token 0: it holds another prefix",
    ),
    "cached block that is not computed yet": (
        [
            command(1, admit=[admission(0, PROMPT, [1, 2])], chunk_slot=[0], chunk_length=[3]),
            command(2, admit=[admission(1, PROMPT, [1, 3], cached=4)]),
        ],
        "holds its token 3: nothing was written there",
    ),
    "cached block that was overwritten": (
        [
            start(),
            command(2, release=[0], admit=[admission(1, [40] * 3, [1])]),
            command(3, chunk_slot=[1], chunk_length=[3]),
            command(4, release=[1], admit=[admission(0, PROMPT, [1, 2], cached=4)]),
        ],
        "holds its token 0: it holds another prefix",
    ),
    "write into a shared block": (
        [start(), command(2, admit=[admission(1, PROMPT[:4], [1], cached=3)])],
        "gets block 1 to write",
    ),
    "everything cached": (
        [start(), command(2, admit=[admission(1, PROMPT[:4], [1], cached=4)])],
        "the last must be computed",
    ),
    "more cached than blocks": (
        [command(1, admit=[admission(0, PROMPT, [], cached=4)])],
        "4 cached tokens in 0 blocks",
    ),
    "a slot twice in the decode list": (
        [start(), command(2, decode_changed=True, decode=[0, 0])],
        "decode names a slot twice",
    ),
    "decode list without the flag": ([start(), command(2, decode=[0])], "without decode_changed"),
    "no sampling": (
        [command(1, admit=[admission(0, [1], [1], sampling=Sampling())])],
        "top_p 0.0, must be in (0, 1]",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_broken_protocol_is_a_bad_command(case: str) -> None:
    commands, sentence = BAD[case]
    model = FakeShardModel(CONFIG)
    for good in commands[:-1]:
        assert not model.run(good)[-1].HasField("error")
    error = model.run(commands[-1])[-1].error
    assert error.kind == StepError.BAD_COMMAND and sentence in error.message
    with pytest.raises(BadCommand):
        model.run(command(model.next_step))


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (admission(2, [1], [1]), "max_slots 2"),
        (admission(0, [1], [1, 2, 3]), "max_sequence_length needs 2"),
        (
            admission(
                0,
                [1],
                [1],
                sampling=Sampling(top_p=1, typical_p=1, repetition_penalty=1, top_n=6),
            ),
            "top_n 6, max 5",
        ),
    ],
)
def test_warmup_limits_hold(asked: Admission, sentence: str) -> None:
    model = FakeShardModel(CONFIG)
    request = WarmupRequest(max_prefill_tokens=4, max_slots=2, max_sequence_length=8, max_top_n=5)
    assert model.warmup(request).num_blocks == CONFIG.num_blocks
    assert sentence in model.run(command(1, admit=[asked]))[-1].error.message


def test_warmup_sizes_the_cache_and_bounds_prefill() -> None:
    model = FakeShardModel(CONFIG)
    limits = {"max_prefill_tokens": 5, "max_slots": 2, "max_sequence_length": 8}
    assert model.warmup(WarmupRequest(**limits, max_batch_total_tokens=13)).num_blocks == 5
    with pytest.raises(BadCommand, match="max_batch_total_tokens needs 26 blocks of 20"):
        model.warmup(WarmupRequest(**limits, max_batch_total_tokens=100))
    assert "6 prefill tokens in a step" in model.run(start())[-1].error.message


def test_zero_cost_model_has_the_same_rows() -> None:
    model = ZeroCostModel(CONFIG)
    results = model.run(start()) + model.run(command(2, decode_changed=True, decode=[0], repeat=3))
    assert [len(result.token) for result in results] == [1, 1, 1, 1]
    assert [result.step for result in results] == [1, 2, 3, 4]
    assert all(0 < token < CONFIG.vocab_size for result in results for token in result.token)


def test_a_token_outside_of_the_vocabulary_is_refused_alone() -> None:
    model = FakeShardModel(CONFIG)
    admit = [admission(0, [100, 1], [1]), admission(1, [5], [2])]
    [result] = model.run(command(1, admit=admit, chunk_slot=[0, 1], chunk_length=[2, 1]))
    assert [(one.slot, one.kind) for one in result.refused] == [(0, Refusal.BAD_ADMISSION)]
    [second] = model.run(command(2, decode_changed=True, decode=[0, 1]))
    assert [result.token[1], second.token[1]] == expected_tokens([5], 2, CONFIG)
    assert len(result.token) == len(second.token) == 2 and not second.refused
    assert expected_tokens([100, 1], 2, CONFIG) == []


def test_whoever_reads_nan_is_refused() -> None:
    """A prefix may have it, or what follows."""
    config = replace(CONFIG, nan_every=5)
    for prompt in ([first] for first in range(40)):
        expected = expected_tokens(prompt, 9, config)
        model, tokens = FakeShardModel(config), []
        [result] = model.run(
            command(1, admit=[admission(0, prompt, [1, 2, 3])], chunk_slot=[0], chunk_length=[1])
        )
        while not result.refused and len(tokens) < 9:
            tokens.append(result.token[0])
            step = model.next_step
            [result] = model.run(command(step, decode_changed=step == 2, decode=[0][: step == 2]))
        assert tokens == expected
        assert model.holds_nan(1) or model.holds_nan(2) or model.holds_nan(3) or len(tokens) == 9
