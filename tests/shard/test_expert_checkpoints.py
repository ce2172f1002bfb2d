"""Experts in every format mean their numbers: formats x families x ranks, and on a device."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from penstock_kernels.stacked import Stacked
from penstock_kernels.weight import Layout
from penstock_shard.model.architecture import read_architecture
from penstock_shard.model.layers import MixtureOfExperts
from penstock_shard.ranks.parallel import Group
from penstock_shard.weights import matrix_loader
from penstock_shard.weights.checkpoint import Checkpoint
from penstock_shard.weights.load_weights import device_bytes, load_decoder
from penstock_shard.weights.loaded_model import LoadedModel
from support import fp8_checkpoints, integer_checkpoints, lut_checkpoints
from support.checkpoints import make_checkpoint
from support.joined_ranks import joined_ranks
from support.local_shard import LocalShard, interpret, load_model
from support.reference import ReferenceModel

pytestmark = [
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning:triton"),
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
]
# Sizes that two ranks cut into whole groups.
FAMILIES: dict[str, dict[str, int]] = {
    "mixtral": {"num_hidden_layers": 2, "intermediate_size": 128},
    "qwen2_moe": {"num_hidden_layers": 2, "intermediate_size": 128},
    "qwen3_moe": {"num_hidden_layers": 2, "moe_intermediate_size": 64, "intermediate_size": 128},
    "olmoe": {"num_hidden_layers": 2, "intermediate_size": 128},
}
# The module that writes a format, and what a device makes of it.
WRITERS: dict[str, tuple[ModuleType, Layout]] = {
    "tensor": (fp8_checkpoints, Layout.FP8),
    "block": (fp8_checkpoints, Layout.FP8_BLOCKS),
    "ct-channel": (fp8_checkpoints, Layout.FP8),
    "gptq": (integer_checkpoints, Layout.INT4),
    "gptq-act-order": (integer_checkpoints, Layout.INT4),
    "awq": (integer_checkpoints, Layout.INT4),
    "packed": (integer_checkpoints, Layout.INT4),
    "packed-8-bits": (integer_checkpoints, Layout.INT8),
    "int-quantized": (integer_checkpoints, Layout.INT8),
    "mxfp4": (lut_checkpoints, Layout.LUT),
    "nvfp4": (lut_checkpoints, Layout.LUT),
}
SAMPLE = (("mixtral", "gptq-act-order"), ("mixtral", "awq"), ("qwen3_moe", "block"),
          ("qwen2_moe", "packed"), ("olmoe", "mxfp4"), ("qwen2_moe", "int-quantized"))  # fmt: skip
EVERY = [(family, name) for family in FAMILIES for name in WRITERS]
REST = [pytest.param(*pair, marks=pytest.mark.full) for pair in EVERY if pair not in SAMPLE]
TEXT, COUNT = "Water runs through steel pipes", 8
CPU = torch.device("cpu")


def written(
    tmp_path: Path, family: str, name: str, skipped: str | None = None, **overrides: Any
) -> tuple[Path, Path]:
    """A quantised model, and one in float32 of the numbers that it means. skipped: part of the
    names of matrices that stay as they are."""
    sizes: dict[str, Any] = {**FAMILIES[family], **overrides}
    folder, twin = make_checkpoint(tmp_path / "model", family, **sizes), tmp_path / "twin"
    writer = WRITERS[name][0]
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(writer.FORMATS, name, writer.FORMATS[name]._replace(skipped=skipped))
        writer.quantise_checkpoint(folder, name, twin)
    return folder, twin


def mixture_of(loaded: LoadedModel) -> MixtureOfExperts:
    """Of the last layer, which has one in every family."""
    mixture = loaded.decoder.blocks[-1].mlp
    assert isinstance(mixture, MixtureOfExperts)
    return mixture


def stacks_of(loaded: LoadedModel) -> tuple[Stacked, Stacked]:
    mixture = mixture_of(loaded)
    return mixture.experts.up, mixture.experts.down


@pytest.fixture
def as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layouts stay what they are on a GPU."""
    monkeypatch.setattr(matrix_loader, "keeps_layouts", lambda device: True)


@pytest.mark.parametrize(("family", "name"), [*SAMPLE, *REST])
def test_parity_with_transformers(tmp_path: Path, family: str, name: str) -> None:
    """Token for token with the numbers in float32, as one rank and as two."""
    folder, twin = written(tmp_path, family, name)
    reference = ReferenceModel(twin)
    prompt = reference.tokenizer.encode(TEXT).ids

    def tokens(shard: LocalShard) -> list[int]:
        return [shard.start(0, prompt), *shard.decode([0], COUNT - 1)[0]]

    found = tokens(LocalShard(load_model(folder)))
    assert found == reference.generate(TEXT, COUNT, found).tokens
    assert joined_ranks(folder, 2, tokens) == found


