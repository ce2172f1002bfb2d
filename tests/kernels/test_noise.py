"""The counter-based noise: pinned values, distribution, and independence of everything else."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from penstock_kernels.noise import gumbel, seed_keys, token_keys
from penstock_kernels.sampler import argmax_with_noise


def keys_of(seeds: list[int]) -> Tensor:
    return torch.tensor([seed_keys(seed) for seed in seeds], dtype=torch.int32)


def noise(seed: int, index: int, vocabulary: int) -> Tensor:
    return gumbel(token_keys(keys_of([seed]), torch.tensor([index])), vocabulary)[0]


def uniform(values: Tensor) -> Tensor:
    """Back from Gumbel noise to the uniform numbers it is made of."""
    return 1 - torch.exp(-torch.exp(-values.double()))


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """In standard deviations from its mean; above 5 is one chance in some 10^6."""
    statistic = float(((counts - expected) ** 2 / expected).sum())
    freedom = len(counts) - 1
    return (statistic - freedom) / (2 * freedom) ** 0.5


def test_known_values() -> None:
    """A change of these changes every seeded answer that a user has seen."""
    # The first output of splitmix64 from 0 is e220a8397b1dcdaf, as published with it.
    low, high = seed_keys(0)
    assert (high % 2**32) << 32 | low % 2**32 == 0xE220A8397B1DCDAF
    assert seed_keys(1) == (-1996333887, -1861603860)
    assert seed_keys(2**63) == (313127899, 1209974946)
    assert seed_keys(2**64 - 1) == (459615264, -455511689)
    keys = keys_of([42]).expand(3, 2)
    assert token_keys(keys, torch.tensor([0, 1, 1000])).tolist() == [
        [1402771223, -987737577],
        [-2005160883, 564236193],
        [317190389, 1629888016],
    ]
    torch.testing.assert_close(
        noise(42, 3, 5), torch.tensor([0.92520493, 0.28151149, 0.59377801, 1.95861006, -0.02240243])
    )


def test_the_hash_is_lowbias32() -> None:
    """In Python's integers, from the published constants."""

    def mix(x: int, key: int = 0) -> int:
        x ^= x >> 16
        x = x * 0x7FEB352D % 2**32 ^ key
        x ^= x >> 15
        x = x * 0x846CA68B % 2**32
        return x ^ x >> 16

    for seed in (0, 7, 2**40 + 3):
        for index in (0, 1, 70000):
            first, second = (mix((word ^ index * 0x9E3779B9) % 2**32) for word in seed_keys(seed))
            bits = [mix(token ^ first, second) for token in range(40)]
            found = uniform(noise(seed, index, 40))
            expected = torch.tensor([(bit + 0.5) / 2**32 for bit in bits], dtype=torch.float64)
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_uniform_over_the_vocabulary() -> None:
    for seed, index in [(0, 0), (1, 0), (0, 1), (2**64 - 1, 12345)]:
        counts, _ = np.histogram(uniform(noise(seed, index, 128_000)), bins=256, range=(0, 1))
        assert abs(chi_square(counts, np.full(256, 500.0))) < 5


def test_uniform_over_tokens_and_seeds() -> None:
    """One vocabulary entry, many steps of one seed; and many seeds, which people count up."""
    steps = token_keys(keys_of([9]).expand(50_000, 2), torch.arange(50_000))
    seeds = token_keys(keys_of(list(range(50_000))), torch.zeros(50_000, dtype=torch.int64))
    for keys in (steps, seeds):
        counts, _ = np.histogram(uniform(gumbel(keys, 2)[:, 1]), bins=100, range=(0, 1))
        assert abs(chi_square(counts, np.full(100, 500.0))) < 5


def test_neighbours_are_unrelated() -> None:
    base = uniform(noise(5, 0, 100_000))
    for other in (noise(5, 1, 100_000), noise(6, 0, 100_000), noise(5, 0, 100_001)[1:]):
        correlation = float(torch.corrcoef(torch.stack((base, uniform(other))))[0, 1])
        assert abs(correlation) < 5 / 100_000**0.5


def test_draws_follow_the_distribution() -> None:
    weights = torch.tensor([0.5, 0.25, 0.2, 0.04, 0.009, 0.001])
    draws = 100_000
    keys = token_keys(keys_of([3]).expand(draws, 2), torch.arange(draws))
    token = argmax_with_noise(
        weights.log().expand(draws, -1), gumbel(keys, 6), torch.ones(draws, dtype=torch.bool)
    )
    counts = np.bincount(token.numpy(), minlength=6)
    assert abs(chi_square(counts, weights.double().numpy() * draws)) < 5


def test_every_number_is_finite() -> None:
    keys = token_keys(keys_of(list(range(16))), torch.arange(16))
    values = gumbel(keys, 200_000)
    assert values.isfinite().all()
    # Of 3.2 million draws the largest exceeds 10 with all but certainty: the tail is not cut.
    assert values.max() > 10 and values.min() > -4


def test_a_row_does_not_depend_on_its_batch() -> None:
    seeds, index = [4, 4, 9, 2**33], torch.tensor([0, 17, 17, 3])
    together = gumbel(token_keys(keys_of(seeds), index), 1000)
    for row, seed in enumerate(seeds):
        assert torch.equal(together[row], noise(seed, int(index[row]), 1000))
    assert torch.equal(noise(4, 17, 400), together[1, :400])  # nor on the vocabulary's size
