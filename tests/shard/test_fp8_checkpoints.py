"""FP8 checkpoints mean what their scales say: formats x families x ranks, token for token."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from penstock_quantization.methods import check_quantize, parse_scheme
from penstock_quantization.reader import reader_for
from penstock_quantization.scheme import Scheme
from penstock_shard.check import check
from penstock_shard.model.architecture import read_architecture
from penstock_shard.ranks.parallel import Group
from penstock_shard.weights.checkpoint import Checkpoint
from penstock_shard.weights.load_weights import load_decoder
from support.checkpoints import make_checkpoint
from support.fp8_checkpoints import BLOCK, FORMATS, quantise_checkpoint
from support.joined_ranks import joined_ranks
from support.local_shard import LocalShard, load_model

FAMILIES = (
    "llama2", "llama3", "llama_bias", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3",
    "gpt_neox", "falcon", "falcon_new", "mixtral", "qwen2_moe",
)  # fmt: skip
# with biases and without, joined matrices, norms around blocks, one head of keys, experts
SAMPLE = ("llama3", "llama_bias", "gemma2", "phi3", "falcon", "mixtral")
PROMPT = list(range(3, 30))
CPU = torch.device("cpu")


def tokens(shard: LocalShard) -> list[int]:
    return [shard.start(0, PROMPT), *shard.decode([0], 12)[0]]


def numbers(folder: Path, rank: int, ranks: int) -> list[Tensor]:
    """What a rank holds."""
    model = read_architecture(folder)
    group = Group(rank, ranks)
    return list(load_decoder(model, group, Checkpoint(folder), torch.float32, CPU).tensors())


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=() if name in SAMPLE else pytest.mark.full) for name in FAMILIES],
)
def test_every_format_means_its_numbers(tmp_path: Path, family: str) -> None:
    """Bit for bit those of a dense checkpoint, as one rank and as two."""
    dense = make_checkpoint(tmp_path / "dense", family)
    for name in FORMATS:
        folder, twin = tmp_path / name, tmp_path / f"{name}-twin"
        shutil.copytree(dense, folder)
        quantise_checkpoint(folder, name, twin)
        check(folder, "auto", 2)
        for rank, ranks in ((0, 1), (0, 2), (1, 2)):
            pairs = zip(numbers(folder, rank, ranks), numbers(twin, rank, ranks), strict=True)
            assert all(torch.equal(ours, theirs) for ours, theirs in pairs), (name, rank, ranks)


@pytest.mark.parametrize("name", ["block", "ct-channel"])
def test_tokens_are_those_of_the_numbers(tmp_path: Path, name: str) -> None:
    folder, twin = make_checkpoint(tmp_path / "model", "llama3"), tmp_path / "twin"
    quantise_checkpoint(folder, name, twin)
    expected = tokens(LocalShard(load_model(twin)))
    assert tokens(LocalShard(load_model(folder))) == expected
    assert joined_ranks(folder, 2, tokens) == expected


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["block", "ct-channel"])
def test_tokens_on_a_gpu_are_those_of_the_numbers(tmp_path: Path, name: str) -> None:
    """float32: token for token."""
    folder, twin = make_checkpoint(tmp_path / "model", "llama3"), tmp_path / "twin"
    quantise_checkpoint(folder, name, twin)
    expected = tokens(LocalShard(load_model(twin)))
    assert tokens(LocalShard(load_model(folder, device="cuda"))) == expected


@pytest.mark.parametrize("family", ["gemma2", "phi3", "gpt_neox", "falcon_new", "gpt2"])
def test_weights_are_quantised_online_in_every_family(tmp_path: Path, family: str) -> None:
    """Two ranks hold the same numbers as one, and those are near the checkpoint's."""
    folder = make_checkpoint(tmp_path / "model", family)
    loaded, dense = load_model(folder, quantize="fp8"), load_model(folder)
    for ours, theirs in zip(loaded.decoder.blocks, dense.decoder.blocks, strict=True):
        for matrix in ("up", "down"):
            found, meant = (getattr(block.mlp, matrix) for block in (ours, theirs))
            found, meant = (getattr(one, "weight", one).data for one in (found, meant))
            assert not torch.equal(found, meant)
            assert torch.allclose(found, meant, rtol=1 / 16, atol=float(meant.abs().max()) / 448)
    expected = tokens(LocalShard(loaded))
    assert joined_ranks(folder, 2, tokens, quantize="fp8") == expected