@pytest.mark.usefixtures("as_on_a_device")
@pytest.mark.parametrize("name", WRITERS)
def test_layouts_stay_on_a_device(tmp_path: Path, name: str) -> None:
    """And mean the same, of both ranks beside one another as of one."""
    folder, twin = written(tmp_path, "mixtral", name)
    whole, dense = stacks_of(load_model(folder)), stacks_of(load_model(twin))
    model = read_architecture(folder)
    ranks = [
        load_decoder(model, Group(rank, 2), Checkpoint(folder), torch.float32, CPU)
        for rank in range(2)
    ]
    halves = [rank.blocks[-1].mlp.experts for rank in ranks]  # type: ignore[union-attr]
    for found, expected in zip(whole, dense, strict=True):
        assert found.layout is WRITERS[name][1]
        assert expected.layout is Layout.DENSE
        for index in range(found.count):
            near = {"rtol": 1e-6, "atol": 1e-7}
            meant = expected[index].dequantised()
            torch.testing.assert_close(found[index].dequantised(), meant, **near)
    for index in range(whole[0].count):
        up = [half.up[index].dequantised().chunk(2) for half in halves]
        joined = torch.cat([part for parts in zip(*up, strict=True) for part in parts])
        torch.testing.assert_close(joined, whole[0][index].dequantised())
        down = [half.down[index].dequantised() for half in halves]
        torch.testing.assert_close(torch.cat(down, 1), whole[1][index].dequantised())


@pytest.mark.usefixtures("as_on_a_device")
@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("mixtral", "gptq-act-order"),
        ("olmoe", "mxfp4"),
        pytest.param("qwen3_moe", "block", marks=pytest.mark.full),
    ],
)
def test_kernels_compute_what_the_numbers_say(tmp_path: Path, family: str, name: str) -> None:
    """A model by Triton's interpreter, its experts as a device has them."""
    folder, twin = written(tmp_path, family, name, "self_attn", num_hidden_layers=1)
    prompt = list(range(3, 10))

    def tokens(shard: LocalShard) -> list[int]:
        return [shard.start(0, prompt), *shard.decode([0], 1)[0]]

    loaded = load_model(folder)
    expected = tokens(LocalShard(load_model(twin)))
    assert tokens(interpret(LocalShard(loaded), loaded, (1,))) == expected


@pytest.mark.gpu
@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_parity_on_a_gpu(tmp_path: Path, family: str, name: str) -> None:
    """float32: token for token, decode steps as graphs."""
    folder, twin = written(tmp_path, family, name)
    prompt = list(range(3, 24))

    def tokens(shard: LocalShard) -> list[int]:
        return [shard.start(0, prompt), *shard.decode([0], COUNT)[0]]

    expected = tokens(LocalShard(load_model(twin)))
    assert tokens(LocalShard(load_model(folder, device="cuda"))) == expected


@pytest.mark.parametrize("quantize", ["fp8", "eetq", "bitsandbytes-nf4"])
def test_experts_are_quantised_while_loading(tmp_path: Path, quantize: str) -> None:
    """Two ranks hold the same numbers as one; routers stay as they are."""
    sizes = FAMILIES["qwen2_moe"] | {"moe_intermediate_size": 128}
    folder = make_checkpoint(tmp_path / "model", "qwen2_moe", **sizes)
    loaded, dense = load_model(folder, quantize=quantize), load_model(folder)
    for found, expected in zip(stacks_of(loaded), stacks_of(dense), strict=True):
        difference = (found.parts.data - expected.parts.data).abs().mean()
        assert 0 < float(difference / expected.parts.data.abs().mean()) < 0.1
    for part in ("router", "shared"):
        ours, theirs = (getattr(mixture_of(one), part) for one in (loaded, dense))
        ours, theirs = (getattr(one, "gate", one).data for one in (ours, theirs))
        assert torch.equal(ours, theirs)
    prompt = list(range(3, 14))

    def tokens(shard: LocalShard) -> list[int]:
        return [shard.start(0, prompt), *shard.decode([0], 4)[0]]

    expected_tokens = tokens(LocalShard(loaded))
    assert joined_ranks(folder, 2, tokens, quantize=quantize) == expected_tokens


@pytest.mark.parametrize(("name", "most"), [("block", 0.30), ("gptq", 0.25), ("mxfp4", 0.18)])
def test_what_a_gpu_needs_is_what_experts_take(tmp_path: Path, name: str, most: float) -> None:
    """Of a model that is experts above all, against float32."""
    more = {"hidden_size": 128, "intermediate_size": 512, "num_local_experts": 8}
    folder, twin = written(tmp_path, "mixtral", name, **more)
    ours, theirs = (
        device_bytes(read_architecture(each), Group(), Checkpoint(each), torch.float32)
        for each in (folder, twin)
    )
    assert ours < most * theirs


@pytest.mark.parametrize("name", ["block", "gptq", "mxfp4"])
def test_a_cut_through_groups_is_refused_at_start(tmp_path: Path, name: str) -> None:
    """By name, before anything is allocated: parts of 24 inputs, or of 8."""
    width = {"block": 96, "gptq": 48, "mxfp4": 96}[name]
    ranks = {"block": 4, "gptq": 2, "mxfp4": 4}[name]
    folder, _ = written(tmp_path, "mixtral", name, intermediate_size=width, num_key_value_heads=4)
    with pytest.raises(ValueError, match=r"experts\.0\.w2 has .* choose another --num-shard"):
        load_decoder(
            read_architecture(folder), Group(1, ranks), Checkpoint(folder), torch.float32, CPU
        )


@pytest.mark.usefixtures("as_on_a_device")
def test_an_expert_that_is_not_quantised(tmp_path: Path) -> None:
    """One of a layer that was left as it was: the layer's experts are dense."""
    folder, twin = written(tmp_path, "mixtral", "tensor", "experts.1.w1")
    up, down = stacks_of(load_model(folder))
    expected = stacks_of(load_model(twin))
    assert (up.layout, down.layout) == (Layout.DENSE, Layout.FP8)
    torch.testing.assert_close(up.parts.data, expected[0].parts.data)
