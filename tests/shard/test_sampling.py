"""The whole sampler of a batch against one plain pipeline a row, and the order of its parts."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from penstock_kernels.draw import Draws
from penstock_kernels.gpu.sampler import TritonSampler
from penstock_kernels.noise import gumbel, seed_keys, token_keys
from penstock_kernels.reference.device import TorchSampler
from penstock_proto import shard_pb2
from penstock_shard.draw_graphs import DrawGraphs
from penstock_shard.sampling import Sampler, SamplingState
from penstock_shard.slots import Limits
from support.local_shard import Eager
from support.shard_driver import neutral

VOCABULARY = 40
LIMITS = Limits(
    max_prefill_tokens=8,
    max_slots=7,
    max_sequence_length=64,
    max_top_n=5,
    vocab_size=VOCABULARY,
    block_size=8,
    num_blocks=9,
)
CPU = torch.device("cpu")


class Plain:
    """One sequence, sampled token by token as the documentation reads."""

    def __init__(self, tokens: list[int], generated: int, wanted: shard_pb2.Sampling) -> None:
        self.prompt = set(tokens[: len(tokens) - generated])
        self.answer = tokens[len(tokens) - generated :]
        self.wanted = wanted

    def next(self, logits: Tensor) -> int:
        scores = self.biased(logits.clone())
        wanted = self.wanted
        if wanted.temperature > 0:
            scores = self.filtered(scores / np.float32(wanted.temperature))
            keys = torch.tensor([seed_keys(wanted.seed)], dtype=torch.int32)
            index = torch.tensor([len(self.answer)])
            scores = scores + gumbel(token_keys(keys, index), VOCABULARY)[0]
        token = int(scores.argmax())
        self.answer.append(token)
        return token

    def biased(self, scores: Tensor) -> Tensor:
        wanted, counts = self.wanted, Counter(self.answer)
        for token in self.prompt | set(self.answer):
            factor = wanted.repetition_penalty
            scores[token] = scores[token] / factor if scores[token] > 0 else scores[token] * factor
        for token, count in counts.items():
            scores[token] -= count * wanted.frequency_penalty + wanted.presence_penalty
        for token, value in zip(wanted.bias_token, wanted.bias, strict=True):
            scores[token] += value
        return scores

    def filtered(self, scores: Tensor) -> Tensor:
        wanted = self.wanted
        if wanted.top_k:
            least = scores.sort(descending=True).values[min(wanted.top_k, VOCABULARY) - 1]
            scores = scores.masked_fill(scores < least, -torch.inf)
        if wanted.top_p < 1:
            ranked = scores.sort(descending=True)
            mass = ranked.values.softmax(0)
            out = ranked.indices[mass.cumsum(0) - mass >= wanted.top_p]
            scores = scores.index_fill(0, out, -torch.inf)
        if wanted.typical_p < 1:
            mass = scores.softmax(0)
            surprise = -scores.log_softmax(0)
            entropy = (mass * surprise.nan_to_num(0, 0, 0)).sum()
            order = (surprise - entropy).abs().argsort()
            ranked_mass = mass[order]
            out = order[ranked_mass.cumsum(0) - ranked_mass >= wanted.typical_p]
            scores = scores.index_fill(0, out, -torch.inf)
        if wanted.min_p > 0:
            mass = scores.softmax(0)
            scores = scores.masked_fill(mass < wanted.min_p * mass.max(), -torch.inf)
        return scores


def any_sampling(chance: random.Random) -> shard_pb2.Sampling:
    """Each part is on in about half of the requests."""

    def on(value: float, off: float) -> float:
        return value if chance.random() < 0.5 else off

    tokens = chance.sample(range(VOCABULARY), chance.choice([0, 0, 1, 3, 9]))
    return neutral(
        temperature=on(chance.uniform(0.3, 2), 0) if chance.random() < 0.6 else 1.0,
        top_k=int(on(chance.randint(1, 50), 0)),
        top_p=on(chance.uniform(0.2, 0.99), 1),
        typical_p=on(chance.uniform(0.2, 0.99), 1),
        min_p=on(chance.uniform(0.001, 0.5), 0),
        repetition_penalty=on(chance.uniform(0.5, 2), 1),
        frequency_penalty=on(chance.uniform(-1, 1), 0),
        presence_penalty=on(chance.uniform(-1, 1), 0),
        seed=chance.getrandbits(64),
        bias_token=tokens,
        bias=[chance.uniform(-5, 5) for _ in tokens],
        logprobs=chance.random() < 0.3,
        top_n=chance.choice([0, 0, 5]),
    )


@pytest.mark.filterwarnings("ignore::RuntimeWarning:triton", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("sampler", "captured", "seed"),
    [
        *((TorchSampler(), seed % 2 == 1, seed) for seed in range(24)),
        (TritonSampler(), False, 0),  # by Triton's interpreter: 16 s each
        (TritonSampler(), True, 1),
    ],
)
def test_any_batch_equals_its_rows_alone(sampler: Sampler, captured: bool, seed: int) -> None:
    """Slots come and go; each row gets what the plain pipeline gives it, by graphs of draws too."""
    chance = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    state, running = SamplingState(LIMITS, CPU, sampler), dict[int, Plain]()
    standing, drawn = torch.zeros(LIMITS.max_slots, VOCABULARY), None
    if captured:
        drawn = DrawGraphs(state, sampler, standing)
        drawn.capture(Eager)
    for _ in range(25):
        slot = chance.randrange(LIMITS.max_slots)
        tokens = [chance.randrange(VOCABULARY) for _ in range(chance.randint(1, 20))]
        generated, wanted = chance.randrange(len(tokens)), any_sampling(chance)
        state.admit(slot, np.array(tokens, np.int32), generated, wanted)
        state.load(np.array([slot]))
        running[slot] = Plain(tokens, generated, wanted)
        slots = chance.sample(sorted(running), chance.randint(1, len(running)))
        plan = state.plan(np.array(slots, np.int64))
        for _ in range(2):  # a plan serves until the batch changes
            logits = standing[: len(slots)]
            logits.copy_(torch.randn(len(slots), VOCABULARY, generator=generator) * 3)
            before = logits.clone()
            found = state.sample(logits, plan, drawn).token.tolist()
            assert torch.equal(logits, before)
            assert found == [
                running[slot].next(row) for slot, row in zip(slots, logits, strict=True)
            ]


def sample_one(wanted: shard_pb2.Sampling, logits: list[float], prompt: list[int]) -> set[int]:
    """Which tokens can come: over many seeds."""
    row = torch.full((1, VOCABULARY), -1e4)
    row[0, : len(logits)] = torch.tensor(logits)
    found = set()
    for seed in range(80):
        state = SamplingState(LIMITS, CPU, TorchSampler())
        seeded = shard_pb2.Sampling()
        seeded.CopyFrom(wanted)
        seeded.seed = seed
        state.admit(0, np.array(prompt, np.int32), 0, seeded)
        state.load(np.array([0]))
        found.add(int(state.sample(row, state.plan(np.array([0]))).token))
    return found


def test_temperature_comes_before_top_p() -> None:
    """At temperature 4 the second token's share rises from 0.12 to 0.38, into the nucleus."""
    logits, nucleus = [2.0, 0.0], {"top_p": 0.7}
    assert sample_one(neutral(temperature=1.0, **nucleus), logits, [9]) == {0}
    assert sample_one(neutral(temperature=4.0, **nucleus), logits, [9]) == {0, 1}


