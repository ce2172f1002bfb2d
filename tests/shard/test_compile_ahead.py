"""What is gone through to compile kernels: one layer of each kind, and no token is looked up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from penstock_shard.compile_ahead import _short
from support.local_shard import load_model


@pytest.mark.parametrize(
    ("windows", "kept"),
    [((None, None, None), [0, 2]), ((8, None, 8), [0, 1, 2]), ((None, 8, None), [0, 1, 2])],
)
def test_one_layer_of_each_window_and_the_last(
    checkpoint: Callable[[str], Path], windows: tuple[int | None, ...], kept: list[int]
) -> None:
    decoder = load_model(checkpoint("llama3")).decoder
    layers = [
        dataclasses.replace(layer, window=window)
        for layer, window in zip(decoder.layers, windows, strict=True)
    ]
    short = _short(dataclasses.replace(decoder, layers=layers))
    assert [id(layer) for layer in short.layers] == [id(layers[index]) for index in kept]


def test_a_model_of_one_layer_keeps_it(checkpoint: Callable[[str], Path]) -> None:
    decoder = load_model(checkpoint("llama3")).decoder
    one = dataclasses.replace(decoder, layers=decoder.layers[:1])
    assert [id(layer) for layer in _short(one).layers] == [id(decoder.layers[0])]


def test_tokens_that_nothing_has_written_are_not_looked_up(
    checkpoint: Callable[[str], Path],
) -> None:
    short = _short(load_model(checkpoint("llama3")).decoder)
    width = short.embedding.weight.shape[1]
    beyond = torch.full((3,), 1 << 40)
    assert torch.equal(short.embedding(beyond), torch.zeros(3, width))
