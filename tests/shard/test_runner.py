"""Steps of a runner in this process: tokens as transformers gives them, whatever the schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from penstock_proto import shard_pb2
from penstock_proto.shard_pb2 import LogitBias
from penstock_shard.memory.copies import conflict_free_batches
from penstock_shard.weights.loaded_model import LoadedModel
from support.local_shard import LocalShard, load_model
from support.shard_driver import neutral

VOCABULARY = 301
RANDOM = np.random.default_rng(5)
PROMPTS = [RANDOM.integers(3, VOCABULARY, length).tolist() for length in (41, 1, 23, 30)]


class Model(NamedTuple):
    loaded: LoadedModel
    reference: torch.nn.Module

    def scores(self, tokens: Sequence[int]) -> torch.Tensor:
        """log softmax after each token, [n, vocabulary], by transformers."""
        with torch.inference_mode():
            logits = self.reference(torch.tensor([tokens])).logits[0]
        return logits.float().log_softmax(-1)  # type: ignore[no-any-return]

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        tokens = list(prompt)
        for _ in range(count):
            tokens.append(int(self.scores(tokens)[-1].argmax()))
        return tokens[len(prompt) :]


@pytest.fixture(scope="module", params=["llama3", "mistral", "qwen3"])
def any_model(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]) -> Model:
    return make_model(checkpoint(request.param))


@pytest.fixture(scope="module")
def model(checkpoint: Callable[[str], Path]) -> Model:
    return make_model(checkpoint("llama3"))


def make_model(folder: Path) -> Model:
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return Model(load_model(folder), reference)


def sampled(seed: int, **changes: float) -> shard_pb2.Sampling:
    return neutral(temperature=1.0, seed=seed, **changes)


def likely_of(part: shard_pb2.PromptLogprobs) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Tokens and their log-probabilities, as a message has them."""
    return np.frombuffer(part.top_token, "<i4"), np.frombuffer(part.top_logprob, "<f4")


def test_greedy_in_mixed_steps(any_model: Model) -> None:
    """One decodes while the others' prompts come in chunks of odd lengths; then all in grants."""
    shard = LocalShard(any_model.loaded)
    tokens = {0: [shard.start(0, PROMPTS[0])]}
    [result] = shard.run(
        admit=[shard.admission(slot, PROMPTS[slot]) for slot in (1, 2)],
        decode_changed=True,
        decode=[0],
        chunk_slot=[2, 1],
        chunk_length=[10, 1],
    )
    tokens[0].append(result.token[0])
    tokens[1] = [result.token[1]]  # slot 2 is not through yet
    assert len(result.token) == 2
    [result] = shard.run(decode_changed=True, decode=[1, 0], chunk_slot=[2], chunk_length=[13])
    for slot, token in zip((1, 0), result.token[:2], strict=True):
        tokens[slot].append(token)
    tokens[2] = [result.token[2]]
    for slot, more in zip((2, 0, 1), shard.decode([2, 0, 1], 9, repeat=4), strict=True):
        tokens[slot] += more
    for slot, found in tokens.items():
        assert found == any_model.greedy(PROMPTS[slot], len(found))


def test_a_repeat_gives_a_result_a_step(model: Model) -> None:
    shard = LocalShard(model.loaded)
    shard.start(0, PROMPTS[0])
    results = shard.run(decode_changed=True, decode=[0], repeat=3)
    assert [result.step for result in results] == [2, 3, 4]
    assert all(result.device_ns > 0 and len(result.token) == 1 for result in results)
    assert not any(result.logprob or result.top for result in results)  # nobody asked


def test_a_step_without_rows_is_acknowledged(model: Model) -> None:
    shard = LocalShard(model.loaded)
    [result] = shard.run()
    assert result.step == 1 and not result.token and not result.HasField("error")


