"""`--quantize-activations fp8`: 4-bit weights are multiplied with rows that FP8 holds, nothing else
is, and what cannot be is refused at start."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from penstock_shard.model.architecture import read_architecture
from penstock_shard.model.layers import MixtureOfExperts
from penstock_shard.ranks.parallel import Group
from penstock_shard.weights.checkpoint import Checkpoint
from penstock_shard.weights.fp8_rows import check_device
from penstock_shard.weights.load_weights import load_decoder
from support.checkpoints import make_checkpoint
from support.integer_checkpoints import FORMATS, _gptq, _packed, quantise_checkpoint
from support.joined_ranks import joined_ranks
from support.local_shard import load_model
from support.reference import ReferenceModel

Made = Callable[..., tuple[Path, Path]]
FP8 = {"quantize_activations": "fp8"}
SIZES = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
TEXT = "the river turns the valve and the valve turns the turbine "
COUNT = 8
GROUPS_OF_64 = _packed(4, 64, symmetric=False)
CUT = ("o_proj", "down_proj")  # whose inputs ranks share


def in_fp8(x: Tensor) -> Tensor:
    scale = x.abs().amax(-1, keepdim=True) / 448
    return (x / scale).to(torch.float8_e4m3fn).float() * scale


class RoundedRows(ReferenceModel):
    """transformers' model, of whose linear modules each rounds its inputs, as many parts of them as
    there are ranks that hold a part."""

    def __init__(self, folder: Path, ranks: int) -> None:
        super().__init__(folder)
        for name, module in self._model.named_modules():
            if isinstance(module, nn.Linear) and name != "lm_head":
                parts = ranks if name.endswith(CUT) else 1
                module.register_forward_pre_hook(self._rounding(parts))

    def _rounding(self, parts: int) -> Callable[[nn.Module, tuple[Tensor]], tuple[Tensor]]:
        return lambda module, inputs: (
            torch.cat([in_fp8(part) for part in inputs[0].chunk(parts, -1)], -1),
        )


def generated(prompt: list[int], shard: Any) -> list[int]:
    return [shard.start(0, prompt), *shard.decode([0], COUNT - 1)[0]]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A checkpoint of a format, and its twin in the numbers that it means."""
    monkeypatch.setitem(FORMATS, "packed-64", GROUPS_OF_64)

    def make(name: str, family: str = "llama3", **sizes: int) -> tuple[Path, Path]:
        folder = make_checkpoint(tmp_path / "model", family, **(SIZES | sizes))
        quantise_checkpoint(folder, name, tmp_path / "twin")
        return folder, tmp_path / "twin"

    return make


@pytest.mark.parametrize(
    "name",
    [
        "packed-64",
        pytest.param("awq-whole-rows", marks=pytest.mark.full),
        pytest.param("gptq-whole-rows", marks=pytest.mark.full),
    ],
)
def test_rows_are_those_that_fp8_holds(made: Made, name: str) -> None:
    """On one rank and on two, each of which rounds its part of a row."""
    folder, twin = made(name)
    plain = ReferenceModel(twin).generate(TEXT, COUNT).prompt_logprobs
    for ranks in (1, 2):
        reference = RoundedRows(twin, ranks)
        prompt = reference.tokenizer.encode(TEXT).ids
        expected = reference.generate(TEXT, COUNT)
        assert max(map(difference, expected.prompt_logprobs, plain)) > 1e-3
        found = joined_ranks(folder, ranks, partial(generated, prompt), **FP8)
        assert found == expected.tokens


def test_experts_and_other_weights_take_rows_as_they_are(made: Made) -> None:
    folder, _ = made("gptq-whole-rows", "mixtral", num_hidden_layers=1)
    [block] = load_model(folder, **FP8).decoder.blocks
    assert block.attention.qkv.fp8_rows and block.attention.output.weight.fp8_rows
    assert isinstance(block.mlp, MixtureOfExperts)
    held = block.mlp.experts
    assert not (held.up.parts.fp8_rows or held.down.parts.fp8_rows or block.mlp.router.fp8_rows)


REFUSED: list[tuple[str | None, dict[str, Any], str]] = [
    (None, {}, "goes with 4-bit weights of GPTQ, AWQ and W4A16; these weights are half precision"),
    (None, {"quantize": "fp8"}, "these weights are what --quantize fp8 makes"),
    ("gptq-8-bits", {}, "this checkpoint is gptq of 8 bits"),
    ("gptq", {}, "in groups of 64 inputs and more; this checkpoint has groups of 16"),
    ("packed-64", {"deterministic": True}, "quantize_activations and deterministic exclude"),
    ("packed-64", {"quantize_activations": "int8"}, "must be one of .None, 'fp8'., not 'int8'"),
]


@pytest.mark.parametrize(("name", "changes", "said"), REFUSED)
def test_what_cannot_be_is_refused(
    made: Made, tmp_path: Path, name: str | None, changes: dict[str, Any], said: str
) -> None:
    if name is None:
        folder = make_checkpoint(tmp_path / "plain", "llama3", num_hidden_layers=1)
    else:
        folder, _ = made(name, num_hidden_layers=1)
    with pytest.raises(ValueError, match=said):
        load_model(folder, **(FP8 | changes))


def test_a_cut_that_leaves_small_groups_names_its_matrix(made: Made) -> None:
    """Of 384 inputs in groups of 64 a quarter has three halves of them."""
    folder, _ = made("packed-64", num_hidden_layers=1, intermediate_size=384)
    source = Checkpoint(folder, read_architecture(folder).family.names)
    with pytest.raises(ValueError, match=r"down_proj has groups of 32 inputs.*choose another"):
        load_decoder(
            read_architecture(folder), Group(0, 4), source, torch.float32, torch.device("cpu"),
            fp8_rows=True,
        )  # fmt: skip


def test_a_model_whose_experts_alone_have_4_bits_is_refused(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = _gptq(group=-1, skipped="self_attn")
    monkeypatch.setitem(FORMATS, "experts", some)
    folder, _ = made("experts", "mixtral", num_hidden_layers=1)
    with pytest.raises(ValueError, match="is for 4-bit matrices beside experts"):
        load_model(folder, **FP8)


@pytest.mark.parametrize(
    ("capability", "dtype", "said"),
    [
        ((8, 0), torch.bfloat16, "of compute capability 8.9: A card has 8.0"),
        ((9, 0), torch.float32, "--dtype bfloat16 or float16 on a GPU"),
        ((9, 0), torch.float16, None),
    ],
)
def test_cards(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype,
    said: str | None,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A card")
    expected = nullcontext() if said is None else pytest.raises(ValueError, match=said)
    with expected:
        check_device(torch.device("cuda"), dtype)


def difference(a: float, b: float) -> float:
    return abs(a - b)
