"""Each step of the sampler against a straightforward implementation, one row at a time."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from penstock_kernels import sampler

VOCABULARY = 12
# Few values, so that there are many ties, or any values at all.
ROW = st.lists(
    st.integers(-6, 6).map(lambda i: i / 2), min_size=VOCABULARY, max_size=VOCABULARY
) | st.lists(st.floats(-20, 20, width=32), min_size=VOCABULARY, max_size=VOCABULARY)
ROWS = st.lists(ROW, min_size=1, max_size=4)
EXAMPLES = settings(max_examples=150, deadline=None)


def per_row(data: st.DataObject, values: st.SearchStrategy[float], count: int) -> list[float]:
    return data.draw(st.lists(values, min_size=count, max_size=count))


def softmax(row: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        weights = np.exp(row - row.max())
    result: np.ndarray = weights / weights.sum()
    return result


def kept(logits: Tensor) -> list[set[int]]:
    return [set(np.flatnonzero(row != -math.inf).tolist()) for row in logits.numpy()]


def unchanged_where_kept(out: Tensor, logits: Tensor) -> bool:
    return bool(((out == logits) | (out == -torch.inf)).all())


@EXAMPLES
@given(rows=ROWS, data=st.data())
def test_repetition_penalty(rows: list[list[float]], data: st.DataObject) -> None:
    logits = torch.tensor(rows)
    counts = torch.tensor([per_row(data, st.integers(0, 7), VOCABULARY) for _ in rows]).int()
    penalty = per_row(data, st.floats(0.25, 4, width=32), len(rows))
    out = sampler.penalise_repetition(logits, counts, torch.tensor(penalty))
    for row in range(len(rows)):
        for token in range(VOCABULARY):
            value = logits[row, token].item()
            if counts[row, token]:
                value = value / penalty[row] if value > 0 else value * penalty[row]
            assert math.isclose(out[row, token].item(), value, rel_tol=1e-5, abs_tol=1e-6)


@EXAMPLES
@given(rows=ROWS, data=st.data())
def test_frequency_and_presence_as_openai_defines_them(
    rows: list[list[float]], data: st.DataObject
) -> None:
    """mu[j] - c[j] * frequency - float(c[j] > 0) * presence, c counts sampled tokens only."""
    times = [per_row(data, st.integers(0, 3), VOCABULARY) for _ in rows]
    prompt = [per_row(data, st.integers(0, 1), VOCABULARY) for _ in rows]
    frequency = per_row(data, st.floats(-2, 2, width=32), len(rows))
    presence = per_row(data, st.floats(-2, 2, width=32), len(rows))
    counts = torch.tensor(times) * sampler.GENERATED_ONCE + torch.tensor(prompt) * sampler.IN_PROMPT
    logits = torch.tensor(rows)
    before = logits.clone()
    out = sampler.penalise_frequency(
        logits, counts.int(), torch.tensor(frequency), torch.tensor(presence)
    )
    assert torch.equal(logits, before)  # they are wanted again for log-probabilities
    for row in range(len(rows)):
        for token in range(VOCABULARY):
            count = times[row][token]
            value = before[row, token].item() - count * frequency[row]
            value -= float(count > 0) * presence[row]
            assert math.isclose(out[row, token].item(), value, rel_tol=1e-4, abs_tol=1e-4)


def naive_sorted(row: np.ndarray, top_k: int, top_p: float) -> set[int]:
    """Walk down the ranks until k are taken or their mass reaches p; ties of the last one stay."""
    order = sorted(range(len(row)), key=lambda token: -row[token])[: top_k or len(row)]
    mass, last = 0.0, order[0]
    for token, probability in zip(order, softmax(row[order]), strict=True):
        if mass >= top_p and top_p < 1:
            break
        assume(top_p >= 1 or abs(mass - top_p) > 1e-5)  # rounding decides there
        mass, last = mass + probability, token
    return {token for token in range(len(row)) if row[token] >= row[last]}


@EXAMPLES
@given(rows=ROWS, data=st.data())
def test_top_k_and_top_p(rows: list[list[float]], data: st.DataObject) -> None:
    logits = torch.tensor(rows)
    top_k = [int(k) for k in per_row(data, st.integers(0, VOCABULARY + 3), len(rows))]
    top_p = per_row(data, st.just(1.0) | st.floats(0.015625, 1, width=32), len(rows))
    expected = [
        naive_sorted(row.astype(np.float64), k, p)
        for row, k, p in zip(logits.numpy(), top_k, top_p, strict=True)
    ]
    for k_limit in {None, max(top_k) if all(top_k) else None}:
        out = sampler.filter_sorted(logits, torch.tensor(top_k), torch.tensor(top_p), k_limit)
        assert kept(out) == expected
        assert unchanged_where_kept(out, logits)


def naive_typical(row: np.ndarray, typical_p: float) -> set[int]:
    probability = softmax(row)
    with np.errstate(divide="ignore", invalid="ignore"):
        information = -np.log(probability)
        entropy = np.where(probability > 0, probability * information, 0).sum()
    distance = np.abs(information - entropy)
    order = np.argsort(distance, kind="stable")
    gaps = np.diff(distance[order][np.isfinite(distance[order])])
    assume(((gaps == 0) | (gaps > 1e-4)).all())  # else rounding decides what is nearer
    # Equal logits are equally far; others at the same distance only by rounding.
    for a, b in zip(order, order[1:], strict=False):
        assume(row[a] == row[b] or distance[a] != distance[b])
    mass, last = 0.0, order[0]
    for token in order:
        if mass >= typical_p:
            break
        assume(abs(mass - typical_p) > 1e-5)
        mass, last = mass + probability[token], token
    return {token for token in range(len(row)) if distance[token] <= distance[last]}


@EXAMPLES
@given(row=ROW, typical_p=st.floats(0.0625, 0.9375, width=32) | st.just(1.0))
def test_typical_p(row: list[float], typical_p: float) -> None:
    logits = torch.tensor([row])
    out = sampler.filter_typical(logits, torch.tensor([typical_p]))
    assert unchanged_where_kept(out, logits)
    if typical_p == 1:
        assert torch.equal(out, logits)
    else:
        assert kept(out) == [naive_typical(logits[0].double().numpy(), typical_p)]


def test_typical_p_equals_transformers() -> None:
    from transformers import TypicalLogitsWarper

    torch.manual_seed(0)
    logits = torch.randn(64, 200) * 3
    for mass in (0.1, 0.5, 0.9):
        theirs = TypicalLogitsWarper(mass=mass)(torch.zeros(64, 1), logits.clone())
        ours = sampler.filter_typical(logits, torch.full((64,), mass))
        assert torch.equal(ours, theirs)


def test_typical_p_after_another_filter() -> None:
    """Tokens that are out already have no information, and stay out."""
    logits = torch.tensor([[2.0, -torch.inf, 1.0, 0.0, -torch.inf]])
    out = sampler.filter_typical(logits, torch.tensor([0.5]))
    assert kept(out)[0] <= {0, 2, 3} and kept(out)[0]
    assert not out.isnan().any()


@EXAMPLES
@given(rows=ROWS, data=st.data())
def test_min_p(rows: list[list[float]], data: st.DataObject) -> None:
    logits = torch.tensor(rows)
    min_p = per_row(data, st.just(0.0) | st.floats(0.0009765625, 1, width=32), len(rows))
    out = sampler.filter_min_p(logits, torch.tensor(min_p))
    assert unchanged_where_kept(out, logits)
    for row, p in enumerate(min_p):
        probability = softmax(logits[row].double().numpy())
        assume((np.abs(probability / probability.max() - p) > 1e-5 * p).all() or p in (0, 1))
        expected = {t for t in range(VOCABULARY) if probability[t] >= p * probability.max()}
        assert kept(out)[row] == (set(range(VOCABULARY)) if p == 0 else expected)


def test_filters_that_are_off_change_nothing() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 5000) * 8  # the tail's probabilities vanish beside 1
    one = torch.ones(5)
    assert torch.equal(sampler.filter_sorted(logits, one.long() * 0, one, None), logits)
    assert torch.equal(sampler.filter_typical(logits, one), logits)
    assert torch.equal(sampler.filter_min_p(logits, one * 0), logits)


def test_ties() -> None:
    """Equals of the last one kept are kept, and of equal best ones the first is chosen."""
    logits = torch.tensor([[0.0, 3.0, 1.0, 3.0, 3.0, -1.0]])
    off, one = torch.tensor([0]), torch.ones(1)
    assert kept(sampler.filter_sorted(logits, torch.tensor([1]), one, 1)) == [{1, 3, 4}]
    assert kept(sampler.filter_sorted(logits, off, torch.tensor([0.1]), None)) == [{1, 3, 4}]
    assert kept(sampler.filter_min_p(logits, one)) == [{1, 3, 4}]
    assert sampler.argmax_with_noise(logits, None, None).tolist() == [1]


def test_at_least_one_token_is_left() -> None:
    logits = torch.tensor([[0.0, 50.0, 0.0], [1.0, 1.0, 1.0]])
    tiny = torch.full((2,), 1e-6)
    sizes = [len(row) for row in kept(sampler.filter_sorted(logits, tiny.long(), tiny, None))]
    assert sizes == [1, 3]
    assert [len(row) for row in kept(sampler.filter_typical(logits, tiny))] == [1, 3]


def test_choose_adds_noise_only_where_asked() -> None:
    logits = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    noise = torch.tensor([[5.0, 0.0], [5.0, 0.0]])
    assert sampler.argmax_with_noise(logits, noise, torch.tensor([True, False])).tolist() == [0, 1]


def test_log_probabilities() -> None:
    torch.manual_seed(0)
    logits, tokens = torch.randn(4, 50) * 10, torch.tensor([0, 49, 7, 7])
    found, total = sampler.log_probabilities(logits, tokens)
    expected = logits.double().log_softmax(1)
    torch.testing.assert_close(found.double(), expected[torch.arange(4), tokens], atol=1e-5, rtol=0)
    torch.testing.assert_close((logits - total[:, None]).double(), expected, atol=1e-5, rtol=1e-6)
