"""Rotary tables against transformers' own, for every scaling."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from penstock_shard.model.rope import rope_table
from penstock_shard.model.rope_config import Rope, parse_rope

CPU = torch.device("cpu")
HEAD = 16
CASES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 500000.0},
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn_beyond_the_last_dimension": {
        "rope_type": "yarn",
        "rope_theta": 2.0,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn_options": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "original_max_position_embeddings": 32,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "truncate": False,
        "mscale": 0.8,
        "mscale_all_dim": 0.5,
    },
    "yarn_attention_factor": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 2.0,
        "original_max_position_embeddings": 128,
        "attention_factor": 0.7,
    },
    "longrope": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 64,
        "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
        "long_factor": [1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0],
    },
}


def config(values: dict[str, Any]) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=2 * HEAD,
        num_attention_heads=2,
        max_position_embeddings=256,
        rope_parameters=dict(values),
    )


def theirs(values: dict[str, Any], positions: torch.Tensor) -> torch.Tensor:
    """[positions, 2, HEAD / 2] as transformers computes it for one sequence."""
    rotary = LlamaRotaryEmbedding(config(values))
    cos, sin = rotary(torch.zeros(1), positions.unsqueeze(0))
    half = HEAD // 2
    return torch.stack((cos[0, :, :half], sin[0, :, :half]), dim=1)


def ours(values: dict[str, Any], positions: int) -> torch.Tensor:
    return rope_table(parse_rope(config(values).to_dict(), 256), HEAD, positions, CPU)


@pytest.mark.parametrize("name", CASES)
def test_tables_equal_transformers(name: str) -> None:
    expected = theirs(CASES[name], torch.arange(256))
    torch.testing.assert_close(ours(CASES[name], 256), expected, atol=1e-4, rtol=1e-4)


def test_dynamic_is_that_of_a_sequence_that_ends_there() -> None:
    values = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    table = ours(values, 400)
    within = theirs(values, torch.arange(256))
    torch.testing.assert_close(table[:256], within, atol=1e-4, rtol=1e-4)
    for last in (256, 300, 399):
        expected = theirs(values, torch.arange(last + 1))[-1]
        torch.testing.assert_close(table[last], expected, atol=2e-3, rtol=1e-3)


def test_longrope_takes_short_factors_where_no_longer_sequence_is_served() -> None:
    values = CASES["longrope"]
    expected = theirs(values, torch.arange(64))
    torch.testing.assert_close(ours(values, 64), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(ours(values, 65)[:64], expected, atol=1e-2)


def test_scalings_differ() -> None:
    """A scaling that was read as another would pass where both are tested at position 0 only."""
    tables = [ours(values, 256) for values in CASES.values()]
    for i, one in enumerate(tables):
        assert all(not torch.allclose(one, other, atol=1e-2) for other in tables[:i])


def test_older_keys() -> None:
    """`rope_theta` and `rope_scaling` with `type`, as checkpoints before transformers 5 have."""
    old = {"rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 2.0}}
    assert parse_rope(old, 100) == Rope(
        kind="linear", theta=1e6, factor=2.0, original_positions=100
    )
    assert parse_rope({}, 100) == Rope(kind="default", theta=10000.0, original_positions=100)
    null = {"rope_theta": 5e5, "rope_scaling": None}
    assert parse_rope(null, 100) == Rope(kind="default", theta=5e5, original_positions=100)


def test_yarn_takes_its_factor_from_the_lengths() -> None:
    rope = parse_rope({"rope_parameters": CASES["yarn"] | {"factor": None}}, 256)
    assert rope.factor == 4.0 and rope.reach == 4.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rope_type": "odd"}, "rope type 'odd' is not supported; supported: default"),
        ({"rope_type": "linear"}, "factor must be a number from 1 to 65536, not None"),
        (
            {"rope_type": "dynamic", "factor": 0.5},
            "factor must be a number from 1 .*, not 0.5",
        ),
        (
            {"rope_type": "llama3", "factor": "8"},
            "factor must be a number from 1 .*, not '8'",
        ),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
    ],
)
def test_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_rope({"rope_parameters": values}, 256)