def test_top_k_comes_before_top_p() -> None:
    """Of the two kept, the first has 0.62 of the mass; of all four it had 0.38."""
    logits = [0.5, 0.0, -0.1, -0.2]
    assert sample_one(neutral(temperature=1.0, top_p=0.6), logits, [9]) == {0, 1}
    assert sample_one(neutral(temperature=1.0, top_p=0.6, top_k=2), logits, [9]) == {0}


def test_penalties_come_before_the_bias() -> None:
    """Repetition would double a bias that came first: 0.5 + 1 stays below 1.6."""
    wanted = neutral(repetition_penalty=0.5, bias_token=[0], bias=[1.0])
    assert sample_one(wanted, [0.2, 1.6], [0]) == {1}
    assert sample_one(wanted, [0.4, 1.6], [0]) == {0}


def test_only_generated_tokens_count_for_frequency_and_presence() -> None:
    state = SamplingState(LIMITS, CPU, TorchSampler())
    wanted = neutral(frequency_penalty=1.0, presence_penalty=0.5)
    state.admit(0, np.array([0, 0, 0, 1], np.int32), 1, wanted)
    state.load(np.array([0]))
    row = torch.full((1, VOCABULARY), -9.0)
    row[0, :2] = torch.tensor([1.0, 2.4])  # token 1 was generated once: 2.4 - 1.5 < 1
    plan = state.plan(np.array([0]))
    found = [int(state.sample(row, plan).token) for _ in range(3)]
    # Then token 0 is at 1 - 1.5, token 1 at 0.9; then that is at -0.1, still above -0.5.
    assert found == [0, 1, 1]


def test_rehearsing_reads_no_token_that_no_kernel_wrote() -> None:
    """While kernels are only compiled, tokens are what the memory held before."""

    class LaunchesNothing(TorchSampler):
        def draw(self, logits: Tensor, draws: Draws) -> Tensor:
            return torch.full((len(draws.slots),), 2**62)

    SamplingState(LIMITS, CPU, LaunchesNothing()).rehearse_draws(torch.bfloat16)