@pytest.mark.parametrize("done", [1, 6])
@pytest.mark.parametrize(
    "sampling",
    [
        neutral(),
        sampled(8),
        sampled(2**63 + 1, top_p=0.9, typical_p=0.95),
        sampled(3, repetition_penalty=1.4, frequency_penalty=0.5, presence_penalty=0.7),
        neutral(frequency_penalty=2.0, presence_penalty=2.0),
    ],
    ids=["greedy", "seeded", "filtered", "penalised", "greedy_penalised"],
)
def test_a_preempted_sequence_goes_on_as_if_it_had_not_been(
    model: Model, sampling: shard_pb2.Sampling, done: int
) -> None:
    shard = LocalShard(model.loaded)
    whole = [shard.start(0, PROMPTS[2], sampling)]
    whole += shard.decode([0], 11)[0]
    shard.release(0)
    # In another slot; first all is computed again, then two blocks of it stand in the cache.
    for cached in (0, 16):
        tokens = PROMPTS[2] + whole[:done]
        resumed = [shard.start(3, tokens, sampling, generated=done, cached=cached)]
        resumed += shard.decode([3], 11 - done)[0]
        assert resumed == whole[done:]
        shard.release(3)


def test_seeded_answers_do_not_depend_on_batch_mates(model: Model) -> None:
    wanted = [
        sampled(1),
        sampled(2, top_k=5),
        sampled(3, min_p=0.05, top_p=0.8),
        neutral(frequency_penalty=1.0),
    ]
    shard = LocalShard(model.loaded)
    alone = []
    for prompt, sampling in zip(PROMPTS, wanted, strict=True):
        alone.append([shard.start(0, prompt, sampling), *shard.decode([0], 8)[0]])
        shard.release(0)
    order = [2, 0, 3, 1]
    together: dict[int, list[int]] = {}
    running: list[int] = []
    for slot in order:  # each joins one step after the other
        [result] = shard.run(
            admit=[shard.admission(slot, PROMPTS[slot], wanted[slot])],
            decode_changed=True,
            decode=running,
            chunk_slot=[slot],
            chunk_length=[len(PROMPTS[slot])],
        )
        running = [*running, slot]
        for member, token in zip(running, result.token, strict=True):
            together.setdefault(member, []).append(token)
    for member, more in zip(running, shard.decode(running, 8, repeat=3), strict=True):
        together[member] += more
    assert [together[slot][:9] for slot in range(4)] == alone
    assert len({tuple(answer) for answer in alone}) == 4


def test_seeds_matter(model: Model) -> None:
    shard = LocalShard(model.loaded)
    answers = set()
    for seed in range(6):
        answers.add((shard.start(0, PROMPTS[1], sampled(seed)), *shard.decode([0], 5)[0]))
        shard.release(0)
    assert len(answers) == 6


def test_prompt_logprobs_across_chunks(any_model: Model) -> None:
    shard = LocalShard(any_model.loaded)
    prompt = PROMPTS[0]
    shard.start(1, PROMPTS[2])
    found: dict[int, float] = {}
    lengths = [7, 1, 20, 13]
    for index, length in enumerate(lengths):
        admit = [shard.admission(0, prompt, prompt_logprobs=True)] if index == 0 else []
        [result] = shard.run(
            admit=admit,
            decode_changed=index == 0,
            decode=[1] if index == 0 else [],
            chunk_slot=[0],
            chunk_length=[length],
        )
        for part in result.prompt:
            assert part.slot == 0 and part.start == sum(lengths[:index])
            for offset, value in enumerate(part.logprob):
                found[part.start + 1 + offset] = value
    scores = any_model.scores(prompt)
    assert sorted(found) == list(range(1, len(prompt)))
    for position, value in found.items():
        expected = float(scores[position - 1, prompt[position]])
        assert value == pytest.approx(expected, abs=1e-4)