@pytest.mark.parametrize("name", ["tensor", "block", "ct-channel"])
def test_layouts_on_a_device_are_cut_as_they_are_on_a_cpu(tmp_path: Path, name: str) -> None:
    """What a GPU holds, of both ranks, against the whole."""
    from penstock_quantization.matrix import MatrixSpec, Slice

    folder = make_checkpoint(tmp_path / "model", "llama2")
    quantise_checkpoint(folder, name, tmp_path / "twin")
    scheme = parse_scheme(json.loads((folder / "config.json").read_text()))
    source, twin = Checkpoint(folder), load_file(tmp_path / "twin" / "model.safetensors")
    reader = reader_for(scheme, source, torch.float32, CPU)
    layer = "model.layers.0.mlp."
    for matrix in ("gate_proj", "down_proj"):
        whole = twin[f"{layer}{matrix}.weight"]
        n, k = whole.shape
        half = n // 2 if matrix == "gate_proj" else k // 2
        for start in (0, half):
            cut = range(start, start + half)
            rows, columns = (cut, range(k)) if matrix == "gate_proj" else (range(n), cut)
            spec = MatrixSpec((Slice(layer + matrix, rows, n),), columns, k, False, False)
            weight = reader.read(spec)
            assert weight.data.dtype == torch.float8_e4m3fn
            expected = whole[rows.start : rows.stop, columns.start : columns.stop]
            assert torch.equal(weight.dequantised(), expected)


def test_a_cut_through_blocks_is_refused(tmp_path: Path) -> None:
    from penstock_quantization.matrix import MatrixSpec, Slice

    folder = make_checkpoint(tmp_path / "model", "llama2")
    quantise_checkpoint(folder, "block", tmp_path / "twin")
    scheme = parse_scheme(json.loads((folder / "config.json").read_text()))
    reader = reader_for(scheme, Checkpoint(folder), torch.float32, CPU)
    name = "model.layers.0.mlp.down_proj"
    n, k = load_file(folder / "model.safetensors")[f"{name}.weight"].shape
    spec = MatrixSpec((Slice(name, range(n), n),), range(24), k, False, False)
    with pytest.raises(ValueError, match=rf"{name} .* blocks of {BLOCK}, .* parts of 24"):
        reader.read(spec)


def test_a_missing_scale_is_named(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama2")
    quantise_checkpoint(folder, "tensor", tmp_path / "twin")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.down_proj.weight_scale"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ValueError, match="model.layers.1.mlp.down_proj.weight_scale is missing"):
        load_model(folder)


def test_random_weights_of_an_fp8_config(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama2")
    quantise_checkpoint(folder, "ct-channel", tmp_path / "twin")
    loaded = load_model(folder, load_format="dummy")
    data = loaded.decoder.blocks[0].mlp.up.data
    assert 0.01 < float(data.std()) < 0.03


def test_a_config_that_says_fp8_of_half_precision(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody has unpacked the tensors: nothing says that they are in FP8, and a warning why."""
    folder = make_checkpoint(tmp_path / "model", "llama2")
    whole = load_model(folder)
    path = folder / "config.json"
    given = {"quant_method": "fp8", "fmt": "e4m3"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": given}))
    capsys.readouterr()
    loaded = load_model(folder)
    assert loaded.weights == whole.weights == "float32"
    assert "no tensor of the checkpoint is quantised" in capsys.readouterr().err
    quantise_checkpoint(folder, "tensor", tmp_path / "twin")
    assert load_model(folder).weights == "fp8"
    assert "no tensor of the checkpoint" not in capsys.readouterr().err


WEIGHTS = {"num_bits": 4, "type": "int", "strategy": "group"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"quant_method": "aqlm"}, "quant_method 'aqlm' is not supported; supported: fp8"),
    ({"bits": 4}, "quant_method None"),
    ({"quant_method": ["fp8"]}, r"quant_method \['fp8'\]"),
    ({"quant_method": "fp8", "fmt": "e5m2"}, "'fp8': fmt 'e5m2' is not supported"),
    ({"quant_method": "fp8", "weight_block_size": [128]}, "weight_block_size"),
    ({"quant_method": "fp8", "weight_block_size": [8, 128]}, "two multiples of 16"),
    ({"quant_method": "compressed-tensors", "format": "marlin-24"}, "format 'marlin-24'"),
    ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": WEIGHTS}}},
     "type 'int' with 4 bits"),
    ({"quant_method": "compressed-tensors"}, "config_groups is missing"),
    ({"quant_method": "fp8", "modules_to_not_convert": "lm_head"}, "must be a list of names"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "message"), REFUSED)
def test_other_methods_are_refused_by_name(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_scheme({"quantization_config": config})


def test_a_contradiction_names_both() -> None:
    scheme = Scheme(method="awq", format="awq")
    check_quantize(None, scheme)
    check_quantize("awq", scheme)
    check_quantize("fp8", None)
    with pytest.raises(ValueError, match="--quantize squeezellm .* no quantization_config"):
        check_quantize("squeezellm", None)
    with pytest.raises(ValueError, match="--quantize fp8 contradicts .* quant_method 'awq'"):
        check_quantize("fp8", scheme)


def test_lists_of_what_is_skipped() -> None:
    scheme = Scheme(
        method="fp8", format="fp8",
        skipped=("lm_head", "model.layers.0.mlp", "re:.*o_proj$", "re:(", "gate"),
    )  # fmt: skip
    for name in ("lm_head", "model.layers.0.mlp.up_proj", "model.layers.3.self_attn.o_proj"):
        assert scheme.skips(name)
    for name in ("model.layers.1.mlp.up_proj", "model.layers.10.mlp.gate_proj", "o_proj.x"):
        assert not scheme.skips(name)
