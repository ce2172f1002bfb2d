"""The whole sampler of a batch against one plain pipeline a row, and the order of its parts."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from penstock_kernels.draw import SamplingBatch
from penstock_kernels.gpu.sampling.sampler import TritonSampler
from penstock_kernels.noise import gumbel, seed_keys, token_keys
from penstock_kernels.reference.device import TorchSampler
from penstock_proto import shard_pb2
from penstock_shard.sampling.rehearsal import rehearse_draws
from penstock_shard.sampling.sample_graphs import SampleGraphs
from penstock_shard.sampling.sampling import Sampler, SamplingState
from penstock_shard.steps.limits import ShardLimits
from support.local_shard import Eager
from support.shard_driver import neutral

VOCABULARY = 40
LIMITS = ShardLimits(
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
        self.all = [*tokens]

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
        self.all.append(token)
        return token

    def biased(self, scores: Tensor) -> Tensor:
        wanted, counts = self.wanted, Counter(self.answer)
        for token in self.prompt | set(self.answer):
            factor = wanted.repetition_penalty
            scores[token] = scores[token] / factor if scores[token] > 0 else scores[token] * factor
        for token, count in counts.items():
            scores[token] -= count * wanted.frequency_penalty + wanted.presence_penalty
        for token, value in zip(wanted.logit_bias.token, wanted.logit_bias.value, strict=True):
            scores[token] += value
        return self.ruled(scores)

    def ruled(self, scores: Tensor) -> Tensor:
        rules = self.wanted.rules
        if rules.green_bias:
            scores[list(green(self.all[-1], rules.green_share))] += rules.green_bias
        for token in range(VOCABULARY):
            late = token in rules.late and len(self.answer) < rules.min_tokens
            banned = any(
                run.token[-1] == token
                and (len(run.token) == 1 or self.answer[1 - len(run.token) :] == run.token[:-1])
                for run in rules.banned
            )
            allowed = np.frombuffer(rules.allowed, "<i4")
            if late or banned or (len(allowed) and token not in allowed):
                scores[token] = -torch.inf
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
        logit_bias=shard_pb2.LogitBias(token=tokens, value=[chance.uniform(-5, 5) for _ in tokens]),
        logprobs=chance.random() < 0.3,
        top_n=chance.choice([0, 0, 5]),
        rules=any_rules(chance) if chance.random() < 0.4 else None,
    )


def any_rules(chance: random.Random) -> shard_pb2.TokenRules:
    """Short runs of few tokens, so that many of them nearly come about. Some tokens are in none."""

    def some(most: int) -> list[int]:
        return [chance.randrange(30) for _ in range(chance.randint(1, most))]

    allowed = np.array([*some(12), 35, 36, 37, 38], "<i4")
    return shard_pb2.TokenRules(
        allowed=allowed.tobytes() if chance.random() < 0.4 else b"",
        late=some(3),
        min_tokens=chance.choice([0, 3, 20]),
        banned=[shard_pb2.TokenRun(token=some(3)) for _ in range(chance.choice([0, 5, 60]))],
        green_share=chance.choice([0, 0.25, 0.5, 1]),
        green_bias=chance.choice([0, 2.5]),
    )


def green(last: int, share: float) -> set[int]:
    """The tokens that are green behind `last`, in Python's integers: what docs/api.md tells."""
    words = [word & 0xFFFFFFFF for word in seed_keys(15_485_863)]
    step = last * 0x9E3779B9 & 0xFFFFFFFF
    first, second = (mix(word ^ step) for word in words)
    return {v for v in range(VOCABULARY) if mix(v ^ first, second) < round(share * 2**32)}


def mix(x: int, key: int = 0) -> int:
    x ^= x >> 16
    x = (x * 0x7FEB352D & 0xFFFFFFFF) ^ key
    x ^= x >> 15
    x = x * 0x846CA68B & 0xFFFFFFFF
    return x ^ x >> 16


@pytest.mark.filterwarnings("ignore::RuntimeWarning:triton", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("sampler", "captured", "seed"),
    [
        *((TorchSampler(), seed % 2 == 1, seed) for seed in range(24)),
        pytest.param(
            TritonSampler(), False, 0, marks=pytest.mark.full
        ),  # by Triton's interpreter: 16 s each
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
        drawn = SampleGraphs(state, sampler, standing)
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
    wanted = neutral(repetition_penalty=0.5, logit_bias=shard_pb2.LogitBias(token=[0], value=[1.0]))
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
        def draw(self, logits: Tensor, draws: SamplingBatch) -> Tensor:
            return torch.full((len(draws.slots),), 2**62)

    rehearse_draws(SamplingState(LIMITS, CPU, LaunchesNothing()), torch.bfloat16)