def test_likely_tokens_of_prompts(any_model: Model) -> None:
    """Each prompt as many as it asked for, beside one that asked for none, chunk by chunk."""
    shard = LocalShard(any_model.loaded, max_prefill_tokens=128)
    wanted, prompts = [3, 0, 1], [PROMPTS[0], *PROMPTS[2:4]]
    asked = [
        shard.admission(slot, prompts[slot], prompt_logprobs=True, prompt_top_n=count)
        for slot, count in enumerate(wanted)
    ]
    halves = [(len(prompt) // 2, len(prompt) - len(prompt) // 2) for prompt in prompts]
    likely: dict[int, list[tuple[int, float]]] = {0: [], 1: [], 2: []}
    for half in (0, 1):
        lengths = [pair[half] for pair in halves]
        admit = [] if half else asked
        [result] = shard.run(admit=admit, chunk_slot=range(3), chunk_length=lengths)
        for part in result.prompt:
            tokens, values = likely_of(part)
            assert len(tokens) == wanted[part.slot] * len(part.logprob)
            likely[part.slot] += zip(tokens.tolist(), values.tolist(), strict=True)
    for slot, count in enumerate(wanted):
        scores = any_model.scores(prompts[slot])[:-1]
        best = scores.topk(count, dim=1) if count else None
        tokens = [] if best is None else best.indices.flatten().tolist()
        assert [token for token, _ in likely[slot]] == tokens
        if best is not None:
            values = [value for _, value in likely[slot]]
            assert values == pytest.approx(best.values.flatten().tolist(), abs=1e-4)


def test_a_part_of_a_prompt_is_scored(any_model: Model) -> None:
    """From a place on, with some tokens computed before and the rest in two chunks."""
    shard = LocalShard(any_model.loaded, max_prefill_tokens=128)
    prompt, start = PROMPTS[0], 19
    shard.start(0, prompt)
    asked = shard.admission(0, prompt, prompt_logprobs=True, prompt_logprobs_start=start, cached=16)
    found: dict[int, float] = {}
    for index, length in enumerate((7, len(prompt) - 23)):
        [result] = shard.run(
            release=[] if index else [0],
            admit=[] if index else [asked],
            chunk_slot=[0],
            chunk_length=[length],
            decode_changed=True,
        )
        [part] = result.prompt
        assert part.start == (23 if index else start)
        found |= dict(enumerate(part.logprob, part.start + 1))
    expected = any_model.scores(prompt)
    assert sorted(found) == list(range(start + 1, len(prompt)))
    for place, value in found.items():
        assert value == pytest.approx(float(expected[place - 1, prompt[place]]), abs=1e-4)


def test_log_probabilities_of_given_tokens(any_model: Model) -> None:
    """At each place of a prompt and of what follows, behind the likely ones; beside others."""
    shard = LocalShard(any_model.loaded, max_prefill_tokens=128)
    wanted = [neutral(given=[9, 4, 30], top_n=2), neutral(top_n=1), neutral(given=[7])]
    asked = [
        shard.admission(slot, PROMPTS[slot], wanted[slot], prompt_logprobs=True, prompt_top_n=slot)
        for slot in range(3)
    ]
    lengths = [len(prompt) for prompt in PROMPTS[:3]]
    [result] = shard.run(admit=asked, chunk_slot=range(3), chunk_length=lengths)
    scores = [any_model.scores(prompt) for prompt in PROMPTS[:3]]
    for part in result.prompt:
        tokens, values = (one.reshape(len(part.logprob), -1) for one in likely_of(part))
        given = list(wanted[part.slot].given)
        assert tokens.shape[1] == part.slot + len(given)
        assert (tokens[:, part.slot :] == given).all()
        own = scores[part.slot][:-1].gather(1, torch.tensor(tokens, dtype=torch.int64))
        assert values == pytest.approx(own.numpy(), abs=1e-4)
    assert [part.slot for part in result.prompt] == [0, 2]  # the other is one token
    [after] = shard.run(decode_changed=True, decode=range(3))
    for step, before in ((result, ()), (after, result.token)):
        assert [top.row for top in step.top] == [0, 1, 2]
        for top in step.top:
            prompt = [*PROMPTS[top.row], *before[top.row : top.row + 1]]
            last = any_model.scores(prompt)[-1]
            likely = last.topk(wanted[top.row].top_n).indices.tolist()
            assert list(top.token) == likely + list(wanted[top.row].given)
            expected = [float(last[token]) for token in top.token]
            assert list(top.logprob) == pytest.approx(expected, abs=1e-4)


def test_the_likeliest_token_has_one_value(any_model: Model) -> None:
    """Scorers look for a prompt's tokens among the most likely by comparing values."""
    shard = LocalShard(any_model.loaded, max_prefill_tokens=128)
    first = shard.start(0, PROMPTS[0])
    prompt = [*PROMPTS[0], first, *shard.decode([0], 6)[0]]
    asked = shard.admission(1, prompt, prompt_logprobs=True, prompt_top_n=1)
    [result] = shard.run(admit=[asked], chunk_slot=[1], chunk_length=[len(prompt)])
    [part] = result.prompt
    tokens, values = likely_of(part)
    assert tokens[-7:].tolist() == prompt[-7:]
    assert values[-7:].tolist() == part.logprob[-7:]


def test_logprobs_and_top_tokens(any_model: Model) -> None:
    """Of the model's own distribution, before penalties and temperature; rows that asked only."""
    wanted = {
        0: neutral(logprobs=True, logit_bias=LogitBias(token=[7], value=[9])),
        1: sampled(4, top_n=3, repetition_penalty=1.5, presence_penalty=1.0),
        2: sampled(5),
        3: neutral(top_n=5),
    }
    shard = LocalShard(any_model.loaded, max_prefill_tokens=128)
    [result] = shard.run(
        admit=[shard.admission(slot, PROMPTS[slot], wanted[slot]) for slot in range(4)],
        chunk_slot=range(4),
        chunk_length=[len(prompt) for prompt in PROMPTS],
    )
    scores = [any_model.scores(prompt)[-1] for prompt in PROMPTS]
    for row in range(4):
        expected = float(scores[row][result.token[row]])
        assert result.logprob[row] == pytest.approx(expected, abs=1e-4)
    assert {top.row: len(top.token) for top in result.top} == {1: 3, 3: 5}
    for top in result.top:
        best = scores[top.row].topk(len(top.token))
        assert list(top.token) == best.indices.tolist()
        assert list(top.logprob) == pytest.approx(best.values.tolist(), abs=1e-4)


def test_blocks_shared_by_a_prefix(model: Model) -> None:
    """The second sequence computes what is its own; the first goes on in the shared blocks."""
    shard = LocalShard(model.loaded)
    prefix = PROMPTS[0][:24]  # three blocks of 8
    first, second = prefix + PROMPTS[2][:5], prefix + PROMPTS[3][:9]
    answer = [shard.start(0, first)]
    blocks = np.array(shard.blocks[0][:3] + shard.blocks[1][3:], np.int32).tobytes()
    admission = shard.admission(1, second, cached=24)
    admission.blocks = blocks
    [result] = shard.run(
        admit=[admission], chunk_slot=[1], chunk_length=[9], decode_changed=True, decode=[0]
    )
    answer.append(result.token[0])
    other = [result.token[1]]
    for tokens, more in zip((answer, other), shard.decode([0, 1], 6), strict=True):
        tokens += more
    assert answer == model.greedy(first, 8) and other == model.greedy(second, 7)


def test_a_block_that_begins_like_another(model: Model) -> None:
    """What a block and one computed before have in common is copied; both go on by themselves."""
    shard = LocalShard(model.loaded)
    prefix = PROMPTS[0][:29]  # three blocks of 8 and 5 tokens
    first, second, third = (prefix + PROMPTS[i][:9] for i in (2, 3, 0))
    answer = [shard.start(0, first)]
    admissions = [
        shard.admission(slot, tokens, cached=29) for slot, tokens in ((1, second), (2, third))
    ]
    for slot, one in enumerate(admissions, 1):
        table = shard.blocks[0][:3] + shard.blocks[slot][3:]
        one.blocks = np.array(table, np.int32).tobytes()
    [result] = shard.run(
        admit=admissions, chunk_slot=[1, 2], chunk_length=[9, 9], decode_changed=True, decode=[0],
        copy_from=[shard.blocks[0][3]] * 2, copy_to=[shard.blocks[slot][3] for slot in (1, 2)],
    )  # fmt: skip
    answer.append(result.token[0])
    answers = [answer, [result.token[1]], [result.token[2]]]
    for tokens, more in zip(answers, shard.decode([0, 1, 2], 6), strict=True):
        tokens += more
    for prompt, tokens in zip((first, second, third), answers, strict=True):
        assert tokens == model.greedy(prompt, len(tokens))


def test_a_copied_block_may_be_used_again_by_the_sequence_that_copies_it(model: Model) -> None:
    """Copies come before anything is cleared or written."""
    shard = LocalShard(model.loaded)
    prefix = PROMPTS[0][:29]  # three blocks of 8 and 5 tokens
    second = prefix + PROMPTS[3][:9]
    shard.start(0, prefix + PROMPTS[2][:9])
    old, own = shard.blocks[0], shard.blocks[1]
    asked = shard.admission(1, second, cached=29)
    asked.blocks = np.array([*old[:3], own[3], old[3], *own[5:]], np.int32).tobytes()
    [result] = shard.run(
        release=[0], copy_from=[old[3]], copy_to=[own[3]], admit=[asked], chunk_slot=[1],
        chunk_length=[9],
    )  # fmt: skip
    assert [*result.token, *shard.decode([1], 6)[0]] == model.greedy(second, 7)


@pytest.mark.parametrize(
    ("copies", "parts"),
    [
        ([], []),
        ([(1, 2), (1, 3)], [[(1, 2), (1, 3)]]),
        ([(1, 2), (4, 1)], [[(1, 2)], [(4, 1)]]),  # 1 was evicted after it was copied
        ([(1, 2), (2, 3)], [[(1, 2)], [(2, 3)]]),
        ([(1, 2), (3, 2)], [[(1, 2)], [(3, 2)]]),
    ],
)
def test_copies_that_touch_each_other_are_done_in_order(
    copies: list[tuple[int, int]], parts: list[list[tuple[int, int]]]
) -> None:
    assert list(conflict_free_batches(copies)) == parts


def test_blocks_are_granted_as_a_sequence_grows(model: Model) -> None:
    shard = LocalShard(model.loaded)
    prompt, blocks = PROMPTS[2], shard.blocks[0]
    admission = shard.admission(0, prompt)
    admission.blocks = np.array(blocks[:3], np.int32).tobytes()  # 24 tokens; the prompt has 23
    [result] = shard.run(admit=[admission], chunk_slot=[0], chunk_length=[23])
    tokens = [result.token[0]]
    for step in range(18):
        length = 24 + step
        grant = {"grant_slot": [0], "grant_block": [blocks[length // 8]]} if length % 8 == 0 else {}
        [result] = shard.run(decode_changed=step == 0, decode=[0] if step == 0 else [], **grant)
        tokens.append(result.token[0])
    assert tokens == model.greedy(prompt, 19)


def test_a_slot_takes_nothing_over_from_its_last_sequence(model: Model) -> None:
    """Bias, penalties, filters and seeds go with the sequence that had them."""
    shard = LocalShard(model.loaded)
    plain = [model.greedy(prompt, 4) for prompt in PROMPTS[:2]]
    favourite = 77
    bias = {"logit_bias": LogitBias(token=[favourite, 5], value=[1000, -1])}
    assert shard.start(0, PROMPTS[0], neutral(**bias)) == favourite
    shard.run(release=[0])
    loud = sampled(9, top_k=2, min_p=0.5, repetition_penalty=3.0, presence_penalty=2.0)
    shard.start(0, PROMPTS[0], loud)
    # Its mate asks for everything, so that every feature runs for the whole batch.
    mate = sampled(1, top_p=0.5, typical_p=0.5, frequency_penalty=1.0, logprobs=True, **bias)
    [result] = shard.run(
        release=[0],
        admit=[shard.admission(0, PROMPTS[1]), shard.admission(1, PROMPTS[0], mate)],
        chunk_slot=[0, 1],
        chunk_length=[1, 41],
    )
    assert result.token[1] == favourite
    assert [result.token[0], *shard.decode([0, 1], 3)[0]] == plain[1]


def test_bias(model: Model) -> None:
    """Added to the logits; the same token twice adds up; widths may differ between slots."""
    scores = model.scores(PROMPTS[0])[-1]
    best, second, third = scores.topk(3).indices.tolist()
    gap = float(scores[best] - scores[third])
    shard = LocalShard(model.loaded)
    wanted = [
        neutral(logit_bias=LogitBias(token=[third, third], value=[gap * 0.6, gap * 0.6])),
        neutral(logit_bias=LogitBias(token=[best], value=[-100])),
        neutral(
            logit_bias=LogitBias(
                token=[best, second, *range(200, 209)], value=[-100, -100, *[-1e4] * 9]
            )
        ),
    ]
    [result] = shard.run(
        admit=[shard.admission(slot, PROMPTS[0][:1], one) for slot, one in enumerate(wanted)],
        chunk_slot=range(3),
        chunk_length=[1] * 3,
    )
    short = model.scores(PROMPTS[0][:1])[-1]
    for row, one in enumerate(wanted):
        expected = short.clone()
        for token, value in zip(one.logit_bias.token, one.logit_bias.value, strict=True):
            expected[token] += value
        assert result.token[row] == int(expected.argmax())
